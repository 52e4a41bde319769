"""The paper's question, asked fairly: every method tuned alike without the test split, and tested with own seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hfc import runs
from hfc.config import METHODS, TrainConfig, read_toml, resolve
from hfc.errors import ConfigError, DivergedError, RunError
from hfc.train.stage import train_all
from hfc.train.sweep import Sweep, parse_seeds, parse_sweep, sweep

SHIPPED = ("methods", "weightings")


@dataclass(frozen=True)
class Ablation:
    """What to compare, as a TOML file says it.

    Top level: `methods`; `search_seeds`, of the search; `seeds`, of the runs that are tested; and any setting to keep
    fixed. [grid], [random], `trials` and `folds`: what is searched for every method and how, as in `hfc sweep`;
    [own.METHOD]: what is searched for that one besides, in a grid.
    """

    searches: Mapping[str, Sweep]
    """The search of each method."""
    seeds: tuple[int, ...]
    """Of the runs that are tested."""

    @property
    def trainings(self) -> int:
        """How many trainings it takes in all."""
        searched = sum(plan.trainings for plan in self.searches.values())
        return searched + len(self.searches) * len(self.seeds)


def read_ablation(plan: str, hierarchy: str) -> Ablation:
    """What to compare.

    Args:
        plan: one of SHIPPED, or a TOML file.
        hierarchy: the tree of every run.

    Raises:
        ConfigError: the file cannot be read, or does not say what to compare.
    """
    if plan in SHIPPED:
        with resources.as_file(resources.files("hfc.train") / "ablations" / f"{plan}.toml") as file:
            content = read_toml(file)
    else:
        file = Path(plan)
        content = read_toml(file)
    methods = content.pop("methods", None)
    if not isinstance(methods, list) or not methods or any(method not in METHODS for method in methods):
        raise ConfigError(f"{file}: methods: expected a list out of {', '.join(METHODS)}; found {methods!r}")
    seeds = parse_seeds(file, "seeds", content.pop("seeds", None))
    search_seeds = parse_seeds(file, "search_seeds", content.pop("search_seeds", None))
    if set(seeds) & set(search_seeds):
        raise ConfigError(f"{file}: seeds: a seed that is tested must not be one of search_seeds, found {list(seeds)}")
    own = content.pop("own", {})
    if not isinstance(own, dict) or not all(isinstance(axes, dict) for axes in own.values()):
        raise ConfigError(f"{file}: own: expected a table for each method, like [own.flat], found {own!r}")
    if unknown := sorted(own.keys() - set(methods)):
        raise ConfigError(f"{file}: own: {unknown[0]} is none of the methods {', '.join(methods)}")
    common = {**content, "hierarchy": hierarchy, "seeds": list(search_seeds)}
    grid = common.get("grid", {})
    searches = {}
    for method in methods:
        mine = {"grid": {**grid, **own[method]}} if method in own and isinstance(grid, dict) else {}
        searches[method] = parse_sweep(file, {**common, **mine, "method": method})
    return Ablation(searches, seeds)


def ablation(
    cache: Path,
    plan: Ablation,
    out: Path,
    *,
    jobs: int = 1,
    report: Callable[[str, int], None] = lambda doing, done: None,
) -> list[runs.Run]:
    """Search for each method's settings without the test split, and test its best ones with other seeds.

    `out` gets `search/METHOD/` of every search and `runs/`, which `hfc report` reads. What is there already of the same
    features, settings and code is not done again.

    Args:
        cache: a feature cache.
        plan: what to compare.
        out: a folder.
        jobs: processes.
        report: called with what is being done and how many trainings are.

    Returns:
        The tested runs, method by method.

    Raises:
        HfcError: cache, hierarchy and settings do not fit each other, or the disk refuses.
        RunError: every point of a method failed, or its tested runs did; the other methods are done nonetheless.
    """
    done = 0
    found: list[runs.Run] = []
    failed: dict[str, str] = {}
    for method, search in plan.searches.items():
        start = done

        def searched(now: int, total: int, method: str = method, start: int = start) -> None:
            report(f"searching {method}", start + now)

        try:
            best = sweep(cache, search, out / "search" / method, jobs=jobs, report=searched)[0]
            configs = [resolve(TrainConfig, search.fixed, best.settings, {"seed": seed}) for seed in plan.seeds]
            for number, (run, _) in enumerate(train_all(cache, configs, out / "runs", jobs=jobs), 1):
                found.append(run)
                report(f"testing {method}", start + search.trainings + number)
        except DivergedError as error:
            failed[method] = str(error)
        done = start + search.trainings + len(plan.seeds)
    if failed:
        reasons = "; ".join(f"{method}: {reason}" for method, reason in failed.items())
        raise RunError(f"{out}: no result for {', '.join(failed)}, so nothing is compared. {reasons}")
    return found
