"""`hfc sweep`: search for settings on validation."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.output import Command, answer, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hfc.train.plan import Sweep
    from hfc.train.sweep import Trial

SHOWN = 10


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--grid", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A TOML file of what to try."
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder of findings.")
@click.option("--labels", type=click.Path(path_type=Path), help="A CSV of other labels, as in hfc train.")
@click.option(
    "--allow-unlabelled", is_flag=True, help="Take --labels even if most rows of a split have no label in it."
)
@click.option("--stream", is_flag=True, help="Read the features from the disk, as in hfc train.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes, a cache in each.")
@click.option(
    "--engine",
    default="local",
    show_default=True,
    type=click.Choice(["local", "ray"]),
    help="Where the processes are: this machine, or a Ray cluster (RAY_ADDRESS) that sees CACHE under the same path.",
)
def sweep(
    cache: Path,
    file: Path,
    out: Path,
    labels: Path | None,
    allow_unlabelled: bool,
    stream: bool,
    jobs: int,
    engine: str,
) -> None:
    """Search for settings on validation.

    The test split of CACHE is never looked at. The TOML file fixes settings at its top level (method, hierarchy, …),
    gives `seeds`, and lists in [grid] the values of each setting to combine, or in [random] lists or { low, high, log }
    to draw `trials` points from. With `folds` at its top level training and validation rows judge together, by
    cross-validation: a small validation split alone chooses badly. OUT/best.toml is what hfc train --config takes.
    Stopped half way, the same command goes on where it was.

    \b
    Example:
      hfc sweep cache/own.h5 --grid grid.toml --out cache/sweep
    with this grid.toml:
      method = "hmcn-f+mtl"
      hierarchy = "tree.csv"
      seeds = [0, 1, 2]
      [grid]
      learning_rate = [0.001, 0.003]
    """
    from hfc.parallel import on
    from hfc.train.plan import read_sweep
    from hfc.train.sweep import BEST
    from hfc.train.sweep import sweep as stage

    plan = read_sweep(file)
    with on(engine):
        trials = stage(cache, plan, out, jobs=jobs, labels=labels, allow_unlabelled=allow_unlabelled, stream=stream)
    _say_trials(trials, plan)
    say(f"next: hfc train {cache} --config {out / BEST}")
    rows = [asdict(trial) | ({"score": None, "spread": None} if trial.failed else {}) for trial in trials]
    failed = sum(bool(trial.failed) for trial in trials)
    answer({"trials": rows, "failed": failed, "seeds": plan.seeds, "best": out / BEST})


def _say_trials(trials: "Sequence[Trial]", plan: "Sweep") -> None:
    """Print the best points, and how many there are."""
    for trial in trials[:SHOWN]:
        settings = "  ".join(f"{name}={value}" for name, value in trial.settings.items())
        score = f"failed ({trial.failed})" if trial.failed else f"{100 * trial.score:6.2f} ± {100 * trial.spread:.2f}"
        say(f"{score}  {settings}")
    judge = f"by cross-validation in {plan.folds} folds" if plan.folds else "on validation alone"
    failed = sum(bool(trial.failed) for trial in trials)
    note = f"; {failed} failed" if failed else ""
    say(f"{len(trials)} points, {len(plan.seeds)} seeds each, {judge}{note}")
