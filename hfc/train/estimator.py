"""Stage 2 as a scikit-learn estimator: `fit(X, y)` and `predict(X)` on arrays.

Dimensions: N rows, D features, H levels (coarse to fine), C leaves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hfc.config import ExtractConfig, TrainConfig, resolve
from hfc.device import choose_device
from hfc.errors import ConfigError
from hfc.hierarchy import Hierarchy
from hfc.regions import strings
from hfc.train.calibration import calibrated, temperature_on
from hfc.train.data import TrainingData
from hfc.train.draws import hold_out, numbered
from hfc.train.evaluation import decoded, predict
from hfc.train.features import Resident, signs
from hfc.train.fit import fit
from hfc.train.heads.layers import Target
from hfc.train.settling import settle
from hfc.train.targets import Ints, Labels, as_table, find, given_tree, refuse_unknown, tree_of

OWN = {"method": "method", "hierarchy": "hierarchy", "seed": "random_state", "device": "device"}
UNUSED = {
    "step": "one model is trained, by itself",
    "checkpoint_seconds": "no checkpoint is written",
    "views": "a row of X is one view",
    "train_share": "give fit the rows to train on",
    "promise_share": "promises are those of `hfc train` and `hfc predict`",
}


class HierarchicalClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A hierarchical classifier of feature vectors, trained by the code of `hfc train`.

    Args:
        method: one of `hfc.config.METHODS`.
        hierarchy: the tree over the labels: the name of a shipped one, a file, a `Hierarchy`, or a mapping of each leaf
            to its path, coarse to fine and ending in the leaf itself, of any length; a leaf whose label is in several
            places is called by the text of its path, "Tops > Other". None: the tree is learned from y where y holds
            paths, one that begins another being an inner node's; else it has one level.
        settings: any other setting of `TrainConfig`, by name, as `inner_labels`.
        validation_fraction: share of the rows that have a leaf's label to hold out, stratified by leaf and in whole
            groups, to pick the epoch. 0 or None: the last epoch is taken; so it is where that share has fewer rows than
            there are leaves in y.
        random_state: None, an integer or a RandomState; an integer makes fits repeatable, bit for bit on one machine.
        device: auto, cpu, cuda or cuda:N: where it trains. Predictions are made on the CPU.

    Attributes:
        classes_: (C,) the leaves of the tree, sorted; with a given hierarchy also those that y lacks. A leaf is called
            by its label, or by the text of its path where several leaves have that label.
        paths_: (C, H) the path of each leaf, coarse to fine, with "" below a leaf that ends above the last level.
        hierarchy_: the tree, its leaves in the order of `classes_`.
        config_: the settings as they were resolved.
        head_: the trained head, on the CPU and in float64.
        epoch_: the epoch it was taken from, counted from 1.
        temperature_: T, fitted on the rows held out, with their weights; 1 where there are none.
    """

    def __init__(
        self,
        method: str = TrainConfig.method,
        *,
        hierarchy: str | Path | Hierarchy | Mapping[Any, Sequence[Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
        validation_fraction: float | None = ExtractConfig.val_fraction,
        random_state: int | np.random.RandomState | None = None,
        device: str = TrainConfig.device,
    ) -> None:
        self.method = method
        self.hierarchy = hierarchy
        self.settings = settings
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Self:
        """Train on rows and their labels.

        Args:
            X: (N, D) numbers, at least two rows.
            y: (N,) labels, or paths, coarse to fine: (N, H), H > 1, filled up with "", None or NaN where they are
                shorter, or lists of several lengths. `predict` answers in the same form. A label or path is any node's:
                that of an inner node trains what is known of its row. With a hierarchy, a label may also be the text of
                a path, "Tops > Other", or of its end.
            sample_weight: (N,) factor of each row's loss, in relation to the other rows' alone; None: all count alike.
                A row of weight 0 is as good as not there. The epoch is picked by rows that all count alike.
            groups: (N,) names or numbers of what rows belong together by, as the pictures of one product. The rows that
                pick the epoch are drawn in whole groups, of which inner nodes' rows are not trained on either. "", None
                or NaN: a row by itself, as are all without groups.

        Raises:
            ValueError: X, y or sample_weight is not what scikit-learn takes, a weight is negative, fewer than two are
                positive, groups has another length, or the tree has one leaf.
            HierarchyError: y does not fit the hierarchy, or a label is blank, or may be several nodes.
            ConfigError: a setting does not exist, or does not fit the others.
            RunError: training diverged.
        """
        features, labels, weight, group = self._checked(X, y, sample_weight, groups)
        holds_paths = labels.shape[1] > 1
        rng = check_random_state(self.random_state)
        nodes = self._set_tree(labels)
        config = self._resolve(int(rng.randint(2**31 - 1)))
        resident = Resident(_tensor(features).to(choose_device(self.device)))
        data = self._data(nodes, resident, weight, group, config, rng)
        self.config_ = settle(config, data, resident.device)
        fitted = fit(resident, data, self.config_)
        self._answers = self.paths_ if holds_paths else self.classes_
        self.epoch_: int = fitted.best.epoch
        # In float64 what a row gets does not depend on the rows beside it, as it may by a rounding in float32.
        self.head_ = fitted.head.cpu().double()
        validated = fitted.validated.cpu().double()
        self.temperature_ = temperature_on(validated, Resident(_tensor(features)), data, "val", self.config_)
        return self

    def _checked(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, groups: ArrayLike | None
    ) -> tuple[NDArray[np.float32], Labels, NDArray[np.float64] | None, Ints]:
        """Check what `fit` gets, and leave out rows of weight 0.

        Returns:
            (N, D) features, (N, H) paths or (N, 1) labels, (N,) weights, and (N,) numbers of groups.
        """
        features, labels = validate_data(
            self, X, as_table("y", y), dtype=np.float32, multi_output=True, ensure_min_samples=2
        )
        holds_paths = labels.ndim == 2 and labels.shape[1] > 1
        if not holds_paths:
            labels = column_or_1d(labels, warn=True)
        if not holds_paths or labels.dtype.kind == "f":
            check_classification_targets(labels)
        weight = None if sample_weight is None else _weight(sample_weight, features)
        group = np.arange(len(features)) if groups is None else _group(groups, features)
        if weight is not None:
            used = weight > 0
            features, labels, weight, group = features[used], labels[used], weight[used], group[used]
        return features, labels if holds_paths else labels[:, None], weight, group

    def _data(
        self,
        nodes: Ints,
        features: Resident,
        weight: NDArray[np.float64] | None,
        group: Ints,
        config: TrainConfig,
        rng: np.random.RandomState,
    ) -> TrainingData:
        """Split rows into those to train on and those held out; `nodes` are the (N, H) paths of their labels."""
        leaf = self.hierarchy_.leaf(nodes)
        train, val = _split(leaf, group, self.validation_fraction, rng)
        if config.inner_labels == "leave-out":
            train = _without_inner(train, leaf)
        return TrainingData(
            hierarchy=self.hierarchy_,
            rows={"train": torch.from_numpy(train), "val": torch.from_numpy(val)},
            target=Target(torch.from_numpy(nodes), torch.from_numpy(leaf)),
            signs=signs(features, torch.arange(len(leaf), device=features.device)),
            unused={},
            weight=None if weight is None else _relative(weight, train),
        )

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Give each row P_final over `classes_`, (N, C), calibrated; with decode=least-cost its scores, normalised."""
        check_is_fitted(self, "head_")
        features = validate_data(self, X, dtype=np.float32, reset=False)
        raw = predict(self.head_, Resident(_tensor(features)), torch.arange(len(features)), self.config_.beta)
        plain = decoded(raw, self.hierarchy_, self.config_)
        final = calibrated(plain, self.hierarchy_, self.config_, self.head_.sums, self.temperature_).final
        # Sigmoids may all be 0; then every leaf has the same share.
        shares = final.numpy() + np.finfo(np.float64).tiny
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def predict(self, X: ArrayLike) -> Labels:
        """Give each row its most probable leaf: (N,) labels, or (N, H) paths as `paths_` if y held paths."""
        best = self._best(X)
        answers: Labels = self._answers[best]
        return answers

    def predict_path(self, X: ArrayLike) -> Labels:
        """Give each row the path to its most probable leaf: (N, H), coarse to fine, with "" below it."""
        best = self._best(X)
        paths: Labels = self.paths_[best]
        return paths

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Give the share of rows whose answer is right.

        An answer is right where it is the row's own leaf, or lies below the row's inner node. For a label that is no
        node of the tree none is.

        Args:
            X: (N, D).
            y: labels or paths as `fit` takes them, in either form.
            sample_weight: (N,) of each row.
        """
        best = self._best(X)
        table = as_table("y", y)
        nodes = find(self._tree, table if table.ndim == 2 else column_or_1d(table)[:, None])
        check_consistent_length(best, nodes, sample_weight)
        above = (nodes < 0) | (nodes == self.hierarchy_.ancestors[best])
        right = (nodes[:, 0] >= 0) & above.all(axis=1)
        return float(accuracy_score(np.ones_like(right), right, sample_weight=sample_weight))

    def _best(self, X: ArrayLike) -> Ints:
        """(N,) index of the most probable leaf of each row."""
        best: Ints = self.predict_proba(X).argmax(axis=1)
        return best

    def _set_tree(self, table: Labels) -> Ints:
        """Set hierarchy, classes and paths from (N, H) paths or (N, 1) labels; returns each row's node, (N, H)."""
        self._tree = tree_of("y", table) if self.hierarchy is None else given_tree(self.hierarchy)
        self.hierarchy_, self.classes_, self.paths_ = self._tree
        nodes = find(self._tree, table)
        refuse_unknown(self._tree, table, nodes)
        return nodes

    def _resolve(self, seed: int) -> TrainConfig:
        """The settings as they were given, over those of the method."""
        changes = {k: v.item() if isinstance(v, np.generic) else v for k, v in (self.settings or {}).items()}
        for key in OWN.keys() & changes.keys():
            raise ConfigError(f"settings: {key} does not go here; it is the argument {OWN[key]}")
        config = resolve(TrainConfig, {"method": self.method}, changes, {"seed": seed, "device": self.device})
        for key, reason in UNUSED.items():
            if getattr(config, key) != getattr(TrainConfig, key):
                raise ConfigError(f"settings: {key}: {reason}; leave {key} out")
        return config


def _weight(sample_weight: ArrayLike, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Check weights of rows, (N,). Raises a ValueError if they leave fewer than two rows."""
    weight: NDArray[np.float64] = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        row = int((weight < 0).argmax())
        raise ValueError(f"sample_weight: expected no negative weight, found {weight[row]} in row {row}")
    if (positive := int((weight > 0).sum())) < 2:
        raise ValueError(f"sample_weight: expected at least two weights that are not zero, found {positive}")
    return weight


def _relative(weight: NDArray[np.float64], train: Ints) -> torch.Tensor:
    """Scale weights, (N,), to mean 1 over the rows to train on: only their relation counts."""
    shares = weight / weight.max()  # of the largest, so that no sum of them overflows
    return torch.from_numpy(shares / shares[train].mean()).float()


def _split(leaf: Ints, group: Ints, share: float | None, rng: np.random.RandomState) -> tuple[Ints, Ints]:
    """Split rows into those to train on and those held out; see `hold_out`.

    Only rows whose label is a leaf can tell which epoch is best. The others are trained on, unless their group is held
    out.

    Args:
        leaf: (N,) of each row, −1 where the label is an inner node.
        group: (N,) number of each row's group.
        share: of the rows that have a leaf.
        rng: draws.
    """
    share = share or 0.0
    if not 0 <= share < 1:
        raise ConfigError(f"validation_fraction: expected None or a share from 0 to below 1, found {share!r}")
    known = np.flatnonzero(leaf >= 0)
    val = known[hold_out(leaf[known], group[known], share, rng)] if len(known) else known
    return np.flatnonzero(~np.isin(group, group[val])), val


def _without_inner(train: Ints, leaf: Ints) -> Ints:
    """Leave out the rows whose label is an inner node. Raises a ValueError if that leaves fewer than two."""
    if len(rows := train[leaf[train] >= 0]) < 2:
        raise ValueError(
            f"y: expected at least two rows whose label is a leaf, found {len(rows)}; use the inner labels"
        )
    return rows


def _group(groups: ArrayLike, X: NDArray[np.float32]) -> Ints:
    """Number the groups of rows, (N,). Raises a ValueError if there is not one for each row."""
    names = np.asarray(groups, dtype=np.object_)
    if names.shape != (len(X),):
        raise ValueError(f"groups: expected a group for each of the {len(X)} rows of X, found the shape {names.shape}")
    number = numbered(strings(["" if name is None or name != name else str(name) for name in names]))
    return np.arange(len(X)) if number is None else number


def _tensor(X: NDArray[np.float32]) -> torch.Tensor:
    """See rows as features of one view, (N, 1, D); they are copied only where torch cannot share their memory."""
    return torch.from_numpy(np.require(X, requirements=["C", "W"]))[:, None, :]
