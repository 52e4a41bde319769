"""A run as an ONNX graph; it is compared with the run when it is written.

Dimensions: B rows, S side of a crop in pixels, V views, D features, H levels, C^h nodes on level h, C leaves.
"""

import copy
import importlib.util
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hfc.config import RECORDED
from hfc.errors import ConfigError, RunError, in_the_way
from hfc.errors import markdown as text
from hfc.extract.checkpoints import reason
from hfc.extract.encoder import Encoder
from hfc.predict.backbone import open_plain, recipe
from hfc.predict.export.card import model_card
from hfc.predict.head import Trained, load_trained
from hfc.provenance import is_sealed, replacing, sealed
from hfc.train.calibration import calibrated
from hfc.train.decoding import DECODINGS, Paths, tempered, with_leaves
from hfc.train.evaluation import blended, decoded
from hfc.train.heads.layers import Standardise

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# How much a probability of the graph may differ from the run's: sums are rounded in another order.
TOLERANCE_HEAD, TOLERANCE_BACKBONE = 1e-5, 1e-3
ROWS = (1, 3)  # of the inputs that a graph is checked with


@dataclass(frozen=True)
class Exported:
    """A graph that was written."""

    file: Path
    card: Path
    """Its model card."""
    difference: float
    """The greatest difference of a probability to the run's."""


class Graph(nn.Module):
    """Computes a run's probabilities from features or crops, as one module that can be traced."""

    ancestors: Tensor
    falls: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, trained: Trained, encoder: Encoder | None) -> None:
        """Build the module.

        Args:
            trained: the run.
            encoder: its backbone on the CPU in float32; without it features come in.
        """
        super().__init__()
        self.config, self.temperature = trained.config, trained.temperature
        self.head = copy.deepcopy(trained.head)
        self.head.standardise = _Standardise(trained.head.standardise)
        self.backbone = encoder.model if encoder else None
        self.flip = bool(encoder and encoder.flip)
        self.even = trained.hierarchy.even
        self.register_buffer("ancestors", torch.from_numpy(trained.hierarchy.ancestors))
        self.register_buffer("falls", torch.from_numpy(trained.hierarchy.falls))
        self.register_buffer("mean", 255 * torch.tensor(encoder.mean if encoder else ()))
        self.register_buffer("std", 255 * torch.tensor(encoder.std if encoder else ()))

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute P_final (B, C) and H levels (B, C^h).

        Args:
            inputs: crops (B, S, S, 3) in bytes, or (B, V, D) features as a cache holds them.
        """
        views = list(inputs.float().unbind(dim=1)) if self.backbone is None else self._views(inputs, self.backbone)
        used = views if self.config.views == "all" else views[:1]
        raw = blended(self.head, [self.head(view) for view in used], self.config.beta)
        paths, decode = Paths(self.ancestors, self.falls, self.even), self.config.decode
        prediction = DECODINGS[decode](raw, paths)
        if self.temperature != 1 and decode != "least-cost":
            final = tempered(prediction.final, self.temperature).to(prediction.final.dtype)
            prediction = with_leaves(prediction, final, paths, decode, self.head.sums)
        return prediction.final, *prediction.levels

    def _views(self, crops: Tensor, backbone: nn.Module) -> list[Tensor]:
        pixels = ((crops.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return [backbone(pixels), *([backbone(pixels.flip(-1))] if self.flip else [])]


class _Standardise(Standardise):
    """Standardises in one step, as the small steps that suit a CPU cannot be traced."""

    def __init__(self, other: Standardise) -> None:
        super().__init__(len(other.mean))
        self.load_state_dict(other.state_dict())
        self.transform = other.transform

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return (self.transformed(features) - self.mean) / self.std


def export_onnx(folder: Path, file: Path, *, with_backbone: bool = False, weights: str = RECORDED) -> Exported:
    """Write a run as an ONNX graph, with a model card beside it.

    Args:
        folder: the run's.
        file: the graph. Its card gets the same name and the suffix .md.
        with_backbone: crops come in, not features.
        weights: where the backbone's are now.

    Raises:
        ConfigError: a package is missing.
        RunError: the run cannot be used, the graph does not compute what the run does, or nothing can be written; then
            no file is left.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"--onnx needs {', '.join(missing)}: python -m pip install {' '.join(missing)}")
    trained = load_trained(folder)
    encoder = open_plain(trained.run, weights)[1] if with_backbone else None
    examples = _examples(trained, encoder)
    card = file.with_suffix(".md")
    if card == file:
        raise ConfigError(f"{file}: a graph cannot have the name of its card; name it {file.with_suffix('.onnx').name}")
    with replacing(card, "the card", is_sealed) as text_file, replacing(file, "the graph", _is_graph) as partial:
        _write_graph(Graph(trained, encoder).eval(), examples, _metadata(trained, encoder), partial)
        difference = _check(partial, examples, trained, encoder)
        use = _use(trained, encoder, file.name, difference)
        text_file.write_text(sealed(model_card(trained.run, trained.hierarchy, use), "<!--", " -->"), "utf-8")
        if card.exists() and not is_sealed(card):
            raise in_the_way(card)
    return Exported(file, card, difference)


def _is_graph(file: Path) -> bool:
    """Whether hfc exported a file."""
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception:  # protobuf's own errors, which have no type in common
        return False
    return any(entry.key == "hfc.key" for entry in model.metadata_props)


def _examples(trained: Trained, encoder: Encoder | None) -> list[NDArray[Any]]:
    """Make inputs with few and more rows: noise, or features like the training split's."""
    rng = np.random.default_rng(0)
    if encoder:
        side = recipe(trained.run).image_size
        return [rng.integers(0, 256, (rows, side, side, 3)).astype(np.uint8) for rows in ROWS]
    layer = trained.head.standardise
    mean, std = layer.mean.numpy(), layer.std.numpy()
    views = trained.run.result.cache.views
    drawn = [(mean + std * rng.normal(size=(rows, views, len(mean)))).astype(np.float32) for rows in ROWS]
    return [raw * np.abs(raw) for raw in drawn] if layer.transform == "sqrt" else drawn


def _write_graph(graph: Graph, examples: list[NDArray[Any]], metadata: Mapping[str, object], file: Path) -> None:
    import onnx

    example = torch.from_numpy(examples[-1])  # of several rows: one row would be taken for the only size there is
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own parts
            program = torch.onnx.export(
                graph,
                (example,),
                input_names=["crops" if graph.backbone else "features"],
                output_names=["final", *(f"level_{h}" for h in range(1, graph.ancestors.shape[1] + 1))],
                dynamic_shapes=({0: torch.export.Dim("rows")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        onnx.helper.set_model_props(model, {name: _as_text(value) for name, value in metadata.items()})
        onnx.save(model, file)
    except torch.onnx.OnnxExporterError as error:
        raise RunError(
            f"the run cannot become an ONNX graph: {reason(error)}; try another version of {', '.join(PACKAGES)}"
        ) from error


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _metadata(trained: Trained, encoder: Encoder | None) -> dict[str, object]:
    """What a program needs to read the outputs: nodes, input and run."""
    result, tree = trained.run.result, trained.hierarchy
    fields = result.cache.key_fields or {}
    promise = {"hfc.promise": result.promise.listed_plain()} if result.promise else {}
    crops = {name: fields.get(name) for name in ("image_size", "resize", "roi_margin", "views")}
    mean = fields.get("mean")
    crops["fill"] = [round(255 * channel) for channel in mean] if isinstance(mean, list) else None
    return {
        "hfc.run": result.run,
        "hfc.key": result.key,
        "hfc.levels": list(tree.levels),
        "hfc.nodes": [list(nodes) for nodes in tree.nodes],
        "hfc.leaves": list(tree.leaves),
        "hfc.ancestors": tree.ancestors.tolist(),
        "hfc.decode": trained.config.decode,
        "hfc.temperature": trained.temperature,
        "hfc.input": {"kind": "crops" if encoder else "features", "backbone": result.cache.backbone, **crops},
        "hfc.random_weights": trained.random_weights,
        **promise,
    }


def _check(file: Path, examples: list[NDArray[Any]], trained: Trained, encoder: Encoder | None) -> float:
    """Compare the graph in onnxruntime with the run: the greatest difference of a probability.

    Raises:
        RunError: rounding does not explain the difference.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    worst = 0.0
    for example in examples:
        features = encoder.encode(example) if encoder else example
        tree, config, sums = trained.hierarchy, trained.config, trained.head.sums
        expected = calibrated(decoded(trained.predict(features), tree, config), tree, config, sums, trained.temperature)
        outputs = session.run(None, {name: example})
        for output, tensor in zip(outputs, (expected.final, *expected.levels), strict=True):
            worst = max(worst, float(np.abs(output - tensor.numpy()).max()))
    most = TOLERANCE_BACKBONE if encoder else TOLERANCE_HEAD
    if not worst <= most:  # NaN too
        raise RunError(
            f"{trained.run.folder}: the ONNX graph differs from the run by {worst:.2g} in a probability, more than "
            f"{most:g}; the graph is not kept; try another version of {', '.join(PACKAGES)}"
        )
    return worst


def _use(trained: Trained, encoder: Encoder | None, name: str, difference: float) -> list[str]:
    """How the graph is used, in Markdown."""
    result, tree = trained.run.result, trained.hierarchy
    rounding = []
    if encoder:
        made = recipe(trained.run)
        side = made.image_size
        taken = (
            f"`crops`, uint8 (rows, {side}, {side}, 3): RGB, each region with a margin of {made.roi_margin:g}, "
            f"resized by {text(made.resize)}, bicubic, and no more: the graph normalises."
        )
        if made.precision != encoder.precision:
            rounding = [
                "The backbone computes in float32 here, while the run's features, and with them the figures below, "
                f"were made in {made.precision}: answers near a tie may differ."
            ]
    else:
        views = result.cache.views
        taken = (
            f"`features`, float32 (rows, {views}, {result.cache.dim}): as hfc extract makes them"
            f"{', of the crop and of its mirror image' if views > 1 else ''}."
        )
    kind = "scores that rank the leaves, no probabilities" if trained.config.decode == "least-cost" else "P_final"
    levels = enumerate(zip(tree.levels, tree.sizes, strict=True), 1)
    return [
        f"{text(name)} is an ONNX graph. In:",
        "",
        f"- {taken}",
        "",
        "Out, float32:",
        "",
        f"- `final` (rows, {len(tree.leaves)}): {kind} over the leaves.",
        *(f"- `level_{h}` (rows, {size}): probabilities of level {text(level)}." for h, (level, size) in levels),
        "",
        "The names of all nodes, in the order of the outputs, are in the graph's metadata: `hfc.leaves` (the path",
        "where several leaves have one name), `hfc.levels`, `hfc.nodes` of each level, and of each leaf its nodes'",
        "places on the levels, `hfc.ancestors`, −1 below its own depth.",
        "",
        "Checked with onnxruntime when it was written: its greatest difference to the run, both in float32, was",
        f"{difference:.1e} in a probability.",
        *rounding,
    ]
