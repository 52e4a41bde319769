"""An answer as text, as JSON and as the cells of a table, written out in full."""

import json
from dataclasses import replace

import pytest

from hfc.hierarchy import Hierarchy, parse_hierarchy
from hfc.predict.answers import Answer, AnswerTable, Leaf

DRESS, SKIRT, COAT = (("full-body", "Dress"), ("lower-body", "Skirt"), ("full-body", "Coat"))
SURE = Answer("a.jpg", DRESS, (0.91234567, 0.8345678), (Leaf(DRESS, 0.8345678), Leaf(SKIRT, 0.05)))
UNSURE = Answer("ä.jpg", ("full-body",), (0.6,), (Leaf(DRESS, 0.3333333), Leaf(COAT, 0.2666667)))
NOWHERE = Answer("c.jpg", (), (), (Leaf(SKIRT, 0.4), Leaf(COAT, 0.35)))
UNREADABLE = Answer("caf\udce9.jpg", (), (), (), "caf\udce9.jpg: the file is empty")


def test_an_answer_as_text() -> None:
    assert [str(answer) for answer in (SURE, UNSURE, NOWHERE)] == [
        "full-body > Dress 0.83",
        "full-body 0.60",
        "not certain of any node",
    ]
    assert str(Answer("a", (), (), (), "the file is empty")) == "cannot be read: the file is empty"
    assert repr([SURE, NOWHERE]) == "[<full-body > Dress 0.83>, <not certain of any node>]"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            SURE,
            '{"id": "a.jpg", "path": ["full-body", "Dress"], "probabilities": [0.912346, 0.834568], "top": '
            '[{"path": ["full-body", "Dress"], "probability": 0.834568}, '
            '{"path": ["lower-body", "Skirt"], "probability": 0.05}]}',
        ),
        (
            NOWHERE,
            '{"id": "c.jpg", "path": [], "probabilities": [], "top": '
            '[{"path": ["lower-body", "Skirt"], "probability": 0.4}, '
            '{"path": ["full-body", "Coat"], "probability": 0.35}]}',
        ),
        (UNREADABLE, '{"id": "caf\\ufffd.jpg", "error": "caf\\ufffd.jpg: the file is empty"}'),
    ],
    ids=["sure", "not sure", "unreadable"],
)
def test_an_answer_as_json(answer: Answer, text: str) -> None:
    assert json.dumps(answer.to_dict()) == text
    assert json.loads(text) == answer.to_dict()


@pytest.fixture
def tree() -> Hierarchy:
    lines = ["leaf,group", "Dress,full-body", "Skirt,lower-body", "Coat,full-body"]
    return parse_hierarchy("tree", "tree.csv", lines)


def test_answers_as_a_table(tree: Hierarchy) -> None:
    table = AnswerTable(tree, 2)
    levels = ["group", "leaf", "group probability", "leaf probability"]
    assert table.header == ["id", *levels, "top1", "top1 probability", "top2", "top2 probability", "error"]
    assert [table.row(answer) for answer in (SURE, UNSURE, NOWHERE, UNREADABLE)] == [
        ["a.jpg", *DRESS, "0.912346", "0.834568", "Dress", "0.834568", "Skirt", "0.050000", ""],
        ["ä.jpg", "full-body", "", "0.600000", "", "Dress", "0.333333", "Coat", "0.266667", ""],
        ["c.jpg", "", "", "", "", "Skirt", "0.400000", "Coat", "0.350000", ""],
        ["caf\ufffd.jpg", *[""] * 8, "caf\ufffd.jpg: the file is empty"],
    ]


def test_an_answer_below_a_node_names_it(tree: Hierarchy) -> None:
    sure = replace(SURE, top=SURE.top[:1], within=("full-body",))
    failed = replace(UNREADABLE, within=("full-body",))
    assert json.dumps(sure.to_dict()) == (
        '{"id": "a.jpg", "within": ["full-body"], "path": ["full-body", "Dress"], "probabilities": [0.912346, '
        '0.834568], "top": [{"path": ["full-body", "Dress"], "probability": 0.834568}]}'
    )
    assert json.dumps(failed.to_dict()) == (
        '{"id": "caf\\ufffd.jpg", "within": ["full-body"], "error": "caf\\ufffd.jpg: the file is empty"}'
    )
    table = AnswerTable(tree, 1, within=True)
    levels = ["group", "leaf", "group probability", "leaf probability"]
    assert table.header == ["id", *levels, "top1", "top1 probability", "within", "error"]
    assert [table.row(answer) for answer in (sure, replace(failed, within=DRESS))] == [
        ["a.jpg", *DRESS, "0.912346", "0.834568", "Dress", "0.834568", "full-body", ""],
        ["caf\ufffd.jpg", *[""] * 6, "full-body > Dress", "caf\ufffd.jpg: the file is empty"],
    ]
    table = AnswerTable(tree, 1, within=True, batch_size=True)
    assert table.header[-3:] == ["within", "batch_size", "error"]
    assert table.row(replace(sure, batch_size=1))[-3:] == ["full-body", "1", ""]
    assert table.row(replace(failed, within=DRESS))[-3:-1] == ["full-body > Dress", ""]
    lines = ["within,id", "Dress,a", "Skirt,b"]
    assert AnswerTable(parse_hierarchy("tree", "t", lines), 1, within=True).header[1:3] == ["id level", "within level"]


def test_answers_on_an_uneven_tree() -> None:
    """Cells below a leaf are blank, and leaves of one name are told by their paths."""
    tree = parse_hierarchy("tree", "t", ["leaf,group", "Hat,", "Other,", "Other,tops", "Shirt,tops"])
    hat, other, top_other, shirt = (("Hat",), ("Other",), ("tops", "Other"), ("tops", "Shirt"))
    one = Answer("1", hat, (0.5,), (Leaf(hat, 0.5), Leaf(top_other, 0.3)))
    two = Answer("2", top_other, (0.7, 0.6), (Leaf(top_other, 0.6), Leaf(other, 0.3)))
    three = Answer("3", ("tops",), (0.7,), (Leaf(shirt, 0.4), Leaf(top_other, 0.3)))
    four = Answer("4", (), (), (Leaf(hat, 0.4), Leaf(shirt, 0.3)))
    assert [answer.climbed for answer in (one, two, three, four, UNREADABLE)] == [False, False, True, True, False]
    assert [str(answer) for answer in (one, two, three)] == ["Hat 0.50", "tops > Other 0.60", "tops 0.70"]
    assert [AnswerTable(tree, 2).row(answer)[1:-1] for answer in (one, two, three, four)] == [
        ["Hat", "", "0.500000", "", "Hat", "0.500000", "tops > Other", "0.300000"],
        ["tops", "Other", "0.700000", "0.600000", "tops > Other", "0.600000", "> Other", "0.300000"],
        ["tops", "", "0.700000", "", "Shirt", "0.400000", "tops > Other", "0.300000"],
        ["", "", "", "", "Hat", "0.400000", "Shirt", "0.300000"],
    ]
    assert json.loads(json.dumps(one.to_dict()))["path"] == ["Hat"]


def test_a_table_has_no_more_leaves_than_the_tree_and_no_column_twice() -> None:
    lines = ["leaf,id,error", "Dress,full-body,a", "Skirt,lower-body,b", "Coat,full-body,a"]
    table = AnswerTable(parse_hierarchy("tree", "tree.csv", lines), 9)
    assert table.header[1:4] == ["error level", "id level", "leaf"]
    assert table.header[-3:] == ["top3", "top3 probability", "error"]
    assert len(set(table.header)) == len(table.header) == 1 + 3 + 3 + 6 + 1
