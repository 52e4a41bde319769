"""Ask the paper's question fairly.

Every method is tuned alike without the test split, and tested with seeds of its own.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

from hfc import provenance, runs
from hfc.config import METHODS, TrainConfig, read_toml, resolve
from hfc.errors import FORMER_METHODS, FORMER_SETTINGS, ConfigError, DivergedError, RunError
from hfc.progress import bar
from hfc.train.cache import held
from hfc.train.notices import OnRows
from hfc.train.outer import OuterFold, refuse_count
from hfc.train.plan import NOT_SEARCHED, Sweep, config_of, parse_seeds, parse_sweep
from hfc.train.prepared import NOT_IN_KEY
from hfc.train.stage import train_all
from hfc.train.sweep import sweep

SHIPPED = ("methods", "weightings", "nested")
ROW_NAME = re.compile(r"\w[\w+=.-]*")
# What a row may set: not what the command gives, nor what all rows must share to be compared.
ROW_SETTINGS = {f.name for f in fields(TrainConfig)} - {
    "hierarchy",
    "seed",
} - NOT_SEARCHED.keys() | FORMER_SETTINGS.keys()


@dataclass(frozen=True)
class Ablation:
    """What to compare, as a TOML file says it.

    Top level: `methods`, each a row of the comparison; `search_seeds`, of the search; `seeds`, of the runs that are
    tested; and any setting to keep fixed. [rows.NAME]: a further row, `method` and the settings that set it apart.
    [grid], [random], `trials` and `folds`: what is searched for every row and how, as in `hfc sweep`; [own.NAME]: what
    is searched for that row besides, in a grid; [instead.NAME]: what is searched in the place of [grid].
    """

    searches: Mapping[str, Sweep]
    """The search of each row by its name."""
    seeds: tuple[int, ...]
    """Of the runs that are tested."""
    outer_folds: int = 0
    """Of nested cross-validation: all is done outside each fold, which tests it; 0: on the cache's own splits."""

    @property
    def trainings(self) -> int:
        """How many trainings it takes in all."""
        searched = sum(plan.trainings for plan in self.searches.values())
        return (searched + len(self.searches) * len(self.seeds)) * max(self.outer_folds, 1)

    @property
    def device(self) -> str:
        """Of all trainings."""
        return next(config_of(search.fixed, search.points[0]).device for search in self.searches.values())

    @property
    def steps(self) -> Iterator[tuple[str, Sweep, OuterFold | None]]:
        """List what is done in turn: a row, its search, and the outer fold; None for the cache's own splits."""
        if not self.outer_folds:
            yield from ((row, search, None) for row, search in self.searches.items())
        for number in range(self.outer_folds):
            yield from ((row, search, self._outer(number, row)) for row, search in self.searches.items())

    def _outer(self, number: int, row: str) -> OuterFold:
        search = self.searches[row]
        fixed = {key: value for key, value in search.fixed.items() if key not in NOT_IN_KEY}
        digest = provenance.digest([fixed, search.points, search.seeds, search.folds])
        searched = tuple(dict.fromkeys(name for point in search.points for name in point))
        return OuterFold(number, self.outer_folds, row, digest, searched)


def read_ablation(plan: str, hierarchy: str, outer_folds: int = 0) -> Ablation:
    """Read what to compare.

    Args:
        plan: one of SHIPPED, or a TOML file.
        hierarchy: the tree of every run.
        outer_folds: of nested cross-validation; 0: the cache's own splits.

    Raises:
        ConfigError: the file cannot be read, or does not say what to compare; or there cannot be so many folds.
    """
    refuse_count(outer_folds)
    if plan in SHIPPED:
        with resources.as_file(resources.files("hfc.train") / "ablations" / f"{plan}.toml") as file:
            content = read_toml(file)
    else:
        file = Path(plan)
        content = read_toml(file)
    rows = _rows(file, content)
    seeds = parse_seeds(file, "seeds", content.pop("seeds", None))
    search_seeds = parse_seeds(file, "search_seeds", content.pop("search_seeds", None))
    if set(seeds) & set(search_seeds):
        raise ConfigError(f"{file}: seeds: a seed that is tested must not be one of search_seeds, found {list(seeds)}")
    own, instead = (_axes_of(file, name, content, rows) for name in ("own", "instead"))
    common = {**content, "hierarchy": hierarchy, "seeds": list(search_seeds)}
    grid = common.get("grid", {})
    searches: dict[str, Sweep] = {}
    for name, settings in rows.items():
        wider = {"grid": {**grid, **own[name]}} if name in own and isinstance(grid, dict) else {}
        other = {"grid": instead[name]} if name in instead else {}
        searches[name] = parse_sweep(file, {**common, **wider, **other, **settings})
        _check_row(file, name, settings, searches)
    return Ablation(searches, seeds, outer_folds)


def _axes_of(
    file: Path, name: str, content: dict[str, object], rows: Mapping[str, object]
) -> Mapping[str, Mapping[str, object]]:
    """Read what is searched for single rows; takes a table of such tables out of a file's content."""
    axes = content.pop(name, {})
    if not isinstance(axes, dict) or not all(isinstance(table, dict) for table in axes.values()):
        raise ConfigError(f"{file}: {name}: expected a table for each row, like [{name}.flat], found {axes!r}")
    if unknown := sorted(axes.keys() - rows.keys()):
        raise ConfigError(f"{file}: {name}: {unknown[0]} is none of the rows {', '.join(rows)}")
    return axes


def _rows(file: Path, content: dict[str, object]) -> dict[str, dict[str, object]]:
    """Read the method and the settings of each row; takes `methods` and `rows` out of a file's content."""
    tables = content.pop("rows", {})
    methods = content.pop("methods", [] if tables else None)
    known = f"{file}: methods: expected a list out of {', '.join(METHODS)}; found {methods!r}"
    if not isinstance(methods, list) or not (methods or tables):
        raise ConfigError(known)
    if former := [method for method in methods if isinstance(method, str) and method in FORMER_METHODS]:
        settings = ", ".join(f'{key} = "{value}"' for key, value in FORMER_METHODS[former[0]].items())
        raise ConfigError(f'{file}: methods: {former[0]} is a row now: give a table [rows."{former[0]}"] of {settings}')
    if any(not isinstance(method, str) or method not in METHODS for method in methods):
        raise ConfigError(known)
    if not isinstance(tables, dict):
        raise ConfigError(f'{file}: rows: expected tables like [rows."hmcn-f+dwa"], found {tables!r}')
    for name, table in tables.items():
        _check_table(f'{file}: [rows."{name}"]', name, table)
    return {**{method: {"method": method} for method in methods}, **tables}


def _check_table(place: str, name: str, table: object) -> None:
    """Check one table of `rows` by itself.

    Raises:
        ConfigError: it is no row; the message begins with `place`.
    """
    if not ROW_NAME.fullmatch(name):
        raise ConfigError(f"{place}: a folder gets this name; make it of letters, digits and _ + - = . alone")
    if name in METHODS:
        raise ConfigError(f"{place}: a method has this name; list it under methods, or give the row another name")
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: expected a table, found {table!r}")
    if table.get("method") is None:
        raise ConfigError(f"{place}: method: expected one of {', '.join(METHODS)}, found none")
    if unknown := [key for key in table if key not in ROW_SETTINGS]:
        raise ConfigError(f"{place}: {unknown[0]} is no setting in which rows may differ; see hfc train --help")
    try:
        resolve(TrainConfig, table)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _check_row(file: Path, name: str, settings: Mapping[str, object], searches: Mapping[str, Sweep]) -> None:
    """Check that a row is like no other.

    Raises:
        ConfigError: what sets it apart is searched as well, or a row before it searches the same.
    """
    points = searches[name].points
    if twice := [key for key in settings if key in points[0]]:
        raise ConfigError(f'{file}: [rows."{name}"]: {twice[0]} is searched as well; leave it out here or there')
    configs = [config_of(searches[name].fixed, point) for point in points]
    for other, search in searches.items():
        if other != name and [config_of(search.fixed, point) for point in search.points] == configs:
            raise ConfigError(f'{file}: [rows."{name}"]: is the same as the row {other}; leave out one of them')


def ablation(cache: Path, plan: Ablation, out: Path, *, jobs: int = 1, on_rows: OnRows | None = None) -> list[runs.Run]:
    """Search for the settings of each row, and test the best with other seeds.

    The searches never look at the test split, nor those of an outer fold at its rows.

    `out` gets `search/ROW/` of every search, of outer folds `search/ROW/foldN/`, and `runs/`, which `hfc report` reads.
    What is there already of the same features, settings and code is not done again.

    Args:
        cache: a feature cache.
        plan: what to compare.
        out: a folder.
        jobs: processes; 0: by what the trainings compute, see `hfc.train.jobs`.
        on_rows: see `sweep`.

    Returns:
        The tested runs, row by row, of one outer fold after the other.

    Raises:
        HfcError: cache, hierarchy and settings do not fit each other, or the disk refuses.
        RunError: every point of a row failed, or its tested runs did; the other rows are done nonetheless.
    """
    done = 0
    tested: list[runs.Run] = []
    failed: dict[str, str] = {}
    with bar("loading", plan.trainings, unit="run") as shown, held(cache, plan.device, jobs != 1):
        for row, search, outer in plan.steps:
            name = f"{row}, outer fold {outer.number + 1} of {outer.folds}" if outer else row
            folder = out / "search" / row / (f"fold{outer.number}" if outer else "")
            try:
                shown.show(done, what=f"searching {name}")
                best = sweep(cache, search, folder, jobs=jobs, on_rows=on_rows, outer=outer)[0]
                shown.show(done + search.trainings, what=f"testing {name}")
                configs = [config_of(search.fixed, best.settings, seed) for seed in plan.seeds]
                results = train_all(cache, configs, out / "runs", jobs=jobs, outer=outer)
                for number, (run, _) in enumerate(results, 1):
                    tested.append(run)
                    shown.show(done + search.trainings + number)
            except DivergedError as error:
                failed[name] = str(error)
            done += search.trainings + len(plan.seeds)
    if failed:
        reasons = "; ".join(f"{row}: {reason}" for row, reason in failed.items())
        raise RunError(f"{out}: no result for {', '.join(failed)}, so nothing is compared. {reasons}")
    return tested
