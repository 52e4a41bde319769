"""A TOML file says what a search tries: a grid, as the paper did, or random points."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from hfc.config import TrainConfig, read_toml, resolve
from hfc.errors import FORMER_SETTINGS, ConfigError
from hfc.train.settings import refuse_unused

NOT_SEARCHED = {
    "device": "all points share one",
    "checkpoint_seconds": "it shapes no number",
    "select": "it is what points are compared by",
}


@dataclass(frozen=True)
class Sweep:
    """What to try, as a TOML file says it.

    Top level: `seeds` (a list), `folds` (of cross-validation over training and validation rows; without it the
    validation split judges), `trials` (how many points of a random search), and any setting that stays fixed.
    [grid]: a list of values for each setting; every combination is tried.
    [random]: for a setting a list to choose from, or { low, high, log }; `trials` points are drawn.
    """

    fixed: Mapping[str, object]
    points: tuple[Mapping[str, object], ...]
    seeds: tuple[int, ...]
    folds: int = 0
    """Of cross-validation; 0: the validation split judges."""

    @property
    def fold_numbers(self) -> Sequence[int | None]:
        """The folds by number; None for the cache's own splits."""
        return range(self.folds) if self.folds else [None]

    @property
    def select(self) -> str:
        """The validation metric that points are compared by."""
        return config_of(self.fixed, self.points[0]).select

    @property
    def trainings(self) -> int:
        """How many trainings it takes."""
        return len(self.points) * len(self.seeds) * len(self.fold_numbers)


def config_of(fixed: Mapping[str, object], point: Mapping[str, object], seed: int = 0) -> TrainConfig:
    """Resolve the settings of a point of a search.

    A method that the point names comes before what is fixed for all: it replaces the method, and nothing else.
    """
    method = {key: value for key, value in point.items() if key == "method"}
    kept = {key: value for key, value in fixed.items() if key not in method}
    rest = {key: value for key, value in point.items() if key not in method}
    return resolve(TrainConfig, method, kept, rest, {"seed": seed})


def read_sweep(file: Path) -> Sweep:
    """Read what to try.

    Raises:
        ConfigError: the file cannot be read, or does not say what to try.
    """
    return parse_sweep(file, read_toml(file))


def parse_sweep(file: Path, content: Mapping[str, object]) -> Sweep:
    """Parse what a TOML file holds; `file` is its name, for messages. Raises as `read_sweep` does."""
    content = dict(content)
    seeds, count = parse_seeds(file, "seeds", content.pop("seeds", [0])), content.pop("trials", 0)
    folds, grid, random = content.pop("folds", 0), content.pop("grid", {}), content.pop("random", {})
    if type(folds) is not int or folds == 1 or folds < 0:
        raise ConfigError(f"{file}: folds: expected two or more, or 0 for the validation split, found {folds!r}")
    if not isinstance(grid, dict) or not isinstance(random, dict) or not (grid or random):
        raise ConfigError(f"{file}: expected a table [grid] or [random] of the settings to search")
    known = {f.name for f in fields(TrainConfig)} - {"seed"} | FORMER_SETTINGS.keys()
    if unknown := next((key for key in (*content, *grid, *random) if key not in known), None):
        raise ConfigError(f"{file}: {unknown} is no setting that can be searched or fixed; see hfc train --help")
    if fixed := next((key for key in (*grid, *random) if key in NOT_SEARCHED), None):
        raise ConfigError(f"{file}: {fixed} cannot be searched, as {NOT_SEARCHED[fixed]}; give it at the top level")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*_axes(file, grid))]
    if random:
        if type(count) is not int or count < 1:
            raise ConfigError(f"{file}: trials: expected how many points to draw, found {count!r}")
        points = [point | drawn for point in points for drawn in _draws(file, random, count)]
    try:
        configs = [config_of(content, point) for point in points]
        for config in configs:
            refuse_unused(config)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if len(metrics := sorted({config.select for config in configs})) > 1:
        raise ConfigError(
            f"{file}: points are compared by what picks the epoch, which is {' or '.join(metrics)} by their methods; "
            "give select at the top level"
        )
    return Sweep(content, tuple(points), seeds, folds)


def parse_seeds(file: Path, name: str, seeds: object) -> tuple[int, ...]:
    """Parse a list of seeds in a TOML file. Raises a ConfigError if it is none."""
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{file}: {name}: expected a list of integers, found {seeds!r}")
    return tuple(seeds)


def _axes(file: Path, grid: Mapping[str, object]) -> Iterator[list[object]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{file}: [grid] {name}: expected a list of values, found {values!r}")
        yield values


def _draws(file: Path, random: Mapping[str, object], count: int) -> Iterator[dict[str, object]]:
    """Points of a random search; the same file gives the same ones."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {name: _draw(file, name, spec, rng) for name, spec in random.items()}


def _draw(file: Path, name: str, spec: object, rng: np.random.Generator) -> object:
    match spec:
        case [_, *_]:
            return spec[int(rng.integers(len(spec)))]
        case {"low": int() | float() as low, "high": int() | float() as high, **more} if low < high:
            log = more.get("log", False)
            if not log or low > 0:
                value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
                return round(value) if type(low) is int and type(high) is int else float(f"{value:.4g}")
    raise ConfigError(f"{file}: [random] {name}: expected a list, or low < high and optionally log, found {spec!r}")
