"""`hfc inspect` and `hfc verify`: what is in a feature cache, and whether it is whole."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.output import Command, one_line, print_json, say
from hfc.errors import StoreError
from hfc.provenance import short

if TYPE_CHECKING:
    from hfc.store import Survey

SHOWN = 10


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
def inspect(cache: Path) -> None:
    """Show what is in CACHE.

    Shows where the cache comes from, what it holds, and whether its features look right: their norms, dimensions that
    never change, and rows that are equal.

    \b
    Example:
      hfc inspect cache/own.h5
    """
    from hfc.store import survey

    content = survey(cache)
    for name, text in [*_origin(content), *_content(content)]:
        say(one_line(f"  {name:<12} {text}" if name else f"{'':15}{text}"))
    print_json(content)


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
    lines.append(("failures", str(len(content.failures))))
    lines += [("", f"{name}: {reason}") for name, reason in content.failures[:SHOWN]]
    if (more := len(content.failures) - SHOWN) > 0:
        lines.append(("", f"and {more} more"))
    return lines


def _some(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
def verify(cache: Path) -> None:
    """Check every checksum in CACHE.

    The shards of an unfinished cache are checked too. If anything is damaged, the command says what it is, and the exit
    code is 1.

    \b
    Example:
      hfc verify cache/own.h5
    """
    from hfc.store import problems

    damage = list(problems(cache))
    print_json({"path": cache, "problems": damage})
    for problem in damage[:-1]:
        say(problem, err=True)
    if damage:
        raise StoreError(damage[-1] + (f" ({len(damage)} problems in all)" if len(damage) > 1 else ""))
    say(f"{cache}: every checksum is right")
