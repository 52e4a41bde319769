"""The outer folds of a nested cross-validation as one run: each image is tested once. N images, H levels."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from hfc import metrics
from hfc.config import SPLITS
from hfc.metrics import LEVEL, Metrics
from hfc.provenance import digest
from hfc.report.grouped import Groups
from hfc.report.seeds import Detail, SeedPredictions
from hfc.runs import Result, Rows, Run, Seconds, Settings
from hfc.store.records import Calibration, OuterRecord, Temperature

Fold = tuple[Run, SeedPredictions]


def pool(all_runs: Sequence[Run], predictions: Sequence[SeedPredictions]) -> list[Fold]:
    """Pool the outer folds of each row and seed; other runs stay as they are. Of two runs of a fold the later counts.

    Args:
        all_runs: runs.
        predictions: of each.
    """
    pooled: list[Fold] = []
    parts: dict[str, dict[int, Fold]] = {}
    for run, seed in sorted(zip(all_runs, predictions, strict=True), key=lambda pair: pair[0].result.created):
        outer = run.result.outer
        if outer:
            parts.setdefault(_key(run.result, outer), {})[outer.number] = run, seed
        else:
            pooled.append((run, seed))
    return [*pooled, *(_pooled([folds[number] for number in sorted(folds)]) for folds in parts.values())]


def _key(result: Result, outer: OuterRecord) -> str:
    """Digest over what the folds of one row and seed share."""
    cache, tree, device = result.cache, result.hierarchy, result.machine.device.partition(":")[0]
    data = [cache.feature_key, cache.features_sha256, cache.labels_sha256, cache.labels_digest]
    return digest([outer.row, outer.folds, outer.search, result.seed, data, tree.name, tree.digest, device])


def _pooled(folds: Sequence[Fold]) -> Fold:
    """Make one run of the folds of a row and seed. What single trainings are read for stays in its `parts`."""
    parts, first = tuple(run for run, _ in folds), folds[0][0].result
    results = [run.result for run in parts]
    seed = _joined([seed for _, seed in folds])
    test = _metrics(folds, seed)
    took = (float(np.mean([getattr(result.seconds, name) for result in results])) for name in ("train", "total"))
    seconds = Seconds(train=next(took), total=next(took))
    result = replace(
        first,
        run=f"{first.outer.row if first.outer else first.run}, seed {first.seed}",
        changed={
            key: value for key, value in first.changed.items() if all(r.changed.get(key) == value for r in results)
        },
        config=_config(results),
        rows=_rows([result.rows for result in results]),
        test=test,
        beta=None,
        climb=None,
        promise=None,
        temperature=_temperature(folds, seed, test),
        seconds=seconds,
        created=max(result.created for result in results),
    )
    return Run(parts[0].folder, result, (), parts), seed


def _joined(seeds: Sequence[SeedPredictions]) -> SeedPredictions:
    """Join the predictions of folds, in the order of their ids. No group is in two folds."""
    tree = seeds[0].tree
    seeds = [seed.in_order_of(tree) for seed in seeds]
    ids = np.concatenate([seed.id for seed in seeds])
    order = np.argsort(ids, kind="stable")
    target, predicted, rank, confidence = (
        np.concatenate([getattr(seed, name) for seed in seeds])[order]
        for name in ("target", "predicted", "rank", "confidence")
    )
    starts = np.cumsum([0, *(seed.groups.count for seed in seeds[:-1])])
    number = np.concatenate([seed.groups.number + start for seed, start in zip(seeds, starts, strict=True)])[order]
    _, place, group = np.unique(number, return_index=True, return_inverse=True)
    groups = Groups(np.argsort(np.argsort(place))[group])  # counted in the order of their first images
    kept = [seed.uncalibrated for seed in seeds if seed.uncalibrated is not None]
    uncalibrated = np.concatenate(kept)[order] if len(kept) == len(seeds) else None
    details = [seed.detail for seed in seeds if seed.detail]
    detail = Detail(
        nll=np.concatenate([detail.nll for detail in details])[order],
        distance={
            k: np.concatenate([detail.distance[k] for detail in details])[order]
            for k in details[0].distance
            if all(k in detail.distance for detail in details)
        },
        rows=sum(detail.rows for detail in details),
        reaching=np.sum([detail.reaching for detail in details], axis=0),
    )
    return SeedPredictions(tree, ids[order], target, predicted, rank, confidence, uncalibrated, groups, detail)


def _metrics(folds: Sequence[Fold], seed: SeedPredictions) -> Metrics:
    """Compute the test metrics over the images of all folds.

    Most are means, which their numbers of images weigh. Of those that are none, the answers give them.
    """
    test: dict[str, float] = {}
    for key in dict.fromkeys(key for run, _ in folds for key in run.result.test):
        known = [(run.result, part) for run, part in folds if key in run.result.test]
        counts = [_count(key, result, part) for result, part in known]
        if len(known) == len(folds) or key.startswith(LEVEL):
            total = sum(count * result.test[key] for count, (result, _) in zip(counts, known, strict=True))
            test[key] = total / max(sum(counts), 1)
    right, ancestors = seed.rank == 0, seed.tree.ancestors
    own = {
        "top1_macro": metrics.macro(right, seed.target),
        "hF": metrics.hierarchical_f(ancestors[seed.predicted], ancestors[seed.target]),
        "ece": metrics.error_of_confidence(seed.confidence, right),
    }
    return {key: own.get(key, value) for key, value in test.items()}


def _count(key: str, result: Result, seed: SeedPredictions) -> int:
    """Count the test images of a fold that a metric is a mean over."""
    assert seed.detail
    if key.startswith(LEVEL):
        return int(seed.detail.reaching[result.hierarchy.levels.index(key.removeprefix(LEVEL))])
    if key == "inconsistency":
        return seed.detail.rows
    return int((seed.rank > 0).sum()) if key == "mistake_severity" else len(seed.target)


def _temperature(folds: Sequence[Fold], seed: SeedPredictions, test: Metrics) -> Temperature | None:
    """Average the temperatures of folds, and measure over all images what they did."""
    kept = [(run.result.temperature, len(part.target)) for run, part in folds if run.result.temperature]
    before = [(one.test.nll_before, count) for one, count in kept if one.test]
    if len(kept) < len(folds):
        return None
    value = float(np.mean([one.value for one, _ in kept]))
    if len(before) < len(folds) or seed.uncalibrated is None:
        return Temperature(value=value)
    return Temperature(
        value=value,
        test=Calibration(
            ece_before=metrics.error_of_confidence(seed.uncalibrated, seed.rank == 0),
            nll_before=sum(nll * count for nll, count in before) / len(seed.target),
            ece=test["ece"],
            nll=test["nll"],
        ),
    )


def _rows(rows: Sequence[Rows]) -> Rows:
    """Count the rows of all folds: of training and validation as many as a fold has on average."""
    train, val, test = (sum(getattr(one, split) for one in rows) for split in SPLITS)
    inner = {split: sum(one.inner.get(split, 0) for one in rows) for split in SPLITS if any(one.inner for one in rows)}
    shares = {split: count if split == "test" else round(count / len(rows)) for split, count in inner.items()}
    train, val, promise = (round(count / len(rows)) for count in (train, val, sum(one.promise for one in rows)))
    return replace(rows[0], train=train, val=val, promise=promise, test=test, inner=shares)


def _config(results: Sequence[Result]) -> dict[str, object]:
    """Collect the settings; of one in which folds differ, all that they have, unless readers use it."""
    merged: dict[str, object] = {}
    read = {one.name for one in fields(Settings)}
    for key, value in results[0].config.items():
        different = [value]
        for result in results[1:]:
            different += [own for own in [result.config.get(key)] if own not in different]
        merged[key] = value if key in read or len(different) == 1 else different
    return merged
