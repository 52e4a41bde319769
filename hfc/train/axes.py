"""Stage 2 in one call: every method on every hierarchy with every seed."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import fields
from operator import index
from pathlib import Path

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError, check_keywords
from hfc.runs import Run
from hfc.train.cache import Reading
from hfc.train.fit import OnEpoch, quiet
from hfc.train.stage import train_all


def train(
    cache: str | Path,
    *,
    hierarchy: str | Path | Iterable[str | Path],
    method: str | Iterable[str] = (),
    seeds: int | Iterable[int] = (),
    out: str | Path = "runs",
    jobs: int = 1,
    overwrite: bool = False,
    on_epoch: OnEpoch = quiet,
    labels: str | Path | None = None,
    allow_unlabelled: bool = False,
    stream: bool = False,
    **settings: object,
) -> list[Run]:
    """Train heads on a feature cache: `train("own.h5", hierarchy="tree.csv", method="flat", seeds=[0, 1])`.

    Args:
        cache: the cache.
        hierarchy: a shipped hierarchy, a file, or several.
        method: a method or several; without it the recommended one.
        seeds: a seed or several; without it one run with the setting `seed`.
        out: the folder that receives a folder for each run.
        jobs, overwrite, on_epoch: as for `hfc.train.train_all`.
        labels, allow_unlabelled, stream: how the cache is read, as for `hfc.train.cache.load_cache`.
        settings: any of hfc.config.TrainConfig, for all runs.

    Returns:
        The runs, by method, then hierarchy, then seed. A run that is there already is read.

    Raises:
        HfcError: as `hfc.train.train_all`, or for a keyword that does not exist.
    """
    check_keywords(train, settings, (known.name for known in fields(TrainConfig)))
    configs = _configs(
        {"method": _several(method), "hierarchy": _several(hierarchy), "seed": _several(seeds)}, settings
    )
    where = Path(labels) if labels else None
    reading: Reading = {"labels": where, "allow_unlabelled": allow_unlabelled, "stream": stream}
    trained = train_all(Path(cache), configs, Path(out), jobs=jobs, overwrite=overwrite, on_epoch=on_epoch, **reading)
    return [run for run, _ in trained]


def _configs(several: Mapping[str, list[object]], settings: Mapping[str, object]) -> list[TrainConfig]:
    """The settings of every run."""
    if several["seed"] and "seed" in settings:
        raise ConfigError("seeds with seed: each names where to start from; give one of them")
    given = {name: values for name, values in several.items() if values}
    rows = itertools.product(*given.values())
    configs = [resolve(TrainConfig, {**settings, **dict(zip(given, row, strict=True))}) for row in rows]
    if not all(config.hierarchy for config in configs):
        raise ConfigError("hierarchy: expected deepfashion-5, deepfashion-10 or a file, found none")
    return configs


def _several(value: object) -> list[object]:
    """One value, or several."""
    values = value if isinstance(value, Iterable) and not isinstance(value, str | Path) else [value]
    # Whole numbers of other kinds than Python's, as those of NumPy.
    return [index(one) if hasattr(one, "__index__") else one for one in values]
