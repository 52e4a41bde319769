"""What the rows set aside prove. A simulation counts how often what is promised is true."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, binom

from hfc.store import promise
from hfc.store.promise import CONFIDENCE, TARGETS, Counts, Promise, count, least_right, needed, thresholds_of

SPLITS = 200
MOST_BROKEN = int(binom.ppf(0.999, SPLITS, 1 - CONFIDENCE))
"""How many of the splits may break a promise that is kept with 95% confidence."""


class World(NamedTuple):
    """Every row there is: what is promised of it can be counted."""

    along: NDArray[np.float64]
    reach: NDArray[np.int64]
    known: NDArray[np.int64]
    """What labels say of `reach`: less, where a label is an inner node."""

    def precision(self, threshold: float) -> float:
        depth = (self.along >= threshold).sum(axis=1)
        return float((depth <= self.reach)[depth > 0].mean())


def world(bend: str) -> World:
    """Answers of three levels whose chances to be right are known; `bend` is what their scores make of these."""
    rng = np.random.default_rng(0)
    rows = 20_000
    steps = rng.beta((9, 6, 4), (0.5, 0.8, 1.2), size=(rows, 3))
    chance = np.cumprod(steps, axis=1)
    # One number a row, so that a node is right only where the one above it is.
    reach = (rng.random((rows, 1)) < chance).sum(axis=1)
    along = {
        "calibrated": chance,
        "too sure": np.cumprod(steps ** (1, 0.5, 0.1), axis=1),
        "too modest": np.cumprod(steps ** (0.5, 1, 4), axis=1),
        "surest wrong": np.where(chance[:, :1] < 0.7, 0.95 + chance / 20, chance * 0.95),
    }[bend]
    along = np.ascontiguousarray(along)
    along[::7, 2] = -np.inf  # leaves above the last level
    labelled = np.where(rng.random(rows) < 0.2, 1, 3)
    return World(along, np.minimum(reach, np.isfinite(along).sum(axis=1)), np.minimum(reach, labelled))


def broken(there: World, rows: int, *, inner: bool = False) -> dict[float, tuple[int, int]]:
    """For each target how many of the splits promise it, and how many of these promises are false."""
    rng = np.random.default_rng(1)
    counts = dict.fromkeys(TARGETS, (0, 0))
    truth = there.known if inner else there.reach
    for _ in range(SPLITS):
        chosen, proof = rng.integers(len(there.along), size=(2, rows))
        thresholds = thresholds_of(there.along[chosen])
        own, proven = (count(there.along[part], truth[part], thresholds) for part in (chosen, proof))
        made = Promise(confidence=CONFIDENCE, thresholds=thresholds, chosen=own, proof=proven, test=own)
        for target, kept in made.listed().items():
            promised, false = counts[target]
            counts[target] = promised + 1, false + (there.precision(kept.threshold) < target)
    return counts


@pytest.mark.parametrize("bend", ["calibrated", "too sure", "too modest", "surest wrong"])
def test_a_promise_is_kept_in_95_of_100_splits(bend: str) -> None:
    counts = broken(world(bend), 300)
    assert all(false <= MOST_BROKEN for _, false in counts.values()), counts
    assert min(counts[0.8][0], counts[0.9][0]) > 0.9 * SPLITS, counts  # and it is no empty one


def test_labels_that_stop_half_way_break_no_promise() -> None:
    counts = broken(world("calibrated"), 300, inner=True)
    assert counts[0.8][0] > SPLITS / 2
    assert all(false <= MOST_BROKEN for _, false in counts.values()), counts


def test_the_plain_share_of_right_answers_would_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promise, "least_right", lambda right, given, confidence: right / np.maximum(given, 1))
    counts = broken(world("calibrated"), 300)
    assert all(counts[target][1] > 4 * MOST_BROKEN for target in (0.8, 0.9, 0.95)), counts


def test_the_limit_is_that_of_clopper_and_pearson() -> None:
    right, given = np.array([0, 1, 18, 20, 59, 58]), np.array([0, 20, 20, 20, 59, 58])
    expected = [0, *(beta.ppf(0.05, r, n - r + 1) for r, n in zip(right[1:], given[1:], strict=True))]
    assert least_right(right, given, 0.95) == pytest.approx(expected)
    # Were the true share at the limit, as many right answers or more would come in 5 of 100 draws.
    for r, n, low in zip(right[1:], given[1:], expected[1:], strict=True):
        assert binom.sf(r - 1, n, low) == pytest.approx(0.05)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.95, 0.99, 0.9999])
def test_so_many_answers_prove_a_target_and_one_less_does_not(target: float) -> None:
    rows = needed(target)
    enough, less = least_right(np.array([rows, rows - 1]), np.array([rows, rows - 1]), CONFIDENCE)
    assert less < target <= enough


def test_rows_that_prove_95_and_99() -> None:
    assert (needed(0.95), needed(0.99)) == (59, 299)
    assert needed(math.sqrt(0.05)) == 2


def test_answers_are_counted_as_by_hand() -> None:
    rng = np.random.default_rng(0)
    along = np.sort(rng.integers(0, 8, size=(40, 3)) / 8, axis=1)[:, ::-1].copy()
    along[::5, 2] = -np.inf
    reach, thresholds = rng.integers(0, 4, size=40), (0.9, 0.75, 0.5, 0.25, 0.0)
    counts = count(along, reach, thresholds)
    for k, threshold in enumerate(thresholds):
        given, right = [0, 0, 0], [0, 0, 0]
        for shares, far in zip(along.tolist(), reach.tolist(), strict=True):
            depth = sum(share >= threshold for share in shares)
            if depth:
                given[depth - 1] += 1
                right[depth - 1] += depth <= far
        assert (list(counts.given[k]), list(counts.right[k])) == (given, right)
    assert sum(counts.given[-1]) == counts.rows == 40


def test_thresholds_fall_to_0_and_each_is_a_share() -> None:
    along = np.random.default_rng(0).random((500, 2))
    along[0] = -np.inf
    thresholds = thresholds_of(along)
    assert thresholds == tuple(sorted(set(thresholds), reverse=True))
    assert (len(thresholds), thresholds[-1]) == (promise.MOST + 1, 0.0)
    assert set(thresholds[:-1]) <= set(along.ravel())
    assert thresholds_of(np.full((3, 2), -np.inf)) == (0.0,)
    assert thresholds_of(np.ones((3, 2))) == (1.0, 0.0)


def counts_of(*pairs: tuple[int, int], rows: int = 400) -> Counts:
    """Counts of one level, by (right, given)."""
    return Counts(rows=rows, given=tuple((given,) for _, given in pairs), right=tuple((right,) for right, _ in pairs))


def made(chosen: Counts, proof: Counts) -> Promise:
    thresholds = tuple(round(1 - k / 10, 2) for k in range(len(proof.given)))
    return Promise(confidence=0.95, thresholds=thresholds, chosen=chosen, proof=proof, test=proof)


def test_tests_go_from_the_start_to_the_first_that_fails() -> None:
    answered = counts_of((0, 10), (0, 121), (0, 160), (0, 191))
    proof = counts_of((10, 10), (120, 121), (140, 160), (190, 191))
    both = made(answered, proof)
    limits = least_right(np.array([10, 120, 140, 190]), np.array([10, 121, 160, 191]), 0.95)
    assert [both.start(target) for target in (0.5, 0.9, 0.92, 0.95, 0.99)] == [1, 1, 1, 3, 3]
    assert both.keep(0.92) == (1, 0.9, limits[1])  # the last would pass too, but the third, before it, does not
    assert both.keep(0.8) == (3, 0.7, limits[3])
    assert both.keep(0.95) == (3, 0.7, limits[3])  # begun at the last
    assert both.keep(0.99) is None
    assert list(both.listed()) == [0.8, 0.9, 0.95]
    told = {"confidence": 0.95, "rows": 400, "thresholds": {"0.8": 0.7, "0.9": 0.9, "0.95": 0.7}}
    assert both.listed_plain() == told
    most = both.most(0.99)
    assert both.keep(most)
    assert not any(both.keep(step / 1000) for step in range(round(1000 * most) + 1, 991))


def test_a_proof_begins_where_enough_answers_can_be_expected() -> None:
    """59 answers without a mistake prove 0.95, and 299 prove 0.99."""
    chosen = counts_of(*((0, given) for given in range(1, 101)), rows=100)

    def expected(rows: int, target: float) -> float:
        proof = counts_of(*((0, 0) for _ in range(100)), rows=rows)
        return (made(chosen, proof).start(target) + 1) * rows / 100

    assert expected(1000, 0.95) == 180  # three times as many as are needed, in steps of ten
    assert expected(200, 0.95) == 100  # half of the rows
    assert expected(100, 0.95) == 59  # as many as are needed
    assert expected(400, 0.99) == 300
    assert expected(200, 0.99) == 200  # all of them: they cannot prove it


def test_what_validation_got_right_has_no_part_in_it() -> None:
    proof = counts_of((10, 10), (120, 121), (140, 160))
    one, other = (
        made(counts_of(*((r, n) for r, n in zip(right, (10, 121, 160), strict=True))), proof)
        for right in ((0, 0, 0), (9, 80, 160))
    )
    assert [one.keep(t) for t in (0.8, 0.9)] == [other.keep(t) for t in (0.8, 0.9)]


def test_it_is_read_as_it_was_written() -> None:
    one = made(counts_of((3, 3)), counts_of((10, 10)))
    assert Promise.read(one.plain(), "promise") == one
