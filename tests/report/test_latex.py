"""table1.tex: what it holds, and that LaTeX takes it alone and inside a paper, whatever the names."""

import os
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest

from hfc.report import write_report
from hfc.report.latex import escape
from hfc.runs import find
from tests.support.made_runs import tree_of, two_methods, write_run

PAPER = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
Before.
\begin{table}\centering\input{table1}\caption{Ours.}\end{table}
After.
\end{document}
"""
LATIN = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0x100)]))

SEVERITY = ("mistake_severity", 1, 3)

needs_latex = pytest.mark.skipif(
    (not shutil.which("pdflatex") or not shutil.which("kpsewhich")) and "CI" not in os.environ,  # CI must have it
    reason="no pdflatex here (Debian: texlive-latex-base and texlive-latex-recommended)",
)


def lines_of(folder: Path, **changes: str) -> tuple[list[str], list[str]]:
    """The lines of a report's table1.tex, and those of them that are rows."""
    two_methods(folder / "runs", tree_of(folder / "tree.csv"), **changes)
    write_report([folder / "runs"], folder)
    lines = (folder / "table1.tex").read_text("utf-8").splitlines()
    return lines, [line for line in lines if line.endswith(r"\\")]


def rules(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("\\") and line.endswith("rule")]


def test_of_deepfashion_the_table_has_the_cited_rows_and_then_ours(tmp_path: Path) -> None:
    lines, body = lines_of(tmp_path, cache__origin="DeepFashion, item split")
    assert len(body) == 1 + 12 + 2
    assert {line.count(" & ") for line in body} == {5}
    assert body[-2].startswith("flat (tree) & ")
    assert r" $\pm$ " in body[-1]
    assert rules(lines) == [r"\toprule", r"\midrule", r"\midrule", r"\bottomrule"]
    assert any(line.startswith("% Measured on DeepFashion, item split. The cited rows") for line in lines)


def test_of_other_data_the_table_has_our_metrics_alone(tmp_path: Path) -> None:
    lines, body = lines_of(tmp_path)
    assert rules(lines) == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert "% Measured on made-up features." in lines
    assert body[0] == r"Method & top-1 \% & top-3 \% & top-5 \% & hF \% & mistake severity & seeds \\"
    assert len(body) == 1 + 2
    for line, method in zip(body[1:], ("flat", "hmcn-f"), strict=True):
        tests = [run.result.test for run in find([tmp_path / "runs"]) if run.result.method == method]
        cells = [f"{method} (tree)"]
        for key, scale, digits in (*((name, 100, 2) for name in ("top1", "top3", "top5", "hF")), SEVERITY):
            values = [scale * test[key] for test in tests]
            cells.append(f"{statistics.mean(values):.{digits}f} $\\pm$ {statistics.stdev(values):.{digits}f}")
        assert line == " & ".join([*cells, "3"]) + r" \\"
    assert "Cho" not in "".join(lines)
    assert "The paper's table" not in (tmp_path / "report.md").read_text("utf-8")


def test_what_latex_would_take_for_itself_is_escaped() -> None:
    assert escape("a_b|<i>&50%") == r"a\_b\textbar{}\textless{}i\textgreater{}\&50\%"
    assert escape("\\x{y}~^$#") == r"\textbackslash{}x\{y\}\textasciitilde{}\textasciicircum{}\$\#"
    assert escape("Röcke β 裙 «\n[x]") == r"Röcke $\beta$ {[}U+88D9] {[}U+00AB] {[}x]"


@needs_latex
def test_it_compiles_alone_and_in_a_paper(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree, hierarchy__name=LATIN)
    write_run(tmp_path / "runs" / "b", tree, method="«levels", hierarchy__name="裙子 β – \u0301", seed=1)
    write_run(tmp_path / "runs" / "c", tree, cache__origin="manifest 100%\n\\undefined.csv", cache__random_weights=True)
    write_report([tmp_path / "runs"], tmp_path)
    (tmp_path / "paper.tex").write_text(PAPER)
    for name in ("table1", "paper"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-3000:]
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "Output written" in done.stdout
        assert "Missing character" not in (tmp_path / f"{name}.log").read_text(errors="replace")
