"""Reading a report's files."""

import csv
from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV, by column."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
