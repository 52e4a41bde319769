"""One image at a time, and a thousand: what a prediction takes beside the bare network and stage 1.

It runs against another checkout too: `PYTHONPATH=other/checkout python tests/bench/predict.py …`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COLD = """
import json, sys, time
began = time.perf_counter()
from hfc import Classifier
named = time.perf_counter()
classifier = Classifier.load(sys.argv[1], **json.loads(sys.argv[3]))
loaded = time.perf_counter()
classifier(sys.argv[2])
print(json.dumps([named - began, loaded - named, time.perf_counter() - loaded]))
"""


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def cold(run: Path, image: Path, settings: dict[str, object], turns: int) -> dict[str, float]:
    """Seconds of a fresh process, medians: to name the class, to load a run, its first answer, and all of it."""
    parts: list[list[float]] = []
    for _ in range(turns):
        started = time.perf_counter()
        words = [sys.executable, "-c", COLD, str(run), str(image), json.dumps(settings)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        parts.append([*json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started])
    names = ("import", "load", "first_answer", "process")
    return {name: round(statistics.median(part), 3) for name, part in zip(names, zip(*parts, strict=True), strict=True)}


def warm(run: Path, images: list[Path], settings: dict[str, object]) -> dict[str, object]:
    """Milliseconds of a further answer, of the network alone on one crop, and the median of their ratios."""
    import numpy as np
    import torch

    from hfc import Classifier
    from hfc.crops import crop_image

    classifier = Classifier.load(run, **settings)
    encoder, whole = classifier.encoder, np.full(4, np.nan, dtype=np.float32)
    for image in images[:3]:
        classifier(image)
    answers, network = [], []
    for image in images:
        answers.append(seconds(lambda image=image: classifier(image)))  # type: ignore[misc]
        crop = crop_image(image.read_bytes(), whole, classifier.crop)[None]
        batch = encoder._normalise(torch.from_numpy(crop).to(encoder.device))
        with torch.inference_mode(), encoder._autocast():
            network.append(seconds(lambda batch=batch: encoder.model(batch).cpu()))  # type: ignore[misc]
    ratios = [answer / limit for answer, limit in zip(answers, network, strict=True)]
    sizes: list[int] = []
    encoder.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    classifier(images[0])
    return {
        "threads": torch.get_num_threads(),
        "crops_in_a_pass": sizes[-1],
        "answer_ms": round(1000 * statistics.median(answers), 2),
        "network_ms": round(1000 * statistics.median(network), 2),
        "answer_of_network": round(statistics.median(ratios), 2),
    }


def graph(run: Path, images: list[Path], scratch: Path) -> float:
    """Milliseconds of the exported graph for one crop, in onnxruntime."""
    import numpy as np
    import onnxruntime

    file = scratch / "run.onnx"
    words = [sys.executable, "-m", "cli", "export", str(run), "--onnx", str(file), "--with-backbone"]
    subprocess.run(words, capture_output=True, check=True)
    session = onnxruntime.InferenceSession(str(file))
    (taken,) = session.get_inputs()
    crop = np.random.default_rng(0).integers(0, 256, (1, *taken.shape[1:]), dtype=np.uint8)
    session.run(None, {taken.name: crop})
    return round(1000 * statistics.median(seconds(lambda: session.run(None, {taken.name: crop})) for _ in images), 2)


def many(run: Path, images: list[Path], scratch: Path, turns: int) -> dict[str, object]:
    """Whole commands: `hfc predict` of so many photographs against `hfc extract` of them, in turns."""
    result = json.loads((run / "result.json").read_text())
    manifest = scratch / "m.csv"
    manifest.write_text("\n".join(["path", *map(str, images)]) + "\n")
    fields, cache = result["cache"]["key_fields"], result["cache"]
    (scratch / "images.csv").write_text("\n".join(["path,label,split", *(f"{path},L,train" for path in images)]) + "\n")
    hfc = [sys.executable, "-m", "cli"]
    predicting = [*hfc, "predict", str(run), "--manifest", str(manifest), "--json", "-q", "--outside-root"]
    extracting = [*hfc, "extract", str(scratch / "images.csv"), "--out", str(scratch / "c.h5"), "--overwrite", "-q"]
    extracting += ["--backbone", cache["backbone"], "--weights", cache["weights"], "--outside-root"]
    extracting += ["--precision", fields["precision"], "--image-size", str(fields["image_size"])]
    times: dict[str, list[float]] = {"predict": [], "extract": []}
    for _ in range(turns):
        for name, words in (("predict", predicting), ("extract", extracting)):
            started = time.perf_counter()
            subprocess.run(words, capture_output=True, check=True)
            times[name].append(time.perf_counter() - started)
    ratios = [limit / own for own, limit in zip(times["predict"], times["extract"], strict=True)]
    return {
        "images": len(images),
        **{f"{name}_s": round(statistics.median(values), 2) for name, values in times.items()},
        "predict_of_extract": round(statistics.median(ratios), 2),
    }


def main(words: list[str]) -> None:
    """A cold process, further answers, the graph's time beside them, and many photographs against stage 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench predict")
    parser.add_argument("run", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--no-graph", action="store_true", help="leave out the exported graph")
    options = parser.parse_args(words)
    settings: dict[str, object] = {"batch_size": options.batch_size} if options.batch_size else {}
    images = sorted(options.photographs.resolve().rglob("*.jpg"))[: options.images]
    few = images[:60]
    with tempfile.TemporaryDirectory() as scratch:
        line = {
            "benchmark": "predict",
            "batch_size": options.batch_size,
            "cold_s": cold(options.run, images[0], settings, options.turns),
            **warm(options.run, few, settings),
            **({} if options.no_graph else {"graph_ms": graph(options.run, few, Path(scratch))}),
            **many(options.run, images, Path(scratch), options.turns),
        }
    print(json.dumps(line), flush=True)


def passes(words: list[str]) -> None:
    """For each network, precision and number of threads: the fewest crops in a pass with the bits of a full one."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench passes")
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,tf_efficientnet_b0,tf_efficientnet_b5")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args(words)
    import torch

    from hfc.extract.encoder import load_encoder
    from hfc.predict.passes import Passes
    from tests.bench import say  # here: another checkout's may be on the path

    size = options.image_size
    for backbone in options.backbones.split(","):
        fewest = {}
        for precision in ("bf16", "fp32"):
            encoder = load_encoder(
                backbone, weights="random", image_size=size, pool="auto", precision=precision, device="cpu"
            )
            for threads in options.threads.split(","):
                torch.set_num_threads(int(threads))
                fewest[f"{precision}, {threads}"] = Passes(encoder, size)(1, encoder.batch_size)
        say(benchmark="passes", backbone=backbone, full=encoder.batch_size, **fewest)


if __name__ == "__main__":
    main(sys.argv[1:])
