"""Records: JSON objects with typed fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from hfc.errors import RunError
from hfc.metrics import Metrics
from hfc.store.records import CacheRecord, Record


@dataclass(frozen=True, kw_only=True)
class Inner(Record):
    """A part of the record below."""

    size: int


@dataclass(frozen=True, kw_only=True)
class Outer(Record):
    """One field of every type."""

    name: str
    share: float
    late: bool
    shape: tuple[int, ...]
    parts: tuple[Inner, ...]
    counts: Mapping[str, int]
    scores: Metrics
    gap: float | None
    added: str | None = field(default=None, metadata={"key": "added later"})
    more: Mapping[str, int] = field(default_factory=dict)


JSON: dict[str, object] = {
    "name": "n",
    "share": 1,
    "late": False,
    "shape": [2, 3],
    "parts": [{"size": 4, "new": None}],
    "counts": {"a": 1},
    "scores": {"top1": 0.5, "by": {"x/y": 0.25}},
    "gap": None,
}


def test_a_record_is_what_its_json_says() -> None:
    record = Outer.read(JSON, "file")
    assert record == Outer(
        name="n",
        share=1,
        late=False,
        shape=(2, 3),
        parts=(Inner(size=4, others={"new": None}),),
        counts={"a": 1},
        scores={"top1": 0.5, "by/x/y": 0.25},
        gap=None,
    )
    assert record.plain() == JSON
    assert list(record.plain()) == list(JSON)


def test_a_field_that_came_later_is_written_where_it_is_known() -> None:
    record = Outer.read({**JSON, "added later": "a"}, "file")
    assert (record.added, record.plain()["added later"]) == ("a", "a")
    assert Outer.read({**JSON, "more": {"b": 2}}, "file").plain() == {**JSON, "more": {"b": 2}}
    assert Outer.read({**JSON, "more": {}}, "file").plain() == JSON  # as it says nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name: expected a text, found null"),
        ({"share": "1"}, "share: expected a number, found '1'"),
        ({"late": 1}, "late: expected true or false, found 1"),
        ({"shape": [2, "3"]}, "shape[1]: expected an integer, found '3'"),
        ({"shape": {}}, "shape: expected a list, found {}"),
        ({"parts": [{}]}, "parts[0].size: missing"),
        ({"parts": [4]}, "parts[0]: expected an object, found 4"),
        ({"counts": {"a": 0.5}}, "counts.a: expected an integer, found 0.5"),
        ({"scores": {"by": {"x": "a"}}}, "scores.by.x: expected a number, found 'a'"),
        ({"scores": {"by": {"x": {"y": 1}}}}, "scores.by.x: expected a number, found {'y': 1}"),
        ({"gap": "a"}, "gap: expected a number, found 'a'"),
    ],
)
def test_a_field_that_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RunError) as caught:
        Outer.read({**JSON, **change}, "folder/file", "mend it")
    assert str(caught.value) == f"folder/file: {message}; mend it"


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(RunError, match=r"^file: expected an object, found \[\]; train the run again$"):
        Outer.from_json(b"[]", "file")
    with pytest.raises(RunError, match=r"^file: expected JSON, found JSONDecodeError\(.*\); train the run again$"):
        Outer.from_json(b"{", "file")
    with pytest.raises(RunError, match=r"^file: expected JSON, found UnicodeDecodeError"):
        Outer.from_json(b'"\xff"', "file")


@pytest.mark.parametrize(("key_fields", "views"), [(None, 1), ({}, 1), ({"views": ["identity", "flip"]}, 2)])
def test_a_cache_counts_its_views(key_fields: dict[str, object] | None, views: int) -> None:
    record = CacheRecord(
        path="c.h5",
        feature_key="k",
        key_fields=key_fields,
        features_sha256="s",
        rows=1,
        dim=2,
        origin="o",
        backbone="b",
        image_size=None,
        weights="w",
        weights_digest="d",
        random_weights=False,
        extracted_by={},
    )
    assert record.views == views
    assert record.plain()["image_size"] is None
    assert ("key_fields" in record.plain(), "labels" in record.plain()) == (key_fields is not None, False)
