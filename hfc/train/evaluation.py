"""A head's probabilities: how they are made, read and measured. Nothing is trained here.

Dimensions: n rows of a split, C leaves.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc import metrics
from hfc.config import TrainConfig
from hfc.device import reproducible
from hfc.hierarchy import Hierarchy
from hfc.metrics import Metrics
from hfc.runs import BetaReading, ClimbReading
from hfc.train.decoding import DECODINGS, LEAVES, climbs, leaf_paths
from hfc.train.features import Features
from hfc.train.heads import Head
from hfc.train.heads.layers import Prediction
from hfc.train.heads.members import member_count

if TYPE_CHECKING:  # a head that is saved needs no rows to train on
    from hfc.train.data import TrainingData

BETAS = tuple(step / 10 for step in range(11))
CELLS = 1 << 22  # of logits in a block of rows
CONFIDENCES = (*(step / 20 for step in range(20)), 0.99)


def used_views(features: Features, config: TrainConfig) -> Features:
    """The features with the views that the settings want."""
    return features if config.views == "all" else features.first_view()


@torch.inference_mode()
def predict(head: Head, features: Features, rows: Tensor, beta: float) -> Prediction:
    """Compute a head's probabilities for some rows, which ascend, on the CPU.

    Those of a row are the mean over its views. In full precision, so that batch size cannot matter to a rank; a head in
    float64 computes in it.
    """
    with reproducible(features.device):
        return joined((blended(head, views, beta) for views in outputs(head, features, rows)), len(rows))


def outputs(head: Head, features: Features, rows: Tensor) -> Iterator[list[Any]]:
    """Compute a head's logits for some rows, which ascend: a list by view for each block of rows.

    A block has the fewer rows the wider the head's widest layer, which with thousands of leaves is their own, and the
    more members it has.
    """
    if head.training:
        head.eval()
    widest = max(len(weight) for weight in head.parameters())
    most = max(CELLS // (widest * member_count(head)), 1)
    for read in features.blocks(rows):
        for block in read.split(most):
            yield [head(block[:, view].to(head.shared.dtype)) for view in range(block.shape[1])]


def blended(head: Head, views: list[Any], beta: float) -> Prediction:
    """Average the probabilities of a block of rows over its views."""
    predictions = [head.predict(logits, beta) for logits in views]
    if len(predictions) == 1:
        return predictions[0]
    levels = zip(*(view.levels for view in predictions), strict=True)
    final = torch.stack([view.final for view in predictions]).mean(dim=0)
    return Prediction(tuple(torch.stack(level).mean(dim=0) for level in levels), final)


def joined(blocks: Iterable[Prediction], rows: int) -> Prediction:
    """Join the predictions of blocks of rows, on the CPU.

    Each is copied as it comes to where it stays: no number is in memory twice.

    Args:
        blocks: of all rows, in their order.
        rows: how many there are.
    """
    whole: list[Tensor] = []
    shared, start = False, 0
    for levels, final in blocks:
        shared = final is levels[-1]  # then it stays one
        parts = levels if shared else (*levels, final)
        whole = whole or [torch.empty(rows, part.shape[1], dtype=part.dtype) for part in parts]
        stop = start + len(final)
        for target, part in zip(whole, parts, strict=True):
            target[start:stop] = part
        start = stop
    return Prediction(tuple(whole if shared else whole[:-1]), whole[-1])


def decoded(prediction: Prediction, hierarchy: Hierarchy, config: TrainConfig) -> Prediction:
    """Decode a prediction as the settings ask for."""
    return DECODINGS[config.decode](prediction, leaf_paths(hierarchy))


def evaluate(prediction: Prediction, data: "TrainingData", split: str, config: TrainConfig) -> Metrics:
    """Measure a prediction of a split's rows against their labels."""
    return metrics.evaluate(
        [level.numpy() for level in prediction.levels],
        prediction.final.numpy(),
        data.path(split),
        data.leaf(split),
        tree=data.hierarchy,
        topk=config.topk,
    )


def brief(prediction: Prediction, data: "TrainingData", split: str, config: TrainConfig) -> Metrics:
    """Measure what an epoch is picked and drawn by: top-k accuracies and the metric of `select`, as `evaluate` does.

    No probabilities are sorted for it, which takes most of the time of `evaluate`.
    """
    leaf, final, select = data.leaf(split), prediction.final.numpy(), config.select
    known = leaf >= 0
    if not known.any():
        return evaluate(prediction, data, split, config)
    if not known.all():  # of all no copy is made
        leaf, final = leaf[known], final[known]
    rank = metrics.rank(final, leaf)
    accuracy = {f"top{k}": float((rank < k).mean()) for k in config.topk} | {
        "top1_macro": metrics.macro(rank < 1, leaf)
    }
    if select in accuracy:
        return accuracy
    if select == "nll":
        return accuracy | {select: metrics.negative_log_likelihood(final, leaf)}
    return accuracy | {select: evaluate(prediction, data, split, config)[select]}


@torch.inference_mode()
def by_beta(
    head: Head, features: Features, data: "TrainingData", split: str, config: TrainConfig
) -> tuple[Prediction, tuple[BetaReading, ...]]:
    """Predict a split at the settings' β, and read its top-k accuracies at every β.

    One pass through the head does both.

    P_final = β P_local + (1−β) P_global: β only blends what the head gives. A run of another β may still end in other
    weights, as its validation may pick another epoch; that of hmcn-f-original also has β in its violation loss.

    Args:
        head: a trained head.
        features: of every row, with the views in use.
        data: what is predicted.
        split: train, val or test.
        config: the settings.

    Returns:
        The probabilities, not decoded; and for each of BETAS and the settings' own β `beta` and `top{k}`, k = 1 among
        them, of what is decoded after blending, over the rows that have a leaf. Nothing of the latter for a head that
        does not blend.
    """
    betas = sorted({*BETAS, config.beta}) if head.blends else []
    leaf, paths = data.leaf(split), leaf_paths(data.hierarchy)
    ranks = np.empty((len(betas), len(leaf)), dtype=np.int64)
    leaves, target = LEAVES[config.decode], torch.from_numpy(leaf).to(features.device)

    def blocks() -> Iterator[Prediction]:
        start = 0
        for views in outputs(head, features, data.rows[split]):
            own = blended(head, views, config.beta)
            rows = slice(start, start + len(own.final))
            predictions = (blended(head, views, beta) for beta in betas)
            if leaves is not LEAVES["leaf"]:  # decoded where the answers are
                predictions = (joined([prediction], len(own.final)) for prediction in predictions)
            parts = [ranked(leaves(prediction, paths), target[rows]) for prediction in predictions]
            ranks[:, rows] = torch.stack(parts).cpu().numpy() if parts else 0
            start = rows.stop
            yield own

    with reproducible(features.device):
        whole = joined(blocks(), len(leaf))
    return whole, _readings(betas, ranks[:, leaf >= 0], config.topk)


def ranked(final: Tensor, leaf: Tensor) -> Tensor:
    """Compute `metrics.rank` where the probabilities are, so that ranks alone leave a GPU.

    Args:
        final: (n, C).
        leaf: (n,); of −1 the rank means nothing.
    """
    leaf = leaf.to(final.device).clamp_min(0)[:, None]
    own, earlier = final.gather(1, leaf), torch.arange(final.shape[1], device=final.device) < leaf
    return (~(final <= own) | ((final == own) & earlier)).sum(dim=1)


def _readings(betas: Sequence[float], ranks: NDArray[np.int64], topk: Sequence[int]) -> tuple[BetaReading, ...]:
    """Read the accuracies off the ranks of the true leaves at every β, (betas, rows)."""
    others = sorted({*topk} - {1})
    return tuple(
        BetaReading(
            beta=beta,
            top1=float((row < 1).mean()),
            others={f"top{k}": float((row < k).mean()) for k in others},
        )
        for beta, row in zip(betas, ranks, strict=True)
    )


def best_beta(readings: Sequence[BetaReading], own: float) -> float:
    """The β of the best top-1 among readings. Ties go to the β nearest the run's own."""
    return min(readings, key=lambda reading: (-reading.top1, round(abs(reading.beta - own), 9))).beta


def climb(final: Tensor, leaf: NDArray[np.int64], hierarchy: Hierarchy) -> tuple[ClimbReading, ...]:
    """Measure answers that climb to an inner node, for each of CONFIDENCES.

    Rows whose label is an inner node are left out: what is right below it, they do not say. See `metrics.climb`.

    Args:
        final: (n, C) P_final.
        leaf: (n,) true leaves, −1 where the label is an inner node.
        hierarchy: the tree.
    """
    if (leaf < 0).any():  # else no copy is made
        final, leaf = final[torch.from_numpy(leaf >= 0)], leaf[leaf >= 0]
    best, paths = final.argmax(dim=1).numpy(), leaf_paths(hierarchy)
    blocks = final.split(max(CELLS // final.shape[1], 1))
    depths = zip(*(list(climbs(block, paths, CONFIDENCES)) for block in blocks), strict=True)
    curve = []
    for confidence, depth in zip(CONFIDENCES, map(torch.cat, depths), strict=True):
        specificity, correct, precision = metrics.climb(depth.numpy(), best, leaf, hierarchy)
        reading = ClimbReading(confidence=confidence, specificity=specificity, correct=correct, precision=precision)
        curve.append(reading)
    return tuple(curve)
