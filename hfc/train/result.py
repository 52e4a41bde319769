"""A trained run's result: the test of its head, and where everything came from."""

import platform
import time
from typing import NamedTuple

import torch

from hfc import provenance
from hfc.config import plain
from hfc.metrics import Metrics
from hfc.runs import Betas, ClimbReading, Result, Seconds, TreeRecord
from hfc.store import Predictions, Shortened, shortened
from hfc.store.promise import Promise
from hfc.store.records import Code, Machine, Temperature
from hfc.train.cache import Cache
from hfc.train.calibration import at_temperature, calibrated, fit_temperature, leaf_probabilities, measure
from hfc.train.evaluation import best_beta, by_beta, climb, decoded, evaluate, used_views
from hfc.train.prepared import PreparedRun, changed_settings
from hfc.train.promise import prove
from hfc.train.training import Fitted


class _Tested(NamedTuple):
    """What the test of a head gave."""

    metrics: Metrics
    betas: Betas | None
    climbs: tuple[ClimbReading, ...] | None
    temperature: Temperature
    promise: Promise | None
    seconds: float


def test(cache: Cache, run: PreparedRun, fitted: Fitted) -> tuple[Predictions | Shortened, Result]:
    """Test a trained head, once, on the test split.

    Returns:
        What the head predicts of every test row; and the run's result, which says what that is worth.
    """
    started = time.perf_counter()
    config, tree = run.config, run.data.hierarchy
    features, data = used_views(cache.features, config), run.data.to(cache.features.device)
    # First, so that its probabilities are gone before those of the test rows come. Trained again, a head has seen them.
    raw, val_betas = by_beta(fitted.validated, features, data, "val", config)
    final, leaf = leaf_probabilities(raw, tree, config), data.leaf("val")
    del raw
    value = fit_temperature(final, leaf)
    on_validation = measure(final, at_temperature(final, value), leaf)
    del final
    raw, test_betas = by_beta(fitted.head, features, data, "test", config)
    leaf = data.leaf("test")
    final, answered = leaf_probabilities(raw, tree, config), decoded(raw, tree, config)
    del raw
    prediction = calibrated(answered, tree, config, fitted.head.sums, value)
    del answered
    # The scores of least-cost are not calibrated: what answers tell of a leaf is not in the prediction.
    answers = at_temperature(final, value) if config.decode == "least-cost" else prediction.final
    on_test = measure(final, answers, leaf)
    del final, answers
    measured = evaluate(prediction, data, "test", config)
    betas: Betas | None = None
    if fitted.head.blends:
        betas = Betas(validation=val_betas, test=test_betas, best_on_validation=best_beta(val_betas, config.beta))
    # The scores of least-cost are no probabilities, so no confidence can be read off them.
    climbs = None if config.decode == "least-cost" else climb(prediction.final, leaf, tree)
    levels = tuple(level.numpy() for level in prediction.levels)
    regions = cache.table.regions.take(run.data.rows["test"].numpy())
    path = data.path("test") if (leaf < 0).any() else None
    predictions = Predictions(regions.id, leaf, levels, prediction.final.numpy(), run.key, regions.group, path)
    temperature = Temperature(value=value, validation=on_validation, test=on_test)
    promise = prove(fitted, features, data, config, value)
    tested = _Tested(measured, betas, climbs, temperature, promise, time.perf_counter() - started)
    return shortened(predictions, tree.ancestors), _result(cache, run, fitted, tested)


def _result(cache: Cache, run: PreparedRun, fitted: Fitted, tested: _Tested) -> Result:
    """A run's result, as its folder keeps it."""
    data, tree, code = run.data, run.data.hierarchy, provenance.code()
    return Result(
        run=run.name,
        key=run.key,
        method=run.config.method,
        seed=run.config.seed,
        changed=changed_settings(run.config, data),
        config=plain(run.config),
        cache=cache.meta,
        hierarchy=TreeRecord(name=tree.name, digest=tree.digest, levels=tree.levels, sizes=tree.sizes),
        rows=data.counts,
        selected=fitted.best,
        loss_weights=fitted.weighting.weights(),
        test=tested.metrics,
        beta=tested.betas,
        climb=tested.climbs,
        temperature=tested.temperature,
        promise=tested.promise,
        outer=cache.outer.record if cache.outer else None,
        seconds=Seconds(train=round(fitted.seconds, 3), total=round(fitted.seconds + tested.seconds, 3)),
        machine=Machine(
            device=str(cache.features.device),
            precision=run.config.precision,
            threads=torch.get_num_threads(),
            platform=platform.platform(),
        ),
        code=Code(version=code["version"], commit=code["commit"], digest=code["digest"]),
        versions=provenance.versions(),
        created=provenance.now(),
    )
