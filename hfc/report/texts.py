"""A report as Markdown, CSV, JSON and plain text."""

import csv
import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from hfc.errors import markdown as escape
from hfc.metrics import METRICS
from hfc.report.cells import Cell, Table, plus_minus
from hfc.report.checks import Check, weights
from hfc.report.document import Block, Document, Folded, Text
from hfc.report.gallery import Gallery
from hfc.report.grouped import Interval
from hfc.report.plots import Figure
from hfc.report.rows import Row
from hfc.report.statistics import Difference
from hfc.report.tables import HEADLINE, published
from hfc.runs import Run
from hfc.store.records import nested

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
MARKS = {"ok": "✓", "mind": "!", "wrong": "✗"}


def markdown(document: Document) -> str:
    """Write a document as Markdown."""
    parts = [f"# {escape(document.title)}", "\n".join(f"- {name}: {escape(value)}" for name, value in document.facts)]
    answers = [f"{escape(answer)} " for answer in document.answers] or [""] * len(document.verdicts)
    parts += [answer + escape(verdict) for answer, verdict in zip(answers, document.verdicts, strict=True)]
    parts.append("\n".join(f"- {MARKS[check.state]} {_check(check)}" for check in document.checks))
    for section in document.sections:
        parts += [f"## {escape(section.title)}", *_blocks(section.blocks, 3)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _check(check: Check) -> str:
    return f"**{escape(check.text)}**" if check.state == "wrong" else escape(check.text)


def _blocks(blocks: Iterable[Block], depth: int) -> Iterable[str]:
    for block in blocks:
        match block:
            case Text():
                yield escape(block.text)
            case Table():
                yield f"{'#' * depth} {escape(block.title)}"
                yield escape(block.note)
                yield grid(block.header, block.rows)
            case Figure():
                yield f"{'#' * depth} {escape(block.title)}"
                yield f"![{escape(block.alt)}](figures/{block.name}.svg)"
                yield f"{escape(block.note)} [Data](figures/{block.name}.csv)".strip()
            case Gallery():
                yield f"{'#' * depth} {escape(block.title)}"
                header = ("image", "truth", "answer", "confidence", "height", "wrong seeds")
                yield grid(
                    header,
                    [
                        tuple(map(Cell, (p.id, p.truth, p.answer, f"{p.confidence:.2f}", f"{p.height:.2f}", p.seeds)))
                        for p in block.mistakes
                    ],
                )
            case Folded():
                yield f"{'#' * depth} {escape(block.title)}"
                yield from _blocks(block.blocks, depth + 1)


def grid(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Write a table in Markdown."""
    body = [[f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in row] for row in rows]
    lines = [[escape(name) for name in header], ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(document: Document, rows: Sequence[Row], brief: Sequence[Sequence[Sequence[str]]] = ()) -> str:
    """Write the measured rows for a terminal, with verdicts and failed checks.

    Args:
        document: the report.
        rows: all of them.
        brief: tables of lines that take the place of the rows.
    """
    header = ["method", *(METRICS[key].column for key in HEADLINE), "severity", "seeds"]
    body = [
        [
            row.label,
            *(plus_minus(row.values(key)) for key in HEADLINE),
            plus_minus(row.values("mistake_severity"), scale=1, digits=3),
            str(len(row.seeds)),
        ]
        for row in rows
    ]
    notes = [*document.verdicts, *(f"{MARKS['wrong']} {text}" for text in document.wrong)]
    return "\n".join([*map(columns, brief or [[header, *body]]), "", *notes])


def row_json(row: Row) -> dict[str, object]:
    """Write a row of the results table for a program: of each metric the mean over seeds, and the sample deviation."""
    spread = {key: _mean_sd(row.values(key)) for key in (*HEADLINE, "mistake_severity")}
    metrics = {key: {"mean": mean, "sd": None if sd == "" else sd} for key, (mean, sd) in spread.items() if mean != ""}
    named = {"method": row.first.method, "hierarchy": row.first.hierarchy.name, "seeds": row.seeds}
    return {"label": row.label, **named, "metrics": metrics}


def printable(text: str) -> str:
    """Escape the characters that UTF-8, HTML or XML cannot hold.

    Those are control characters, and the surrogates that stand for bytes of file names that are not UTF-8.
    """
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Align cells for a terminal."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def written(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Write a CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def results_csv(rows: Sequence[Row], intervals: Mapping[str, Mapping[str, Interval]]) -> str:
    """Write a line for each measured and cited row. Accuracies as fractions, deviations beside the means.

    Args:
        rows: all of them.
        intervals: of the metrics of rows, by the rows' keys; columns of their own hold them.
    """
    bounded = list(dict.fromkeys(key for own in intervals.values() for key in own))
    keys = sorted({key for row in rows for key in row.first.test if "/" not in key})
    head = ["kind", "label", "method", "hierarchy", "changed", "cache", "weights", "commit", "seeds"]
    body: list[list[object]] = []
    for row in rows:
        result = row.first
        changed = " ".join(f"{k}={v}" for k, v in result.changed.items())
        fixed = ("measured", row.label, result.method, result.hierarchy.name, changed, result.cache.path)
        source = weights(row), row.commit, len(row.seeds)
        own = [intervals.get(row.key, {}).get(key) for key in bounded]
        bounds = [part for one in own for part in ((one.low, one.high) if one else ("", ""))]
        body.append([*fixed, *source, *(part for key in keys for part in _mean_sd(row.values(key))), *bounds, ""])
    for entry in published():
        cited = {"top3_mean": float(entry["top3"]) / 100, "top5_mean": float(entry["top5"]) / 100}
        cells = [cited.get(f"{key}_{part}", "") for key in keys for part in ("mean", "sd")]
        named = ["cited", entry["method"], entry["method"], *[""] * 6]
        body.append([*named, *cells, *[""] * 2 * len(bounded), entry["source"]])
    limits = (f"{key}_{part}" for key in bounded for part in ("low", "high"))
    return written([*head, *(f"{key}_{part}" for key in keys for part in ("mean", "sd")), *limits, "source"], body)


def _mean_sd(values: Sequence[float]) -> tuple[object, object]:
    if not values:
        return "", ""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else ""


DIFFERENCE = (
    "first",
    "second",
    "metric",
    "difference",
    "low",
    "high",
    "only_first_right",
    "only_second_right",
    "p",
    "p_corrected",
    "test",
    "images",
    "groups",
)


def differences_csv(pairs: Iterable[Difference]) -> str:
    """Write a line for each pair and metric, as fractions. The test is of top-1 alone."""
    body = []
    for pair in pairs:
        for metric, i in pair.intervals.items():
            test = [pair.test.only_first, pair.test.only_second, pair.test.p, pair.p, pair.test.name]
            units = len(pair.first.target), pair.first.groups.count
            words = test if metric == "top1" else [""] * len(test)
            body.append([pair.first.label, pair.second.label, metric, i.difference, i.low, i.high, *words, *units])
    return written(DIFFERENCE, body)


def results_json(
    document: Document,
    rows: Sequence[Row],
    all_runs: Sequence[Run],
    differences: Iterable[Difference],
    intervals: Mapping[str, Mapping[str, Interval]],
) -> dict[str, object]:
    """Collect what the report is made from, and what it concludes."""
    return {
        "verdicts": list(document.verdicts),
        "checks": [{"state": check.state, "text": check.text} for check in document.checks],
        "rows": [
            {
                "label": row.label,
                "key": row.key,
                "seeds": row.seeds,
                "runs": [run.result.run for _, run in row.trainings],
                "folders": [str(run.folder) for _, run in row.trainings],
                **_pooled_json(row, intervals.get(row.key, {})),
            }
            for row in rows
        ],
        "differences": [difference_json(pair) for pair in differences],
        "runs": [run.result.plain() for run in all_runs],
        "published": published(),
    }


def _pooled_json(row: Row, intervals: Mapping[str, Interval]) -> dict[str, object]:
    """Write what a row of outer folds, or beside a baseline, has besides."""
    outer = row.first.outer
    metrics = {key: row.mean(key) for key in row.first.test}
    known = {key: {"low": one.low, "high": one.high} for key, one in intervals.items()}
    return {
        **({"outer_folds": outer.folds, "metrics": nested(metrics)} if outer else {}),
        **({"intervals": known} if known else {}),
    }


def difference_json(pair: Difference) -> dict[str, object]:
    """Write one pair of rows."""
    return {
        "first": pair.first.label,
        "second": pair.second.label,
        "intervals": {k: {"difference": i.difference, "low": i.low, "high": i.high} for k, i in pair.intervals.items()},
        "images": len(pair.first.target),
        "groups": pair.first.groups.count,
        "test": pair.test.name,
        "only_first_right": pair.test.only_first,
        "only_second_right": pair.test.only_second,
        "p": pair.test.p,
        "p_of_seeds": {str(seed): p for seed, p in pair.by_seed.items()},
        "p_corrected": pair.p,
        "significant": pair.significant,
    }
