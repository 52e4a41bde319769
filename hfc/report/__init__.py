"""Tables and figures from run folders. Nothing here needs torch, and nothing is typed in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfc import runs
from hfc.errors import RunError
from hfc.report import figures, tables


@dataclass(frozen=True)
class ReportSummary:
    """What a report holds."""

    folder: Path
    runs: int
    table: str
    """The results table as plain text, for a terminal."""
    files: tuple[Path, ...]


def write_report(roots: Sequence[Path], out: Path) -> ReportSummary:
    """Build the report of every run below some folders.

    Args:
        roots: folders of runs.
        out: the folder that receives report.md, results.csv, results.json, table1.tex and training.png.

    Raises:
        RunError: no runs, a damaged run, or a place that cannot be written.
    """
    found = runs.find(roots)
    rows = tables.summarise(found)
    texts = {
        "report.md": tables.markdown(rows),
        "results.csv": tables.results_csv(rows),
        "results.json": json.dumps(tables.results_json(rows, found), indent=2, ensure_ascii=False) + "\n",
        "table1.tex": tables.latex(rows),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            partial = out / f".{name}.part"
            partial.write_text(text, "utf-8")
            partial.replace(out / name)
        figures.training(rows, out / "training.png")
    except OSError as error:
        raise RunError(f"{out}: the report cannot be written: {error.strerror or error}") from error
    files = tuple(out / name for name in (*texts, "training.png"))
    return ReportSummary(out, len(found), tables.plain_text(rows), files)
