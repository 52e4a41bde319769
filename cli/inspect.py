"""`hfc inspect` and `hfc verify`: what is in a feature cache, and whether it is whole."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.output import Command, answer, one_line, say
from hfc.errors import StoreError
from hfc.provenance import short

if TYPE_CHECKING:
    from hfc.store import Survey

SHOWN = 10


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
def inspect(cache: Path) -> None:
    """Print what is in CACHE.

    Also where it came from, and whether its features look alive: norms, dead dimensions, duplicates.

    \b
    Example:
      hfc inspect cache/own.h5
    """
    from hfc.store import survey

    found = survey(cache)
    for name, text in [*_origin(found), *_content(found)]:
        say(one_line(f"  {name:<12} {text}" if name else f"{'':15}{text}"))
    answer(found)


def _origin(found: "Survey") -> list[tuple[str, str]]:
    """Where the cache came from."""
    config, origin = found.config, found.provenance
    weights, dataset, code = (origin.get(name, {}) for name in ("weights", "dataset", "code"))
    random = "  RANDOM WEIGHTS: for benchmarks only" if weights.get("random") else ""
    version = f"hfc {code.get('version')} {short(code.get('commit', ''))}"
    crops = ("image_size", "resize", "roi_margin", "pool", "views")
    lines = [
        ("cache", f"{found.path} ({found.bytes / 1e6:.1f} MB, every checksum right)"),
        ("key", found.key),
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
    return lines


def _content(found: "Survey") -> list[tuple[str, str]]:
    """What is in the cache."""
    n, v, d = found.shape
    labels = [f"{name or 'unknown'} {count}" for name, count in found.labels.items()]
    dead = _some([str(dimension) for dimension in found.dead])
    norms = "  ".join(f"{name} {value:.4g}" for name, value in found.norms.items())
    rows = sum(map(len, found.duplicates))
    lines = [
        ("features", f"{n} rows x {v} views x {d} numbers, {found.dtype}; SHA-256 {found.features_sha256[:16]}…"),
        ("splits", ", ".join(f"{name or 'unknown'} {count}" for name, count in sorted(found.splits.items()))),
        ("labels", f"{len(labels) - ('' in found.labels)}: {_some(labels)}"),
        ("norms", norms or "no row has features"),
        ("values", f"mean {found.mean:.4g}, {100 * found.zeros:.2f}% exactly zero"),
        ("dead", f"{len(found.dead)} dimensions never change{': ' if dead else ''}{dead}"),
        ("duplicates", f"{rows} rows in {len(found.duplicates)} sets of equal features"),
    ]
    lines += [("", _some(names, " = ")) for names in found.duplicates[:SHOWN]]
    lines.append(("failures", str(len(found.failures))))
    lines += [("", f"{name}: {reason}") for name, reason in found.failures[:SHOWN]]
    if (more := len(found.failures) - SHOWN) > 0:
        lines.append(("", f"and {more} more"))
    return lines


def _some(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
def verify(cache: Path) -> None:
    """Check every checksum in CACHE.

    Also in the shards of an unfinished one. Says what is damaged, and ends with 1 if anything is.

    \b
    Example:
      hfc verify cache/own.h5
    """
    from hfc.store import problems

    found = list(problems(cache))
    answer({"path": cache, "problems": found})
    for problem in found[:-1]:
        say(problem, err=True)
    if found:
        raise StoreError(found[-1] + (f" ({len(found)} problems in all)" if len(found) > 1 else ""))
    say(f"{cache}: every checksum is right")
