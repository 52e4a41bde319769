"""The identity of a row of runs, and a label that no other row has."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hfc.config import SPLITS, TrainConfig, plain
from hfc.errors import FORMER_SETTINGS
from hfc.hierarchy import Hierarchy
from hfc.provenance import digest
from hfc.runs import Result, Run

Identity = Mapping[str, str]
"""What makes a row, by the name of the part."""
Facet = tuple[str, Callable[[Result], str]]
"""The part of an identity that some words speak of, and the words."""
Column = tuple[str, Callable[[Result], str]]
"""The head of a column, and its words for a run."""

NOT_SETTINGS = ("seed", "device", "checkpoint_seconds", "hierarchy")  # the hierarchy is a part of its own
# At their defaults they are in no key: those of older runs stay.
LATER = {
    name: plain(TrainConfig())[name]
    for name in (
        "inner_labels",
        "promise_share",
        "train_share",
        "transform",
        "label_share",
        "l2",
        "l2_last",
        "inner_l2",
        "inner_scale",
        "refit",
        "members",
    )
}
DIGITS = 8  # of a digest in a label
FIELDS = {  # of the feature key, in words
    "pool": "{} pooling",
    "views": "views {}",
    "resize": "resize {}",
    "roi_margin": "margin {}",
    "precision": "features in {}",
}


def feature_columns() -> tuple[Column, ...]:
    """List what may differ between the features of two runs, as columns."""
    fields = [(name, partial(_field, name=name, words="{}")) for name in ("pool", "views", "resize")]
    return (
        ("backbone", lambda result: result.cache.backbone),
        ("weights", lambda result: Path(result.cache.weights).name),
        ("px", lambda result: str(result.cache.image_size or "–")),
        *fields,
        ("margin", partial(_field, name="roi_margin", words="{}")),
        ("precision", partial(_field, name="precision", words="{}")),
        ("stored as", partial(_field, name="store", words="{}")),
    )


def row_columns() -> tuple[Column, ...]:
    """List what may differ between two runs of one method, as columns: features, labels and tree."""
    return (*feature_columns(), ("labels", _labels_file), ("tree", lambda result: result.hierarchy.name))


def labels(result: Result) -> tuple[str, str]:
    """Digests of the file of labels, and of all ids, labels and splits."""
    return result.cache.labels_sha256 or "", result.cache.labels_digest or ""


def counts(result: Result) -> str:
    """Write how many images each split has. How many of them have an inner label follows."""
    rows = result.rows
    inner = " / ".join(str(rows.inner.get(split, 0)) for split in SPLITS)
    return f"{rows.train} / {rows.val} / {rows.test}" + (f", inner labels: {inner}" if any(rows.inner.values()) else "")


def settings(result: Result) -> dict[str, object]:
    """Collect the settings that shape a run's numbers. One that it does not record has its default."""
    known = {**plain(TrainConfig()), **FORMER_SETTINGS, **result.config}
    return {key: value for key, value in known.items() if key not in NOT_SETTINGS and LATER.get(key) != value}


def recipe(result: Result) -> str:
    """Say in words how features were made of crops."""
    return ", ".join(filter(None, (_field(result, name, words) for name, words in FIELDS.items()))) or "not recorded"


def identity(result: Result, tested: str = "") -> Identity:
    """Collect everything that the runs of one row share. Another row differs in some of it.

    Args:
        result: of a run.
        tested: digest of its test images and their true leaves.
    """
    cache, tree = result.cache, result.hierarchy
    outer = result.outer  # its folds chose settings of their own
    parts = {
        "method": [outer.row, outer.folds, outer.search] if outer else [result.method, result.changed],
        "features": [cache.feature_key, cache.features_sha256],
        "labels": labels(result),
        "name of the tree": tree.name,
        "tree": tree.digest,
        "settings": {} if outer else settings(result),
        "rows": result.rows.plain(),
        "device": _device(result),
        "test images": tested,
    }
    return {name: json.dumps(part, sort_keys=True, default=str) for name, part in parts.items()}


def tree_digests(trees: Iterable[Hierarchy]) -> dict[str, str]:
    """Give trees that differ in the order of their leaves alone one digest; returns it by each tree's own.

    Older runs kept the order of the rows in the tree's file. Where all of a tree's runs have one order, it keeps its
    own digest.
    """
    orders = {tree.digest: tree for tree in trees}
    canonical = {own: tree.in_canonical_order().digest for own, tree in orders.items()}
    count = Counter(canonical.values())
    return {own: one if count[one] > 1 else own for own, one in canonical.items()}


def with_tree(run: Run, tree: str) -> Run:
    """Let a run's result name its tree by another digest."""
    return replace(run, result=replace(run.result, hierarchy=replace(run.result.hierarchy, digest=tree)))


def method(result: Result, distinction: str = "") -> str:
    """Name the method as the paper does. Settings that differ and a distinction follow.

    A mark says where its features came from random weights.
    """
    changed = [] if result.outer else [f"{key}={value}" for key, value in result.changed.items()]
    more = ", ".join(part for part in (*changed, distinction) if part)
    mark = " [RANDOM WEIGHTS]" if result.cache.random_weights else ""
    name = result.outer.row if result.outer else result.method
    return f"{name} ({result.hierarchy.name})" + (f" {more}" if more else "") + mark


def distinct_labels(results: Sequence[Result], identities: Sequence[Identity]) -> list[str]:
    """Label each row. Rows that would share a label get as few words more as suffice.

    Args:
        results: a result of one run, for each row.
        identities: one for each row, no two alike.
    """
    names = [method(result) for result in results]
    for same in _alike(names):
        distinctions = _distinctions([results[i] for i in same], [identities[i] for i in same])
        for i, distinction in zip(same, distinctions, strict=True):
            names[i] = method(results[i], distinction)
    for same in _alike(names):  # by chance, or because a file was named so
        for i in same:
            names[i] += f" {digest(dict(identities[i]))}"
    return names


def _alike(names: Sequence[str]) -> list[list[int]]:
    """Group the places of names that look alike to a reader."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(_as_read(name), []).append(i)
    return [same for same in places.values() if len(same) > 1]


def _as_read(name: str) -> str:
    """Write a name as it looks on a page, where blanks run together."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _distinctions(results: Sequence[Result], identities: Sequence[Identity]) -> list[str]:
    """Say what is different in rows of one name. All of them show the same facets."""
    columns = []
    for part, words in _facets(results):
        shown: dict[str, str] = {}  # rows that are alike in this part get the same words
        for result, own in zip(results, identities, strict=True):
            shown.setdefault(own[part], words(result))
        columns.append([shown[own[part]] for own in identities])
    columns.append([f"test images {digest(own['test images'])[:DIGITS]}" for own in identities])
    columns.append([digest(dict(own))[:DIGITS] for own in identities])
    chosen: list[list[str]] = []
    for column in columns:
        if _count([*chosen, column]) > _count(chosen):
            chosen.append(column)
    for column in list(chosen):  # a later facet may make an earlier one needless
        others = [other for other in chosen if other is not column]
        if _count(others) == _count(chosen):
            chosen = others
    return [", ".join(filter(None, words)) for words in zip(*chosen, strict=True)]


def _count(columns: Sequence[Sequence[str]]) -> int:
    """Count the rows that some facets make different."""
    return len({tuple(map(_as_read, words)) for words in zip(*columns, strict=True)})


def _facets(results: Sequence[Result]) -> Iterable[Facet]:
    """List what may differ between rows, what a reader would name first at the top."""
    yield "method", lambda result: f"{result.outer.folds} outer folds" if result.outer else ""
    yield "method", lambda result: f"search {result.outer.search[:DIGITS]}" if result.outer else ""
    yield "features", lambda result: f"{result.cache.image_size} px"
    yield "features", partial(_field, name="pool", words=FIELDS["pool"])
    yield "features", lambda result: result.cache.backbone
    yield "features", lambda result: f"weights {Path(result.cache.weights).name}"
    for name, words in FIELDS.items():
        yield "features", partial(_field, name=name, words=words)
    yield "features", lambda result: f"cache {Path(result.cache.path).stem}"
    yield "labels", _labels_file
    yield "tree", lambda result: f"tree {result.hierarchy.digest[:DIGITS]}"
    for split, words in (("train", "training"), ("val", "validation"), ("test", "test")):
        yield "rows", partial(_images, split=split, words=words)
    yield "rows", lambda result: f"{sum(result.rows.inner.values()):,} inner labels"
    yield "rows", lambda result: ", ".join(f"{n:,} {why}" for why, n in result.rows.unused.items())
    yield "device", lambda result: f"on {_device(result)}"
    for name in dict.fromkeys(("precision", *(name for result in results for name in settings(result)))):
        yield "settings", partial(_setting, name=name)
    for name in dict.fromkeys(name for result in results for name in result.cache.key_fields or {}):
        yield "features", partial(_field, name=name, words=name + " {}")
    yield "features", lambda result: f"features {result.cache.features_sha256[:DIGITS]}"
    yield "labels", lambda result: "labels " + (labels(result)[1] or labels(result)[0])[:DIGITS]


def _field(result: Result, name: str, words: str) -> str:
    """Write a field of the feature key in words. "" where a run does not record it."""
    value = (result.cache.key_fields or {}).get(name)
    if value is None:
        return ""
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return words.replace("{}", text[:DIGITS] if len(text) == 64 and text.isalnum() else text)


def _images(result: Result, split: str, words: str) -> str:
    return f"{getattr(result.rows, split):,} {words} images"


def _device(result: Result) -> str:
    """Name the kind of device; another kind draws other dropout from one seed."""
    return result.machine.device.partition(":")[0]


def _setting(result: Result, name: str) -> str:
    return f"{name}={settings(result).get(name, '–')}"


def _labels_file(result: Result) -> str:
    return f"labels {Path(result.cache.labels or '').name}" if labels(result)[0] else "the cache's own labels"
