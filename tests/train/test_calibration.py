"""The temperature on made-up data with known probabilities, against a grid, and what it leaves as it was."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from hfc import metrics
from hfc.config import METHODS, TrainConfig, resolve
from hfc.hierarchy import from_paths, load_hierarchy
from hfc.runs import Result
from hfc.store import read_predictions
from hfc.train import calibration
from hfc.train.cache import Cache
from hfc.train.calibration import BOUNDS, calibrated, fit_temperature, leaf_probabilities, measure, ranked_alike
from hfc.train.data import prepare
from hfc.train.evaluation import decoded, predict
from hfc.train.heads.layers import Prediction
from hfc.train.settings import build_head
from hfc.train.stage import train
from tests.support.temperatures import powers
from tests.support.training import quick


def known(rows: int, leaves: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N, C) probabilities, and labels drawn by them."""
    rng = np.random.default_rng(seed)
    shares = np.exp(rng.normal(size=(rows, leaves)) * 2)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares, (shares.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)


def log_loss(shares: NDArray[np.float64], leaf: NDArray[np.int64]) -> float:
    return float(-np.log(shares[np.arange(len(leaf)), leaf]).mean())


@pytest.mark.parametrize("scale", [0.25, 0.7, 1.0, 1.6, 4.0])
def test_the_factor_by_which_logits_were_scaled_comes_back(scale: float) -> None:
    shares, leaf = known(60_000, 12, seed=0)
    final = torch.from_numpy(powers(shares, 1 / scale)).float()
    temperature = fit_temperature(final, leaf)
    assert temperature == pytest.approx(scale, rel=0.01)
    np.testing.assert_allclose(ranked_alike(final, scale), shares, atol=1e-5)
    other, truth = known(60_000, 12, seed=1)  # rows that it was not fitted on
    unseen = torch.from_numpy(powers(other, 1 / scale)).float()
    trust = measure(unseen, ranked_alike(unseen, temperature), truth)
    assert trust is not None
    assert trust.ece < 0.02
    assert trust.nll == pytest.approx(log_loss(other, truth), abs=1e-3)
    assert trust.nll <= trust.nll_before + 1e-4


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.2, 5), rows=st.integers(40, 200))
def test_no_temperature_of_a_grid_is_more_likely_and_what_is_not_refuted_stays(
    seed: int, scale: float, rows: int
) -> None:
    shares, leaf = known(rows, 5, seed)
    final = powers(shares, scale)
    best = fit_temperature(torch.from_numpy(final), leaf)
    grid = np.exp(np.linspace(*np.log(BOUNDS), 301)).tolist()
    costs = {t: rows * log_loss(powers(final, t), leaf) + math.log(t) ** 2 / 2 for t in (*grid, 1.0, best)}
    least = min(costs.values())
    if best == 1:
        assert costs[1.0] - least < chi2.ppf(0.95, df=1) / 2 + 1e-2
    else:
        assert costs[best] <= least + 1e-6 * rows
        assert costs[1.0] - costs[best] > chi2.ppf(0.95, df=1) / 2 - 1e-2
    assert log_loss(powers(final, best), leaf) <= log_loss(final, leaf) + 1e-12


def test_of_right_probabilities_one_in_twenty_is_changed() -> None:
    draws = 400
    changed = sum(fit_temperature(torch.from_numpy(shares), leaf) != 1 for shares, leaf in map(drawn, range(draws)))
    assert min(binom.cdf(changed, draws, 0.05), binom.sf(changed, draws, 0.05)) > 1e-3


def drawn(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return known(300, 5, seed)


def test_weights_count_rows_as_often() -> None:
    shares, leaf = known(200, 4, seed=2)
    final, times = torch.from_numpy(powers(shares, 2.0)), np.random.default_rng(3).integers(1, 4, 200)
    repeated = fit_temperature(final.repeat_interleave(torch.from_numpy(times), dim=0), leaf.repeat(times))
    assert fit_temperature(final, leaf, torch.from_numpy(times)) == pytest.approx(repeated, rel=5e-3)
    assert fit_temperature(final, leaf) != pytest.approx(repeated, rel=5e-3)


def test_rows_without_a_leaf_do_not_count() -> None:
    shares, leaf = known(300, 4, seed=4)
    final = torch.from_numpy(powers(shares, 0.5))
    some = np.where(np.arange(300) % 3 == 0, -1, leaf)
    assert fit_temperature(final, some) == fit_temperature(final[torch.from_numpy(some >= 0)], some[some >= 0])
    assert fit_temperature(final, np.full(300, -1)) == 1
    assert measure(final, final, np.full(300, -1)) is None


def test_rows_without_a_mistake_and_zeros_give_finite_numbers() -> None:
    sure = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]]).repeat(10, 1)
    assert 0.1 < fit_temperature(sure, np.array([0, 1, 0] * 10)) < 1  # the likelihood alone would ask for 0
    zeros = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    temperature = fit_temperature(zeros, np.array([0, 0, 1]))
    assert 1 < temperature <= BOUNDS[1]
    assert torch.isfinite(ranked_alike(zeros, temperature)).all()
    assert ranked_alike(zeros, temperature)[2].tolist() == [0.5, 0.5]


@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(*BOUNDS), double=st.booleans())
def test_ranks_stay_whatever_is_rounded(seed: int, temperature: float, double: bool) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 3, (8, 40)).cumsum(axis=1).astype(np.float32)  # neighbours are equal or a bit apart
    final = (np.float32(rng.choice([1e-42, 1e-30, 0.02])) * (1 + steps * 1e-7)).astype(np.float32)
    final[:, :5] = rng.choice([0.0, 0.5, 1e-45], (8, 5))
    final = rng.permuted(final.astype(np.float64) if double else final, axis=1)
    after = ranked_alike(torch.from_numpy(final), temperature).numpy()
    assert after.dtype == final.dtype
    for before, row in zip(final, after, strict=True):
        assert (np.sign(np.subtract.outer(row, row)) == np.sign(np.subtract.outer(before, before))).all()
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("method", [*METHODS])
def test_every_method_is_calibrated_and_no_less_likely(method: str, place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, method=method, epochs=2), tmp_path)
    data = prepare(cache, str(place / "tree.csv"))
    head = build_head(resolve(TrainConfig, run.result.config), data.hierarchy, 16)
    from safetensors.torch import load_file

    head.load_state_dict(load_file(run.folder / "head.safetensors"))
    config, temperature = quick(place, method=method, epochs=2), run.result.temperature
    assert temperature is not None
    for split, trust in (("val", temperature.validation), ("test", temperature.test)):
        assert trust is not None
        raw = predict(head, cache.features, data.rows[split], config.beta)
        final = leaf_probabilities(raw, data.hierarchy, config).double().numpy()
        final /= final.sum(axis=1, keepdims=True)
        leaf = data.leaf(split)
        assert trust.nll_before == pytest.approx(log_loss(final, leaf), rel=1e-5)
        assert trust.nll == pytest.approx(log_loss(powers(final, temperature.value), leaf), rel=1e-5)
        if split == "val":
            assert trust.nll <= trust.nll_before
    stored = read_predictions(run.folder / "predictions.h5")
    np.testing.assert_allclose(stored.final, powers(final, temperature.value), rtol=2e-4, atol=1e-6)
    assert (metrics.rank(np.asarray(stored.final), leaf) == metrics.rank(final, leaf)).all()
    assert (run.result.test["ece"], run.result.test["nll"]) == (temperature.test.ece, temperature.test.nll)
    if head.sums and config.decode == "leaf":
        for h, level in enumerate(stored.levels):
            for node in range(level.shape[1]):
                below = np.asarray(stored.final)[:, data.hierarchy.ancestors[:, h] == node].sum(axis=1)
                np.testing.assert_allclose(level[:, node], below, rtol=1e-5)


@pytest.mark.parametrize("decode", ["leaf", "path", "consistent", "least-cost"])
def test_a_decoding_ranks_as_before(decode: str, place: Path) -> None:
    tree = load_hierarchy(str(place / "tree.csv"))
    rng = np.random.default_rng(5)
    levels = tuple(torch.from_numpy(rng.random((30, size))).float() for size in tree.sizes)
    config = quick(place, decode=decode)
    plain = decoded(Prediction(levels, levels[-1]), tree, config)
    after = calibrated(plain, tree, config, sums=False, temperature=1.7)
    for before, now in zip((*plain.levels, plain.final), (*after.levels, after.final), strict=True):
        assert torch.equal(before.argsort(stable=True), now.argsort(stable=True))
    assert (plain.final is after.final) == (decode == "least-cost")
    assert calibrated(plain, tree, config, sums=False, temperature=1.0) is plain


@pytest.mark.parametrize("uneven", [False, True])
def test_sums_of_calibrated_leaves_are_those_of_loops_whatever_the_blocks(
    uneven: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths = quick(place, decode="leaf"), [("a", "b"), ("a", "c"), ("d",) if uneven else ("d", "e")]
    tree = from_paths("tree", ["first", "second"], paths)
    final = torch.rand(7, 3, generator=torch.Generator().manual_seed(0))
    levels = tuple(torch.zeros(7, size) for size in tree.sizes)
    plain = Prediction(levels if uneven else (levels[0], final), final)
    whole = calibrated(plain, tree, config, sums=True, temperature=1.7)
    monkeypatch.setattr(calibration, "CELLS", 6)
    parts = calibrated(plain, tree, config, sums=True, temperature=1.7)
    assert (parts.final is parts.levels[-1]) == (not uneven)
    for got, want in zip((*parts.levels, parts.final), (*whole.levels, whole.final), strict=True):
        assert torch.equal(got, want)
    shares = final.double() ** (1 / 1.7)
    shares /= shares.sum(dim=1, keepdim=True)
    for h, level in enumerate(parts.levels):
        for node in range(tree.sizes[h]):
            below = shares[:, torch.from_numpy(tree.ancestors[:, h] == node)].sum(dim=1)
            torch.testing.assert_close(level[:, node].double(), below, rtol=1e-5, atol=0)


def test_a_result_without_a_temperature_has_one_of_1(place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, method="flat", epochs=1), tmp_path)
    content = json.loads((run.folder / "result.json").read_text())
    assert Result.read(content, "now") == run.result
    assert content["temperature"]["value"] == run.result.calibrated_by != 1
    del content["temperature"]
    former = Result.read(content, "before")
    assert (former.temperature, former.calibrated_by) == (None, 1.0)
