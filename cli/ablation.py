"""`hfc ablation`: does the hierarchy help, and which method is best?"""

from pathlib import Path

import click


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--hierarchy", required=True, help="deepfashion-5, deepfashion-10 or a CSV file.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder of findings.")
@click.option(
    "--plan", "file", type=click.Path(path_type=Path, dir_okay=False), help="A TOML file; else the one in the package."
)
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes, each with CACHE in its memory."
)
def ablation(cache: Path, hierarchy: str, out: Path, file: Path | None, jobs: int) -> None:
    """Compare all methods on CACHE fairly, and report whether the hierarchy helps.

    Every method, the flat one included, gets the same search on the validation split; its best settings are trained
    with seeds of their own and tested once. OUT gets search/, runs/ and report/. Stopped half way, the same command
    goes on.

    \b
    The TOML file (hfc/ablation.toml where none is given) has
      methods        which to compare
      search_seeds   of the search, averaged
      seeds          of the runs that are tested
      [grid]         a list of values for each setting to search
    and any other setting of hfc train that is to stay fixed.

    \b
    Example:
      hfc ablation cache/own.h5 --hierarchy tree.csv --out cache/ablation
    """
    from tqdm import tqdm

    from hfc.ablation import ablation as stage
    from hfc.ablation import read_ablation
    from hfc.report import write_report

    plan = read_ablation(file, hierarchy)
    with tqdm(total=plan.trainings, unit="run", dynamic_ncols=True, leave=False, disable=None) as bar:

        def report(doing: str, done: int) -> None:
            bar.set_description(doing, refresh=False)
            bar.n = done
            bar.refresh()

        stage(cache, plan, out, jobs=jobs, report=report)
    summary = write_report([out / "runs"], out / "report")
    click.echo(summary.table)
    click.echo(f"\n{plan.trainings} trainings; settings chosen on validation alone; report: {summary.folder}")
