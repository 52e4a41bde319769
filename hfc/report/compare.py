"""What changed between two sets of runs: settings, provenance and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfc import runs
from hfc.errors import FORMER_SETTINGS
from hfc.metrics import METRICS
from hfc.report import texts
from hfc.report.caches import what_differs
from hfc.report.cells import Cell, Table, p_text, plus_minus, signed
from hfc.report.checks import check
from hfc.report.document import Document, Section, Text
from hfc.report.identity import NOT_SETTINGS, counts, identity, labels
from hfc.report.rows import Leaderboard, Outcome, read_sets
from hfc.report.statistics import Difference, differences, method

COMPARED = tuple(metric for metric in METRICS.values() if metric.key not in ("ece", "nll"))
NAME = ("method", "name of the tree")
MATCHES = (  # what a row of one set shares with its match in the other, the closest first
    ("row",),
    (*NAME, "features", "labels", "tree"),
    (*NAME, "features", "tree"),
    (*NAME, "features", "labels"),
    (*NAME, "features"),
    (*NAME, "recipe", "tree"),
    (*NAME, "recipe"),
    NAME,
    ("preset", "name of the tree"),
    ("method", "features", "labels"),  # under another tree
    ("method", "recipe"),
    ("method",),
)


@dataclass(frozen=True, eq=False)
class Pair:
    """A row of the first set and its match in the second."""

    before: Outcome
    after: Outcome
    difference: Difference | None
    """After minus before; None where they were not tested on the same images with the same labels and groups."""

    @property
    def label(self) -> str:
        """The rows' label, or both where they differ."""
        before, after = self.before.label, self.after.label
        return after if before == after else f"{before} → {after}"


@dataclass(frozen=True)
class Comparison:
    """Two sets of runs side by side."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Labels of the rows of each set that the other lacks."""
    boards: tuple[tuple[Leaderboard, ...], tuple[Leaderboard, ...]]
    runs: int


def compare(first: Path, second: Path) -> Comparison:
    """Match the rows of two folders of runs.

    Rows match by method, hierarchy and changed settings, those first that share the most beside; what is left by method
    and hierarchy alone, then by method and settings under another hierarchy. Rows match only where each set has a
    single one.

    Raises:
        RunError: a folder holds no runs, or a damaged one.
    """
    all_runs = [runs.find([root]) for root in (first, second)]
    boards = [tuple(grouped) for grouped in read_sets(all_runs)]
    left = [[outcome for board in side for outcome in board.outcomes] for side in boards]
    matched: list[tuple[Outcome, Outcome]] = []
    for parts in MATCHES:
        before, after = ({k: v for k, v in _by(parts, rows).items() if len(v) == 1} for rows in left)
        matched += [(rows[0], after[k][0]) for k, rows in before.items() if k in after]
        taken = {id(outcome) for pair in matched for outcome in pair}
        left = [[outcome for outcome in rows if id(outcome) not in taken] for rows in left]
    same = [pair for pair in matched if pair[0].predictions[0].digest == pair[1].predictions[0].digest]
    tested = {
        id(difference.second): difference for difference in differences([(after, before) for before, after in same])
    }
    pairs = tuple(Pair(before, after, tested.get(id(before))) for before, after in matched)
    only = tuple(outcome.label for outcome in left[0]), tuple(outcome.label for outcome in left[1])
    return Comparison((str(first), str(second)), pairs, only, (boards[0], boards[1]), sum(map(len, all_runs)))


def _by(parts: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Group rows by some parts of their identity."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        result = outcome.row.first
        cache = result.cache
        recipe = [cache.backbone, cache.image_size, (cache.key_fields or {}).get("pool")]
        own = {**identity(result), "row": outcome.row.key, "preset": result.method, "recipe": str(recipe)}
        rows.setdefault(str([own[part] for part in parts]), []).append(outcome)
    return rows


def changes(pair: Pair) -> list[tuple[str, str, str]]:
    """List what differs in the provenance of two rows: name, before, after."""
    before, after = _origin(pair.before), _origin(pair.after)
    names = dict.fromkeys([*before, *after])
    return [(n, b, a) for n in names if (b := before.get(n, "–")) != (a := after.get(n, "–"))]


def _origin(outcome: Outcome) -> dict[str, str]:
    """List everything that may differ between two runs of one method, by name."""
    row, result = outcome.row, outcome.row.first
    cache = result.cache
    config = {**FORMER_SETTINGS, **result.config}
    settings = {f"setting {k}": _words(v) for k, v in config.items() if k not in NOT_SETTINGS}
    stage1 = {f"features: {k}": _words(v) for k, v in (cache.key_fields or {}).items()}
    versions = {f"version of {k}": str(v) for k, v in result.versions.items()}
    return {
        **settings,
        "hierarchy": f"{result.hierarchy.name} {result.hierarchy.digest[:12]}",
        **stage1,
        "features": cache.features_sha256[:12],
        "labels": labels(result)[0][:12] or "the cache's own",
        "labels and splits": labels(result)[1][:12] or "–",
        "images for training / validation / test": counts(result),
        "test images and labels": outcome.predictions[0].images[:12],
        "groups of test images": _groups(outcome),
        "seeds": ", ".join(map(str, row.seeds)),
        "code": row.commit,
        **{f"machine: {k}": str(v) for k, v in result.machine.plain().items() if k != "precision"},
        **versions,
    }


def _groups(outcome: Outcome) -> str:
    """Name the groups of test images by their number and the digest."""
    return f"{outcome.groups.count:,} ({outcome.predictions[0].digest[:12]})" if outcome.groups.shared else "–"


def _words(value: object) -> str:
    if isinstance(value, Mapping | list):
        return ", ".join(map(str, value))
    text = str(value)
    return text[:12] if len(text) == 64 and text.isalnum() else text  # digests


def document(comparison: Comparison) -> Document:
    """Turn a comparison into a document."""
    a, b = comparison.names
    checked = [
        check([o.row for board in boards for o in board.outcomes], boards) if boards else []
        for boards in comparison.boards
    ]
    tested = [pair.difference for pair in comparison.pairs if pair.difference]
    wrong = tuple(dict.fromkeys(line for side in checked for line in side if line.state == "wrong"))
    sections = [
        Section("metrics", "What it did to the metrics", (_metrics(comparison), Text(method(tested)))),
        Section("changes", "What changed", (_changes(comparison),)),
    ]
    missing = [(label, a) for label in comparison.only[0]] + [(label, b) for label in comparison.only[1]]
    if missing:
        body = tuple((Cell(label), Cell(where)) for label, where in missing)
        sections.append(
            Section("only", "Only in one", (Table("only", "Rows without a match", ("method", "in"), body),))
        )
    return Document(f"From {a} to {b}", (verdict(comparison),), wrong, tuple(sections))


def verdict(comparison: Comparison) -> str:
    """Say how many rows got significantly better or worse."""
    if not comparison.pairs:
        return "No row of one set has a match in the other."
    tested = [pair.difference for pair in comparison.pairs if pair.difference]
    better = sum(difference.significant and difference.intervals["top1"].difference > 0 for difference in tested)
    worse = sum(difference.significant and difference.intervals["top1"].difference < 0 for difference in tested)
    same = len(tested) - better - worse
    count = f"{len(comparison.pairs)} method{'s' if len(comparison.pairs) > 1 else ''}"
    sentence = f"Of {count} in both, top-1 is significantly better in {better}, worse in {worse} and neither in {same}."
    if untested := len(comparison.pairs) - len(tested):
        sentence += f" {untested} cannot be tested: other test images, labels or groups."
    return sentence


def _metrics(comparison: Comparison) -> Table:
    shown = [metric for metric in COMPARED if any(pair.before.row.values(metric.key) for pair in comparison.pairs)]
    body = []
    for pair in comparison.pairs:
        difference = pair.difference
        interval = difference.intervals["top1"] if difference else None
        gained = f"{signed(interval.difference)} [{signed(interval.low)}, {signed(interval.high)}]" if interval else "–"
        cells = [
            Cell(pair.label),
            Cell(gained, 100 * interval.difference if interval else None),
            Cell(
                p_text(difference.p) + (" *" if difference.significant else ""),
                difference.p,
                best=difference.significant,
            )
            if difference
            else Cell("not tested"),
            Cell(what_differs(pair.before.row, pair.after.row) or "–"),
        ]
        for metric in shown:
            key, scale, digits = metric.key, metric.scale, metric.digits
            before, after = (outcome.row.values(key) for outcome in (pair.before, pair.after))
            full = f"{plus_minus(before, scale, digits)} → {plus_minus(after, scale, digits)}"
            means = [plus_minus([float(np.mean(v))] if v else [], scale, digits) for v in (before, after)]
            change = scale * (pair.after.row.mean(key) - pair.before.row.mean(key)) if before and after else None
            cells.append(Cell(" → ".join(means), change, tip=full))
        body.append(tuple(cells))
    header = ("method", "top-1 gained, points", "p corrected", "what differs", *(metric.column for metric in shown))
    note = (
        "Before → after, means over seeds; columns sort by the change. * significant. What differs: features, labels, "
        "tree; settings and provenance are below."
    )
    return Table("metrics", "Metrics", header, tuple(body), note)


def _changes(comparison: Comparison) -> Table:
    """Make the table of changes; a change that all pairs share is one row."""
    by_change: dict[tuple[str, str, str], list[str]] = {}
    for pair in comparison.pairs:
        for change in changes(pair):
            by_change.setdefault(change, []).append(pair.label)
    everyone = len(comparison.pairs)
    body = tuple(
        (Cell(name), Cell(before), Cell(after), Cell("all" if len(who) == everyone else "; ".join(who)))
        for (name, before, after), who in by_change.items()
    )
    nothing = "" if body else "Nothing: the same settings, features, code, machine and versions."
    return Table(
        "changes", "Settings and provenance", ("what", comparison.names[0], comparison.names[1], "of"), body, nothing
    )


def plain(comparison: Comparison, summary: Document) -> str:
    """Write a comparison for a terminal."""
    lines = [["method", "top-1 before", "top-1 after", "gained, points", "p corrected", "what differs"]]
    for pair in comparison.pairs:
        row = _metrics(replace(comparison, pairs=(pair,))).rows[0]
        before, after = (plus_minus(outcome.row.values("top1")) for outcome in (pair.before, pair.after))
        lines.append([pair.label, before, after, *(cell.text for cell in row[1:4])])
    changed = [[cell.text for cell in row] for row in _changes(comparison).rows]
    parts = [texts.columns(lines)] if comparison.pairs else []
    if changed:
        parts.append(texts.columns([["changed", *comparison.names, "of"], *changed]))
    elif comparison.pairs:
        parts.append("nothing else changed")
    parts += [
        f"only in {name}: {'; '.join(only)}"
        for name, only in zip(comparison.names, comparison.only, strict=True)
        if only
    ]
    return "\n\n".join([*parts, *summary.verdicts, *(f"✗ {text}" for text in summary.wrong)])


def as_json(comparison: Comparison, summary: Document) -> dict[str, object]:
    """Write a comparison for scripts."""
    return {
        "before": comparison.names[0],
        "after": comparison.names[1],
        "verdict": summary.verdicts[0],
        "pairs": [
            {
                "before": pair.before.label,
                "after": pair.after.label,
                "changes": [{"what": n, "before": b, "after": a} for n, b, a in changes(pair)],
                "metrics": {
                    key: {"before": pair.before.row.mean(key), "after": pair.after.row.mean(key)}
                    for key in (metric.key for metric in COMPARED)
                    if pair.before.row.values(key) and pair.after.row.values(key)
                },
                "difference": texts.difference_json(pair.difference) if pair.difference else None,
            }
            for pair in comparison.pairs
        ],
        "only_before": list(comparison.only[0]),
        "only_after": list(comparison.only[1]),
    }
