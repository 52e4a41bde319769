"""What a cache is made of: refused where it was made under other settings, is damaged, or is of another kind."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hfc import store
from hfc.errors import StaleStoreError, StoreError
from hfc.provenance import digest
from hfc.store.header import put_header, read_header
from hfc.store.sources import opened
from tests.support.caches import KEY, fingerprints, put, regions, shard_of

MADE = Path(__file__).parents[1] / "made_before"
FEATURES = np.random.default_rng(0).normal(size=(600, 1, 8)).astype(np.float16)
ORIGIN = np.zeros(600, np.int64), np.arange(600)
OTHER_WAY = np.zeros(600, np.int64), np.arange(600)[::-1]  # so that rows are copied one by one
SETTINGS = {"config": {}, "provenance": {}}


def write_source(path: Path, kind: str, **changes: object) -> Path:
    if kind == "cache":
        return put(path, regions(600), FEATURES, key_fields=KEY | changes)
    store.write_shard(path, shard_of(FEATURES), KEY | changes)
    return path


def make(path: Path, source: Path, origin: tuple[store.Features, store.Features] = ORIGIN) -> None:
    places = origin[1]
    table = store.Table(regions(600).take(places), np.ones(600, np.bool_), [], fingerprints(600).take(places))
    store.assemble(path, table, [source], *origin, key_fields=KEY, **SETTINGS)


@pytest.mark.parametrize("kind", ["cache", "shard"])
def test_a_source_of_other_settings_is_refused_and_the_setting_named(kind: str, tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5", kind, image_size=456)
    with pytest.raises(StaleStoreError, match=r"/s\.h5: made with image_size = 456, asked for image_size = 224; give"):
        make(tmp_path / "c.h5", source)
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5"]


def test_what_schema_1_took_into_its_key_is_no_setting(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5", "cache")
    former = json.dumps(KEY | {"schema": 1, "rows": 600, "regions": "1" * 64})
    with h5py.File(source, "r+") as file:
        put_header(file, read_header(file) | {"key_fields": former})
    make(tmp_path / "c.h5", source)
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        assert (cache.key_fields, np.array_equal(cache.features(), FEATURES)) == (KEY, True)


def test_a_cache_of_schema_1_is_taken_over_with_the_same_numbers(tmp_path: Path) -> None:
    """Its rows name no pixels, so that whoever trusts its files says whose they are."""
    with store.FeatureStore(MADE / "cache.h5") as cache:
        assert cache.schema == 1
        table, features, fields = cache.table(), cache.features(), cache.key_fields
    assert (table.fingerprints, set(table.regions.group)) == (None, {""})
    settings = {name: value for name, value in fields.items() if name not in ("schema", "rows", "regions")}
    assert len(settings) == len(fields) - 3
    order = np.random.default_rng(0).permutation(len(table.ok))
    place = np.argsort(order)
    failures = sorted((int(place[row]), reason) for row, reason in table.failures)
    rows = store.Table(table.regions.take(order), table.ok[order], failures, fingerprints(len(order)))
    origin = np.zeros(len(order)), order
    store.assemble(tmp_path / "c.h5", rows, [MADE / "cache.h5"], *origin, key_fields=settings, **SETTINGS)
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        np.testing.assert_array_equal(cache.features(), features[order])
        assert (cache.schema, cache.table().failures) == (2, failures)
        assert cache.key == digest(settings)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.find(FEATURES[307].tobytes())] ^= 1
    path.write_bytes(content)


def write_over(path: Path) -> None:
    with h5py.File(path, "r+") as file:  # HDF5's own checksum agrees
        file["features"][307, 0, 2] += 1


def write_over_rows(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["sha256"][307, 0] += 1


@pytest.mark.parametrize("damage", [flip, write_over, write_over_rows])
@pytest.mark.parametrize("origin", [ORIGIN, OTHER_WAY], ids=["whole", "rows"])
@pytest.mark.parametrize(("kind", "what"), [("cache", "damaged feature cache"), ("shard", "damaged shard")])
def test_a_damaged_source_is_named(
    kind: str, what: str, origin: tuple[store.Features, store.Features], damage: object, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "s.h5", kind)
    damage(source)  # type: ignore[operator]
    with pytest.raises(StoreError, match=rf"/s\.h5: {what}"):
        make(tmp_path / "c.h5", source, origin)
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5"]


def test_features_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "s.h5", "shard")
    store.write_shard(tmp_path / "t.h5", shard_of(FEATURES.astype(np.float32)), KEY)
    message = r"/t\.h5: expected rows like those of .*/s\.h5, \(1, 8, 'float16'\), found \(1, 8, 'float32'\)$"
    with pytest.raises(StoreError, match=message), opened([tmp_path / "s.h5", tmp_path / "t.h5"], KEY):
        pass


def test_pixels_must_be_those_of_the_row(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5", "shard")
    prints = fingerprints(600)
    prints = replace(prints, sha256=np.roll(prints.sha256, 1, axis=0))
    table = store.Table(regions(600), np.ones(600, np.bool_), [], prints)
    with pytest.raises(StoreError, match=r"/s\.h5: row 0 is of other pixels than röw 0$"):
        store.assemble(tmp_path / "c.h5", table, [source], *ORIGIN, key_fields=KEY, **SETTINGS)


def test_a_shard_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5", "shard")
    with h5py.File(source, "r+") as file:
        del file.attrs["digest"]
    with pytest.raises(StoreError, match=r"/s\.h5: a shard of an earlier version of hfc, which names no pixels$"):
        make(tmp_path / "c.h5", source)
