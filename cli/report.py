"""`hfc report`: runs to tables."""

from pathlib import Path

import click

from cli.output import Command, answer, say


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the report.")
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Build the results tables of RUNS.

    Of every run in and below these folders.

    \b
    Example:
      hfc report cache/runs/own --out cache/report
    """
    from hfc.report import write_report

    summary = write_report(runs, out)
    say(summary.table)
    say(f"\n{summary.runs} runs; report: {out / 'report.md'}")
    answer({"folder": summary.folder, "runs": summary.runs, "files": summary.files})
