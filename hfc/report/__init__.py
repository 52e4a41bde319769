"""Reports of runs: a page, Markdown, LaTeX, CSV and JSON. Every number comes from the runs; no torch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from hfc import runs
from hfc.errors import RunError, check_keywords
from hfc.progress import steps
from hfc.provenance import write_folder
from hfc.report import compare, contents, curve, examples, latex, nested, page, texts
from hfc.report.checks import check
from hfc.report.document import Block, Document, Folded, Text
from hfc.report.gallery import galleries
from hfc.report.plots import Figure
from hfc.report.resampled import check_baseline, with_baseline
from hfc.report.rows import Leaderboard, read_leaderboards
from hfc.report.statistics import Difference, all_pairs
from hfc.report.twins import read_twins, twin_checks, twin_table
from hfc.runs import Run

# They list every file of a report, or of a comparison, with its SHA-256: what is written over later is a report's own.
RESULTS, COMPARISON = "results.json", "compare.json"


@dataclass(frozen=True)
class ReportSummary:
    """What a command shows of a report."""

    folder: Path
    runs: int
    table: str
    """The results table as plain text, for a terminal, and below it what was concluded and what is wrong."""
    files: tuple[Path, ...]
    verdicts: tuple[str, ...] = ()
    """What was concluded, a text for each leaderboard."""
    wrong: tuple[str, ...] = ()
    """The checks that went wrong."""
    rows: tuple[Mapping[str, object], ...] = ()
    """The results table for a program; see `texts.row_json`."""


def report(
    runs: str | Path | Run | Iterable[str | Path | Run],
    out: str | Path = "report",
    *,
    images: str | Path | None = None,
    twins: str | Path | None = None,
    baseline: str | None = None,
    **unknown: object,
) -> ReportSummary:
    """Build the report of runs: `print(report("runs", out="report").table)`.

    Args:
        runs: folders of runs, or runs as `hfc.train.train` returns them; one or several.
        out, images, twins, baseline: as for `write_report`.

    Raises:
        ConfigError: another keyword.
        RunError: as `write_report`.
    """
    check_keywords(report, unknown)
    roots = [runs] if isinstance(runs, str | Path | Run) else runs
    folders = [root.folder if isinstance(root, Run) else Path(root) for root in roots]
    pictures, pairs = (Path(place) if place else None for place in (images, twins))
    return write_report(folders, Path(out), images=pictures, twins=pairs, baseline=baseline)


def write_report(
    roots: Sequence[Path],
    out: Path,
    *,
    images: Path | None = None,
    twins: Path | None = None,
    baseline: str | None = None,
) -> ReportSummary:
    """Build the report of every run below some folders.

    Args:
        roots: folders of runs.
        out: the folder that receives report.html, report.md, table1.tex, results.csv, results.json, differences.csv,
            and every picture in figures/ as SVG and CSV; with a baseline methods.tex as well.
        images: the folder or archive that the cache's image paths are relative to, for pictures of mistakes; None: no
            pictures.
        twins: the folder of `hfc inspect --twins`; None: twins are not spoken of.
        baseline: the row that all others are compared with, by its label, method or name in a plan; None: for outer
            folds flat, or the best row where there is none; else all rows are compared with each other.

    Raises:
        RunError: no runs, a damaged run, no picture where they were asked for, twins of another cache, no such
            baseline, or a place that cannot be written.
    """
    all_runs = runs.find(roots)
    learning = curve.read_curves(all_runs)
    boards, differences = _compared(curve.without_parts(all_runs, learning), baseline)
    rows = [outcome.row for board in boards for outcome in board.outcomes]
    known = read_twins(twins, all_runs) if twins else None
    checks = check(rows, boards, twin_checks(known, boards) if known else ())
    tables = [twin_table(known, board) for board in boards] if known else []
    mistakes = _mistakes(boards, images) if images else []
    document = contents.report(rows, boards, differences, checks, mistakes, tables, curve.blocks(learning))
    beside = [(board, pairs) for board, pairs in zip(boards, differences, strict=True) if board.baseline]
    files = {
        **pages(document),
        "table1.tex": latex.latex(rows, checks),
        **({"methods.tex": latex.tabular(nested.both(beside))} if beside else {}),
        **_numbers(document, all_runs, boards, [difference for pairs in differences for difference in pairs], learning),
    }
    brief = [nested.brief(*one) for one in beside] if len(beside) == len(boards) else []
    shown = texts.printable("\n".join([texts.plain(document, rows, brief), *map(curve.answer, learning)]))
    concluded = (document.verdicts, tuple(document.wrong), tuple(map(texts.row_json, rows)))
    return ReportSummary(out, len(all_runs), shown, write(out, files, RESULTS), *concluded)


def _numbers(
    document: Document,
    all_runs: Sequence[Run],
    boards: Sequence[Leaderboard],
    differences: Sequence[Difference],
    learning: Sequence[curve.Curve],
) -> dict[str, str]:
    """Write the numbers of a report for programs."""
    outcomes = [(board, outcome) for board in boards for outcome in board.outcomes]
    rows = [outcome.row for _, outcome in outcomes]
    intervals = {outcome.row.key: board.intervals[outcome] for board, outcome in outcomes if board.baseline}
    results = texts.results_json(document, rows, all_runs, differences, intervals)
    results |= {"curves": [one.to_json() for one in learning]} if learning else {}
    return {
        "results.csv": texts.results_csv(rows, intervals),
        RESULTS: json.dumps(results, indent=2, ensure_ascii=False) + "\n",
        "differences.csv": texts.differences_csv(differences),
    }


def _compared(all_runs: Sequence[Run], baseline: str | None) -> tuple[list[Leaderboard], list[Sequence[Difference]]]:
    """Read the leaderboards of some runs, and compare the rows of each.

    Those of outer folds are compared with a baseline, else each with each.
    """
    boards = read_leaderboards(all_runs, bool(baseline))
    if baseline:
        check_baseline(boards, baseline)
    compared: list[tuple[Leaderboard, Sequence[Difference]]] = []
    for board in boards:
        if baseline or board.best.row.first.outer:
            compared.append(with_baseline(board, baseline))
        else:
            compared.append((board, all_pairs(board.outcomes)))
    return [board for board, _ in compared], [pairs for _, pairs in compared]


def write_comparison(first: Path, second: Path, out: Path | None = None) -> ReportSummary:
    """Write what changed between two sets of runs.

    Args:
        first, second: folders of runs, before and after.
        out: the folder that receives compare.html, compare.md and compare.json; None: nothing is written.

    Raises:
        RunError: no runs, a damaged run, or a place that cannot be written.
    """
    comparison = compare.compare(first, second)
    document = compare.document(comparison)
    content = json.dumps(compare.as_json(comparison, document), indent=2, ensure_ascii=False) + "\n"
    files = write(out, {**pages(document, "compare"), COMPARISON: content}, COMPARISON) if out else ()
    shown = texts.printable(compare.plain(comparison, document))
    return ReportSummary(out or Path(), comparison.runs, shown, files, document.verdicts, tuple(document.wrong))


def pages(document: Document, name: str = "report") -> dict[str, str]:
    """Turn a document into files: the page, the Markdown and every figure."""
    files = {f"{name}.html": page.html(document), f"{name}.md": texts.markdown(document)}
    style = Markup("<style>{}</style>").format(Markup(page.figure_style()))
    for block in document.blocks():
        if isinstance(block, Figure):
            opening, _, rest = block.drawing.partition(">")
            files[f"figures/{block.name}.svg"] = f"{opening}>{style}{rest}\n"
            files[f"figures/{block.name}.csv"] = texts.written(block.header, block.data)
    return files


def write(out: Path, files: Mapping[str, str], mark: str) -> tuple[Path, ...]:
    """Write files into a folder and replace those of an earlier report.

    Args:
        out: the folder.
        files: their names and texts.
        mark: the JSON file among them that lists the others.

    Raises:
        RunError: the operating system refuses, or a file is in the way that is no report's.
    """
    others = [name for name in (RESULTS, COMPARISON) if name != mark]
    contents = {name: texts.printable(text).encode("utf-8") for name, text in files.items()}
    write_folder(out, contents, [mark, *others], "the report")
    return tuple(out / name for name in files)


def _mistakes(boards: Sequence[Leaderboard], images: Path) -> list[Folded]:
    """Make the galleries of the rows that have pictures. That of each leaderboard's best row is unfolded."""
    outcomes = [
        (outcome, outcome is board.best) for board in boards for outcome in board.outcomes[: contents.MOST_DRAWN]
    ]
    folded = []
    failed: list[RunError] = []
    for outcome, best in steps(outcomes, "reading pictures of mistakes"):
        blocks: tuple[Block, ...]
        more: list[Folded] = []
        try:
            blocks = tuple(galleries(outcome, images))
            more = examples.folds(outcome, images) if best and blocks else []
        except RunError as error:  # its images lie elsewhere: those of the other rows are shown
            failed.append(error)
            blocks = (Text(f"{error}."),)
        folded += [Folded(f"{outcome.label}: mistakes", blocks, open=best), *more]
    if failed and len(failed) == len([row for row in folded if row.blocks]):
        raise failed[0]
    return [row for row in folded if row.blocks]
