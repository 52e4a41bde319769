"""Resident and streamed features give the same rows."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hfc import store
from hfc.regions import Regions, strings
from hfc.store import FeatureStore
from hfc.train.cache import Cache, load_cache
from hfc.train.features import Resident, Streamed, statistics
from hfc.train.heads.layers import Standardise
from tests.support.caches import put
from tests.support.made_up import FIELDS, write_cache

ROWS, DIM = 1500, 8
RAW = Standardise(DIM).transformed


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Row i holds i in its first column and its view in the second."""
    folder = tmp_path_factory.mktemp("features")
    labels = ["Tee", "Coat"] * (ROWS // 2)
    one = write_cache(folder / "one.h5", labels, ["train"] * ROWS, dim=DIM)
    with FeatureStore(one) as opened:
        regions = opened.table().regions
    features = np.zeros((ROWS, 2, DIM), dtype=np.float32)
    features[:, :, 0] = np.arange(ROWS)[:, None]
    features[:, :, 1] = [0, 1]
    return put(folder / "two.h5", regions, features, key_fields=FIELDS)


@pytest.fixture(scope="module", params=["resident", "streamed"])
def features(request: pytest.FixtureRequest, path: Path) -> Resident | Streamed:
    loaded = load_cache(path, stream=request.param == "streamed").features
    if isinstance(loaded, Streamed):  # three windows, the last of which holds fewer rows than a batch may lack
        return replace(loaded, buffer_bytes=2 * store.CHUNK_ROWS * 2 * DIM * loaded.itemsize)
    return loaded


@pytest.mark.parametrize("size", [1, 7, 64, 700, 5000])
def test_an_epoch_holds_every_row_once_in_random_order(features: Resident | Streamed, size: int) -> None:
    rows = torch.arange(3, ROWS, 3)
    order = torch.Generator().manual_seed(0)
    epochs = []
    for _ in range(2):
        batches = list(features.batches(rows, size, order))
        assert [len(batch) for batch, _ in batches[:-1]] == [size] * (len(batches) - 1)
        assert 0 < len(batches[-1][0]) <= size
        seen = torch.cat([batch for batch, _ in batches])
        values = torch.cat([found for _, found in batches])
        assert values.shape == (len(rows), DIM)
        assert torch.equal(values[:, 0], seen.float())  # the features are those of the row
        assert 0.4 < values[:, 1].mean() < 0.6  # both views are drawn
        assert torch.equal(seen.sort().values, rows)
        epochs.append(seen)
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0], rows)
    again = torch.cat([batch for batch, _ in features.batches(rows, size, torch.Generator().manual_seed(0))])
    assert torch.equal(again, epochs[0])


def test_views_are_drawn_for_an_epoch_as_they_would_be_for_its_batches() -> None:
    whole, by_batch = (torch.Generator().manual_seed(3) for _ in range(2))
    tensor = torch.arange(1000 * 3).view(1000, 3, 1)
    order = torch.randperm(1000, generator=by_batch)
    for rows, features in Resident(tensor).batches(torch.arange(1000), 77, whole):
        expected = order[: len(rows)] * 3 + torch.randint(3, (len(rows),), generator=by_batch)
        order = order[len(rows) :]
        assert torch.equal(features[:, 0], expected)


def test_blocks_come_in_the_order_of_the_rows(features: Resident | Streamed) -> None:
    rows = torch.tensor([0, 5, 255, 256, 1024, 1499])
    found = torch.cat(list(features.blocks(rows)))
    assert found.dtype == torch.float32
    assert found.shape == (6, 2, DIM)
    assert found[:, 0, 0].tolist() == rows.tolist()
    assert found[:, 1, 1].tolist() == [1] * 6


def test_the_first_view_alone(features: Resident | Streamed) -> None:
    first = features.first_view()
    rows = torch.arange(ROWS)
    assert first.views == 1
    assert torch.cat(list(first.blocks(rows))).shape == (ROWS, 1, DIM)
    values = torch.cat([found for _, found in first.batches(rows, 64, torch.Generator())])
    assert values[:, 1].abs().max() == 0


def test_statistics_of_both_are_those_of_numpy(features: Resident | Streamed) -> None:
    rows = torch.arange(1, ROWS, 2)
    mean, std = statistics(features, rows, RAW)
    values = np.repeat(np.arange(1, ROWS, 2), 2)
    assert mean[:2].tolist() == pytest.approx([values.mean(), 0.5])
    assert std[:2].tolist() == pytest.approx([values.std(), 0.5])


def test_statistics_are_of_the_features_as_they_are_transformed(features: Resident | Streamed) -> None:
    layer, rows = Standardise(DIM), torch.arange(1, ROWS, 2)
    values = np.array([[row, view] for row in rows.tolist() for view in (0, 1)], dtype=np.float64)
    as_numpy = {"sqrt": np.sqrt(values), "l2": values / np.linalg.norm(values, axis=1, keepdims=True)}
    for layer.transform, wanted in as_numpy.items():
        mean, std = statistics(features, rows, layer.transformed)
        np.testing.assert_allclose(mean[:2], wanted.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(std[:2], wanted.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_a_buffer_holds_so_many_bytes_of_either_type(kind: str, tmp_path: Path) -> None:
    features = np.zeros((4 * store.CHUNK_ROWS, 1, DIM), dtype=kind)
    names = strings([str(i) for i in range(len(features))])
    box = np.full((len(features), 4), np.nan, dtype=np.float32)
    regions = Regions(tmp_path, "made up", names, names, box, names, names)
    loaded = load_cache(put(tmp_path / "c.h5", regions, features, key_fields=FIELDS), stream=True).features
    assert isinstance(loaded, Streamed)
    bounded = replace(loaded, buffer_bytes=2 * store.CHUNK_ROWS * DIM * np.dtype(kind).itemsize)
    rows = torch.arange(len(features))
    windows = [found for _, found in bounded._windows(rows, np.arange(4), 2)]
    assert max(found.nbytes for found in windows) == bounded.buffer_bytes
    first, _ = next(bounded.batches(rows, 2 * store.CHUNK_ROWS, torch.Generator().manual_seed(0)))
    assert len({int(row) // store.CHUNK_ROWS for row in first}) == 2  # two chunks were held together, no more


def test_a_gpu_copies_streamed_batches_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: set[int] = set()
    sent: list[tuple[torch.device, bool]] = []

    def lock(tensor: torch.Tensor) -> torch.Tensor:
        copied = tensor.clone()
        locked.add(id(copied))
        return copied

    def send(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        assert id(tensor) in locked
        sent.append((device, non_blocking))
        return tensor

    features = load_cache(path, stream=True).features
    assert isinstance(features, Streamed)
    rows, gpu = torch.arange(ROWS), torch.device("cuda", 0)
    wanted = list(features.batches(rows, 100, torch.Generator().manual_seed(0)))
    blocks = list(features.blocks(rows))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lock)
    monkeypatch.setattr(torch.Tensor, "to", send)
    streamed = replace(features, device=gpu)
    batches = list(streamed.batches(rows, 100, torch.Generator().manual_seed(0)))
    assert sent == [(gpu, True)] * 2 * len(wanted)
    assert all(map(torch.equal, itertools.chain(*batches), itertools.chain(*wanted)))
    assert all(map(torch.equal, streamed.blocks(rows), blocks))
    assert sent == [(gpu, True)] * (2 * len(wanted) + len(blocks))


def test_statistics_are_those_of_the_training_rows() -> None:
    features = torch.randn(9000, 1, 3).half() * 50 + 7
    rows = torch.arange(0, 9000, 2)
    mean, std = statistics(Resident(features), rows, RAW)
    chosen = features[rows, 0].double().numpy()
    np.testing.assert_allclose(mean.numpy(), chosen.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), chosen.std(axis=0), rtol=1e-6)


def test_statistics_are_over_every_view(cache: Cache) -> None:
    assert isinstance(cache.features, Resident)
    one = cache.features.tensor
    both = Resident(torch.cat([one, one * 3 + 1], dim=1))
    mean, std = statistics(both, torch.arange(50), RAW)
    flat = both.tensor[:50].double().reshape(100, -1).numpy()
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, flat.std(axis=0), rtol=1e-5)
