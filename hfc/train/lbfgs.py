"""Train a convex head to its minimum: full-batch L-BFGS along a path of L2 strengths, strong to weak.

As linear probes are trained elsewhere: scikit-learn's LogisticRegressionCV; CLIP (Radford et al. 2021, appendix A.3).

Dimensions: N rows, V views, D features, C leaves, K outputs, B rows of a block.
"""

import copy
import inspect
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from hfc.config import TrainConfig
from hfc.metrics import metric
from hfc.runs import Epoch
from hfc.train.data import TrainingData
from hfc.train.features import Features, Resident
from hfc.train.heads.layers import Standardise, Target, standardised
from hfc.train.sharing import Sharing
from hfc.train.slices import changed, row_losses, task_means
from hfc.train.training import Fitted, Pass, Training
from hfc.train.weightings import grouped

STEPS, HISTORY = 1000, 20
TOLERANCE = 1e-4
"""What no number of the gradient exceeds at the end, in the coordinates of `Space`."""
CHANGE = 1e-12
"""A step that changes the loss by less is the last one: beyond it is rounding."""
ALONE = 90
"""What the strength is without validation rows, times the rows that are trained on."""


class PathTraining(Training):
    """A training between two points of the path, which take the place of epochs.

    A point minimises the mean loss + λ/2 ‖W‖²; biases are free. Where inner nodes have scores too, ‖V‖² of `Sharing`
    takes the place of ‖W‖², and validation picks among the strengths on them. The first minimum is looked for from 0
    on, each other one from where the one before ended. Nothing is drawn: the seed plays no part.
    """

    remedy: ClassVar[str] = "are all features finite numbers?"
    inner: int = 0
    """What λ was multiplied by on inner nodes at the last point; 0: they had no scores."""

    @classmethod
    def start(cls, features: Features, data: TrainingData, config: TrainConfig) -> Self:
        """A head whose weights are 0."""
        training = super().start(features, data, config)
        for parameter in training.head.parameters():
            nn.init.zeros_(parameter)
        return training

    @cached_property
    def rows(self) -> "Rows":
        """The training rows."""
        return Rows(self.features, self.head.standardise, self.data.rows["train"])

    def epoch(self) -> Epoch:
        """Minimise at the next point of the path, and validate."""
        started, ratios = time.perf_counter(), self.config.inner_l2
        if not len(self.data.rows["val"]):
            ratios = (ratios[len(ratios) // 2],)
        minima = self._minima(ratios)
        self.inner, losses = next(minima) if len(ratios) == 1 else self._best(minima)
        return self.validate(Pass(losses, time.perf_counter() - started))

    def _minima(self, ratios: Sequence[int]) -> Iterator["Minimum"]:
        """Minimise under each strength on inner nodes."""
        for inner in ratios:
            yield inner, self._minimise(self.rows, self._strength(), inner)

    def _best(self, minima: Iterator["Minimum"]) -> "Minimum":
        """Go back to the minimum that is best on validation."""
        name = self.config.select
        sign = -1 if metric(name).higher else 1
        scored = [(sign * self._metrics()[name], copy.deepcopy(self.head.state_dict()), minimum) for minimum in minima]
        _, state, minimum = min(scored, key=itemgetter(0))
        self.head.load_state_dict(state)
        return minimum

    def finish(self) -> Fitted:
        """The head of the best point; trained again with the validation rows where the settings ask for that."""
        fitted = super().finish()
        if self.config.refit == "train" or not len(self.data.rows["val"]):
            return fitted
        started, validated = time.perf_counter(), copy.deepcopy(self.head)
        rows = torch.cat([self.data.rows["train"], self.data.rows["val"]]).sort().values
        self._fit_to(rows)
        del self.rows  # its memory
        number = fitted.best.epoch
        inner = self.epochs[number - 1].inner_l2 or 0
        self._minimise(Rows(self.features, self.head.standardise, rows), strength(self.config, number), inner)
        return replace(fitted, validated=validated, refit_seconds=round(time.perf_counter() - started, 4))

    def _rate(self) -> None:
        return None

    def _strength(self) -> float:
        return strength(self.config, self.number)

    def _inner(self) -> int | None:
        return None if self.config.inner_l2 == TrainConfig.inner_l2 else self.inner

    def _is_better(self, epoch: Epoch) -> bool:
        """Whether a point is the best so far; without validation rows, the nearest to the strength of ALONE."""
        if epoch.val or not self.best:
            return super()._is_better(epoch)
        wanted = ALONE / len(self.data.rows["train"])
        now, before = (strength(self.config, number) for number in (epoch.number, self.best.epoch))
        return abs(math.log(now / wanted)) < abs(math.log(before / wanted))

    def _minimise(self, rows: "Rows", l2: float, inner: int) -> dict[str, float]:
        """Go down to the minimum from where the head is.

        Args:
            rows: to train on.
            l2: λ.
            inner: what λ is multiplied by on inner nodes; 0: they have no scores.

        Returns:
            There the mean of each task loss, and `total`, what was minimised.
        """
        if not rows.gram.isfinite().all():
            return {"total": math.nan}
        head, parameters = self.head, list(self.head.parameters())
        space = Space(rows.gram, l2, len(self.data.hierarchy.leaves))
        sharing = Sharing(torch.from_numpy(self.data.hierarchy.ancestors).to(rows.gram.device), inner and 1 / inner)
        points = [space.enter(sharing.leave(p.detach().double())).requires_grad_() for p in parameters]
        optimiser = lbfgs(points)
        losses: dict[str, Tensor] = {}

        @torch.no_grad()
        def objective() -> Tensor:
            weights = [space.leave(point) for point in points]
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(sharing.enter(weight))
            slopes = map(sharing.slope, self._slopes(rows, losses))
            for point, weight, slope in zip(points, weights, slopes, strict=True):
                if weight.ndim > 1:
                    losses["total"] += l2 / 2 * weight.square().sum()
                    slope += l2 * weight
                point.grad = space.slope(slope)
            return losses["total"]

        with standardised(head):
            head.train()
            optimiser.step(objective)
            objective()  # where the line search ended, which need not be where it looked last
        return {name: loss.item() for name, loss in losses.items()}

    def _slopes(self, rows: "Rows", losses: dict[str, Tensor]) -> list[Tensor]:
        """Compute the gradient of the mean loss by each parameter, in float64; fills in the losses."""
        parameters = list(self.head.parameters())
        slopes = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
        losses.clear()
        for block, features in rows:
            weight = None if self.data.weight is None else self.data.weight[block]
            with torch.enable_grad():
                parts = self._losses(features, self.data.batch(block), weight)
                total = self.weighting(parts)
            share = len(block) / rows.count
            for slope, part in zip(slopes, torch.autograd.grad(total, parameters), strict=True):
                slope += share * part
            for name, loss in {**parts, "total": total}.items():
                losses[name] = losses.get(name, 0) + share * loss.detach()
        return slopes

    def _losses(self, features: Tensor, target: Target, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of each task in float64, a mean over (B, D) standardised features."""
        logits = changed(self.head(features), Tensor.double)
        rows = row_losses(self.head, logits, target)
        return grouped(task_means(rows, target, self.class_weight, weight), self.config.tasks)

    def _stateful(self) -> dict[str, nn.Module]:
        return {"head": self.head, "weighting": self.weighting}  # type: ignore[dict-item]


Minimum = tuple[int, dict[str, float]]
"""The strength on inner nodes, as a multiple of λ, and what `_minimise` gives."""


class Rows:
    """Standardised rows, every view a row: in memory where the features are, else read anew each time."""

    def __init__(self, features: Features, standardise: Standardise, rows: Tensor) -> None:
        """Read the rows; they ascend."""
        self.features, self.standardise, self.rows = features, standardise, rows
        self.count = len(rows) * features.views
        self.kept = list(self._read()) if isinstance(features, Resident) else None
        self.gram = torch.zeros(features.dim, features.dim, dtype=torch.float64, device=features.device)
        """(D, D) XᵀX/N."""
        for _, block in self:
            self.gram += (block.T @ block).double() / self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give (B,) rows and their (B, D) features, block by block."""
        return self._read() if self.kept is None else iter(self.kept)

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for block in self.features.blocks(self.rows):
            rows = self.rows[start : start + len(block)]
            yield rows.repeat_interleave(block.shape[1]), self.standardise(block.flatten(0, 1))
            start += len(block)


class Space:
    """Coordinates in which all directions curve about alike.

    L-BFGS takes fewer steps in them, and ends nearer to the minimum. For a weight W they are Z = Lᵀ Wᵀ with
    L Lᵀ = κ XᵀX/N + λ I, for a bias b √κ b. κ = (1 − 1/C)/C is how a softmax curves where all classes are alike.
    """

    def __init__(self, gram: Tensor, l2: float, classes: int) -> None:
        """Build them.

        Args:
            gram: (D, D) XᵀX/N in float64.
            l2: λ.
            classes: C.
        """
        curvature = (1 - 1 / classes) / classes
        self.root = math.sqrt(curvature)
        shift = l2 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        self.factor = torch.linalg.cholesky_ex(curvature * gram + shift).L

    def enter(self, weight: Tensor) -> Tensor:
        """Turn a weight (K, D) or a bias (K,) into coordinates."""
        return self.factor.T @ weight.T if weight.ndim > 1 else weight * self.root

    def leave(self, point: Tensor) -> Tensor:
        """Turn coordinates into a weight or a bias."""
        if point.ndim == 1:
            return point / self.root
        weight: Tensor = torch.linalg.solve_triangular(self.factor.T, point, upper=True)
        return weight.T

    def slope(self, gradient: Tensor) -> Tensor:
        """Turn a gradient by a weight or a bias into that by its coordinates."""
        if gradient.ndim == 1:
            return gradient / self.root
        slope: Tensor = torch.linalg.solve_triangular(self.factor, gradient.T, upper=False)
        return slope.contiguous()


class _LBFGS(torch.optim.LBFGS):
    """It does not load PyTorch's compiler, which takes more than a second; see `hfc.train.adam`."""

    add_param_group = inspect.unwrap(torch.optim.LBFGS.add_param_group)


def lbfgs(points: Sequence[Tensor]) -> torch.optim.LBFGS:
    """Make the optimiser of some coordinates; one step of it goes down to the minimum."""
    return _LBFGS(
        points,
        max_iter=STEPS,
        max_eval=2 * STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=CHANGE,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )


def strength(config: TrainConfig, number: int) -> float:
    """Give λ of a point of the path, counted from 1: from `l2` to `l2_last` in equal ratios."""
    return config.l2 * math.pow(config.l2_last / config.l2, (number - 1) / max(config.epochs - 1, 1))
