"""The page of a report asks nobody for anything."""

import re
from pathlib import Path

import pytest

from hfc.report import write_report


def test_the_page_asks_nobody_for_anything(place: Path) -> None:
    page = (place / "report" / "report.html").read_text("utf-8")
    assert "default-src 'none'" in page
    outside = re.findall(r"(?:src|href|action)\s*=\s*[\"'](?!#|figures/|data:)[^\"']*", page)
    assert outside == []
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_says_that_its_code_was_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {"version": "9", "commit": "c" * 40 + "+", "digest": "d" * 64}
    monkeypatch.setattr("hfc.provenance.code", lambda: code)
    write_report([place / "runs"], place / "changed")
    assert f"Made by hfc 9, commit {'c' * 12}+." in (place / "changed" / "report.html").read_text("utf-8")
    monkeypatch.setattr("hfc.provenance.code", lambda: code | {"commit": ""})
    write_report([place / "runs"], place / "changed")
    assert f"Made by hfc 9, code {'d' * 12}." in (place / "changed" / "report.html").read_text("utf-8")


def test_a_cell_without_a_number_stands_where_the_numbers_stand(place: Path) -> None:
    page = (place / "report" / "report.html").read_text("utf-8")
    table = page.partition('aria-labelledby="table-table1"')[2].partition("</table>")[0]
    kinds = re.findall(r"<(?:th scope=\"col\"|td)( class=\"number)?[^>]*>([^<]*)<", table)
    assert len(kinds) == 6 + 5 * 14
    by_name = {name: {bool(number) for number, _ in kinds[6 + i :: 5]} for i, (_, name) in enumerate(kinds[1:6])}
    assert by_name == {"top-3 %": {True}, "top-5 %": {True}, "landmarks": {False}, "seeds": {True}, "origin": {False}}
    assert "–" in [text for _, text in kinds[6 + 3 :: 5]]
