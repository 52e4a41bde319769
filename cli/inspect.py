"""`hfc inspect` and `hfc verify`: what is in a feature cache, and whether it is whole."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import images_option
from cli.output import Command, one_line, print_json, say
from hfc.config import MIN_COSINE
from hfc.errors import StoreError
from hfc.provenance import short

if TYPE_CHECKING:
    from hfc.store import Survey
    from hfc.store.survey import Crossing
    from hfc.store.twins import Twins

SHOWN = 10
RECORDED = ""  # in place of a folder: the one that the cache records
SEARCHED_ROWS = 20_000  # compared with each other in seconds, so without being asked


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--twins",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the twins into a folder: twins.csv, and twins.json for hfc report --twins.",
)
@images_option(
    "Show the twins in DIR/twins.html. ROOT is the folder, ZIP or TAR archive where image paths in CACHE begin."
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="The CSV file of hfc train --labels: count twins by its labels and splits.",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1, min_open=True),
    default=MIN_COSINE,
    show_default=True,
    help="Call rows twins if the cosine of their standardised features is at least this.",
)
def inspect(cache: Path, out: Path | None, images: Path | None, labels: Path | None, min_cosine: float) -> None:
    """Show what is in CACHE.

    Shows where the cache comes from, what it holds, and whether its features look right: their norms, dimensions that
    never change, rows that are equal, images that are there twice, and twins, which are nearly so: a photograph saved
    again, cropped, mirrored or brightened. In caches of more than 20,000 rows twins are looked for with --twins only,
    as it takes minutes.

    \b
    Examples:
      hfc inspect cache/own.h5
      hfc inspect cache/own.h5 --twins cache/twins --images photos
    """
    from hfc.store import survey

    if images and not out:
        raise click.UsageError("--images shows twins: give --twins DIR as well, the folder of their page")
    content = survey(cache)
    twins = _find_twins(cache, min_cosine, labels) if out or labels or content.shape[0] <= SEARCHED_ROWS else None
    for name, text in [*_origin(content), *_content(content), *_twin_lines(twins)]:
        say(one_line(f"  {name:<12} {text}" if name else f"{'':15}{text}"))
    record = None
    if twins:
        from hfc.report.twin_page import record_twins, write_twins

        record = record_twins(twins).plain()
        if out:
            files = write_twins(twins, out, images)
            say(f"\ntwins: {', '.join(map(str, files))}")
    print_json({**asdict(content), "twins": record})


def _find_twins(cache: Path, min_cosine: float, labels: Path | None) -> "Twins":
    """Search the rows of a cache, perhaps under other labels and splits."""
    from hfc.store import FeatureStore
    from hfc.store.twins import find_twins

    if not labels:
        return find_twins(cache, min_cosine)
    from hfc.train.labels import join_labels

    with FeatureStore(cache) as store:
        table = store.table()
    return find_twins(cache, min_cosine, replace(table, regions=join_labels(table.regions, labels)[0]))


def _twin_lines(twins: "Twins | None") -> list[tuple[str, str]]:
    """What is to be said of twins."""
    if twins is None:
        return [("twins", f"not looked for in more than {SEARCHED_ROWS:,} rows; give --twins DIR")]
    ids = twins.table.regions.id
    shared, tested = twins.with_twin_in_training("test")
    lines = [
        ("twins", f"{twins.rows} rows in {len(twins.sets)} sets of a cosine of {twins.min_cosine:g} or more"),
        ("", f"{twins.sets_across_splits} sets across splits, {twins.sets_of_several_labels} of several labels"),
        ("", f"{shared} of {tested} test rows have a twin in training"),
    ]
    return lines + [("", _some([str(ids[row]) for row in rows], " ~ ")) for rows in twins.sets[:SHOWN]]


def _origin(content: "Survey") -> list[tuple[str, str]]:
    """Where the cache came from."""
    config, origin = content.config, content.provenance
    weights, dataset, code = origin.get("weights", {}), origin.get("dataset", {}), origin.get("code", {})
    random = "  RANDOM WEIGHTS: for benchmarks only" if weights.get("random") else ""
    version = f"hfc {code.get('version')} {short(code.get('commit', ''))}"
    crops = ("image_size", "resize", "roi_margin", "pool", "views")
    lines = [
        ("cache", f"{content.path} ({content.bytes / 1e6:.1f} MB, every checksum right)"),
        ("key", content.key),
        ("data", f"{dataset.get('origin')} at {dataset.get('source')}"),
        ("backbone", f"{config.get('backbone')}{random}"),
        ("weights", f"{config.get('weights')}, SHA-256 {weights.get('digest', '')[:16]}…"),
        ("crops", ", ".join(f"{name} {config.get(name)}" for name in crops)),
        ("arithmetic", f"{config.get('precision')} on {origin.get('device')}, compiled: {config.get('compile')}"),
        ("made", f"{origin.get('created')} in {origin.get('seconds')} s by {version}"),
    ]
    for retry in origin.get("retries", []):
        text = f"{retry['created']}: {retry['rows']} rows, {retry['failed_again']} failed again"
        lines.append(("retried", text))
    for update in origin.get("updates", []):
        text = f"{update['created']}: {update['kept']} kept, {update['encoded']} encoded, {update['gone']} gone"
        lines.append(("updated", f"{text}, by hfc {update['code'].get('version')}"))
    return lines


def _content(content: "Survey") -> list[tuple[str, str]]:
    """What is in the cache."""
    n, v, d = content.shape
    labels = [f"{name or 'unknown'} {count}" for name, count in content.labels.items()]
    dead = _some([str(dimension) for dimension in content.dead])
    norms = "  ".join(f"{name} {value:.4g}" for name, value in content.norms.items())
    rows = sum(map(len, content.duplicates))
    lines = [
        ("features", f"{n} rows x {v} views x {d} numbers, {content.dtype}; SHA-256 {content.features_sha256[:16]}…"),
        ("splits", ", ".join(f"{name or 'unknown'} {count}" for name, count in sorted(content.splits.items()))),
        ("labels", f"{len(labels) - ('' in content.labels)}: {_some(labels)}"),
        ("norms", norms or "no row has features"),
        ("values", f"mean {content.mean:.4g}, {100 * content.zeros:.2f}% exactly zero"),
        ("dead", f"{len(content.dead)} dimensions never change{': ' if dead else ''}{dead}"),
        ("duplicates", f"{rows} rows in {len(content.duplicates)} sets of equal features"),
    ]
    lines += [("", _some(names, " = ")) for names in content.duplicates[:SHOWN]]
    lines += [*_copy_lines(content), _group_line(content.groups)]
    lines.append(("failures", str(len(content.failures))))
    lines += [("", f"{name}: {reason}") for name, reason in content.failures[:SHOWN]]
    if (more := len(content.failures) - SHOWN) > 0:
        lines.append(("", f"and {more} more"))
    return lines


def _copy_lines(content: "Survey") -> list[tuple[str, str]]:
    """What is to be said of images that are there more than once."""
    crossing = content.copies_crossing
    if crossing is None:
        return [("copies", "unknown: made by an earlier version, which did not keep its images' digests")]
    lines = [("copies", f"{crossing.rows} rows in {crossing.sets} sets of equal bytes{_crosses(crossing)}")]
    return lines + [("", _some(names, " = ")) for names in content.copies[:SHOWN]]


def _group_line(groups: "Crossing") -> tuple[str, str]:
    return ("groups", f"{groups.rows} rows in {groups.sets} groups{_crosses(groups)}" if groups.sets else "none")


def _crosses(crossing: "Crossing") -> str:
    return f": {crossing.across_splits} across splits, {crossing.of_several_labels} of several labels" * (
        crossing.sets > 0
    )


def _some(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--images",
    is_flag=False,
    flag_value=RECORDED,
    metavar="[ROOT]",
    help="Compare every image with its row, too. ROOT is the folder, ZIP or TAR archive where image paths in CACHE "
    "begin; without it, as CACHE has it.",
)
def verify(cache: Path, images: str | None) -> None:
    """Check every checksum in CACHE.

    The shards of an unfinished cache are checked too. With --images every file is read and compared with the SHA-256 of
    its row. If anything is damaged, changed or missing, the command says what it is, and the exit code is 1.

    \b
    Examples:
      hfc verify cache/own.h5
      hfc verify cache/own.h5 --images
    """
    from hfc.store import problems

    damage = list(problems(cache))
    changed = _changed(cache, images) if images is not None and not damage else []
    record: dict[str, object] = {"path": cache, "problems": damage}
    print_json(record if images is None else {**record, "changed": changed})
    for problem in damage[:-1]:
        say(problem, err=True)
    if damage:
        raise StoreError(damage[-1] + (f" ({len(damage)} problems in all)" if len(damage) > 1 else ""))
    say(f"{cache}: every checksum is right")
    for name, reason in changed:
        say(one_line(f"  {name}: {reason}"))
    if changed:
        raise StoreError(
            f"{cache}: {len(changed)} images are not those that it was made of; hfc extract brings it up to date"
        )
    if images is not None:
        say(f"{cache}: every image is the one that its row was made of")


def _changed(cache: Path, images: str | None) -> list[tuple[str, str]]:
    """Id and reason of every row whose image changed or is missing."""
    from hfc.datasets.reading import is_part
    from hfc.extract.fingerprints import compare
    from hfc.store import FeatureStore

    with FeatureStore(cache) as store:
        table = store.table()
    if table.fingerprints is None:
        raise StoreError(
            f"{cache}: made by an earlier version of hfc, which did not keep what tells whether an image has changed; "
            "hfc extract does so when it brings the cache up to date"
        )
    root = table.regions.root if images == RECORDED else Path(images or "")
    if not (root.exists() or is_part(root)):
        raise StoreError(f"{root}: no such folder, in which the images of {cache} were; give --images ROOT")
    return compare(table, root)
