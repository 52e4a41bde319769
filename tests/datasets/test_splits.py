"""Drawn splits: what they depend on, and what moves nothing."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfc.datasets import read_regions
from hfc.datasets.splits import draw_splits
from hfc.errors import DatasetError
from hfc.regions import Regions, strings

SPLITS = ("train", "val", "test")
SHARES = (0.1, 0.2)
Row = tuple[str, str, str]  # id, label, group


def table(rows: Sequence[Row], given: Sequence[str] | None = None, apart: tuple[str, ...] = ()) -> Regions:
    ids, labels, groups = (strings([row[i] for row in rows]) for i in range(3))
    box = np.full((len(rows), 4), np.nan, dtype=np.float32)
    splits = strings(list(given or [""] * len(rows)))
    return Regions(Path("photos"), "made up", ids, ids, box, labels, splits, group=groups, apart=apart)


def drawn(
    rows: Sequence[Row],
    *,
    seed: int = 0,
    shares: tuple[float, float] = SHARES,
    given: Sequence[str] | None = None,
    recorded: Sequence[str] | None = None,
    apart: tuple[str, ...] = (),
) -> dict[str, str]:
    """The split of each row, by its id."""
    before = None if recorded is None else strings(list(recorded))
    regions = draw_splits(table(rows, given, apart), seed=seed, shares=shares, recorded=before)
    return dict(zip(regions.id.tolist(), regions.split.tolist(), strict=True))


def number(row: Row, seed: int) -> float:
    """What the documentation says: SHA-256 of seed and name, each part after its length, as a fraction."""
    name, label, group = row
    parts = [str(seed), "group", group] if group else [str(seed), "row", label, name]
    content = b"".join(len(part.encode()).to_bytes(8, "little") + part.encode() for part in parts)
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") / 2**64


def by_number(row: Row, seed: int, shares: tuple[float, float] = SHARES) -> str:
    val, test = shares
    place = number(row, seed)
    return "test" if place < test else "val" if place < test + val else "train"


def letters(splits: dict[str, str]) -> str:
    """A letter for each split: r train, a val, e test."""
    return "".join(split[1] for split in splits.values())


def unit(row: Row) -> str:
    return f"group {row[2]}" if row[2] else f"row {row[0]}"


def of_labels(rows: Sequence[Row], splits: dict[str, str]) -> dict[str, dict[str, set[str]]]:
    """The units that each label has in each split."""
    there: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row[1]:
            there[row[1]][splits[row[0]]].add(unit(row))
    return {label: dict(kinds) for label, kinds in there.items()}


def needs_no_rule(rows: Sequence[Row], seed: int) -> set[str]:
    """Labels whose rows have all splits by their numbers alone."""
    by_rows = {row[0]: by_number(row, seed) for row in rows}
    return {label for label, kinds in of_labels(rows, by_rows).items() if len(kinds) == 3}


LABELS = st.sampled_from(["Tee", "Coat", "Größe > lang", ""])
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
# A group's rows have one label, but for the last two groups.
GROUPS = st.sampled_from([*[""] * 5, *"abcdefgh", "x", "y"])
HOME = dict(zip("abcdefgh", ["Tee", "Coat"] * 4, strict=True))


@st.composite
def tables(draw: st.DrawFn, least: int = 1, mixed: bool = True) -> list[Row]:
    names = draw(st.lists(NAMES, min_size=least, max_size=60, unique=True))
    rows = []
    for name in names:
        group = draw(GROUPS)
        group = group if mixed or group in HOME else ""
        rows.append((f"{name}.jpg", HOME.get(group) or draw(LABELS), group))
    return rows


MAYBE = st.sampled_from(["", *SPLITS])
SEEDS = st.integers(0, 2**40)


def test_a_split_is_the_same_in_every_version() -> None:
    rows = [(f"Tee/{i}.jpg", "Tee", "") for i in range(10)] + [(f"Tee/{i}.jpg", "Tee", f"p{i}") for i in range(10, 20)]
    assert [number(rows[i], 0) for i in (0, 10)] == pytest.approx([0.8674395678855022, 0.0706460849868658])
    assert letters(drawn(rows)) == "rarrreerrr errrerrree".replace(" ", "")
    assert letters(drawn(rows, seed=1)) == "reeeaeerre rraarrearr".replace(" ", "")


@given(rows=tables(), seed=SEEDS, data=st.data())
def test_a_group_is_never_parted(rows: list[Row], seed: int, data: st.DataObject) -> None:
    recorded = data.draw(st.none() | st.lists(MAYBE, min_size=len(rows), max_size=len(rows)))
    splits = drawn(rows, seed=seed, recorded=recorded)
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        kinds[unit(row)].add(splits[row[0]] if row[1] else "")
    assert all(len(there - {""}) <= 1 for there in kinds.values())
    assert all(bool(splits[name]) == bool(label) for name, label, _ in rows)


@given(rows=tables(least=20), more=tables(), seed=SEEDS, data=st.data())
def test_other_rows_move_nothing(rows: list[Row], more: list[Row], seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(rows), unique=True, min_size=1))
    known = {row[0] for row in rows}
    changed = [*kept, *(row for row in more if row[0] not in known)]
    before, after = drawn(rows, seed=seed), drawn(changed, seed=seed)
    settled = needs_no_rule(rows, seed) & needs_no_rule(changed, seed)
    # A group of several labels moves with each of them.
    alone = {
        row for row in kept if not row[2] or {other[1] for other in rows + changed if other[2] == row[2]} <= settled
    }
    for row in alone:
        if row[1] in settled:
            assert before[row[0]] == after[row[0]] == by_number(row, seed)


def test_no_row_of_a_large_collection_moves() -> None:
    rows = [(f"{label}/{i}.jpg", label, f"{label} {i // 3}" * (i % 2)) for label in "ABC" for i in range(400)]
    before = drawn(rows)
    assert before == {row[0]: by_number(row, 0) for row in rows}
    grown = [*rows[::2], *(("new" + name, label, group) for name, label, group in rows), ("D/1.jpg", "D", "")]
    after = drawn(grown)
    assert {name: after[name] for name in before if name in after} == {row[0]: before[row[0]] for row in rows[::2]}


@given(rows=tables(mixed=False), seed=SEEDS)
def test_a_label_of_three_is_in_every_split_and_one_of_fewer_in_training(rows: list[Row], seed: int) -> None:
    for label, kinds in of_labels(rows, drawn(rows, seed=seed)).items():
        units = {unit(row) for row in rows if row[1] == label}
        assert set(kinds) == ({"train", "val", "test"} if len(units) >= 3 else {"train"})


@given(rows=tables(mixed=False), seed=SEEDS, data=st.data())
def test_as_few_rows_as_can_move_for_a_label_that_lacks_a_split(
    rows: list[Row], seed: int, data: st.DataObject
) -> None:
    splits = drawn(rows, seed=seed)
    for label in {row[1] for row in rows} - {""}:
        mine = [row for row in rows if row[1] == label]
        kinds = of_labels(mine, {row[0]: by_number(row, seed) for row in mine})[label]
        moved = {unit(row) for row in mine if splits[row[0]] != by_number(row, seed)}
        if len({unit(row) for row in mine}) >= 3:
            assert len(moved) == 3 - len(kinds)


def test_how_a_label_grows() -> None:
    rows = [(f"{i}.jpg", "Tee", "") for i in range(12)]
    assert letters({row[0]: by_number(row, 6) for row in rows}) == "rerrrrrrerer"  # none for validation
    assert [letters(drawn(rows[:count], seed=6)) for count in range(1, 10)] == [
        *("r", "rr", "aer", "aerr", "aerrr", "aerrrr", "aerrrrr", "rerrrrra", "rarrrrrre")
    ]
    # The unit whose number is nearest to the numbers of the split that is lacking moves there.
    three = sorted(rows[:3], key=lambda row: number(row, 6))
    assert [drawn(rows[:3], seed=6)[row[0]] for row in three] == ["test", "val", "train"]


@given(rows=tables(), seed=SEEDS, data=st.data())
def test_what_was_recorded_stays(rows: list[Row], seed: int, data: st.DataObject) -> None:
    rows = [(name, label, "") for name, label, _ in rows]
    recorded = data.draw(st.lists(MAYBE, min_size=len(rows), max_size=len(rows)))
    splits = drawn(rows, seed=seed, recorded=recorded)
    for row, before in zip(rows, recorded, strict=True):
        assert not (row[1] and before) or splits[row[0]] == before


@given(rows=tables(), seed=SEEDS, data=st.data())
def test_what_the_source_gives_stays(rows: list[Row], seed: int, data: st.DataObject) -> None:
    own, recorded = (data.draw(st.lists(MAYBE, min_size=len(rows), max_size=len(rows))) for _ in range(2))
    splits = drawn(rows, seed=seed, given=own, recorded=recorded)
    assert all(splits[row[0]] == split for row, split in zip(rows, own, strict=True) if split)


@given(rows=tables(), seed=SEEDS, data=st.data())
def test_the_order_of_the_rows_does_not_matter(rows: list[Row], seed: int, data: st.DataObject) -> None:
    recorded = data.draw(st.lists(MAYBE, min_size=len(rows), max_size=len(rows)))
    order = data.draw(st.permutations(range(len(rows))))
    other = drawn([rows[i] for i in order], seed=seed, recorded=[recorded[i] for i in order])
    assert other == drawn(rows, seed=seed, recorded=recorded)


@pytest.mark.parametrize(("count", "val", "test"), [(100, 3.0, 4.0), (1_000, 0.9, 1.3)])
def test_shares_are_right_within_chance(count: int, val: float, test: float) -> None:
    """Rows are independent, so that counts are binomial: within 5 of their standard deviations of the mean.

    val and test are the standard deviations in percent that notebooks/data.md has.
    """
    rows = [(f"{i}.jpg", str(i % 5) if count > 100 else "Tee", "") for i in range(count)]
    draws = 60
    counts = np.array([[list(drawn(rows, seed=s).values()).count(split) for split in SPLITS] for s in range(draws)])
    for column, share in zip(counts.T / count, (0.7, 0.1, 0.2), strict=True):
        sd = (share * (1 - share) / count) ** 0.5
        assert abs(column.mean() - share) < 5 * sd / draws**0.5
        assert column.std() == pytest.approx(sd, rel=4 / (2 * draws) ** 0.5)  # four standard errors
    assert [round(100 * (share * (1 - share) / count) ** 0.5, 1) for share in (0.1, 0.2)] == [val, test]


def test_a_group_goes_where_most_of_its_rows_are(caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"{group}{i}.jpg", "Tee", group) for group in "abc" for i in range(4)]
    recorded = ["test", "test", "train", "", *["val", "test", "", ""], *["", "", "", "val"]]
    splits = drawn(rows, recorded=recorded)
    assert {group: {splits[f"{group}{i}.jpg"] for i in range(4)} for group in "abc"} == {
        "a": {"test"},
        "b": {"val"},  # of as many the first of train, val and test
        "c": {"val"},
    }
    words = "2 groups were in several splits; all rows of each go where most of them were: a, b"
    assert caplog.messages == [f"photos: {words}"]
    caplog.clear()
    # What the source gives is stronger than what was recorded.
    splits = drawn(rows, given=["", "", "", "train", *[""] * 8], recorded=["test"] * 3 + [""] * 9)
    assert {splits[f"a{i}.jpg"] for i in range(4)} == {"train"}
    caplog.clear()
    splits = drawn(rows, given=["test", "train", "train", "", *["val"] * 8])
    assert (splits["a0.jpg"], splits["a1.jpg"], splits["a3.jpg"]) == ("test", "train", "train")
    assert caplog.messages == ["photos: 1 groups have rows in several splits, as the source has it: a"]
    caplog.clear()
    drawn(rows, given=["test", "train", "train", "val", *["val"] * 8])  # nothing to draw
    assert caplog.messages == ["photos: 1 groups have rows in several splits, as the source has it: a"]


def test_splits_that_the_source_keeps_apart_take_nothing(caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"{i}.jpg", "Tee", "") for i in range(60)]
    own = ["test"] * 20 + ["train"] * 40
    splits = drawn(rows, given=own, apart=("train", "test"))
    assert [name for name, split in splits.items() if split == "test"] == [row[0] for row in rows[:20]]
    expected = {row[0]: "val" if number(row, 0) < 0.1 else "train" for row in rows[20:]}
    assert {row[0]: splits[row[0]] for row in rows[20:]} == expected
    assert set(expected.values()) == {"train", "val"}
    assert caplog.messages == ["photos: has no val split; 10% of the training images are drawn for it"]
    # A picture that was once drawn for the test and stands in train now is for training.
    recorded = ["test"] * 60
    assert drawn(rows, given=own, recorded=recorded, apart=("train", "test")) == splits
    recorded = ["val"] * 60
    assert set(list(drawn(rows, given=own, recorded=recorded, apart=("train", "test")).values())[20:]) == {"val"}
    whole = table(rows, own, SPLITS)
    assert draw_splits(whole, seed=0, shares=SHARES) is whole


def test_a_group_that_the_source_parts_is_not_drawn_into_what_it_keeps_apart() -> None:
    rows = [(f"{i}.jpg", "Tee", "a" if i < 4 else "") for i in range(40)]
    splits = drawn(rows, given=["test"] * 3 + ["train"] * 37, apart=("train", "test"))
    assert list(splits.values())[:3] == ["test"] * 3
    assert set(list(splits.values())[3:]) == {"train", "val"}


def test_the_smallest_label_counts_only_what_can_be_drawn() -> None:
    rows = [(f"{i}.jpg", "Tee", "") for i in range(5)]
    splits = drawn(rows, given=["test", "test", "test", "train", "train"], apart=("train", "test"))
    assert list(splits.values()) == ["test", "test", "test", "train", "train"]


def test_shares_may_be_nothing_but_not_all() -> None:
    rows = [(f"{i}.jpg", "Tee", "") for i in range(30)]
    assert set(drawn(rows, shares=(0, 0)).values()) == {"train"}
    assert set(drawn(rows, shares=(0, 0.5)).values()) == {"train", "test"}
    assert set(drawn(rows[:3], shares=(0.5, 0.45)).values()) == {"train", "val", "test"}
    with pytest.raises(DatasetError) as caught:
        drawn(rows, shares=(0.4, 0.6))
    assert str(caught.value) == "val and test fractions 0.4 + 0.6 leave nothing to train on"
    assert drawn(rows, shares=(0.4, 0.6), given=["val"] * 30) == {row[0]: "val" for row in rows}  # nothing to draw


def test_spellings_of_a_name_are_one_name() -> None:
    nfc, nfd = "Gr\u00f6\u00dfe/caf\u00e9", "Gro\u0308\u00dfe/cafe\u0301"
    here, there = ([(f"{name}{i}.jpg", name[: len(name) // 2], "") for i in range(50)] for name in (nfc, nfd))
    assert list(drawn([(name, "L", group) for name, _, group in here]).values()) == list(
        drawn([(name, " L ", group) for name, _, group in there]).values()
    )
    mixed = [("1.jpg", "Tee", nfc), ("2.jpg", "Tee", nfd), *((f"{i}.jpg", "Tee", "") for i in range(3, 20))]
    for seed in range(20):
        splits = drawn(mixed, seed=seed)
        assert splits["1.jpg"] == splits["2.jpg"]


@settings(max_examples=20)
@given(seed=SEEDS)
def test_photographs_that_are_added_move_none_that_were_there(seed: int) -> None:
    """The trial: 405 files in 15 folders, and 40 more."""
    rows = [(f"label {i % 15}/{i}.jpg", f"label {i % 15}", "") for i in range(445)]
    before = drawn(rows[:405], seed=seed)
    recorded = [before.get(row[0], "") for row in rows]
    after = drawn(rows, seed=seed, recorded=recorded)
    assert {name: after[name] for name in before} == before
    # Without a record only those may move that moved for a label without a split of its own.
    fresh = drawn(rows, seed=seed)
    moved = {row for row in rows[:405] if fresh[row[0]] != before[row[0]]}
    assert all(before[row[0]] != by_number(row, seed) for row in moved)
    assert {row[1] for row in moved} <= {row[1] for row in rows} - needs_no_rule(rows[:405], seed)


def test_a_folder_of_photographs_grows(tmp_path: Path) -> None:
    def read() -> Regions:
        return read_regions(tmp_path, outside_root=False)

    def put(first: int, last: int) -> None:
        for i in range(first, last):
            file = tmp_path / f"label {i % 15}" / f"{i:03d}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.touch()

    put(0, 405)
    first = draw_splits(read(), seed=0, shares=SHARES)
    before = dict(zip(first.id, first.split, strict=True))
    assert {split: list(before.values()).count(split) > 20 for split in SPLITS} == dict.fromkeys(SPLITS, True)
    put(405, 445)
    grown = read()
    recorded = strings([before.get(name, "") for name in grown.id])
    second = draw_splits(grown, seed=0, shares=SHARES, recorded=recorded)
    after = dict(zip(second.id, second.split, strict=True))
    assert len(after) == 445
    assert {name: after[name] for name in before} == before
    assert draw_splits(replace(grown, split=second.split), seed=5, shares=SHARES).split.tolist() == list(after.values())
