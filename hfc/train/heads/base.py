"""What a head is: the extension point of training.

Dimensions: N rows, B batch, D features, H levels (coarse to fine), C^h nodes on level h, C leaves.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from hfc.train.heads.layers import Prediction, Standardise, Target


class Module(Protocol):
    """What training asks of a head as a `torch.nn.Module`, which brings all of it."""

    training: bool
    """Whether it is in training mode."""

    def __call__(self, features: Tensor) -> Any:
        """Call `forward`."""

    def to(self, device: torch.device) -> Self:
        """Move it to a device."""

    def cpu(self) -> Self:
        """Move it to the CPU."""

    def double(self) -> Self:
        """Compute in float64 from now on."""

    def train(self, mode: bool = True) -> Self:
        """Go to training mode."""

    def eval(self) -> Self:
        """Go to evaluation mode."""

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:
        """What is learned."""

    def state_dict(self) -> dict[str, Any]:
        """Parameters and persistent buffers by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take over what `state_dict` gave."""


class Head(Module, Protocol):
    """A model on top of the features, a subclass of `torch.nn.Module`.

    To add one, write a module here and a line in HEADS, and name it among the choices of `head` in hfc/config.py. Its
    constructor takes `dim`, `ancestors` and, by keyword alone, the training settings it uses: `hfc train` accepts these
    for it and refuses all others. Layers are best taken from `hfc.train.heads.layers`, what it asks of the tree from
    `hfc.train.heads.tree`, which knows leaves on any level.

    A head may also have `sloped(logits, target)`, which gives its losses with their slopes by hand, `Sloped`, or None
    where it has no formula; `hfc.train.slices` asks for it.
    """

    task_flows: ClassVar[tuple[str, ...]]
    """Names of the flows that it has losses of; `local` has one on every level."""
    blends: ClassVar[bool]
    """Whether β changes what it predicts."""
    convex: ClassVar[bool]
    """Whether its loss is convex in its weights; then `hfc.train.lbfgs` trains it, not Adam by epochs."""
    sums: ClassVar[bool]
    """Whether what it predicts for a node is the sum over the leaves below it."""
    deepens: ClassVar[bool]
    """Whether every level of the tree is a hidden layer more; then it is trained longer under more levels."""
    tasks: tuple[str, ...]
    """Names of its task losses, those of one flow alike before a slash: local/1, local/2, global; see `task_names`."""
    standardise: Standardise
    """Its first layer, which holds the training split's statistics."""

    def __init__(self, dim: int, ancestors: Tensor, **settings: Any) -> None:
        """Build an untrained head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf; where all lie on the last
                level, its last column counts them.
            settings: keyword-only arguments, each a field of `TrainConfig`.
        """

    @property
    def shared(self) -> Tensor:
        """A weight that every task passes through; some weightings look at its gradients."""

    def forward(self, features: Tensor) -> Any:
        """Compute logits of its own kind from (B, D) raw features; autocast may ask for bfloat16."""

    def losses(self, logits: Any, target: Target) -> dict[str, Tensor]:
        """Compute the unweighted loss of each task, by name and in the order of `tasks`.

        Args:
            logits: what `forward` gave.
            target: the labels of B rows, which may be any nodes. On levels below its label a row has no loss.

        Returns:
            (B,) in float32 each: a number for each row.
        """

    def predict(self, logits: Any, beta: float) -> Prediction:
        """Compute probabilities, in float32 at least.

        Args:
            logits: what `forward` gave.
            beta: β, the share of the local output in P_final, where the head blends.

        Returns:
            (B, C^h) of each level, and (B, C) P_final over the leaves.
        """
