"""Words of a report that explain themselves."""

import re
from pathlib import Path

from hfc.report import write_report
from hfc.report.words import PATTERN, WORDS, anchor, headed, noted
from tests.support.made_runs import tree_of, write_run


def test_the_head_of_a_column_has_a_button_for_its_word() -> None:
    assert headed("top-1 %") == "top-1 %"
    assert headed("hF %").startswith('hF %<button type="button" class="why" popovertarget="why-hF"')
    for title, word in (("mistake severity", "severity"), ("distance@5", "distance"), ("ECE % before", "ECE")):
        assert f'aria-label="What is {word}?"' in headed(title)
    for title in ("flat-height", "heights", "shF", "levels+hF-x"):
        assert headed(title) == title


def test_a_note_has_a_button_where_a_word_stands_first() -> None:
    note = noted("a <b> share of P_final, and P_final of a height; hF")
    assert note.count("<button") == 2
    assert note.startswith("a &lt;b&gt; share of P_final<button")
    assert "hF<button" not in note  # its columns explain it
    assert re.sub(r"<button.*?</button>", "", note) == "a &lt;b&gt; share of P_final, and P_final of a height; hF"


def test_what_a_user_wrote_stays_text() -> None:
    assert headed("<i>") == "&lt;i&gt;"
    assert noted("<i>") == "&lt;i&gt;"


def test_every_button_of_a_page_opens_one_explanation(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", tree_of(tmp_path / "tree.csv"))
    write_report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    targets, ids = set(re.findall(r'popovertarget="(.*?)"', page)), re.findall(r'<div popover id="(.*?)"', page)
    assert sorted(ids) == sorted(map(anchor, WORDS))
    assert targets <= set(ids)
    assert {anchor(word) for word in ("P_final", "hF", "severity", "height")} <= targets
    assert all(PATTERN.fullmatch(word) for word in WORDS)
