"""What is there of a cache's features, and what is still to do. Dimension: N rows."""

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.errors import DatasetError, StaleStoreError, StoreError
from hfc.extract.fingerprints import Looks, look_at, recorded_looks
from hfc.extract.former import Counts, Former, count, open_former, recorded_splits, trusted
from hfc.extract.worker import Job, decoding_threads
from hfc.progress import steps
from hfc.regions import Regions, Strings

logger = logging.getLogger(__name__)

CHANGED = "its file changed while it was extracted; run the same command again"


@dataclass(frozen=True)
class Options:
    """How a call takes what is there."""

    overwrite: bool = False
    """Drop a cache that is there, and shards of other settings."""
    retry: bool = False
    """Encode images again that failed."""
    by_content: bool = False
    """Read all files, also those of the same size and time."""
    trust: bool = False
    """Keep the features of a cache that does not know its files."""


class Place(NamedTuple):
    """Where the features of some pixels lie, or why there are none."""

    source: int
    row: int
    failure: str


@dataclass(frozen=True)
class Pool:
    """Features that are there, by what they are of: the same bytes and the same box."""

    sources: list[Path] = field(default_factory=list)
    places: dict[bytes, Place] = field(default_factory=dict)

    def add(self, path: Path, identities: Sequence[bytes], failures: store.Failures) -> None:
        """Take in the rows of a file. What has features keeps them; of two failures the later counts."""
        number, reasons = len(self.sources), dict(failures)
        self.sources.append(path)
        for row, identity in enumerate(identities):
            present = self.places.get(identity)
            if identity and (present is None or present.failure):
                self.places[identity] = Place(number, row, reasons.get(row, ""))

    def add_shard(self, path: Path, shard: store.Shard) -> None:
        """Take in the rows of a shard."""
        failures = [(row - shard.start, reason) for row, reason in shard.failures]
        self.add(path, store.identities(shard.sha256, shard.box), failures)


class Share(TypedDict):
    """What every process must know of a plan. A dictionary, as processes share it as JSON."""

    regions: str
    """Digest of the rows."""
    todo: list[int]
    """Rows to encode, in runs: the first of a run, the row after its last, the first of the next."""
    first: int
    """Number of the first work row."""
    known: int
    """Rows that need no work, as an earlier call did it."""
    failed: int
    """Rows without features so far."""
    excused: int
    """Those of them that have none in the finished cache either."""
    example: str
    """Another of them, with its reason."""


class Contents(NamedTuple):
    """What a cache is made of."""

    table: store.Table
    sources: list[Path]
    """Files that have its features."""
    source: NDArray[np.int64]
    """(N,) number of the file that has a row's features; -1 = none."""
    row: NDArray[np.int64]
    """(N,) its row there."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a call finds, and what it has to do."""

    regions: Regions
    """The rows, with their splits."""
    fingerprints: store.Fingerprints
    identities: list[bytes]
    """Of the rows; b"" where the image cannot be read."""
    unreadable: dict[int, str]
    """Rows whose image cannot be read, and why."""
    former: Former | None
    pool: Pool
    counts: Counts
    """How the rows compare with those of the finished cache."""
    known: Set[int]
    """Rows that need no work, as the pool has their features or why they have none."""
    todo: NDArray[np.int64]
    """Rows to encode: the first of all that have the same pixels."""
    resumed: int
    """Known rows that shards of interrupted calls have."""
    shards: list[Path]
    """What interrupted calls left under the same settings, damaged ones among them."""
    others: list[Path]
    """Shards of other settings."""

    def failure(self, row: int) -> str:
        """Return why a row has no features; "" if it has, or if nothing is known of it."""
        place = self.pool.places.get(self.identities[row])
        return self.unreadable.get(row) or (place.failure if place else "")

    def contents(self, job: Job, made: Sequence[Path]) -> Contents:
        """Say what the cache is made of.

        Args:
            job: the rows that were encoded.
            made: the shards that have them.
        """
        lost: dict[bytes, str] = {}
        for file in made:
            shard = store.read_shard_rows(file, job.key_fields)
            self.pool.add_shard(file, shard)
            # Their bytes could not be read when they were to be decoded, though before they could.
            unread = [
                (row - job.first, why) for row, why in shard.failures if not shard.sha256[row - shard.start].any()
            ]
            lost |= {self.identities[self.todo[row]]: why for row, why in unread}
        source, row = np.full(len(self.regions), -1, dtype=np.int64), np.zeros(len(self.regions), dtype=np.int64)
        failures, changed = [], []
        for i, identity in enumerate(self.identities):
            place = self.pool.places.get(identity)
            if place and not place.failure:
                source[i], row[i] = place.source, place.row
                continue
            failures.append((i, self.failure(i) or lost.get(identity, CHANGED)))
            if identity and not place:
                changed.append(i)
        table = store.Table(self.regions, source >= 0, failures, _without(self.fingerprints, changed))
        used = np.unique(source[source >= 0])
        source[source >= 0] = np.searchsorted(used, source[source >= 0])
        return Contents(table, [self.pool.sources[number] for number in used], source, row)

    def share(self) -> Share:
        """Return what every process must know."""
        names = self.regions.id.tolist()
        former = self.former.table if self.former else None
        failed_before = {former.regions.id[row] for row, _ in former.failures} if former else set()
        reasons = {row: why for row in sorted(self.known | self.unreadable.keys()) if (why := self.failure(row))}
        new = [row for row in reasons if names[row] not in failed_before]
        return Share(
            regions=self.regions.digest,
            todo=_runs(self.todo),
            first=max((int(file.stem.split("-")[1]) for file in (*self.shards, *self.others)), default=0),
            known=len(self.known | (self.unreadable.keys() - {*new})),
            failed=len(reasons),
            excused=len(reasons) - len(new),
            example=f"{names[new[0]]}: {reasons[new[0]]}" if new else "",
        )


def make_plan(
    job: Job, options: Options, draw: Callable[[Regions, Strings], Regions], stop: Callable[[], bool]
) -> Plan:
    """Look at files, cache and shards, and change nothing.

    Args:
        job: what is asked for; its regions are all rows.
        options: how what is there is taken.
        draw: gives rows without a split one, beside those that are recorded.
        stop: asked while files are read.

    Raises:
        StaleStoreError: what is there was made under other settings.
        StoreError: it cannot be read.
    """
    former = None if options.overwrite else open_former(job.out, job.key_fields)
    looks = _look(job, former, options, stop)
    prints, unreadable = looks.fingerprints, dict(looks.failures)
    if former and former.table.fingerprints is None:
        former = _former_of_schema_1(former, job, prints, options)
    pool = Pool()
    if former:
        pool.add(former.path, former.identities, former.table.failures)
    shards, others = _read_shards(job, pool, pass_over=options.overwrite or former is not None)
    identities = store.identities(prints.sha256, job.regions.box)
    places = [pool.places.get(identity) for identity in identities]
    known = {row: place for row, place in enumerate(places) if place and not (options.retry and place.failure)}
    first: dict[bytes, int] = {}
    for row, identity in enumerate(identities):
        if identity and row not in known:
            first.setdefault(identity, row)
    return Plan(
        regions=draw(job.regions, recorded_splits(job.regions, identities, former, job.config)),
        fingerprints=prints,
        identities=identities,
        unreadable=unreadable,
        former=former,
        pool=pool,
        counts=count(job.regions, identities, former),
        known=known.keys(),
        todo=np.array(list(first.values()), dtype=np.int64),
        resumed=sum(place.source >= bool(former) for place in known.values()),
        shards=shards,
        others=others,
    )


def _look(job: Job, former: Former | None, options: Options, stop: Callable[[], bool]) -> Looks:
    """Take the fingerprints of all rows.

    Raises a DatasetError where nothing can be read of what a cache has features of.
    """
    regions = job.regions
    recorded = recorded_looks(former.table, regions.root) if former and not options.by_content else {}
    looks = look_at(regions, recorded, threads=job.config.workers or decoding_threads(), stop=stop)
    if former and len(looks.failures) == len(regions) and former.table.ok.any():
        raise DatasetError(
            f"{regions.root}: no image can be read, but {job.out} has features of {former.table.ok.sum()}; the first: "
            f"{regions.id[0]}: {looks.failures[0][1]}. Nothing was changed; is a disk missing?"
        )
    return looks


def _former_of_schema_1(former: Former, job: Job, prints: store.Fingerprints, options: Options) -> Former:
    if options.trust:
        return trusted(former, job.regions, prints)
    logger.warning(
        "%s: made by an earlier version of hfc, which did not keep what tells whether a file has changed: every image "
        "is encoded anew. With --trust-files features of the same path and box are kept",
        job.out,
    )
    return former


def _without(prints: store.Fingerprints, rows: Sequence[int]) -> store.Fingerprints:
    """Return fingerprints in which some rows are unknown."""
    blank = store.Fingerprints.unknown(len(prints))
    known = ~np.isin(np.arange(len(prints)), rows)
    return store.Fingerprints(
        np.where(known[:, None], prints.sha256, blank.sha256),
        np.where(known, prints.size, blank.size),
        np.where(known, prints.modified, blank.modified),
    )


def _read_shards(job: Job, pool: Pool, *, pass_over: bool) -> tuple[list[Path], list[Path]]:
    """Take into a pool what interrupted calls left.

    Returns the shards of these settings, damaged ones among them, and those of others. Raises a StaleStoreError for
    these unless they are to be passed over.
    """
    own: list[Path] = []
    others: list[Path] = []
    for file in steps(store.shard_files(job.out), "checking shards"):
        try:
            pool.add_shard(file, store.read_shard(file, job.key_fields))
        except StaleStoreError:
            if not pass_over:
                raise
            others.append(file)
        except StoreError as error:
            logger.warning("%s", error)
            own.append(file)
        else:
            own.append(file)
    return own, others


def _runs(rows: NDArray[np.int64]) -> list[int]:
    """Return where every run of rows begins and ends, one after the other."""
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    return [edge for run in np.split(rows, ends) if len(run) for edge in (int(run[0]), int(run[-1]) + 1)]


def rows_of(runs: Sequence[int]) -> NDArray[np.int64]:
    """Return the rows of `Share.todo`."""
    ranges = [np.arange(start, stop, dtype=np.int64) for start, stop in zip(runs[::2], runs[1::2], strict=True)]
    return np.concatenate([np.empty(0, dtype=np.int64), *ranges])
