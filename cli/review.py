"""`hfc review`: the labels of a cache that the collection itself contradicts."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from cli.options import (
    HIERARCHY,
    Choice,
    build,
    configuration,
    images_option,
    jobs_option,
    reading_options,
    refuse_no_hierarchy,
)
from cli.output import Command, one_line, print_json, say
from hfc.config import METHODS, REVIEW_FOLDS, TrainConfig

if TYPE_CHECKING:
    from hfc.report.review_page import ReviewRecord
    from hfc.train.cache import Reading

SHOWN = 10


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--hierarchy", type=HIERARCHY, help="The category tree: deepfashion-5, deepfashion-10 or a file.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for review.csv, review.json and review.html.",
)
@images_option(
    "Show the doubtful labels in review.html. ROOT is the folder, ZIP or TAR archive where image paths in CACHE begin."
)
@click.option("--method", type=Choice("method", METHODS), help="What judges the labels.")
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    default=REVIEW_FOLDS,
    show_default=True,
    help="In how many parts labels are judged, each by a head trained on the others.",
)
@click.option("--seed", type=int, help="Seed of the trainings.")
@click.option("--most", type=click.IntRange(min=1), help="List so many doubtful labels at most.")
@configuration(TrainConfig)
@reading_options
@jobs_option
def review(
    cache: Path,
    out: Path,
    images: Path | None,
    folds: int,
    most: int | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    jobs: int,
    hierarchy: str | None,
    method: str | None,
    seed: int | None,
    **reading: "Unpack[Reading]",
) -> None:
    """List labels that look wrong.

    Every row of CACHE that a leaf of the tree labels, whatever its split, is judged by a head that saw neither it nor
    another row of its group. Rows with an inner node as a label are trained on, and not judged. Listed are the labels
    that are least probable, the most doubtful first. Look at the pictures in OUT/review.html, and write the right
    labels into the column `label` of OUT/review.csv. A row that you delete keeps its label, and one whose label you
    make blank has none. hfc train --labels takes the file.

    \b
    Example:
      hfc review cache/own.h5 --hierarchy tree.csv --images photos --out cache/review
    """
    config = build(TrainConfig, config_file, assignments, {"hierarchy": hierarchy, "method": method, "seed": seed})
    refuse_no_hierarchy(config)
    from hfc.report.review_page import write_review
    from hfc.train.review import held_out

    held = held_out(cache, config, folds, jobs=jobs, **reading)
    record, files = write_review(held, cache, out, images=images, most=most)
    _say_record(record)
    say(f"review: {', '.join(map(str, files))}")
    words = f"hfc train {cache} --hierarchy {config.hierarchy} --labels {files[0]} --out RUNS"
    say(f"next: correct the column label of {files[0]}, then {words}")
    print_json({**record.plain(), "files": files})


def _say_record(record: "ReviewRecord") -> None:
    """Print how many labels are doubtful, and which are taken for which."""
    lone = f"; {len(record.lone)} rows cannot be judged, as no row outside their fold has their label"
    inner = f"; {record.inner} rows have an inner label, and are not judged"
    more = (lone if record.lone else "") + (inner if record.inner else "")
    say(f"{record.judged} labels judged in {record.folds} folds{more}")
    say(
        f"{record.doubtful} are doubtful, for {record.doubtful_siblings} a sibling and for "
        f"{record.doubtful_strangers} a leaf of another parent is more probable; {len(record.rows)} are listed"
    )
    say(f"by estimate {record.estimated_error_rate:.1%} of the labels are wrong, or fewer where the head is weak")
    for pair in record.pairs[:SHOWN]:
        say(one_line(f"  {pair.label} for {pair.suggested}: {pair.listed} listed, {pair.estimated:.0f} by estimate"))
