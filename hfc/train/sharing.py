"""How much related leaves have in common: an L2 strength of its own for the inner nodes of the tree.

Dimensions: H levels (coarse to fine), C leaves, L those below the nodes of a level, G the number of these nodes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


class Sharing:
    """Leaf weights W = M V, where ‖V‖² is the price of sharing them.

    Let a leaf's weight be Σ_v θ_v over the nodes of its path (Valmadre 2022), and the price Σ_leaves ‖θ‖² + Σ_inner
    ‖θ‖²/s. The cheapest θ that add up to W cost tr(Wᵀ K⁻¹ W), where K = I + s Σ_inner 1_v 1_vᵀ and 1_v are the leaves
    below v. A node thus changes by rank one what its children have, B, and as cheaply its square root, B = N Nᵀ: with
    u = N⁻¹ 1_v it is B + s 1_v 1_vᵀ = N R (N R)ᵀ, where R = I + γ u uᵀ and (1 + γ ‖u‖²)² = 1 + s ‖u‖². So M is the
    product of the R of all inner nodes, the deepest on the left, and nothing is as large as C × C.
    """

    def __init__(self, ancestors: Tensor, share: float) -> None:
        """Find R of each inner node.

        Args:
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            share: s; 0: nothing is shared.
        """
        self.levels: list[Level] = []
        """The deepest first."""
        one = torch.ones(len(ancestors), 1, dtype=torch.float64, device=ancestors.device)
        for h in range(ancestors.shape[1] - 2, -1, -1) if share else ():
            leaves = (ancestors[:, h + 1] >= 0).nonzero()[:, 0]
            u = self.leave(one)[leaves]
            self.levels.append(Level.of_rank_one(leaves, ancestors[leaves, h], u, share))

    def leave(self, weight: Tensor) -> Tensor:
        """Turn W, (C, anything), into V = M⁻¹ W; a bias, (C,), is free and stays."""
        for level in self.levels:
            weight = level.times(weight, level.down)
        return weight

    def enter(self, own: Tensor) -> Tensor:
        """Turn V into W = M V."""
        for level in reversed(self.levels):
            own = level.times(own, level.up)
        return own

    def slope(self, gradient: Tensor) -> Tensor:
        """Turn a gradient by W into that by V, Mᵀ times it."""
        for level in self.levels:
            gradient = level.times(gradient, level.up)
        return gradient


@dataclass(frozen=True)
class Level:
    """R = I + γ u uᵀ of a level's nodes."""

    leaves: Tensor
    """(L,) those below the nodes, none at them."""
    node: Tensor
    """(L,) of each of these leaves."""
    u: Tensor
    """(L, 1)."""
    up: Tensor
    """(G, 1) γ."""
    down: Tensor
    """(G, 1) that of the inverse."""

    @classmethod
    def of_rank_one(cls, leaves: Tensor, node: Tensor, u: Tensor, share: float) -> "Level":
        """Find γ: (1 + γ ‖u‖²)² = 1 + share · ‖u‖²."""
        square = u.new_zeros(int(node.max()) + 1, 1).index_add(0, node, u.square())
        root = (1 + share * square).sqrt()
        up = share / (root + 1)
        return cls(leaves, node, u, up, -up / root)

    def times(self, rows: Tensor, factor: Tensor) -> Tensor:
        """Multiply (C, anything) by I + factor · u uᵀ; (C,) stays."""
        if rows.ndim == 1:
            return rows
        sums = rows.new_zeros(len(factor), rows.shape[1]).index_add(0, self.node, self.u * rows[self.leaves])
        return rows.index_add(0, self.leaves, self.u * (factor * sums)[self.node])
