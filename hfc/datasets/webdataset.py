"""Read TAR shards in WebDataset's layout: `KEY.jpg` with `KEY.cls` or `KEY.json` beside it.

A sample is the files of one key: the name up to its first dot. Its label is the text or number of `KEY.cls`, or `label`
in the object of `KEY.json`. Each of its images is a region.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from hfc.config import SPLITS
from hfc.datasets.archives import Archive, open_archive
from hfc.datasets.folders import refuse_other_encodings
from hfc.datasets.listing import ENDINGS, is_ours
from hfc.datasets.shards import is_pattern, list_shards, named_splits, shards_in
from hfc.errors import DatasetError, ImageError, is_utf8
from hfc.progress import steps
from hfc.regions import Regions, decode_text, strings

SHARD = ".tar"
LABELS = ("cls", "json")


@dataclass
class _Sample:
    """The files of one key in a shard."""

    images: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """Names of the files that may hold its label, by their endings."""


def recognise(source: Path) -> bool:
    """Return whether shards lie at a path.

    They are named by a pattern with braces, or they are all that a folder holds, or a TAR file with labels in it.
    """
    if source.suffix.lower() != SHARD or source.is_dir():
        return source.is_dir() and bool(shards_in(source, SHARD))
    if source.is_file():
        return any(sample.images and sample.labels for sample in _samples(open_archive(source)).values())
    return is_pattern(source)


def read(source: Path) -> Regions:
    """Read the regions of some shards, in their order. The id is the path, shard and name.

    A split stands in the names of the shards, as in `train-000000.tar`; else it is blank.

    Args:
        source: a shard, a folder of shards, or a pattern such as `data-{000000..000003}.tar`.

    Raises:
        DatasetError: a shard is missing or damaged, a label cannot be read, or there is no image or label.
    """
    shards = list_shards(source, SHARD)
    root = shards[0].parent
    splits = named_splits(shards)
    rows: list[tuple[str, str, str]] = []  # path, label, split
    for shard in steps(shards, "reading shards"):
        archive = open_archive(shard)
        for sample in _samples(archive).values():
            label = _label(archive, sample)
            rows += [(f"{shard.name}/{image}", label, splits[shard]) for image in sample.images]
    refuse_other_encodings(root, [root / path for path, _, _ in rows])
    if not any(label for _, label, _ in rows):
        what = f"{len(rows)} images without a label" if rows else "no images"
        raise DatasetError(f"{source}: expected samples like 0001.jpg with 0001.cls or 0001.json, found {what}")
    paths = strings([path for path, _, _ in rows])
    return Regions(
        root=root,
        origin=f"{len(shards)} TAR shards at {source.name}",
        id=paths,
        path=paths,
        box=np.full((len(rows), 4), np.nan, dtype=np.float32),
        label=strings([label for _, label, _ in rows]),
        split=strings([split for _, _, split in rows]),
        apart=tuple(split for split in SPLITS if split in splits.values()),
    )


def _samples(archive: Archive) -> dict[str, _Sample]:
    """Put the files of a shard together by their keys, in their order. Hidden ones are passed over."""
    samples: defaultdict[str, _Sample] = defaultdict(_Sample)
    for name in archive.members:
        path = PurePosixPath(name)
        if not all(is_ours(part) for part in path.parts if part != os.pardir):
            continue
        stem, _, ending = path.name.partition(".")
        sample = samples[str(path.with_name(stem))]
        if path.suffix.lower() in ENDINGS:
            sample.images.append(name)
        elif ending.lower() in LABELS:
            sample.labels[ending.lower()] = name
    return samples


def _label(archive: Archive, sample: _Sample) -> str:
    """Return the label of a sample; "" where it has none."""
    for ending, name in sorted(sample.labels.items()):  # cls before json
        file = archive.file / name
        try:
            text = decode_text(file, archive.read(name)).strip()
            label = text if ending == "cls" else _label_of_object(json.loads(text))
        except (OSError, ImageError, ValueError, RecursionError) as error:
            raise DatasetError(f"{file}: expected a label, found {error}; mend the sample or take it out") from error
        if "\n" in label or "\0" in label or not is_utf8(label):
            raise DatasetError(f"{file}: expected a label on one line, found {label[:100]!r}")
        if label:
            return label
    return ""


def _label_of_object(content: object) -> str:
    """Return `label` of an object in JSON. A number stands for a class, as in `KEY.cls`."""
    if not isinstance(content, dict):
        raise ValueError("JSON that is no object")
    label = content.get("label", "")
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValueError(f"the label {json.dumps(label)[:100]}, neither a text nor a whole number")
    return str(label).strip()
