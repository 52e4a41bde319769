"""Tables as LaTeX: the metrics, the paper's Table 1, and those of rows beside a baseline."""

from collections.abc import Iterable, Sequence
from unicodedata import normalize

from hfc.metrics import METRICS
from hfc.report.cells import Table, plus_minus
from hfc.report.checks import OK, Check
from hfc.report.rows import Row
from hfc.report.tables import is_the_papers, published

# Inside a document \@nodocument is \relax: there the file is a table for \input, elsewhere a document of its own.
HEAD = r"""% pdflatex table1.tex shows it; in a paper: \usepackage{booktabs}, and \input{table1} inside a table.
\makeatletter
\ifx\@nodocument\relax
  \def\hfcend{}
\else
  \documentclass{article}
  \usepackage[T1]{fontenc}
  \usepackage[margin=2cm]{geometry}
  \usepackage{booktabs}
  \pagestyle{empty}
  \def\hfcend{\end{document}}
  \begin{document}
\fi
\makeatother"""

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # in front of a row it would be an option of the line break before
    "–": "--",
    "−": "$-$",
    "\u00a0": "~",
    "β": r"$\beta$",
}


PLAIN = ("top1", "top3", "top5", "hF", "mistake_severity")  # of other data than the paper's


def latex(rows: Sequence[Row], checks: Sequence[Check]) -> str:
    """Write the table of the rows; of DeepFashion it is the paper's. Checks that did not pass are comments."""
    notes = [f"% {' '.join(check.text.split())}" for check in checks if check.state != OK]
    ends = [r"\bottomrule", r"\end{tabular}", r"\hfcend"]
    return "\n".join([HEAD, *notes, *(_papers if is_the_papers(rows) else _plain)(rows), *ends, ""])


def _plain(rows: Sequence[Row]) -> list[str]:
    """Write the metrics of the rows, and what they were measured on."""
    origins = "; ".join(dict.fromkeys(row.first.cache.origin for row in rows))
    header = " & ".join(["Method", *(escape(METRICS[key].column) for key in PLAIN), "seeds"])
    table = [rf"% Measured on {' '.join(origins.split())}.", r"\begin{tabular}{lcccccc}", r"\toprule"]
    table += [rf"{header} \\", r"\midrule"]
    for row in rows:
        cells = [plus_minus(row.values(key), METRICS[key].scale, METRICS[key].digits, r" $\pm$ ") for key in PLAIN]
        table.append(" & ".join([escape(row.label), *(cell.replace("–", "--") for cell in cells), str(len(row.seeds))]))
        table[-1] += r" \\"
    return table


def _papers(rows: Sequence[Row]) -> list[str]:
    """Write the paper's Table 1 with our rows below."""
    cited = [_line(e["method"], e["top3"], e["top5"], e["landmarks"], "--", "cited") for e in published()]
    measured = []
    for row in rows:
        top3, top5 = (plus_minus(row.values(metric), sign=r" $\pm$ ") for metric in ("top3", "top5"))
        measured.append(_line(row.label, top3, top5, "no", str(len(row.seeds)), "measured"))
    table = [r"\begin{tabular}{lccccl}", r"\toprule", r"Method & top-3 & top-5 & FLD & seeds & \\", r"\midrule"]
    return [*table, *cited, r"\midrule", *measured]


def tabular(tables: Iterable[Table]) -> str:
    """Write tables as methods.tex, one below the other; the best cells are bold."""
    parts = []
    for table in tables:
        lines = [
            " & ".join(rf"\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text) for cell in row) + r" \\"
            for row in table.rows
        ]
        columns = "l" + "c" * (len(table.header) - 1)
        header = " & ".join(map(escape, table.header)) + r" \\"
        parts += [f"% {escape(table.title)}. {escape(table.note)}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        parts += [header, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join([HEAD.replace("table1", "methods"), *parts, r"\hfcend", ""])


def _line(method: str, top3: str, top5: str, landmarks: str, seeds: str, origin: str) -> str:
    mark = r"$\bigcirc$" if landmarks == "yes" else r"$\times$"
    return " & ".join((escape(method), top3, top5, mark, seeds, origin)) + r" \\"


def escape(text: str) -> str:
    """Escape a text for LaTeX. A character that its oldest fonts lack becomes its code point."""
    return "".join(map(_character, " ".join(text.split())))


def _character(c: str) -> str:
    if c in SPECIAL:
        return SPECIAL[c]
    if c in "&%$#_{}":
        return "\\" + c
    letter = c in "ßæÆøØ" or ("À" <= c <= "ÿ" and normalize("NFD", c)[0].isascii())
    return c if " " <= c <= "~" or letter else f"{SPECIAL['[']}U+{ord(c):04X}]"
