"""`hfc export`: a run for other programs."""

from pathlib import Path
from typing import Any

import click

from cli.options import settings
from cli.output import Command, print_json, say
from hfc.config import PredictConfig


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--onnx", type=click.Path(path_type=Path, dir_okay=False), help="Write an ONNX graph, FILE.onnx.")
@click.option("--hf", type=click.Path(path_type=Path, file_okay=False), help="Write a folder in Hugging Face layout.")
@click.option("--with-backbone", is_flag=True, help="Include the backbone: crops go in, not features.")
@settings(PredictConfig, "weights")
def export(run: Path, onnx: Path | None, hf: Path | None, with_backbone: bool, **flags: Any) -> None:
    """Write RUN for other programs.

    Writes an ONNX graph, a folder in Hugging Face layout, or both, each with a model card. The graph takes features, or
    crops with --with-backbone, and gives the probabilities of the leaves and of every level. It is compared with RUN in
    onnxruntime (extra onnx): if they differ, the graph is not kept. hfc predict takes the folder of --hf as RUN.

    \b
    Example:
      hfc export cache/runs/own/flat+ps--tree--seed0--1a2b3c4d --onnx model/own.onnx --hf model/hf
    """
    if not onnx and not hf:
        raise click.UsageError("say what to write: --onnx FILE, --hf DIR or both")
    from hfc.predict.export import export_hf, export_onnx, exported_files

    files: list[Path] = []
    given = {name: value for name, value in flags.items() if value is not None}
    if onnx:
        written = export_onnx(run, onnx, with_backbone=with_backbone, **given)
        size = written.file.stat().st_size / 1e6
        say(f"{written.file}: {size:.1f} MB; greatest difference to the run in onnxruntime: {written.difference:.1e}")
        say(f"{written.card}: its model card")
        files += [written.file, written.card]
    if hf:
        export_hf(run, hf, with_backbone=with_backbone, **given)
        inside = exported_files(hf)
        say(f"{hf}: {', '.join(file.name for file in inside)}")
        files += inside
    print_json({"run": run, "files": files})
