"""Made-up run folders with known predictions: written as training writes them, without training."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfc import metrics, runs
from hfc.hierarchy import Hierarchy, parse_hierarchy
from hfc.regions import strings
from hfc.runs import Epoch
from hfc.store import Predictions
from hfc.store.records import nested
from hfc.train.folder import writing

TREE = "leaf,group\nTee,tops\nTank,tops\nJeans,trousers\nChinos,trousers\nShorts,trousers\nHat,hats\n"


def tree_of(path: Path, text: str = TREE) -> Hierarchy:
    """A tree written to a file, its leaves in the order of the rows: as a run has it, also one of an older version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return parse_hierarchy(path.stem, str(path), io.StringIO(text))


def guess(tree: Hierarchy, target: NDArray[np.int64], skill: float, seed: int) -> NDArray[np.float32]:
    """(N, C) probabilities that favour the true leaf the more, the greater the skill."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(target), len(tree.leaves)))
    logits[np.arange(len(target)), target] += skill
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def made_epoch(number: int, tasks: Sequence[str]) -> Epoch:
    """An epoch whose losses fall and whose weights rise with its number."""
    return Epoch(
        number=number,
        learning_rate=0.001,
        loss={**{task: 1 / number + i for i, task in enumerate(tasks)}, "total": -1.0},
        weights={task: 1 + number / 10 + i for i, task in enumerate(tasks)},
        val={"top1": number / 5},
        seconds=0.5,
    )


def write_run(
    folder: Path,
    tree: Hierarchy,
    *,
    method: str = "flat",
    seed: int = 0,
    skill: float = 2.0,
    rows: int = 60,
    ids: Sequence[str] | None = None,
    tasks: Sequence[str] = ("local", "global"),
    final: NDArray[np.float32] | None = None,
    target: NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
    **changes: Any,
) -> Path:
    """A run's folder; `cache__origin="x"` changes what its result says, reaching inside.

    Args:
        folder: holds the run.
        tree: what is predicted.
        method, seed: of the run.
        skill: how good its guesses are.
        rows, ids: its test images.
        tasks: names of its task losses.
        final, target: (N, C) and (N,), where the guesses are not to be drawn.
        groups: of its test images, where they have any.
        changes: of the result.
    """
    target = np.arange(rows) % len(tree.leaves) if target is None else target
    final = guess(tree, target, skill, hash_of(method) + seed) if final is None else final
    ids = [f"images/{i:04d}.jpg" for i in range(len(target))] if ids is None else ids
    levels = [
        np.stack([final[:, tree.ancestors[:, h] == node].sum(axis=1) for node in range(size)], axis=1)
        for h, size in enumerate(tree.sizes)
    ]
    topk = [k for k in (1, 3, 5) if k <= len(tree.leaves)]
    test = metrics.evaluate(levels, final, tree.ancestors[target], target, tree=tree, topk=topk)
    betas = [{"beta": b / 10, "top1": 0.5 + b / 100, "top3": 0.8, "top5": 0.9} for b in range(11)]
    result: dict[str, Any] = {
        "run": folder.name,
        "key": f"{method}{seed}",
        "method": method,
        "seed": seed,
        "changed": {},
        "config": {
            "topk": topk,
            "beta": 0.7,
            "dropout": 0.7,
            "seed": seed,
            "decode": "leaf",
            "head": "flat",
            "epochs": 3,
        },
        "cache": {
            "path": "cache/made-up.h5",
            "feature_key": "f" * 64,
            "key_fields": {"backbone": "made-up", "views": ["identity"]},
            "features_sha256": "a" * 64,
            "rows": 180,
            "dim": 16,
            "origin": "made-up features",
            "backbone": "made-up",
            "image_size": 224,
            "weights": "hub",
            "weights_digest": "b" * 64,
            "random_weights": False,
            "labels_sha256": "",
            "extracted_by": {"version": "0.1.0"},
        },
        "hierarchy": {
            "name": tree.name,
            "digest": tree.digest,
            "levels": list(tree.levels),
            "sizes": list(tree.sizes),
        },
        "rows": {"train": 100, "val": 20, "test": len(target), "unused": {"without label": 0}},
        "selected": {"epoch": 2, "metric": "top1", "val": {"top1": 0.6}},
        "loss_weights": dict.fromkeys(tasks, 1.0),
        "test": nested(test),
        "beta": {"validation": betas, "test": betas, "best_on_validation": 1.0},
        "stopping": [
            {"confidence": 0.0, "specificity": 1.0, "correct": 0.5, "precision": 0.6},
            {"confidence": 0.9, "specificity": 0.6, "correct": 0.9, "precision": 0.9},
        ],
        "seconds": {"train": 1.5, "total": 2.0},
        "machine": {"device": "cpu", "precision": "fp32", "threads": 2, "platform": "made-up"},
        "code": {"version": "0.1.0", "commit": "c" * 40, "digest": "d" * 64},
        "versions": {"python": "3.11", "torch": "2.5"},
        "created": "2026-01-01T00:00:00+00:00",
    }
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = result
        for part in outer:
            place = place[part]
        place[last] = value
    with writing(folder) as writer:
        writer.hierarchy(tree.to_csv())
        writer.epochs(made_epoch(number, tasks) for number in (1, 2, 3))
        named = None if groups is None else strings(list(groups))
        writer.predictions(Predictions(strings(list(ids)), target, tuple(levels), final, group=named))
        writer.result(runs.Result.read(result, "a made-up result"))
    return folder


def write_folds(
    folder: Path,
    tree: Hierarchy,
    *,
    folds: int = 3,
    missing: Sequence[int] = (),
    method: str = "flat",
    seed: int = 0,
    skill: float = 2.0,
    rows: int = 60,
    groups: Sequence[str] | None = None,
    final: NDArray[np.float32] | None = None,
    config: Sequence[float] = (0.1, 0.1, 0.2),
    **changes: Any,
) -> NDArray[np.float32]:
    """The runs of outer folds, each of its own share of the test images; returns (N, C) what all of them predict.

    Image i, in the order of the ids, is in fold i % 4 modulo the folds, so that folds are of several sizes; where it
    has a group, the number of that counts. Fold k chose the learning rate `config[k]`.
    """
    target = np.arange(rows) % len(tree.leaves)
    final = guess(tree, target, skill, hash_of(method) + seed) if final is None else final
    names = list(dict.fromkeys(groups or ()))
    dealt = np.array([(names.index(groups[i]) if groups and groups[i] else i) % 4 % folds for i in range(rows)])
    for k in set(range(folds)) - set(missing):
        inside = np.flatnonzero(dealt == k)
        outer = {"number": k, "folds": folds, "row": method, "search": "5" * 64, "searched": ["learning_rate"]}
        write_run(
            folder / f"{method}-{seed}-{k}",
            tree,
            method=method,
            seed=seed,
            ids=[f"images/{i:04d}.jpg" for i in inside],
            target=target[inside],
            final=final[inside],
            groups=[groups[i] for i in inside] if groups else None,
            key=f"{method}{seed}-{k}",
            **{
                "outer": outer,
                "config__learning_rate": config[k % 3],
                "changed": {"width": 64, "dropout": k},
                **changes,
            },
        )
    return final


def hash_of(text: str) -> int:
    """A small number of a text, the same in every process."""
    return sum(text.encode("utf-8")) * 10


def two_methods(folder: Path, tree: Hierarchy, **changes: Any) -> Path:
    """A good and a poor method of three seeds each."""
    for method, skill in (("flat", 3.0), ("hmcn-f", 0.5)):
        for seed in range(3):
            write_run(folder / f"{method}-{seed}", tree, method=method, seed=seed, skill=skill, **changes)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    """Change entries at the top of a run's result."""
    file = folder / runs.RESULT
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")
