"""What stage 1 reports: how far it is, and in the end what it did."""

from dataclasses import dataclass
from pathlib import Path

from hfc.config import ExtractConfig


@dataclass
class Progress:
    """How far stage 1 is, and where its seconds went. Reading and decoding are summed over threads."""

    total: int
    done: int = 0
    """Rows finished in this call, by all processes."""
    resumed: int = 0
    """Rows that an earlier call had finished, whether its cache has them or shards that it left."""
    failed: int = 0
    """Rows without features, resumed ones among them."""
    read_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0


@dataclass(frozen=True)
class ExtractSummary:
    """What stage 1 did."""

    path: Path
    key: str
    rows: int
    dim: int
    failures: list[tuple[str, str]]
    """Id and reason of every region without features."""
    seconds: float
    progress: Progress
    encoded: int
    """Images that went through the backbone in this call, or would; of equal ones the first alone."""
    kept: int
    """Regions whose pixels are those that they had, also under a new name."""
    new: int
    changed: int
    """Regions whose pixels are others now. Nothing is encoded where the cache has those of another region."""
    gone: int
    """Regions of the cache that are in the data set no more."""
    splits: dict[str, int]
    """Regions of each split; "" = of none."""
    groups: int
    """Groups of regions that belong together."""
    resumed: int
    """Regions whose features an interrupted call had left."""
    differences: list[str]
    """In what the rows differ from those that the cache had; empty where it had none."""
    updated: bool
    """Whether there was a cache to bring up to date."""
    shards: int
    """How many this call makes."""
    config: ExtractConfig
    """As it was resolved on this machine."""
    origin: str
    feature_map: tuple[int, ...]
    written: bool
    """False after a dry run, or when the cache was there already."""
    tree: Path | None
    """The category tree, where the data set itself has one."""
