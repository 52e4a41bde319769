"""`hfc predict`: pixels to a path in the tree."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from cli.extract import SOME_FAILED
from cli.options import Choice, settings
from cli.output import Command, one_line
from hfc.config import PredictConfig, resolve
from hfc.progress import steps

if TYPE_CHECKING:
    from hfc.predict import FeatureClassifier
    from hfc.predict.answers import Answer
    from hfc.regions import Regions

Box = tuple[float, float, float, float]
# What classifies, its answers, and how many there are.
Opened: TypeAlias = "tuple[FeatureClassifier, Iterator[Answer], int]"


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
@click.option(
    "--box", metavar="X1,Y1,X2,Y2", callback=parse_box, help="Corners of the garment in every IMAGE, in pixels."
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A CSV file that lists the images (path and optionally id,x1,y1,x2,y2), instead of IMAGE.",
)
@click.option(
    "--best",
    is_flag=True,
    help="RUN is a folder of runs; take the one with the highest top-1 on validation, and say which.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A feature cache whose rows are classified, instead of IMAGE; it must be made under the settings of RUN.",
)
@settings(PredictConfig, "top", "min_confidence", "target_precision", "within")
@click.option(
    "--format",
    "form",
    type=Choice("format", ["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="table: text to read; json: an object a line; csv: a row an image.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json: one object a line.")
@settings(PredictConfig, "weights", "precision", "compile", "batch_size", "workers", "device", "outside_root", "remote")
@click.pass_context
def predict(
    context: click.Context,
    /,
    run: Path,
    images: tuple[Path, ...],
    box: Box | None,
    manifest: Path | None,
    best: bool,
    cache: Path | None,
    form: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Classify images with RUN.

    An answer is a path in the tree of RUN, with probabilities. RUN is the folder of a run, or one that hfc export --hf
    made; it records which crops, backbone and weights to use. IMAGE is a file, or a folder, ZIP or TAR archive with
    images in or below it. The answers come in its order; for an image that cannot be read the reason, and exit code 3.
    With --cache the rows of a feature cache are classified, and no image is read.

    \b
    Example:
      hfc predict cache/runs/own/flat+ps--tree--seed0--1a2b3c4d photos/new.jpg --top 3 --within tops
      hfc predict cache/runs/own --best photos/new.jpg

    \b
    --format json prints one object a line:
      {"id": "a.jpg", "path": ["full-body", "Dress"], "probabilities": [0.91, 0.83],
       "top": [{"path": ["full-body", "Dress"], "probability": 0.83}, ...]}
      {"id": "b.jpg", "error": "the file is empty"}

    --format csv has a column for every level, blank below an answer; " level" is added to a name that another one has.

    With --within the leaves below that node share all probability, and --min-confidence climbs to the node at most;
    JSON and CSV say "within". Of a name that several nodes have, give the path; "> Tops" begins at the root.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if cache:
        _refuse_beside_cache(given, images=bool(images), box=bool(box), manifest=bool(manifest))
        opened = _cached(_chosen(run, best), cache, given)
    else:
        regions = _regions(images, box, manifest, given)
        opened = _classified(_chosen(run, best), regions, given)
    _print(context, *opened, "json" if as_json else form)


def _chosen(folder: Path, best: bool) -> Path:
    """The folder of a run; of the best of the runs below it, if asked for, which is said."""
    if not best:
        return folder
    from hfc.predict.best import best_on_validation

    run, count = best_on_validation(folder)
    top1 = 100 * run.result.selected.val["top1"]
    click.echo(one_line(f"best of {count} runs on validation, top-1 {top1:.2f}: {run.folder}"), err=True)
    return run.folder


def _refuse_beside_cache(given: Mapping[str, object], **others: bool) -> None:
    """Refuse what says which images to read, or how, where none is read."""
    from hfc.predict.features import SETTINGS

    names = [name for name, is_there in others.items() if is_there] + [name for name in given if name not in SETTINGS]
    if names:
        name = "IMAGE" if names[0] == "images" else f"--{names[0].replace('_', '-')}"
        raise click.UsageError(f"--cache reads no image; leave {name} out")


def _cached(run: Path, cache: Path, given: Mapping[str, object]) -> Opened:
    """The answers for a cache's rows."""
    from hfc.predict import FeatureClassifier
    from hfc.store import FeatureStore

    classifier = FeatureClassifier.load(run, **given)
    with FeatureStore(cache) as store:
        return classifier, classifier.cached(cache), store.shape[0]


def _classified(run: Path, regions: "Regions", given: Mapping[str, object]) -> Opened:
    """The answers for images."""
    from hfc.predict import Classifier

    classifier = Classifier.load(run, **given)
    return classifier, classifier.stream(regions), len(regions)


def _print(
    context: click.Context, classifier: "FeatureClassifier", answers: Iterator["Answer"], total: int, form: str
) -> None:
    """Print the answers, and end with exit code 3 if images could not be read."""
    _tell_promise(classifier)
    if not sys.stdout.isatty():  # on a screen the answers themselves show how far it is
        answers = steps(answers, "predict", total)
    failures: list[str] = []
    for line in FORMATS[form](_noting(answers, failures), classifier):
        click.echo(line)
    if failures:
        click.echo(f"{len(failures)} of {total} images could not be read", err=True)
        context.exit(SOME_FAILED)


def _tell_promise(classifier: "FeatureClassifier") -> None:
    """Say what is promised of the answers, where that was asked for."""
    promise, kept = classifier.trained.run.result.promise, classifier.kept
    if promise and kept:
        target = f"{100 * classifier.settings.target_precision:g}%"
        click.echo(
            f"answers have a probability of {kept.threshold:.4f} at least: with {promise.confidence:.0%} confidence "
            f"{target} of those below the root are right, as {promise.proof.rows} rows set aside prove",
            err=True,
        )


def _regions(
    images: tuple[Path, ...], box: Box | None, manifest: Path | None, flags: Mapping[str, object]
) -> "Regions":
    """Read the table of what to classify."""
    if manifest and (images or box):
        raise click.UsageError(
            "give IMAGE, perhaps with --box, or --manifest, not both: a manifest has boxes of its own"
        )
    if urls := [str(image) for image in images if re.match(r"https?:/|s3:/", str(image)) and not image.exists()]:
        raise click.UsageError(f"{urls[0]}: images on the network are named in a --manifest, and read with --remote")
    if not manifest and not images:
        raise click.UsageError("no images: give files or folders, or --manifest FILE")
    from hfc.datasets.manifest import UNLABELLED, read
    from hfc.datasets.remote import Downloads
    from hfc.predict.sources import as_regions, find_images

    config = resolve(PredictConfig, flags)
    if manifest:
        remote = Downloads() if config.remote else None
        return read(manifest, outside_root=config.outside_root, remote=remote, required=UNLABELLED)
    return as_regions(find_images(images), box)


def _noting(answers: Iterable["Answer"], failures: list[str]) -> Iterator["Answer"]:
    """Pass the answers on, and put the ids of unreadable images into a list."""
    for answer in answers:
        if answer.error:
            failures.append(answer.id)
        yield answer


def _as_table(answers: Iterable["Answer"], classifier: "FeatureClassifier") -> Iterator[str]:
    """An answer a line, and the next best leaves below it."""
    for number, answer in enumerate(answers):
        if number == 0 and classifier.trained.random_weights:
            yield "RANDOM WEIGHTS: for benchmarks only"
        yield one_line(f"{answer.id}: {answer}")
        for leaf in answer.top if answer.climbed else answer.top[1:]:
            yield one_line(f"    {' > '.join(leaf.path)} {leaf.probability:.2f}")


def _as_json(answers: Iterable["Answer"], classifier: "FeatureClassifier") -> Iterator[str]:
    """An object a line. In ASCII, as other programs split lines at U+2028 and its like."""
    mark = {"random_weights": True} if classifier.trained.random_weights else {}
    for answer in answers:
        yield json.dumps(answer.to_dict() | mark)


def _as_csv(answers: Iterable["Answer"], classifier: "FeatureClassifier") -> Iterator[str]:
    """A header and a row an answer."""
    from hfc.predict.answers import AnswerTable

    within = classifier.within
    top = min(classifier.settings.top, len(within.leaves))
    chosen = bool(classifier.settings.batch_size)
    table = AnswerTable(classifier.trained.hierarchy, top, within=bool(within.path), batch_size=chosen)
    random = classifier.trained.random_weights
    for number, answer in enumerate(answers):
        if number == 0:
            yield _csv_line(table.header + ["random_weights"] * random)
        yield _csv_line(table.row(answer) + ["true"] * random)


def _csv_line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue().removesuffix("\n")


FORMATS: dict[str, Callable[[Iterable["Answer"], "FeatureClassifier"], Iterator[str]]] = {
    "table": _as_table,
    "json": _as_json,
    "csv": _as_csv,
}
