"""Data sets in several files of one kind, such as `train-000000.tar`: which they are, and of which split."""

import logging
import re
from collections import Counter
from pathlib import Path

from hfc.datasets.folders import SPELLINGS
from hfc.datasets.listing import is_ours
from hfc.errors import DatasetError

logger = logging.getLogger(__name__)

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")  # as in data-{000000..000003}.tar
NUMBERED = re.compile(r"-\d+-of-(\d+)")  # as in train-00000-of-00002.parquet
MOST_SHARDS = 100_000


def is_pattern(source: Path) -> bool:
    """Return whether a name holds numbers in braces."""
    return bool(BRACES.search(source.name))


def list_shards(source: Path, ending: str) -> list[Path]:
    """List the shards that a path names: a shard, a folder of them, or a pattern with braces.

    Raises:
        DatasetError: one is missing.
    """
    if source.is_dir():
        return shards_in(source, ending)
    braces = BRACES.search(source.name)
    if source.is_file() or not braces:
        return [source]
    first, last = braces.groups()
    count = int(last) - int(first) + 1
    if not 0 < count <= MOST_SHARDS:
        raise DatasetError(f"{source}: expected from 1 to {MOST_SHARDS} shards in ascending order, found {braces[0]}")
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    name = source.name
    shards = [source.with_name(name[: braces.start()] + number + name[braces.end() :]) for number in numbers]
    if missing := next((shard for shard in shards if not shard.is_file()), None):
        raise DatasetError(f"{source}: expected {count} shards, found no {missing.name}; download it, or name fewer")
    return shards


def shards_in(folder: Path, ending: str) -> list[Path]:
    """List the shards in a folder; none where folders lie beside them, which may be labels."""
    entries = [path for path in sorted(folder.iterdir()) if is_ours(path.name)]
    shards = [path for path in entries if path.suffix.lower() == ending]
    return [] if shards and any(path.is_dir() for path in entries) else shards


def warn_of_missing(shards: list[Path]) -> None:
    """Warn where the names of shards tell that there are more of them."""
    counts = Counter(
        (NUMBERED.sub(r"-*-of-\1", shard.name), int(match[1]))
        for shard in shards
        if (match := NUMBERED.search(shard.name))
    )
    for (name, count), there in counts.items():
        if there < count:
            logger.warning(
                "%s: %d of %d files are there; what the others hold is left out",
                shards[0].with_name(name),
                there,
                count,
            )


def named_splits(shards: list[Path]) -> dict[Path, str]:
    """Return the split that stands in the name of each shard; "" in all where none has one."""
    splits = {shard: _split(shard) for shard in shards}
    named = [shard for shard, split in splits.items() if split]
    if named and len(named) < len(shards):
        other = next(shard for shard in shards if shard not in named)
        raise DatasetError(
            f"{other}: expected a split in the name of every shard, as in {named[0].name}, found none; rename it"
        )
    return splits


def _split(shard: Path) -> str:
    words = re.split(r"[-_.]", shard.name.lower())
    splits = {SPELLINGS[word] for word in words if word in SPELLINGS}
    return splits.pop() if len(splits) == 1 else ""
