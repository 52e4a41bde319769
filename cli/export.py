"""`hfc export`: a run for other programs."""

from pathlib import Path
from typing import Any

import click

from cli.options import settings
from hfc.config import PredictConfig


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--onnx", type=click.Path(path_type=Path, dir_okay=False), help="Write an ONNX graph, FILE.onnx.")
@click.option("--hf", type=click.Path(path_type=Path, file_okay=False), help="Write a folder in Hugging Face layout.")
@click.option("--with-backbone", is_flag=True, help="From crops on, not from features on.")
@settings(PredictConfig, "weights")
def export(run: Path, onnx: Path | None, hf: Path | None, with_backbone: bool, **flags: Any) -> None:
    """Write RUN as an ONNX graph, as a folder in Hugging Face layout, or both, each with a model card.

    The graph is the head alone, features in, or with the backbone crops in; probabilities of the leaves and of every
    level come out. It is compared with RUN in onnxruntime (extra onnx) and not kept if they differ. The folder of --hf
    serves as RUN for hfc predict.
    """
    if not onnx and not hf:
        raise click.UsageError("name what to write: --onnx FILE or --hf DIR")
    from hfc.export import export_hf, export_onnx

    given = {name: value for name, value in flags.items() if value is not None}
    if onnx:
        written = export_onnx(run, onnx, with_backbone=with_backbone, **given)
        size = written.file.stat().st_size / 1e6
        click.echo(
            f"{written.file}: {size:.1f} MB; greatest difference to the run in onnxruntime: {written.difference:.1e}"
        )
        click.echo(f"{written.card}: its model card")
    if hf:
        written = export_hf(run, hf, with_backbone=with_backbone, **given)
        click.echo(f"{written.file}: {', '.join(sorted(file.name for file in written.file.iterdir()))}")
