"""`hfc demo`: the whole pipeline on drawn pictures."""

import shutil
from pathlib import Path

import click

from cli import extract, train
from hfc.config import (
    DEMO_EXTRACT,
    DEMO_HIERARCHIES,
    DEMO_METHODS,
    ExtractConfig,
    SampleConfig,
    TrainConfig,
    resolve,
)


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("cache/demo"),
    show_default=True,
    help="The folder of everything the demo makes.",
)
def demo(out: Path) -> None:
    """Draw pictures, extract their features, train three methods on two hierarchies and print the results table."""
    from hfc.datasets.sample import draw_sample
    from hfc.report import write_report

    sample = SampleConfig()
    click.echo(f"1/4 drawing {sample.images} pictures of garments: they are drawn by a program, not photographed")
    shutil.rmtree(out / "sample", ignore_errors=True)
    draw_sample(out / "sample", images=sample.images, seed=sample.seed)
    click.echo("2/4 extracting features with EfficientNet-Lite0's ImageNet weights")
    extract.run(out / "sample", out / "sample.h5", resolve(ExtractConfig, DEMO_EXTRACT), overwrite=True)
    click.echo("3/4 training")
    configs = [
        resolve(TrainConfig, {"method": method, "hierarchy": hierarchy})
        for hierarchy in DEMO_HIERARCHIES
        for method in DEMO_METHODS
    ]
    shutil.rmtree(out / "runs", ignore_errors=True)
    train.run(out / "sample.h5", configs, out / "runs")
    click.echo("4/4 reporting\n")
    summary = write_report([out / "runs"], out / "report")
    click.echo(summary.table)
    click.echo("\nThe pictures are drawn: these figures show that the pipeline works, and nothing about real clothes.")
    click.echo(f"report: {out / 'report' / 'report.html'}")
