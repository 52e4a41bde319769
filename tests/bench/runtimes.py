"""What could compute the backbone on a CPU instead: a compiled network, ONNX Runtime and OpenVINO."""

import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from hfc.config import ExtractConfig
from hfc.extract.backbone import plain_weights
from hfc.extract.encoder import CPU_CROPS, Encoder
from hfc.extract.worker import open_encoder
from tests.bench import seconds

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # crops to (B, V, D) features
Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # a batch of normalised crops to (8, D)
RUNTIMES = ("torch_fp32", "torch", "torch_compiled", "onnxruntime_fp32", "openvino_fp32", "openvino_bf16")


def compare_runtimes(
    config: ExtractConfig, crops: NDArray[np.uint8], names: list[str], turns: int
) -> dict[str, dict[str, float]]:
    """Time each runtime alone on crops in memory, and compare its features with PyTorch's in float32.

    Args:
        config: of the extraction; `torch` is what it takes here.
        crops: (B, S, S, 3) RGB, B a multiple of 8.
        names: of RUNTIMES, `torch` among them; one that is not installed is left out.
        turns: each runtime is first as often as last.

    Returns:
        by name: crops a second, the median ratio of its speed to that of `torch`, and its features' least and mean
        cosine similarity with the reference.
    """
    exact = open_encoder(replace(config, precision="fp32", compile=False))
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: way for name in names if (way := runtime(name, config, exact, Path(folder)))}
    wanted, cosines = exact.encode(crops), {}
    for name, way in ways.items():
        cosines[name] = similarity(way(crops), wanted)  # it warms each one up, too
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            times[name].append(seconds(lambda way=ways[name]: way(crops)))  # type: ignore[misc]
    return {
        name: {
            "crops_per_s": round(len(crops) / statistics.median(times[name]), 1),
            "of_torch": round(statistics.median(a / b for a, b in zip(times["torch"], times[name], strict=True)), 2),
            "least_cosine": round(float(cosines[name].min()), 5),
            "mean_cosine": round(float(cosines[name].mean()), 5),
        }
        for name in ways
    }


def similarity(features: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine similarity of (B, V, D) features with others: (B, V)."""
    a, b = features.astype(np.float64), wanted.astype(np.float64)
    cosine: NDArray[np.float64] = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return cosine


def runtime(name: str, config: ExtractConfig, exact: Encoder, folder: Path) -> Compute | None:
    """Open a runtime; None if it is not installed."""
    package, _, precision = name.partition("_")
    if package == "torch":
        given = {"": config, "fp32": replace(config, precision="fp32"), "compiled": replace(config, compile=True)}
        return open_encoder(given[precision]).encode
    if not find_spec(package):
        return None
    graph = folder / "backbone.onnx"
    if not graph.exists():
        export(config, graph)
    infer = with_onnxruntime(graph) if package == "onnxruntime" else with_openvino(graph, precision)
    return lambda crops: np.concatenate([infer(batch) for batch in normalised(exact, crops)])[:, None]


def export(config: ExtractConfig, file: Path) -> None:
    """Write timm's own network as a graph that takes batches of exactly CPU_CROPS normalised crops."""
    model = timm.create_model(config.backbone, num_classes=0).eval()
    model.load_state_dict(plain_weights(config.backbone, config.weights, config.pool, config.image_size))
    example = torch.zeros(CPU_CROPS, 3, config.image_size, config.image_size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        torch.onnx.export(model, (example,), file, dynamo=True, external_data=False, verbose=False)


def normalised(encoder: Encoder, crops: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Full batches, (8, 3, S, S)."""
    mean, std = (255 * torch.tensor(values) for values in (encoder.mean, encoder.std))
    for batch in torch.from_numpy(crops).split(CPU_CROPS):
        yield batch.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2).contiguous().numpy()


def with_onnxruntime(graph: Path) -> Infer:
    """ONNX Runtime with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return lambda batch: session.run(None, {taken.name: batch})[0]


def with_openvino(graph: Path, precision: str) -> Infer:
    """OpenVINO with as many threads as PyTorch has."""
    import openvino

    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
    return lambda batch: request.infer([batch], share_inputs=True)[0].copy()
