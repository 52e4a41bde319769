"""`hfc curve`: accuracy against the number of training images."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from cli import train
from cli.options import HIERARCHY, Choice, build, configuration, jobs_option, reading_options, refuse_no_hierarchy
from cli.output import Command, one_line, print_json, say
from hfc.config import METHODS, TrainConfig

if TYPE_CHECKING:
    from hfc.train.cache import Reading


def parse_shares(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...]:
    """Parse `0.1,0.5,1` to shares."""
    try:
        shares = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        shares = (0.0,)
    if not all(0 < share <= 1 for share in shares):
        raise click.BadParameter(f"expected shares above 0 to 1 like 0.25,0.5,1, found {text!r}")
    return shares


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--hierarchy", type=HIERARCHY, help="The category tree: deepfashion-5, deepfashion-10 or a file.")
@click.option("--method", "methods", multiple=True, type=Choice("method", METHODS), help="What to train; repeatable.")
@click.option(
    "--seeds",
    callback=train.parse_seeds,
    default="0-2",
    show_default=True,
    metavar="A-B",
    help="Seeds, each of which draws images of its own.",
)
@click.option(
    "--shares",
    callback=parse_shares,
    metavar="A,B",
    help="Shares of the training images; without them all, half of them and so on, down to two a class.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder for the runs.")
@configuration(TrainConfig)
@reading_options
@jobs_option
def curve(
    cache: Path,
    hierarchy: str | None,
    methods: tuple[str, ...],
    seeds: list[int],
    shares: tuple[float, ...],
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    jobs: int,
    **reading: "Unpack[Reading]",
) -> None:
    """Say how many photographs are enough.

    Trains every method on nested shares of the training images of CACHE, whole groups drawn by hash in each class, and
    tests all of them on the same test split. A power law is fitted to the errors, and says what twice as many images
    would bring. Each point is a run in the folder of --out; if the command is interrupted, run it again: it continues
    where it stopped. hfc report draws the curves.

    \b
    Example:
      hfc curve cache/own.h5 --hierarchy tree.csv --method flat --method flat+ps --out cache/curve
    """
    given = [{"method": method} for method in methods] or [{}]
    configs = [
        build(TrainConfig, config_file, assignments, {**method, "hierarchy": hierarchy, "seed": seed})
        for method in given
        for seed in seeds
    ]
    refuse_no_hierarchy(*configs)
    from hfc.report import curve as curves
    from hfc.report.texts import columns
    from hfc.train.curve import points

    trained = train.run(cache, points(cache, configs, shares, jobs, **reading), out, jobs=jobs, **reading)
    known = curves.read_curves([run for run, _ in trained])
    for table in curves.tables(known):
        say(f"\n{table.title}")
        say(columns([table.header, *([cell.text for cell in row] for row in table.rows)]))
    for one in known:
        say(one_line(f"\n{curves.answer(one)}".strip()))
    print_json({"out": out, "runs": [run.folder for run, _ in trained], "curves": [one.to_json() for one in known]})
