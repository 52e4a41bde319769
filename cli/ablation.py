"""`hfc ablation`: does the hierarchy help, and which method is best?"""

from pathlib import Path

import click

from cli.options import HIERARCHY, PLAN, jobs_option
from cli.output import Command, RowsUsed, print_json, say


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--hierarchy", required=True, type=HIERARCHY, help="The category tree: deepfashion-5, deepfashion-10 or a file."
)
@click.option(
    "--plan",
    default="methods",
    show_default=True,
    type=PLAN,
    help="What to compare: methods, weightings, nested or a TOML file.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder for the results."
)
@click.option(
    "--outer-folds",
    default=0,
    show_default=True,
    metavar="K",
    help="Nested cross-validation: test every labelled image of CACHE once, in K outer folds. The search of a fold "
    "never uses its images. 0: the splits of CACHE.",
)
@jobs_option
def ablation(cache: Path, hierarchy: str, plan: str, out: Path, outer_folds: int, jobs: int) -> None:
    """Compare methods on CACHE fairly.

    The report says whether the hierarchy helps. Every method, also the flat one, gets the same search for its settings,
    which never uses the test split; then its best settings are trained with other seeds and tested once. OUT gets the
    folders search/, runs/ and report/. If the command is interrupted, run it again: it continues where it stopped.

    \b
    The TOML file of --plan (see those in hfc/train/ablations/) has
      methods        the methods to compare, a row each
      [rows.NAME]    a further row: its method, and the settings that are its own, like weighting = "dwa"
      search_seeds   the seeds of the search, which are averaged
      folds          the folds of cross-validation in the search; without it the validation split judges
      seeds          the seeds of the runs that are tested
      [grid]         a list of values for each setting to search
      [own.NAME]     the same for a setting that only this method or row has
    and any other setting of hfc train that stays fixed, like inner_labels.

    A small test split tells few methods apart. With --outer-folds K all images are dealt into K parts, groups kept
    together. Each part is tested by runs that were tuned and trained on the others alone, and the report has one row a
    method, over all images.

    \b
    Examples:
      hfc ablation cache/own.h5 --hierarchy tree.csv --out cache/ablation
      hfc ablation cache/own.h5 --hierarchy tree.csv --plan nested --outer-folds 5 --out cache/nested
    """
    from hfc.report import write_report
    from hfc.train.ablation import ablation as stage
    from hfc.train.ablation import read_ablation

    comparison, used = read_ablation(plan, hierarchy, outer_folds), RowsUsed()
    stage(cache, comparison, out, jobs=jobs, on_rows=used.say)
    summary = write_report([out / "runs"], out / "report")
    say(summary.table)
    without = "images of the outer fold" if outer_folds else "test split"
    say(f"\n{comparison.trainings} trainings; settings chosen without the {without}; report: {summary.folder}")
    rows = [one.plain() for one in used.all]
    written = {"folder": out, "report": summary.folder, "files": summary.files}
    print_json({"trainings": comparison.trainings, "rows": rows, **written})
