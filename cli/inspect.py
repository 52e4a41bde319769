"""`hfc inspect`: what is in a feature cache."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import HIERARCHY, images_option
from cli.output import Command, one_line, print_json, say
from hfc.config import MIN_COSINE
from hfc.errors import HierarchyError
from hfc.provenance import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hfc.store import Survey, Table
    from hfc.store.survey import Crossing
    from hfc.store.twins import Twins

SHOWN = 10
SEARCHED_ROWS = 20_000  # compared with each other in seconds, so without being asked


@dataclass(frozen=True)
class InnerLabels:
    """Labels that are inner nodes of a tree."""

    hierarchy: str
    labels: dict[str, int]
    """Rows of each, the most frequent first."""
    problem: str = ""
    """Why the tree beside a cache does not fit it."""


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
    help="The CSV file of hfc train --labels: count inner labels and twins by its labels and splits.",
)
@click.option(
    "--hierarchy",
    type=HIERARCHY,
    help="The category tree, to count the rows whose label is an inner node; without it the tree beside CACHE, if any.",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1, min_open=True),
    default=MIN_COSINE,
    show_default=True,
    help="Call rows twins if the cosine of their standardised features is at least this.",
)
def inspect(
    cache: Path,
    out: Path | None,
    images: Path | None,
    labels: Path | None,
    hierarchy: str | None,
    min_cosine: float,
) -> None:
    """Show what is in CACHE.

    Shows where the cache comes from, what it holds, and whether its features look right: their norms, dimensions that
    never change, rows that are equal, images that are there twice, and twins, which are nearly so: a photograph saved
    again, cropped, mirrored or brightened. In caches of more than 20,000 rows twins are looked for with --twins only,
    as it takes minutes. Where a tree is known, it says how many labels are inner nodes of it.

    \b
    Examples:
      hfc inspect cache/own.h5
      hfc inspect cache/own.h5 --hierarchy tree.csv
      hfc inspect cache/own.h5 --twins cache/twins --images photos
    """
    from hfc.store import survey

    if images and not out:
        raise click.UsageError("--images shows twins: give --twins DIR as well, the folder of their page")
    content = survey(cache)
    table = _relabelled(cache, labels) if labels else None
    inner = _inner_labels(cache, hierarchy, Counter(table.regions.label.tolist()) if table else content.labels)
    twins = None
    if out or table or content.shape[0] <= SEARCHED_ROWS:
        from hfc.store.twins import find_twins

        twins = find_twins(cache, min_cosine, table)
    for name, text in [*_origin(content), *_content(content), *_inner_lines(inner), *_twin_lines(twins)]:
        say(one_line(f"  {name:<12} {text}" if name else f"{'':15}{text}"))
    record = None
    if twins:
        from hfc.report.twin_page import record_twins, write_twins

        record = record_twins(twins).plain()
        if out:
            files = write_twins(twins, out, images)
            say(f"\ntwins: {', '.join(map(str, files))}")
    print_json({**asdict(content), "inner_labels": asdict(inner) if inner else None, "twins": record})


def _relabelled(cache: Path, labels: Path) -> "Table":
    """The rows of a cache under other labels and splits."""
    from hfc.store import FeatureStore
    from hfc.train.labels import join_labels

    with FeatureStore(cache) as store:
        table = store.table()
    return replace(table, regions=join_labels(table.regions, labels)[0])


def _inner_labels(cache: Path, hierarchy: str | None, labels: "Mapping[str, int]") -> InnerLabels | None:
    """Count the rows whose label is an inner node of a tree.

    Args:
        cache: perhaps with its tree beside it.
        hierarchy: the tree; None: that one.
        labels: rows of each label.

    Raises:
        HierarchyError: the tree is named, and cannot be read or lacks a label.
    """
    from hfc.hierarchy import load_hierarchy, tree_file

    beside = tree_file(cache)
    if not (hierarchy or beside.is_file()):
        return None
    named = [label for label in labels if label]
    try:
        tree = load_hierarchy(hierarchy or str(beside))
        leaf = tree.leaf(tree.find(named, str(cache)))
    except HierarchyError as error:
        if hierarchy:
            raise
        return InnerLabels(str(beside), {}, str(error))
    inner = {label: labels[label] for label, number in zip(named, leaf.tolist(), strict=True) if number < 0}
    return InnerLabels(hierarchy or str(beside), dict(sorted(inner.items(), key=lambda one: -one[1])))


def _inner_lines(inner: InnerLabels | None) -> list[tuple[str, str]]:
    """What is to be said of labels that are inner nodes; nothing where no tree is known."""
    if not inner:
        return []
    names = _some([f"{label} {count}" for label, count in inner.labels.items()])
    rows = f"{sum(inner.labels.values())} rows have an inner node of {inner.hierarchy}: {names}"
    return [("inner labels", inner.problem or (rows if inner.labels else f"none under {inner.hierarchy}"))]


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
