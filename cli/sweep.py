"""`hfc sweep`: search for settings on validation."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from cli.options import Choice, jobs_option, reading_options
from cli.output import Command, RowsUsed, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hfc.train.cache import Reading
    from hfc.train.plan import Sweep
    from hfc.train.sweep import Trial

SHOWN = 10


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--grid",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file that says what to try.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder for the results."
)
@reading_options
@jobs_option
@click.option(
    "--engine",
    default="local",
    show_default=True,
    type=Choice("engine", ["local", "ray"]),
    help="Where the processes run: on this machine, or on a Ray cluster (RAY_ADDRESS) that sees CACHE under this path.",
)
def sweep(
    cache: Path,
    file: Path,
    out: Path,
    jobs: int,
    engine: str,
    **reading: "Unpack[Reading]",
) -> None:
    """Search for the best settings on validation.

    The test split of CACHE is never used. The TOML file of --grid has settings that stay fixed (method, hierarchy,
    inner_labels, …) and `seeds` at its top level. [grid] lists values for each setting to search: every combination is
    tried. [random] has lists or { low, high, log } in their place: `trials` points are drawn. With `folds` at the top
    level, points are judged by cross-validation over training and validation rows: a small validation split alone
    chooses badly. hfc train --config takes the best settings, OUT/best.toml. If the command is interrupted, run it
    again: it continues where it stopped.

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

    plan, used = read_sweep(file), RowsUsed()
    with on(engine, str(plan.fixed.get("device", "auto"))):
        trials = stage(cache, plan, out, jobs=jobs, on_rows=used.say, **reading)
    _say_trials(trials, plan)
    say(f"next: hfc train {cache} --config {out / BEST}")
    failed = sum(bool(trial.failed) for trial in trials)
    answer = {"trials": [trial.to_json() for trial in trials], "rows": [rows.plain() for rows in used.all]}
    print_json({**answer, "failed": failed, "seeds": plan.seeds, "best": out / BEST})


def _say_trials(trials: "Sequence[Trial]", plan: "Sweep") -> None:
    """Print the best points, and how many there are."""
    from hfc.metrics import metric

    by = metric(plan.select)
    for trial in trials[:SHOWN]:
        settings = "  ".join(f"{name}={value}" for name, value in trial.settings.items())
        mean, spread = by.scale * trial.score, by.scale * trial.spread
        score = f"failed ({trial.failed})" if trial.failed else f"{mean:6.{by.digits}f} ± {spread:.{by.digits}f}"
        say(f"{score}  {settings}")
    judge = f"by cross-validation in {plan.folds} folds" if plan.folds else "on validation alone"
    failed = sum(bool(trial.failed) for trial in trials)
    note = f"; {failed} failed" if failed else ""
    say(f"{len(trials)} points, {len(plan.seeds)} seeds each, {judge}{note}")
