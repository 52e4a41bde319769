"""Names of classes."""

from hfc.hierarchy import canonical, spellings


def test_names_are_one_in_several_spellings_where_their_forms_agree() -> None:
    names = ["Tee", " Tee", "Cafe\u0301", "Café", "café", "Tee", "Hat "]
    assert spellings(names) == [["Cafe\u0301", "Café"], [" Tee", "Tee"]]
    assert [canonical(name) for name in names] == ["Tee", "Tee", "Café", "Café", "café", "Tee", "Hat"]
