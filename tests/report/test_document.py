"""What a report is made of."""

from hfc.report.checks import MIND, OK, WRONG, Check
from hfc.report.document import Document, Folded, Section, Text


def test_blocks_are_gone_through_in_order_folded_ones_too() -> None:
    texts = [Text(str(i)) for i in range(5)]
    inner = Folded("inner", (texts[2],))
    outer = Folded("outer", (texts[1], inner, texts[3]))
    document = Document("t", (), (), (Section("a", "A", (texts[0], outer)), Section("b", "B", (texts[4],))))
    assert list(document.blocks()) == [texts[0], outer, texts[1], inner, texts[2], texts[3], texts[4]]


def test_what_is_wrong_is_listed_and_nothing_else() -> None:
    checks = (Check(WRONG, "bad"), Check(MIND, "so so"), Check(OK, "good"), Check(WRONG, "worse"))
    assert Document("t", (), checks, ()).wrong == ["bad", "worse"]
