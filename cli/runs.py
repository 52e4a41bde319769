"""`hfc runs`: which runs there are."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.output import Command, one_line, print_json, say

if TYPE_CHECKING:
    from hfc.runs import Run

HEADER = ("date", "method", "seed", "data", "tree", "val top-1", "test top-1", "folder")
ROOT = Path("cache")


@click.command(cls=Command)
@click.argument("roots", nargs=-1, type=click.Path(path_type=Path), metavar="[ROOT]...")
def runs(roots: tuple[Path, ...]) -> None:
    """List runs with method, data, top-1 and date.

    Every finished run in and below each ROOT is listed, the latest last; without ROOT those below the folder cache.
    Times are in UTC.

    \b
    Example:
      hfc runs cache/runs
    """
    from hfc.report.texts import columns
    from hfc.runs import find

    every = sorted(find(roots or (ROOT,)), key=lambda run: (run.result.created, str(run.folder)))
    say(columns([HEADER, *(tuple(map(one_line, _cells(run))) for run in every)]))
    say(f"\n{len(every)} runs; next: hfc report ROOT --out DIR, or hfc predict ROOT --best IMAGE")
    print_json({"runs": [_to_json(run) for run in every]})


def _cells(run: "Run") -> tuple[str, ...]:
    result = run.result
    changed = "".join(f" {name}={value}" for name, value in result.changed.items())
    fold = f", fold {result.outer.number + 1} of {result.outer.folds}" if result.outer else ""
    date = result.created[:16].replace("T", " ")
    scores = (_percent(result.selected.val.get("top1")), _percent(result.test.get("top1")))
    data = Path(result.cache.path).name
    return (
        date,
        f"{result.method}{changed}{fold}",
        str(result.seed),
        data,
        result.hierarchy.name,
        *scores,
        str(run.folder),
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _to_json(run: "Run") -> dict[str, object]:
    """A run as a JSON object."""
    result = run.result
    top1 = {"val_top1": result.selected.val.get("top1"), "top1": result.test.get("top1")}
    made = {"folder": run.folder, "method": result.method, "changed": result.changed, "seed": result.seed}
    data = {"cache": result.cache.path, "backbone": result.cache.backbone, "hierarchy": result.hierarchy.name}
    outer = {"fold": result.outer.number, "folds": result.outer.folds} if result.outer else {}
    return {**made, **data, **outer, **top1, "key": result.key, "created": result.created}
