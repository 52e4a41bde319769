"""`hfc ablation`: does the hierarchy help, and which method is best?"""

from pathlib import Path

import click

from cli.options import HIERARCHY, PLAN
from cli.output import Command, answer, say


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--hierarchy", required=True, type=HIERARCHY, help="deepfashion-5, deepfashion-10 or a CSV file.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder of findings.")
@click.option(
    "--plan",
    default="methods",
    show_default=True,
    type=PLAN,
    help="What to compare: methods, weightings or a TOML file.",
)
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes, each with CACHE in its memory."
)
def ablation(cache: Path, hierarchy: str, out: Path, plan: str, jobs: int) -> None:
    """Compare methods on CACHE fairly.

    The report says whether the hierarchy helps. Every method, the flat one included, gets the same search, which never
    sees the test split; its best settings are trained with seeds of their own and tested once. OUT gets search/, runs/
    and report/. Stopped half way, the same command goes on.

    \b
    The TOML file (those in the package stand in hfc/train/ablations/) has
      methods        which to compare, a row each
      [rows.NAME]    a further row: its method, and the settings that set it apart, like weighting = "dwa"
      search_seeds   of the search, averaged
      folds          of its cross-validation over training and validation rows; without it the validation split judges
      seeds          of the runs that are tested
      [grid]         a list of values for each setting to search
      [own.NAME]     the same for a setting that only this method or row has
    and any other setting of hfc train that is to stay fixed.

    \b
    Example:
      hfc ablation cache/own.h5 --hierarchy tree.csv --out cache/ablation
    """
    from hfc.report import write_report
    from hfc.train.ablation import ablation as stage
    from hfc.train.ablation import read_ablation

    comparison = read_ablation(plan, hierarchy)
    stage(cache, comparison, out, jobs=jobs)
    summary = write_report([out / "runs"], out / "report")
    say(summary.table)
    say(f"\n{comparison.trainings} trainings; settings chosen without the test split; report: {summary.folder}")
    answer({"trainings": comparison.trainings, "folder": out, "report": summary.folder, "files": summary.files})
