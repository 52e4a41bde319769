"""table1.tex: what it holds, and that LaTeX takes it alone and inside a paper, whatever the names."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hfc.report import write_report
from hfc.report.latex import escape
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

needs_latex = pytest.mark.skipif(
    (not shutil.which("pdflatex") or not shutil.which("kpsewhich")) and "CI" not in os.environ,  # CI must have it
    reason="no pdflatex here (Debian: texlive-latex-base and texlive-latex-recommended)",
)


def test_the_table_has_the_cited_rows_and_then_ours(tmp_path: Path) -> None:
    two_methods(tmp_path / "runs", tree_of(tmp_path / "tree.csv"))
    write_report([tmp_path / "runs"], tmp_path)
    lines = (tmp_path / "table1.tex").read_text("utf-8").splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 1 + 12 + 2
    assert {line.count(" & ") for line in body} == {5}
    assert body[-2].startswith("flat (tree) & ")
    assert r" $\pm$ " in body[-1]
    rules = [line for line in lines if line.startswith("\\") and line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\midrule", r"\bottomrule"]
    assert any(line.startswith("% Measured on made-up features.") for line in lines)


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
