"""A finished cache beside the rows that are there now."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.config import ExtractConfig
from hfc.extract.former import Counts, Former, count, differences, open_former, recorded_splits, recording, trusted
from hfc.regions import Regions, strings

NAN = np.nan


def regions(ids: str, splits: str = "", paths: str = "") -> Regions:
    """A row a letter; splits by their first letters, - = none."""
    names = {"t": "train", "v": "val", "e": "test", "-": ""}
    split = strings([names[letter] for letter in splits or "-" * len(ids)])
    path = strings([f"{letter}.jpg" for letter in paths or ids])
    boxes = np.full((len(ids), 4), NAN, dtype=np.float32)
    return Regions(Path("/data"), "test", strings(list(ids)), path, boxes, strings(["L"] * len(ids)), split)


def prints(pixels: str) -> store.Fingerprints:
    """The letter is the digest; a dot is a file that cannot be read."""
    sha256 = np.array([[0 if letter == "." else ord(letter)] * 32 for letter in pixels], dtype=np.uint8)
    times = np.where(sha256[:, 0] > 0, 1_000, -1).astype(np.int64)
    return store.Fingerprints(sha256.reshape(-1, 32), times, times.copy())


def identities(pixels: str, rows: Regions) -> list[bytes]:
    return store.identities(prints(pixels).sha256, rows.box)


def former(ids: str, pixels: str, splits: str = "") -> Former:
    rows = regions(ids, splits)
    failures = [(row, "cannot read the file") for row, letter in enumerate(pixels) if letter == "."]
    ok = np.array([letter != "." for letter in pixels])
    return Former(Path("c.h5"), store.Table(rows, ok, failures, prints(pixels)), identities(pixels, rows), {})


@pytest.mark.parametrize(
    ("ids", "pixels", "want"),
    [
        ("abcd", "ABC.", Counts(kept=4)),
        ("dcba", ".CBA", Counts(kept=4)),
        ("xbcd", "ABC.", Counts(kept=4)),  # renamed
        ("abcde", "ABC.E", Counts(kept=4, new=1)),
        ("abcde", "ABC.A", Counts(kept=5)),  # the same pixels under a second name
        ("abcd", "XBC.", Counts(kept=3, changed=1)),
        ("abcd", "ABCD", Counts(kept=3, changed=1)),  # mended
        ("abcd", "A.C.", Counts(kept=3, changed=1)),  # deleted
        ("abcd", "BAC.", Counts(kept=2, changed=2)),  # exchanged
        ("abcd", "CBC.", Counts(kept=3, changed=1)),  # one file overwritten by another
        ("bcd", "BC.", Counts(kept=3, gone=1)),
        ("abc", "ABC", Counts(kept=3, gone=1)),
        ("xyz", "XYZ", Counts(new=3, gone=4)),
        ("abcx", "ABC.", Counts(kept=3, new=1, gone=1)),
    ],
)
def test_rows_are_kept_new_changed_or_gone(ids: str, pixels: str, want: Counts) -> None:
    rows = regions(ids)
    assert count(rows, identities(pixels, rows), former("abcd", "ABC.")) == want
    assert want.kept + want.new + want.changed == len(ids)


def test_without_a_cache_every_row_is_new() -> None:
    assert count(regions("abc"), identities("AB.", regions("abc")), None) == Counts(new=3)


def test_another_box_in_the_same_bytes_is_a_change() -> None:
    rows = regions("ab")
    rows.box[1] = (1, 2, 3, 4)
    assert count(rows, identities("AB", rows), former("ab", "AB")) == Counts(kept=1, changed=1)


@pytest.mark.parametrize(
    ("ids", "pixels", "want"),
    [
        ("abcd", "ABC.", "tevt"),
        ("dcba", ".CBA", "tvet"),
        ("xbcd", "ABC.", "tevt"),  # a renamed file keeps its split
        ("bacd", "ABC.", "tevt"),  # also one that takes the name of another: pixels come first
        ("abcd", "XBC.", "tevt"),  # a file that was replaced keeps that of its name
        ("e", "E", "-"),
        ("e", ".", "-"),
    ],
)
def test_splits_are_those_of_the_same_pixels_or_else_of_the_name(ids: str, pixels: str, want: str) -> None:
    rows = regions(ids)
    splits = recorded_splits(rows, identities(pixels, rows), former("abcd", "ABC.", "tevt"), ExtractConfig())
    assert splits.tolist() == regions("x" * len(want), want).split.tolist()


def test_of_rows_with_the_same_pixels_every_one_keeps_its_own_split() -> None:
    rows = regions("abcx")
    splits = recorded_splits(rows, identities("AAAA", rows), former("abc", "AAA", "ve-"), ExtractConfig())
    assert splits.tolist() == ["val", "test", "val", "val"]
    assert recorded_splits(rows, identities("AAAA", rows), None, ExtractConfig()).tolist() == [""] * 4


def test_other_settings_of_the_draw_are_for_new_rows(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"split": "official", "split_seed": 5, "val_fraction": 0.1, "test_fraction": 0.2}
    old = replace(former("abc", "ABC", "tve"), drawing=settings)
    rows = regions("abcd")
    assert recording(None, rows, ExtractConfig()) is None
    assert recording(old, rows, ExtractConfig(split_seed=5)) is old
    assert recording(old, regions("abcd", "ttve"), ExtractConfig()) is old  # nothing is drawn
    assert recording(replace(old, drawing={}), rows, ExtractConfig()) is not None  # made before there were any
    assert caplog.messages == []
    assert recording(old, rows, ExtractConfig(test_fraction=0.3)) is old
    words = "made with split_seed = 5, asked for 0; test_fraction = 0.2, asked for 0.3: rows that are known keep their"
    assert caplog.messages == [f"c.h5: {words} splits"]


def test_the_other_split_of_deepfashion_is_drawn_anew() -> None:
    old, rows = former("abc", "ABC", "tve"), regions("abc")
    assert recording(old, rows, ExtractConfig(split="item")) is None
    by_item = ExtractConfig(split="item")
    assert recorded_splits(rows, identities("ABC", rows), old, by_item).tolist() == [""] * 3
    assert recording(replace(old, drawing={"split": "item"}), rows, ExtractConfig()) is None
    assert recording(replace(old, drawing={"split": "item"}), rows, ExtractConfig(split="item")) is not None


def changed(**columns: object) -> store.Table:
    old = former("abc", "AB.", "tve").table
    return replace(old, regions=replace(old.regions, **columns))


def test_differences_are_named() -> None:
    old = former("abc", "AB.", "tve")
    table = old.table
    assert differences(table, old) == []
    rows = table.regions
    assert differences(changed(label=strings(["L", "L", "M"])), old) == ["labels"]
    assert differences(changed(split=strings(["", "val", "test"]), path=rows.id), old) == ["paths", "splits"]
    assert differences(changed(group=strings(["g", "", ""])), old) == ["groups"]
    assert differences(changed(box=np.ones((3, 4), dtype=np.float32)), old) == ["boxes"]
    assert differences(changed(root=Path("/elsewhere")), old) == ["folder"]
    assert differences(replace(table, failures=[(2, "not a file")]), old) == ["failures"]
    assert differences(former("acb", "A.B", "tev").table, old) == ["order"]
    assert differences(former("abx", "AB.", "tve").table, old) == ["rows"]
    assert differences(former("ab", "AB", "tv").table, old) == ["rows"]
    assert differences(replace(table, fingerprints=prints("AX.")), old) == ["images"]
    assert differences(table, replace(old, table=replace(table, fingerprints=None))) == ["images"]


def test_times_differ_where_they_were_known() -> None:
    old = former("ab", "AB")
    known = prints("AB")
    later = replace(known, modified=known.modified + 1)
    assert differences(replace(old.table, fingerprints=later), old) == ["times of files"]
    # What was too fresh to be trusted and is old by now is no reason to write a cache anew.
    fresh = replace(old, table=replace(old.table, fingerprints=replace(known, modified=known.modified * 0 - 1)))
    assert differences(replace(old.table, fingerprints=later), fresh) == []


def test_trusted_files_are_those_of_the_same_path() -> None:
    old = former("abc", "ABC")
    blind = replace(old, table=replace(old.table, fingerprints=None), identities=[b""] * 3)
    rows = regions("xyz", paths="cab")
    assert trusted(blind, rows, prints("321")).identities == identities("213", rows)
    assert trusted(blind, regions("a"), prints("A")).identities == [*identities("A", regions("a")), b"", b""]


def test_where_no_cache_is_there_is_none_to_bring_up_to_date(tmp_path: Path) -> None:
    assert open_former(tmp_path / "c.h5", {}) is None  # type: ignore[typeddict-item]
