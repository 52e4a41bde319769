"""`hfc train`: stage 2, feature cache to runs."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from cli.options import HIERARCHY, Choice, build, configuration, setting_help
from cli.output import Command, answer, say
from hfc.config import METHODS, TrainConfig
from hfc.progress import bar

if TYPE_CHECKING:
    from hfc.runs import Epoch
    from hfc.train.cache import Reading

SEEDS = re.compile(r"(\d+)(?:-(\d+))?")


def parse_seeds(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int]:
    """`0-4` or `0,2,7-9` to seeds in order."""
    seeds: list[int] = []
    for part in (text or "").split(",") if text else ():
        match = SEEDS.fullmatch(part.strip())
        if not match:
            raise click.BadParameter(f"expected seeds like 0-4 or 0,1,2, found {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise click.BadParameter(f"{part} counts backwards")
        seeds += range(first, last + 1)
    return seeds


@click.command(cls=Command, epilog=setting_help(TrainConfig))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--hierarchy",
    "hierarchies",
    multiple=True,
    type=HIERARCHY,
    help="deepfashion-5, deepfashion-10 or a CSV file; repeatable.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="A CSV (id,label and optionally split) whose labels take the place of the cache's own.",
)
@click.option(
    "--allow-unlabelled", is_flag=True, help="Take --labels even if most rows of a split have no label in it."
)
@click.option("--method", "methods", multiple=True, type=Choice("method", METHODS), help="What to train; repeatable.")
@click.option("--seeds", callback=parse_seeds, metavar="A-B", help="Seeds, like 0-4 or 0,1,2.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of runs.")
@configuration(TrainConfig)
@click.option(
    "--stream", is_flag=True, help="Read the features from the disk in every epoch: for caches larger than memory."
)
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes, each with CACHE in its memory."
)
@click.option("--overwrite", is_flag=True, help="Train again what is there already.")
def train(
    cache: Path,
    hierarchies: tuple[str, ...],
    labels: Path | None,
    allow_unlabelled: bool,
    methods: tuple[str, ...],
    seeds: list[int],
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    stream: bool,
    jobs: int,
    overwrite: bool,
) -> None:
    """Stage 2: a feature cache to runs.

    Trains a head on the features in CACHE for each method, hierarchy and seed. The epoch is picked on validation; the
    test split is looked at once, at the end. A run that is there already, from the same features, labels, hierarchy,
    settings and code, is not trained again.

    \b
    Example:
      hfc train cache/own.h5 --hierarchy tree.csv --method flat --method levels+path --seeds 0-2 --out cache/runs/own
    """
    axes = {"method": methods, "hierarchy": hierarchies, "seed": seeds}
    given = {name: values for name, values in axes.items() if values}
    configs = [
        build(TrainConfig, config_file, assignments, dict(zip(given, values, strict=True)))
        for values in itertools.product(*given.values())
    ]
    if not all(config.hierarchy for config in configs):
        raise click.UsageError("name a hierarchy: --hierarchy deepfashion-5, deepfashion-10 or a CSV file")
    reading: Reading = {"labels": labels, "allow_unlabelled": allow_unlabelled, "stream": stream}
    answer(run(cache, configs, out, jobs=jobs, overwrite=overwrite, **reading))


def run(
    path: Path,
    configs: Sequence[TrainConfig],
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    **reading: "Unpack[Reading]",
) -> dict[str, Any]:
    """Train some runs on one cache, with a progress bar and a line each; returns what they are.

    Args:
        path, configs, out, jobs, overwrite, reading: as for `hfc.train.stage.train_all`.
    """
    runs: list[dict[str, Any]] = []
    done = counted = 0
    numbers = {_axes(config): number for number, config in reversed(list(enumerate(configs, 1)))}
    with bar("loading", sum(config.epochs for config in configs), unit="epoch") as shown:
        from hfc.train import train_all
        from hfc.train.data import rows_used

        def on_epoch(config: TrainConfig, epoch: "Epoch") -> None:
            nonlocal counted
            counted += 1
            what = f"{numbers[_axes(config)]}/{len(configs)} {config.method} seed {config.seed}"
            shown.show(counted, what=what, note=f"val {config.select} {epoch.val[config.select]:.3f}")

        trained_runs = train_all(path, configs, out, jobs=jobs, overwrite=overwrite, on_epoch=on_epoch, **reading)
        rows = ""
        for run, trained in trained_runs:
            result = run.result
            if rows != (rows := rows_used(result.rows)):  # of another hierarchy they may be others
                say(rows)
            scores = "  ".join(f"top-{k} {100 * result.test[f'top{k}']:5.2f}" for k in result.settings.topk)
            note = f"{result.seconds.total:.1f} s" if trained else "was there already"
            say(f"{run.folder.name}: test {scores}  ({note})")
            about = {name: result.config[name] for name in ("method", "hierarchy", "seed")}
            measured = {name: result.plain()[name] for name in ("test", "rows")}
            runs.append({"folder": run.folder, "trained": trained, **about, **measured})
            done += result.settings.epochs
            counted = max(counted, done)
            shown.show(counted)
    say(f"{len(configs)} runs in {out}; next: hfc report {out} --out DIR")
    return {"out": out, "runs": runs}


def _axes(config: TrainConfig) -> tuple[str, str, int]:
    """What tells the runs of one call apart, in settled settings as well."""
    return config.method, config.hierarchy, config.seed
