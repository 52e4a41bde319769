"""`hfc report`: runs to tables, pictures and a page."""

from pathlib import Path

import click

from cli.options import images_option
from cli.output import Command, print_json, say


@click.command(cls=Command)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@images_option(
    "Show the worst mistakes. ROOT is the folder, ZIP or TAR archive where the image paths in the cache begin."
)
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Show what changed from the runs in folder A to those in folder B, instead of a report.",
)
@click.option(
    "--twins",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Show each accuracy with and without the test images that have a twin in training. DIR is that of hfc inspect "
    "--twins.",
)
@click.option(
    "--baseline",
    metavar="NAME",
    help="Compare every method with this one alone, and give every metric an interval. NAME is a method (of "
    "several rows the best), a row of a plan or a label of the table. For the outer folds of hfc ablation it is flat "
    "by default.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder of the report; not needed with --compare.")
def report(
    runs: tuple[Path, ...],
    images: Path | None,
    compare: tuple[Path, Path] | None,
    twins: Path | None,
    baseline: str | None,
    out: Path | None,
) -> None:
    """Build the report of RUNS.

    RUNS are folders: every run in and below them is read. The folder of --out gets report.html (one page that needs no
    network), report.md, table1.tex, results.csv, results.json, differences.csv and figures/ (every picture as SVG and
    its numbers as CSV); with a baseline methods.tex too.

    \b
    Examples:
      hfc report cache/runs --out cache/report --images photos
      hfc report --compare cache/runs/before cache/runs/after --out cache/changes
    """
    from hfc.report import write_comparison, write_report

    if compare:
        if runs or images or twins or baseline:
            raise click.UsageError("give either RUNS, perhaps with --images, or --compare A B, not both")
        summary = write_comparison(*compare, out)
    elif not runs:
        raise click.UsageError("name the folders of RUNS, or two folders with --compare A B")
    elif not out:
        raise click.UsageError("Missing option '--out': the folder of the report")
    else:
        summary = write_report(runs, out, images=images, twins=twins, baseline=baseline)
    say(summary.table)
    say(f"\n{summary.runs} runs" + (f"; report: {summary.files[0]}" if summary.files else ""))
    concluded = {"verdict": summary.verdicts, "table": summary.rows, "wrong": summary.wrong}
    print_json({"folder": out, "runs": summary.runs, "files": summary.files, **concluded})
