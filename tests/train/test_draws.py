"""Folds and validation rows: whole groups, each label's share, and scikit-learn's folds where there are none."""

import warnings
from collections import Counter, defaultdict
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from hfc.errors import RunError
from hfc.regions import strings
from hfc.train.draws import deal, hold_out, nested_share, numbered

Ints = NDArray[np.int64]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Ints, Ints]:
    """Leaves and groups of some rows, in any mixture."""
    count = draw(st.integers(2, 60))
    leaf = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    group = draw(st.lists(st.integers(0, draw(st.integers(0, 40))), min_size=count, max_size=count))
    return np.array(leaf), np.array(group)


def test_rows_of_one_name_are_a_group_and_rows_without_one_are_groups_by_themselves() -> None:
    assert numbered(strings(["", "", ""])) is None
    number = numbered(strings(["b", "", "a", "b", "", "ä"]))
    assert number is not None
    assert number[0] == number[3]
    assert len(set(number.tolist())) == 5
    assert set(number.tolist()) == set(range(5))
    forms = numbered(strings(["Caf\u00e9", "x", "Cafe\u0301"]))
    assert forms is not None
    assert forms[0] == forms[2] != forms[1]
    again = numbered(strings(["ä", "b", "a"]))
    assert again is not None
    assert again.tolist() == [2, 1, 0]


@settings(max_examples=40)
@given(tables(), st.integers(2, 6))
def test_no_group_is_in_two_folds_and_each_row_is_held_out_once(table: tuple[Ints, Ints], folds: int) -> None:
    leaf, group = table
    if len(set(group.tolist())) < folds:
        with pytest.raises(RunError, match=f"{folds} folds need as many groups of rows .*, found"):
            deal(leaf, group, folds)
        return
    held = deal(leaf, group, folds)
    assert sorted(np.concatenate(held).tolist()) == list(range(len(leaf)))
    assert all(len(rows) and (np.diff(rows) > 0).all() for rows in held)
    parts = [set(group[rows].tolist()) for rows in held]
    assert sum(map(len, parts)) == len(set().union(*parts))
    for again, rows in zip(deal(leaf, group, folds), held, strict=True):
        np.testing.assert_array_equal(again, rows)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_scikit_learns(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    leaf, group = rng.integers(0, 4, 200), rng.integers(0, 40, 200)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(5, shuffle=True, random_state=0)
    expected = [held for _, held in splitter.split(leaf, leaf, group if grouped else None)]
    for rows, wanted in zip(deal(leaf, group if grouped else None, 5), expected, strict=True):
        np.testing.assert_array_equal(rows, wanted)


@pytest.mark.parametrize("grouped", [False, True])
def test_each_label_gives_each_fold_its_share(grouped: bool) -> None:
    leaf = np.repeat([0, 1, 2], [500, 100, 50])
    for rows in deal(leaf, np.arange(650) // 2 if grouped else None, 5):
        assert np.abs(np.bincount(leaf[rows]) - [100, 20, 10]).max() <= (2 if grouped else 0)


@pytest.mark.parametrize("grouped", [False, True])
def test_labels_of_fewer_rows_than_folds_are_dealt_without_a_word(grouped: bool) -> None:
    leaf = np.array([0] * 20 + [1, 1, 2])
    group = np.arange(len(leaf)) if grouped else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = deal(leaf, group, 5)
        assert [len(rows) for rows in held].count(5) == 3
        assert sum((leaf[rows] == 1).any() for rows in held) == 2  # its two rows are not in one fold
        every = deal(np.arange(10), np.arange(10) if grouped else None, 5)  # each label has a single row
        assert [len(rows) for rows in every] == [2] * 5


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(RunError) as caught:
        deal(np.zeros(3, dtype=np.int64), None, 4)
    assert str(caught.value) == "4 folds need as many rows for training and validation, found 3"
    with pytest.raises(RunError) as caught:
        deal(np.zeros(9, dtype=np.int64), np.arange(9) // 3, 4)
    assert str(caught.value) == "4 folds need as many groups of rows for training and validation, found 3"


@given(tables(), st.floats(0, 0.99), st.integers(0, 3))
def test_held_out_rows_are_whole_groups_and_leave_each_label_a_row(
    table: tuple[Ints, Ints], share: float, seed: int
) -> None:
    leaf, group = table
    held = hold_out(leaf, group, share, np.random.RandomState(seed))
    assert not set(group[held].tolist()) & set(group[~held].tolist())
    assert set(leaf[~held].tolist()) == set(leaf.tolist())
    assert (~held).sum() >= 2
    assert held.sum() == 0 or held.sum() >= len(set(leaf.tolist()))
    largest = max(Counter(group.tolist()).values())
    assert held.sum() <= round(share * len(leaf)) + largest / 2


def test_each_label_gives_its_share_to_within_a_group() -> None:
    rng = np.random.RandomState(0)
    sizes = rng.randint(1, 6, 400)
    leaf, group = np.repeat(np.arange(400) % 7, sizes), np.repeat(rng.permutation(400), sizes)
    held = hold_out(leaf, group, 0.2, rng)
    assert abs(held.mean() - 0.2) < 0.005
    of_leaf = defaultdict(list)
    for label, out in zip(leaf.tolist(), held.tolist(), strict=True):
        of_leaf[label].append(out)
    for rows in of_leaf.values():
        assert abs(sum(rows) - 0.2 * len(rows)) <= 6


def test_rows_by_themselves_are_drawn_evenly_in_the_order_of_leaves() -> None:
    """Against the rule as it is without groups: of the shuffled rows, by leaf, all but each leaf's first one."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        leaf = rng.integers(0, 5, int(rng.integers(10, 90)))
        share = float(rng.uniform(0.1, 0.9))
        shuffled = np.random.RandomState(seed).permutation(len(leaf))
        by_leaf = sorted(shuffled.tolist(), key=lambda row: leaf[row])
        spare = [row for place, row in enumerate(by_leaf) if place and leaf[by_leaf[place - 1]] == leaf[row]]
        count = min(round(share * len(leaf)), len(spare), len(leaf) - 2)
        expected = sorted(spare[i * len(spare) // count] for i in range(count))
        found = np.flatnonzero(hold_out(leaf, np.arange(len(leaf)), share, np.random.RandomState(seed)))
        assert found.tolist() == (expected if count >= len(set(leaf.tolist())) else [])


@settings(max_examples=60)
@given(tables(), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 2), st.randoms())
def test_shares_are_nested_keep_groups_whole_and_give_each_label_its_part(
    table: tuple[Ints, Ints], share: float, other: float, seed: int, random: Random
) -> None:
    leaf, number = table
    names = strings([f"row {i}" for i in range(len(leaf))])
    group = strings([f"g{n}" if n % 3 else "" for n in number.tolist()])
    drawn = nested_share(names, group, leaf, share, seed)
    smaller, larger = (nested_share(names, group, leaf, s, seed) for s in sorted((share, other)))
    assert not (smaller & ~larger).any()
    units = [g or n for g, n in zip(group.tolist(), names.tolist(), strict=True)]
    assert {u for u, d in zip(units, drawn, strict=True) if d}.isdisjoint(
        {u for u, d in zip(units, drawn, strict=True) if not d}
    )
    # A group counts for the label of its row whose name comes first.
    label = {unit: leaf[min((i for i, u in enumerate(units) if u == unit), key=lambda i: names[i])] for unit in units}
    for one in set(label.values()):
        every = [unit for unit in label if label[unit] == one]
        kept = [unit for unit in every if drawn[units.index(unit)]]
        assert len(kept) == min(k for k in range(1, len(every) + 1) if k >= share * len(every) * (1 - 1e-9))
    assert nested_share(names, group, leaf, 1.0, seed).all()
    order = list(range(len(leaf)))
    random.shuffle(order)
    np.testing.assert_array_equal(nested_share(names[order], group[order], leaf[order], share, seed), drawn[order])


def test_another_seed_draws_others_and_names_are_one_in_any_form() -> None:
    names, none, label = strings([f"{i}.jpg" for i in range(100)]), strings([""] * 100), np.zeros(100, dtype=np.int64)
    drawn = [nested_share(names, none, label, 0.5, seed) for seed in range(3)]
    assert [int(rows.sum()) for rows in drawn] == [50, 50, 50]
    assert all(30 < (one != other).sum() < 70 for one in drawn for other in drawn if one is not other)
    forms = strings(["Caf\u00e9"] * 50 + ["Cafe\u0301"] * 50)
    assert nested_share(names, forms, label, 0.001, 0).all()
