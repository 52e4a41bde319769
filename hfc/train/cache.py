"""An open feature cache: its features, its rows, and where they came from.

Dimensions: N rows.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack
from weakref import WeakValueDictionary

import torch

from hfc.device import choose_device
from hfc.errors import ConfigError, StoreError, printable
from hfc.store import FeatureStore, Table
from hfc.store.records import CacheRecord
from hfc.train.features import Features, Resident, Streamed, signs
from hfc.train.labels import join_labels, refuse_unlabelled
from hfc.train.memory import Place, attach, create
from hfc.train.outer import OuterFold, with_splits_of

SHARED: WeakValueDictionary[tuple[object, ...], Resident] = WeakValueDictionary()
"""The features that other processes may map, by the identity of their file, while anybody has them."""


class Reading(TypedDict, total=False):
    """How a cache is read; see `load_cache`."""

    labels: Path | None
    allow_unlabelled: bool
    stream: bool
    outer: OuterFold | None


@dataclass(frozen=True)
class CacheSource:
    """The arguments of `load_cache`: which cache is read, and how."""

    path: Path
    device: str = "auto"
    labels: Path | None = None
    allow_unlabelled: bool = False
    stream: bool = False
    outer: OuterFold | None = None
    share: bool = False
    place: Place | None = None

    def attached(self, cache: "Cache", jobs: int) -> "CacheSource":
        """The same for the calls of so many processes: others than this one take the features that it has.

        On a GPU they have copies of their own, so this one gives its copy back.
        """
        if jobs == 1:
            return self
        cache.give_back()
        return replace(self, share=False, place=getattr(cache.features, "place", None))


@dataclass(frozen=True)
class Cache:
    """A feature cache: its features once in memory, or streamed, shared by every run."""

    path: Path
    features: Features
    table: Table
    meta: CacheRecord
    """What a run records of where its features came from."""
    outer: OuterFold | None = None
    """None: the rows have the cache's own splits."""

    def give_back(self) -> None:
        """Free a GPU's memory of the features, which nothing here may read any more; their shape stays."""
        if isinstance(self.features, Resident) and self.features.device.type == "cuda":
            open_cache.cache_clear()
            object.__setattr__(self, "features", Resident(self.features.tensor.to("meta")))
            torch.cuda.empty_cache()

    @functools.cached_property
    def signs(self) -> torch.Tensor:
        """(N, 2) of each row what `hfc.train.features.signs` says; computed once."""
        return signs(self.features, torch.arange(len(self.table.ok), device=self.features.device))


def cache_source(path: Path, device: str, share: bool = False, **reading: Unpack[Reading]) -> CacheSource:
    """Name a cache for several processes, on the device that this one takes.

    Args:
        path, device, share, reading: as for `load_cache`.

    Raises:
        ConfigError: no such device.
    """
    return CacheSource(path, str(choose_device(device)), share=share, **reading)


def load_cache(
    path: Path,
    *,
    device: str = "auto",
    labels: Path | None = None,
    allow_unlabelled: bool = False,
    stream: bool = False,
    outer: OuterFold | None = None,
    share: bool = False,
    place: Place | None = None,
) -> Cache:
    """Read and check a feature cache.

    Its features go to the device once and stay there, unless they are streamed.

    Args:
        path: the cache.
        device: auto, cpu, cuda or cuda:N.
        labels: a CSV whose labels, and splits if it has them, take the place of the cache's own, joined by id.
        allow_unlabelled: take such a file even if most rows of a split have no label in it.
        stream: leave the features on the disk after checking them.
        outer: the outer fold whose splits take the place of the cache's own.
        share: let other processes map the features on a CPU, see `Resident.place`; those that are shared already are
            taken.
        place: where another process has the features, after checking them; where it has not, they are read.

    Raises:
        DatasetError: the labels cannot be read or joined, or leave most rows of a split without one.
        StoreError: it cannot be read, is damaged, or holds NaN or infinite features.
        ConfigError: no such device.
        RunError: too few rows for the outer folds.
    """
    chosen = choose_device(device)
    with contextlib.ExitStack() as stack:
        store = FeatureStore(path)
        stack.callback(store.close)
        table, labels_sha256 = _labelled(store.table(), labels, allow_unlabelled)
        features = _streamed(store, chosen) if stream else _resident(store, chosen, share, place)
        known = _describe(store, table, path, labels or path, labels_sha256)
        cache = Cache(path, features, with_splits_of(outer, table, path) if outer else table, known, outer)
        if stream:
            stack.pop_all()  # every epoch reads from it
    return cache


def _labelled(table: Table, labels: Path | None, allow_unlabelled: bool) -> tuple[Table, str]:
    """Give rows the labels of a CSV; returns its SHA-256 as well, or "" where there is none."""
    if not labels:
        return table, ""
    regions, sha256 = join_labels(table.regions, labels)
    if not allow_unlabelled:
        refuse_unlabelled(labels, regions, table.ok)
    return replace(table, regions=regions), sha256


@contextlib.contextmanager
def held(path: Path, device: str, share: bool) -> Iterator[None]:
    """Keep the features in memory inside a block, for all that share them there; on a CPU alone."""
    chosen, features = choose_device(device), None
    if share and chosen.type == "cpu":
        with FeatureStore(path) as store:
            features = _resident(store, chosen, share, None)
    yield
    del features


def _streamed(store: FeatureStore, device: torch.device) -> Streamed:
    """Check the features and leave them on the disk."""
    for _ in store.blocks():  # each block is checked, and at the end the whole
        pass
    return Streamed(store, device, store.shape[1])


def _resident(store: FeatureStore, device: torch.device, share: bool, place: Place | None) -> Resident:
    """Have the features on the device: those of another process, those shared before, or else from the file."""
    if place and (array := attach(place)) is not None:
        return Resident(torch.from_numpy(array).to(device))
    if not share or device.type != "cpu":
        return Resident(torch.from_numpy(store.features()).to(device))
    if known := SHARED.get(store.identity):
        return known
    array, place = create(store.shape, store.dtype) or (None, None)
    features = Resident(torch.from_numpy(store.features(array)), place)
    SHARED[store.identity] = features
    return features


def _describe(store: FeatureStore, table: Table, path: Path, labels: Path, labels_sha256: str) -> CacheRecord:
    """Describe a cache as runs record it.

    Args:
        store: the open cache.
        table: its rows, with the labels in use.
        path: of the cache.
        labels: the file that the labels came from.
        labels_sha256: of a CSV of labels; "" for the cache's own, which its checksums cover.
    """
    weights = store.provenance.get("weights", {})
    return CacheRecord(
        path=printable(str(path)),
        feature_key=store.key,
        key_fields=store.key_fields,
        features_sha256=store.features_sha256,
        rows=store.shape[0],
        dim=store.shape[2],
        origin=printable(store.provenance.get("dataset", {}).get("origin", "unknown")),
        backbone=store.config.get("backbone", "unknown"),
        image_size=store.config.get("image_size"),
        weights=weights.get("source", "unknown"),
        weights_digest=weights.get("digest", ""),
        random_weights=bool(weights.get("random", False)),
        labels=printable(str(labels)),
        labels_digest=table.regions.labels_digest,
        labels_sha256=labels_sha256,
        extracted_by=store.provenance.get("code", {}),
    )


@functools.lru_cache(maxsize=1)
def open_cache(source: CacheSource) -> Cache:
    """Read a cache as `load_cache` does, once for all runs of a process."""
    return load_cache(**vars(source))


def same_cache(source: CacheSource, known: CacheRecord) -> Cache:
    """Open a cache in another process than the one that planned the work.

    Args:
        source: which cache, how it is read, and the device that the process that planned the work took.
        known: the `meta` of the cache, as that process saw it.

    Raises:
        StoreError: it, or its labels, were changed since.
        ConfigError: this process has no such device; on another the numbers would be others.
    """
    try:
        cache = open_cache(source)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; every process needs the device of the one that started them: set device to cpu, or take "
            "machines with one kind of device"
        ) from error
    for name in ("features_sha256", "labels_digest"):
        if getattr(cache.meta, name) != getattr(known, name):
            file = cache.meta.labels if name == "labels_digest" else source.path
            raise StoreError(f"{file}: was changed or replaced while it was in use; run the command again")
    return cache
