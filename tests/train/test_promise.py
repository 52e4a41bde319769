"""Rows set aside prove what a run promises, and play no other part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hfc import runs
from hfc.config import resolve
from hfc.errors import ConfigError, RunError
from hfc.hierarchy import load_hierarchy
from hfc.predict.head import load_trained
from hfc.regions import strings
from hfc.store.promise import Counts
from hfc.train.cache import Cache, load_cache
from hfc.train.data import SPARE, fold_data, prepare
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.features import Resident
from hfc.train.promise import read_climbs
from hfc.train.stage import train
from tests.support.made_up import small_cache, write_cache
from tests.support.training import quick

HARD = {"method": "levels", "reduced": 4, "epochs": 3}


@pytest.fixture(scope="module")
def run(place: Path, cache: Cache) -> runs.Run:
    """A run whose answers are not all right, and whose promise 36 or so rows prove."""
    return train(cache, quick(place, promise_share=0.5, **HARD), place / "proven")[0]


def counted(run: runs.Run, cache: Cache, rows: list[int], threshold: float) -> tuple[list[int], list[int]]:
    """Answers and right ones on each level, as `hfc predict` gives them with this confidence."""
    trained, labels = load_trained(run.folder), cache.table.regions.label
    assert isinstance(cache.features, Resident)
    features = cache.features.tensor[torch.tensor(rows)].numpy()
    given, right = [0, 0, 0], [0, 0, 0]
    for row, answer in zip(rows, trained.answers(features, [""] * len(rows), 1, threshold), strict=True):
        if answer.path:
            truth = trained.paths[trained.hierarchy.leaves.index(labels[row])]
            given[len(answer.path) - 1] += 1
            right[len(answer.path) - 1] += answer.path == truth[: len(answer.path)]
    return given, right


def test_what_is_counted_is_what_prediction_answers(run: runs.Run, cache: Cache) -> None:
    promise, data = run.result.promise, prepare(cache, str(run.result.config["hierarchy"]), promise_share=0.5)
    assert promise
    assert run.result.temperature
    assert run.result.temperature.value != 1
    for name, split in (("chosen", "val"), ("proof", "promise"), ("test", "test")):
        counts: Counts = getattr(promise, name)
        rows = data.rows[split].tolist()
        assert counts.rows == len(rows)
        for place in (0, 7, 30, len(promise.thresholds) - 1):
            expected = counted(run, cache, rows, promise.thresholds[place])
            assert (list(counts.given[place]), list(counts.right[place])) == expected
    given, right = promise.proof.sums()
    assert 0 < right[-1] < given[-1] == promise.proof.rows


def test_the_rows_play_no_other_part(run: runs.Run, cache: Cache, place: Path) -> None:
    """With other labels they prove something else, and nothing else changes."""
    data = prepare(cache, str(place / "tree.csv"), promise_share=0.5)
    rows = data.rows["promise"].numpy()
    regions = cache.table.regions
    labels = regions.label.copy()
    labels[rows] = np.roll(labels[rows], 1)
    table = replace(cache.table, regions=replace(regions, label=labels))
    other, _ = train(
        replace(cache, table=table), quick(place, promise_share=0.5, **HARD), place / "other", overwrite=True
    )
    assert (other.folder / runs.HEAD).read_bytes() == (run.folder / runs.HEAD).read_bytes()
    assert [epoch.val for epoch in other.epochs] == [epoch.val for epoch in run.epochs]
    mine, its = run.result, other.result
    assert (mine.temperature, mine.test, mine.selected) == (its.temperature, its.test, its.selected)
    assert mine.promise
    assert its.promise
    assert mine.promise.thresholds == its.promise.thresholds
    assert (mine.promise.chosen, mine.promise.test) == (its.promise.chosen, its.promise.test)
    assert mine.promise.proof.given == its.promise.proof.given
    assert mine.promise.proof.right != its.promise.proof.right


def test_rows_are_set_aside_from_validation(cache: Cache, place: Path) -> None:
    plain, data = (prepare(cache, str(place / "tree.csv"), promise_share=share) for share in (0.0, 0.5))
    assert "promise" not in plain.rows
    for split in ("train", "test"):
        assert data.rows[split].tolist() == plain.rows[split].tolist()
    aside, left = data.rows["promise"].tolist(), data.rows["val"].tolist()
    assert sorted(aside + left) == plain.rows["val"].tolist()
    assert 20 <= len(aside) <= 52  # of 72, each with a chance of one half
    assert aside == sorted(aside)
    assert str(data.counts).startswith(f"rows: 216 train, {len(left)} val, 72 test, {len(aside)} for the promise; left")
    more = prepare(cache, str(place / "tree.csv"), promise_share=0.8).rows["promise"].tolist()
    assert set(aside) < set(more)
    assert all(not set(aside) & set(fold.rows["val"].tolist()) for fold in fold_data(data, 3))


def test_of_a_group_one_row_proves_and_none_is_left_in_validation(place: Path, tmp_path: Path) -> None:
    names = [f"item {i // 12}" if i % 6 else "" for i in range(360)]
    cache = load_cache(small_cache(tmp_path / "c.h5", groups=names), device="cpu")
    plain, data = (prepare(cache, str(place / "tree.csv"), promise_share=share) for share in (0.0, 0.5))
    group = {row: names[row] or str(row) for row in plain.rows["val"].tolist()}
    aside, left = ([group[row] for row in data.rows[split].tolist()] for split in ("promise", "val"))
    assert len(set(aside)) == len(aside) > 1
    assert not set(aside) & set(left)
    assert set(aside) | set(left) == set(group.values())
    assert data.unused[SPARE] == len(group) - len(aside) - len(left) > 0


def test_paths_are_read_as_by_hand() -> None:
    tree = load_hierarchy(str(Path(__file__).parent.parent / "bench" / "uneven_clothing.csv"))
    rng = np.random.default_rng(0)
    final = rng.dirichlet(np.full(len(tree.leaves), 0.4), size=50).astype(np.float32)
    paths = [tree.path(leaf) for leaf in range(len(tree.leaves))]
    truth = rng.integers(len(paths), size=50)
    labels = [paths[leaf][: 1 + i % len(paths[leaf])] for i, leaf in enumerate(truth)]
    path = np.array([[*tree.ancestors[leaf]] for leaf in truth])
    for i, label in enumerate(labels):
        path[i, len(label) :] = -1
    along, reach = read_climbs(torch.from_numpy(final), path, tree, 2.0)
    for i, row in enumerate(np.sqrt(final.astype(np.float64))):
        shares, best = row / row.sum(), paths[row.argmax()]
        for h in range(along.shape[1]):
            if h >= len(best):
                assert along[i, h] == -np.inf
                continue
            below = sum(share for share, other in zip(shares, paths, strict=True) if other[: h + 1] == best[: h + 1])
            assert along[i, h] == pytest.approx(below, abs=1e-9)
        assert reach[i] == sum(best[: h + 1] == labels[i][: h + 1] for h in range(min(len(best), len(labels[i]))))


def test_a_share_that_leaves_nothing_is_refused(place: Path, tmp_path: Path) -> None:
    labels = ["Tee", "Coat"] * 4
    path = write_cache(tmp_path / "c.h5", labels, ["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    with pytest.raises(RunError) as caught:
        prepare(load_cache(path), str(place / "tree.csv"), promise_share=1e-9)
    assert str(caught.value) == (
        f"{path}: promise_share=1e-09 sets 0 of the 2 validation rows aside; some must be, and some whose label is a "
        "leaf must stay, to pick the epoch; give another share, or more validation rows"
    )
    with pytest.raises(RunError, match="promise_share=1 sets 2 of the 2 validation rows aside; some must be"):
        prepare(load_cache(path), str(place / "tree.csv"), promise_share=1.0)


def test_what_cannot_promise_refuses_to(place: Path, cache: Cache) -> None:
    with pytest.raises(ConfigError) as caught:
        train(cache, quick(place, promise_share=0.5, decode="least-cost"), place / "no")
    assert str(caught.value) == (
        "promise_share with decode=least-cost: its scores are no probabilities, of which a threshold could promise "
        "anything; leave promise_share out, or use another decode"
    )
    with pytest.raises(ConfigError, match=r"promise_share: expected 0 to 0\.95, found 1"):
        resolve(type(quick(place)), {"promise_share": 1})
    classifier = HierarchicalClassifier(settings={"promise_share": 0.5})
    with pytest.raises(ConfigError, match="settings: promise_share: promises are those of `hfc train`"):
        classifier.fit(np.eye(4), strings(["a", "b", "a", "b"]))


def test_without_it_nothing_is_promised(place: Path, cache: Cache) -> None:
    result = train(cache, quick(place, **HARD), place / "plain")[0].result
    assert result.promise is None
    assert "promise" not in result.plain()
    assert "promise" not in result.rows.plain()
