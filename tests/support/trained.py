"""A run trained on pictures, from end to end, with a backbone of a few kilobytes whose weights lie in a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

from hfc.config import ExtractConfig, TrainConfig, resolve
from hfc.extract.stage import extract
from hfc.runs import Run
from hfc.train.cache import load_cache
from hfc.train.stage import train
from tests.support.backbones import TINY
from tests.support.deepfashion_tree import write_images
from tests.support.made_up import settled_on

# Names of nodes may hold anything.
LEAVES = {
    "Tee": "tops, of all > kinds",
    'Tank "Top"': "tops, of all > kinds",
    "Mantel\u2028länger": "tops, of all > kinds",
    "Jeans": "<script>",
    "=1+1": "<script>",
}
SPLITS = ("train", "train", "train", "val", "test")
STAGE1 = {"backbone": TINY, "image_size": 32, "precision": "fp32"}
STAGE2 = {"epochs": 2, "reduced": 16, "width": 16, "dropout": 0.2, "precision": "fp32", "batch_size": 16}

# Blended over β, and one path as the answer.
TOP_DOWN: dict[str, object] = {"method": "levels", "beta": 0.3, "decode": "path", "transform": "sqrt"}


def write_pictures(folder: Path) -> Path:
    """A manifest of 50 pictures, 10 a leaf; every second row has a box, and one picture cannot be read."""
    names = [f"img/{i:02d}.jpg" for i in range(50)]
    write_images(folder, names)
    (folder / names[7]).write_bytes(b"")
    cells = ["id,path,label,split,x1,y1,x2,y2"]
    for i, name in enumerate(names):
        label = list(LEAVES)[i % 5].replace('"', '""')
        box = f"{i % 7},2,{40 + i % 9}.5,70" if i % 2 else ",,,"
        cells.append(f'row {i},{name},"{label}",{SPLITS[i // 5 % 5]},{box}')
    manifest = folder / "m.csv"
    manifest.write_text("\n".join(cells) + "\n")
    return manifest


def write_weights(file: Path, seed: int = 1) -> Path:
    """A checkpoint of the backbone, as somebody might have trained it."""
    torch.manual_seed(seed)
    torch.save(timm.create_model(TINY).state_dict(), file)
    return file


def write_hierarchy(file: Path) -> Path:
    rows = [f'"{leaf.replace(chr(34), chr(34) * 2)}","{group}"' for leaf, group in LEAVES.items()]
    file.write_text("\n".join(["leaf,the group", *rows]) + "\n")
    return file


def train_run(folder: Path, stage1: dict[str, object], stage2: dict[str, object]) -> tuple[Run, Path]:
    """A run and its cache, made of the manifest m.csv in a folder; settings are changes to STAGE1 and STAGE2."""
    weights = folder / "backbone.pth"
    if not weights.exists():
        write_weights(weights)
    write_hierarchy(folder / "tree.csv")
    first = resolve(ExtractConfig, {**STAGE1, "weights": str(weights), **stage1})
    cache = folder / f"{len(list(folder.glob('*.h5')))}.h5"
    extract(folder / "m.csv", cache, first)
    return train_on(cache, stage2), cache


def rewrite_result(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the result.json in a run's folder."""
    result = json.loads((run / "result.json").read_text())
    change(result)
    (run / "result.json").write_text(json.dumps(result))


def prove(run: Path, threshold: float = 0.5) -> None:
    """Let 200 rows prove of a run that answers from a threshold on are right in 0.8 and 0.9 of all cases."""
    counts = {"rows": 200, "given": [[100, 0], [60, 100], [0, 200]], "right": [[100, 0], [60, 93], [0, 120]]}
    promise = {
        **{"confidence": 0.95, "thresholds": [0.99, threshold, 0.0]},
        **dict.fromkeys(("chosen", "proof", "test"), counts),
    }
    rewrite_result(run, lambda result: result.update(promise=promise))


def train_on(cache: Path, stage2: dict[str, object]) -> Run:
    """A run on a cache that `train_run` made."""
    folder = cache.parent
    config = resolve(TrainConfig, {"hierarchy": str(folder / "tree.csv"), **settled_on(STAGE2, **stage2)})
    return train(load_cache(cache), config, folder / "runs")[0]
