"""`hfc report`: runs to tables."""

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the report.")
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Build the results tables of every run in and below the folders RUNS."""
    from hfc.report import write_report

    summary = write_report(runs, out)
    click.echo(summary.table)
    click.echo(f"\n{summary.runs} runs; report: {out / 'report.md'}")
