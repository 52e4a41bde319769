"""`hfc predict`: pixels to a path in the tree."""

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.extract import SOME_FAILED
from cli.options import Choice, settings
from cli.output import Command, one_line
from hfc.config import PredictConfig
from hfc.progress import steps

if TYPE_CHECKING:
    from hfc.predict import Classifier
    from hfc.predict.head import Answer

Box = tuple[float, float, float, float]


def parse_box(context: click.Context, parameter: click.Parameter, text: str | None) -> Box | None:
    """The four corners of --box."""
    if text is None:
        return None
    from hfc.regions import coordinate

    try:
        x1, y1, x2, y2 = map(coordinate, text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected four numbers x1,y1,x2,y2 in pixels, found {text!r}") from None
    if not (x1 < x2 and y1 < y2):
        raise click.BadParameter(f"expected x1 < x2 and y1 < y2, found {text!r}")
    return x1, y1, x2, y2


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@click.option("--box", metavar="X1,Y1,X2,Y2", callback=parse_box, help="Where the garment is in each IMAGE, in pixels.")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A CSV file of images (path and optionally id,x1,y1,x2,y2) instead of IMAGE.",
)
@settings(PredictConfig, "top", "min_confidence")
@click.option(
    "--format",
    "form",
    type=Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="For eyes, a JSON object a line, or CSV with a row an image.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json: an object a line.")
@settings(PredictConfig, "weights", "precision", "compile", "batch_size", "workers", "device", "outside_root")
@click.pass_context
def predict(
    context: click.Context,
    /,
    run: Path,
    images: tuple[Path, ...],
    box: Box | None,
    manifest: Path | None,
    form: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Classify images with RUN: the path in its tree, with probabilities.

    IMAGE is a file or a folder, whose images are found in and below it. Crops, backbone and weights are those that RUN
    records; RUN is the folder of a run, or one that hfc export --hf made. The answers come in the order of the images.
    An image that cannot be read gets its reason in place of an answer, and the exit code is 3.

    \b
    Example:
      hfc predict cache/runs/own/levels+path--tree--seed0--1a2b3c4d photos/new.jpg --top 3

    \b
    --format json gives an object a line:
      {"id": "a.jpg", "path": ["full-body", "Dress"], "probabilities": [0.91, 0.83],
       "top": [{"path": ["full-body", "Dress"], "probability": 0.83}, ...]}
      {"id": "b.jpg", "error": "the file is empty"}

    \b
    --format csv has a column a level under its name; " level" stands behind one that another column has (id, error).
    """
    if manifest and (images or box):
        raise click.UsageError(
            "give IMAGE, perhaps with --box, or --manifest, not both: a manifest has boxes of its own"
        )
    if not manifest and not images:
        raise click.UsageError("no images: give files or folders, or --manifest FILE")
    from hfc.config import resolve
    from hfc.datasets.manifest import UNLABELLED
    from hfc.datasets.manifest import read as read_manifest
    from hfc.predict.classifier import Classifier, as_regions, find_images

    given = {name: value for name, value in flags.items() if value is not None}
    config = resolve(PredictConfig, given)
    regions = (
        read_manifest(manifest, outside_root=config.outside_root, required=UNLABELLED)
        if manifest
        else as_regions(find_images(images), box)
    )
    classifier = Classifier.load(run, **given)
    line = FORMATS["json" if as_json else form](classifier)
    failed = 0
    answers = classifier.stream(regions)
    if not sys.stdout.isatty():  # on a screen the answers themselves show how far it is
        answers = steps(answers, "predict", len(regions))
    for answer in answers:
        click.echo(line(answer), nl=False)
        failed += bool(answer.error)
    if failed:
        click.echo(f"{failed} of {len(regions)} images could not be read", err=True)
        context.exit(SOME_FAILED)


Line = Callable[["Answer"], str]


def _as_table(classifier: "Classifier") -> Line:
    waiting = ["RANDOM WEIGHTS: for benchmarks only\n"] * classifier.trained.random_weights

    def line(answer: "Answer") -> str:
        others = answer.top if len(answer.path) < len(classifier.trained.hierarchy.levels) else answer.top[1:]
        lines = [f"{answer.id}: {answer}", *(f"    {' > '.join(leaf.path)} {leaf.probability:.2f}" for leaf in others)]
        return (waiting.pop() if waiting else "") + "".join(f"{one_line(one)}\n" for one in lines)

    return line


def _as_json(classifier: "Classifier") -> Line:
    mark = {"random_weights": True} if classifier.trained.random_weights else {}

    def line(answer: "Answer") -> str:
        found: dict[str, object] = {"id": _utf8(answer.id)}
        if answer.error:
            found["error"] = _utf8(answer.error)
        else:
            found["path"] = answer.path
            found["probabilities"] = [round(p, 6) for p in answer.probabilities]
            found["top"] = [{"path": leaf.path, "probability": round(leaf.probability, 6)} for leaf in answer.top]
        return json.dumps(found | mark) + "\n"  # in ASCII: names may hold U+2028 and its like, where others split lines

    return line


def _as_csv(classifier: "Classifier") -> Line:
    """A row an image: the path a column a level, their probabilities, the best leaves, and why there is none."""
    count = min(classifier.settings.top, len(classifier.trained.hierarchy.leaves))
    places = [name for k in range(1, count + 1) for name in (f"top{k}", f"top{k} probability")]
    levels = classifier.trained.hierarchy.columns(["id", *places, "error", "random_weights"])
    header = ["id", *levels, *(f"{level} probability" for level in levels), *places, "error"]
    random = classifier.trained.random_weights
    waiting = [_row(header + ["random_weights"] * random)]

    def line(answer: "Answer") -> str:
        blank = [""] * (len(levels) - len(answer.path))
        chances = [f"{p:.6f}" for p in answer.probabilities]
        best = [cell for leaf in answer.top for cell in (leaf.path[-1], f"{leaf.probability:.6f}")]
        best += [""] * (len(places) - len(best))
        cells = [_utf8(answer.id), *answer.path, *blank, *chances, *blank, *best, _utf8(answer.error)]
        return (waiting.pop() if waiting else "") + _row(cells + ["true"] * random)

    return line


def _row(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _utf8(text: str) -> str:
    """Text for a file in UTF-8; bytes of a file name that are not become a replacement sign."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


FORMATS: dict[str, Callable[["Classifier"], Line]] = {"table": _as_table, "json": _as_json, "csv": _as_csv}
