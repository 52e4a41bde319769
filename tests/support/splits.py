"""Data sets as stage 1 takes them: read, and their splits drawn."""

from pathlib import Path

from hfc.config import ExtractConfig
from hfc.datasets import read_regions
from hfc.datasets.splits import draw_splits
from hfc.regions import Regions, Strings


def read_drawn(
    source: Path,
    *,
    seed: int = 0,
    shares: tuple[float, float] = (0.1, 0.2),
    recorded: Strings | None = None,
    group: str = "",
    split: str = ExtractConfig.split,
) -> Regions:
    regions = read_regions(source, outside_root=False, group=group, split=split)
    return draw_splits(regions, seed=seed, shares=shares, recorded=recorded)
