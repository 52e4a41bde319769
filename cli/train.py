"""`hfc train`: stage 2, feature cache to runs."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from cli.options import (
    HIERARCHY,
    Choice,
    build,
    configuration,
    jobs_option,
    reading_options,
    refuse_no_hierarchy,
    setting_help,
    settings,
)
from cli.output import Command, RowsUsed, print_json, say
from hfc.config import AUTO, METHODS, TrainConfig, plain
from hfc.progress import Bar, bar

if TYPE_CHECKING:
    from hfc.runs import Epoch, Run
    from hfc.train.cache import Reading

TRANSFORMS = {
    "sqrt": "transform sqrt, as the features trained on are hardly ever negative",
    "none": "transform none, as the features trained on have both signs",
}
SEEDS = re.compile(r"(\d+)(?:-(\d+))?")


def parse_seeds(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int]:
    """Parse `0-4` or `0,2,7-9` to seeds in order."""
    seeds: list[int] = []
    for part in (text or "").split(",") if text else ():
        match = SEEDS.fullmatch(part.strip())
        if not match:
            raise click.BadParameter(f"expected seeds like 0-4 or 0,1,2, found {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise click.BadParameter(f"expected the lower seed first, found {part!r}")
        seeds += range(first, last + 1)
    return seeds


@click.command(cls=Command, epilog=setting_help(TrainConfig))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--hierarchy",
    "hierarchies",
    multiple=True,
    type=HIERARCHY,
    help="The category tree: deepfashion-5, deepfashion-10 or a file; repeatable.",
)
@click.option("--method", "methods", multiple=True, type=Choice("method", METHODS), help="What to train; repeatable.")
@click.option("--seeds", callback=parse_seeds, metavar="A-B", help="Seeds, like 0-4 or 0,1,2.")
@settings(TrainConfig, "inner_labels", "epochs", "batch_size", "learning_rate")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder for the runs.")
@configuration(TrainConfig)
@reading_options
@jobs_option
@click.option("--overwrite", is_flag=True, help="Train runs again that are there already.")
def train(
    cache: Path,
    hierarchies: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: list[int],
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    jobs: int,
    overwrite: bool,
    labels: Path | None,
    allow_unlabelled: bool,
    stream: bool,
    **flags: Any,
) -> None:
    """Stage 2: train heads on a feature cache.

    Trains a head on the features in CACHE for every method, hierarchy and seed; the folder of --out gets a folder for
    each run. The epoch is picked on validation; the test split is used once, at the end. A run is not trained again if
    it is there already, from the same features, labels, hierarchy, settings and code.

    Without --method it takes flat+ps, which is recommended: no method is more accurate, and its guesses lie nearer in
    the tree than those of flat.

    \b
    Example:
      hfc train cache/own.h5 --hierarchy tree.csv --method flat --method flat+ps --seeds 0-2 --out cache/runs/own
    """
    axes = {"method": methods, "hierarchy": hierarchies, "seed": seeds}
    given = {name: values for name, values in axes.items() if values}
    configs = [
        build(TrainConfig, config_file, assignments, flags | dict(zip(given, values, strict=True)))
        for values in itertools.product(*given.values())
    ]
    refuse_no_hierarchy(*configs)
    reading: Reading = {"labels": labels, "allow_unlabelled": allow_unlabelled, "stream": stream}
    trained = run(cache, configs, out, jobs=jobs, overwrite=overwrite, **reading)
    print_json({"out": out, "runs": [_to_json(one, is_new) for one, is_new in trained]})


def run(
    path: Path,
    configs: Sequence[TrainConfig],
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    **reading: "Unpack[Reading]",
) -> "list[tuple[Run, bool]]":
    """Train some runs on one cache; show a progress bar, and a line of text for each.

    Args:
        path, configs, out, jobs, overwrite, reading: as for `hfc.train.stage.train_all`.

    Returns:
        The runs, and of each whether it was trained now.
    """
    trained: list[tuple[Run, bool]] = []
    rows, transforms = RowsUsed(), set[object]()
    with bar("loading", _total([config.epochs for config in configs]), unit="epoch") as shown:
        from hfc.train import train_all

        epochs = _Epochs(shown, configs)
        for one, is_new in train_all(
            path, configs, out, jobs=jobs, overwrite=overwrite, on_epoch=epochs.on_epoch, **reading
        ):
            rows.say(one.result.rows)
            transform = one.result.config["transform"]
            if configs[0].transform == "auto" and transform not in transforms:
                say(TRANSFORMS[str(transform)])
                transforms.add(transform)
            _say_run(one, is_new)
            epochs.on_run(one)
            trained.append((one, is_new))
    say(f"{len(configs)} runs in {out}; next: hfc report {out} --out DIR")
    return trained


class _Epochs:
    """Shows on a bar how many epochs are done."""

    def __init__(self, shown: Bar, configs: Sequence[TrainConfig]) -> None:
        self.shown = shown
        self.numbers = {_axes(plain(config)): number for number, config in reversed(list(enumerate(configs, 1)))}
        self.lengths = [config.epochs for config in configs]
        self.done = self.of_runs = 0

    def on_epoch(self, config: TrainConfig, epoch: "Epoch") -> None:
        """Count an epoch, and show which run it is of."""
        self.done += 1
        number = self._settle(plain(config), config.epochs)
        what = f"{number}/{len(self.lengths)} {config.method} seed {config.seed}"
        note = f"val {config.select} {epoch.val[config.select]:.3f}"
        self.shown.show(self.done, _total(self.lengths), what=what, note=note)

    def on_run(self, run: "Run") -> None:
        """Count all epochs of a run that is done; those of a run that was there already were never counted."""
        self._settle(run.result.config, run.result.settings.epochs)
        self.of_runs += run.result.settings.epochs
        self.done = max(self.done, self.of_runs)
        self.shown.show(self.done, _total(self.lengths))

    def _settle(self, config: Mapping[str, object], length: int) -> int:
        """Take note of how long a run is, which the data may have decided; returns its number."""
        number = self.numbers[_axes(config)]
        self.lengths[number - 1] = length
        return number


def _total(lengths: Sequence[int]) -> int | None:
    """Add up the epochs of runs; one that is not settled yet counts as the mean of the others. None: none is."""
    settled = [length for length in lengths if length != AUTO]
    return round(len(lengths) * sum(settled) / len(settled)) if settled else None


def _axes(config: Mapping[str, object]) -> tuple[object, ...]:
    """What tells the runs of one call apart, in settled settings as well."""
    return tuple(config[name] for name in ("method", "hierarchy", "seed", "train_share"))


def _say_run(run: "Run", is_new: bool) -> None:
    """Print how a run did on test."""
    result = run.result
    scores = "  ".join(f"top-{k} {100 * result.test[f'top{k}']:5.2f}" for k in result.settings.topk)
    note = f"{result.seconds.total:.1f} s" if is_new else "was there already"
    say(f"{run.folder.name}: test {scores}  ({note})")


def _to_json(run: "Run", is_new: bool) -> dict[str, object]:
    """A run as a JSON object."""
    content = run.result.plain()
    about = {name: run.result.config[name] for name in ("method", "hierarchy", "seed")}
    return {"folder": run.folder, "trained": is_new, **about, "test": content["test"], "rows": content["rows"]}
