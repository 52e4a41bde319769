"""The tree as heads see it: numbers of nodes and of leaves, and how one comes from the other.

Dimensions: B batch, H levels (coarse to fine), C^h nodes on level h, C leaves.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfc.train.heads.layers import Target
from hfc.train.losses import hit, log_softmax_among_siblings, logsumexp_by, sums_by

HEADROOM = 60.0  # the greatest number of a row is e^60 in `Tree.log_path`; 10^12 of these are no overflow yet
SMALLEST = 1e-30  # of a sum there whose logarithm and slope are taken


def level_sizes(ancestors: Tensor) -> list[int]:
    """Count the nodes of each level, coarse to fine.

    Args:
        ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
    """
    sizes: list[int] = (ancestors.max(dim=0).values + 1).tolist()
    return sizes


def parents(ancestors: Tensor) -> list[Tensor]:
    """List the parent of each node: (C^h,) indices on the level above, 0 on the first level.

    Args:
        ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
    """
    numbers = []
    above = torch.zeros_like(ancestors[:, 0])
    for column, size in zip(ancestors.unbind(dim=1), level_sizes(ancestors), strict=True):
        on = column >= 0
        numbers.append(above.new_zeros(size).scatter(0, column[on], above[on]))
        above = column
    return numbers


class Tree(nn.Module):
    """A tree of H levels whose C leaves may lie on any of them.

    Where all lie on the last one, in the order of its nodes, it is even: nothing then needs to be picked.
    """

    ancestors: Tensor
    """(C, H) index of each leaf's node on each level, −1 below the leaf."""
    place: Tensor
    """(C,) of each leaf among the nodes of all levels, which follow each other."""
    ends: list[bool]
    """Of each level whether leaves lie on it."""
    widest: list[int]
    """Of each level the most children of a node above it."""

    def __init__(self, ancestors: Tensor) -> None:
        """Take (C, H) index of each leaf's node on each level, −1 below the leaf."""
        super().__init__()
        self.sizes = level_sizes(ancestors)
        self.above = [1, *self.sizes[:-1]]
        self.even = torch.equal(ancestors[:, -1], torch.arange(len(ancestors)))
        depth = (ancestors >= 0).sum(dim=1)
        own = ancestors.gather(1, depth[:, None] - 1)[:, 0]
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(dim=0)
        self._keep("ancestors", ancestors)
        self._keep("place", starts[depth - 1] + own)
        self.ends, self.widest = [], []
        for h, parent in enumerate(parents(ancestors)):
            leaves = (depth == h + 1).nonzero()[:, 0]
            leaves = leaves[own[leaves].argsort()]
            self.ends.append(len(leaves) > 0)
            self._keep(f"parent{h}", parent)
            self._keep(f"leaves{h}", leaves)
            self._keep(f"nodes{h}", own[leaves])
            self._keep(f"order{h}", parent.argsort(stable=True))
            children = parent.bincount(minlength=self.above[h])
            self._keep(f"start{h}", F.pad(children.cumsum(dim=0), (1, 0)))
            self.widest.append(int(children.max()))

    def _keep(self, name: str, index: Tensor) -> None:
        self.register_buffer(name, index, persistent=False)

    def parent(self, h: int) -> Tensor:
        """List the parents of a level's nodes, (C^h,), 0 on the first level; levels count from 0."""
        return self.get_buffer(f"parent{h}")

    def leaves(self, h: int) -> Tensor:
        """List the leaves on a level, in the order of its nodes; levels count from 0."""
        return self.get_buffer(f"leaves{h}")

    def nodes(self, h: int) -> Tensor:
        """List those nodes of a level that are leaves, in their order; levels count from 0."""
        return self.get_buffer(f"nodes{h}")

    def of_leaves(self, levels: Sequence[Tensor]) -> Tensor:
        """Pick each leaf's number from its level: H tensors (B, C^h) to (B, C)."""
        return levels[-1] if self.even else torch.cat(list(levels), dim=1).index_select(1, self.place)

    def on_last(self, leaves: Tensor) -> Tensor:
        """Pick the numbers of the leaves on the last level: (B, C) to (B, C^H)."""
        return leaves if self.even else leaves.index_select(1, self.leaves(len(self.sizes) - 1))

    def sums(self, leaves: Tensor, h: int) -> Tensor:
        """Sum the numbers of the leaves below each node of a level, or at it: (B, C) to (B, C^h)."""
        column = self.ancestors[:, h]
        if self.even:
            return sums_by(leaves, column, self.sizes[h])
        return sums_by(leaves.masked_fill(column < 0, 0), column.clamp_min(0), self.sizes[h])

    def log_sums(self, leaves: Tensor) -> list[Tensor]:
        """Sum the exponentials of the leaves below each node: (B, C) to H tensors (B, C^h), all in logarithms."""
        return self._up(leaves, logsumexp_by)

    def _up(self, leaves: Tensor, by: Callable[[Tensor, Tensor, int], Tensor]) -> list[Tensor]:
        levels = [self.on_last(leaves)]
        # From the level below: it has fewer nodes than the tree has leaves.
        for h in range(len(self.sizes) - 2, -1, -1):
            values, group = levels[0], self.parent(h + 1)
            if self.ends[h]:
                values = torch.cat([leaves.index_select(1, self.leaves(h)), values], dim=1)
                group = torch.cat([self.nodes(h), group])
            levels.insert(0, by(values, group, self.sizes[h]))
        return levels

    def log_path(self, leaves: Tensor, target: Target) -> list[Tensor]:
        """Compute log P of the nodes of each label's path: (B, C) logits of a softmax over leaves to H tensors (B,).

        It is what `log_sums` has there, in a third of the time: all sums of a row have one scale. So a node less
        probable than e^−129 counts as its child on the path.
        """
        top = leaves.detach().amax(dim=1, keepdim=True) - HEADROOM
        scaled = (leaves - top).exp()
        label = level = hit(leaves, target.leaf, target.below) - top.squeeze(1)
        path, sums, logs = target.path.unbind(dim=1), self._up(scaled, sums_by), [level]
        for h in range(len(path) - 2, -1, -1):
            true = sums[h].gather(1, path[h].clamp_min(0)[:, None]).squeeze(1)
            level = torch.where(true > SMALLEST, true.clamp_min(SMALLEST).log(), level)
            level = torch.where(path[h + 1] < 0, label, level)
            logs.insert(0, level)
        whole = scaled.sum(dim=1).log()
        return [level - whole for level in logs]

    def shared(self, path: Tensor, values: Tensor) -> Tensor:
        """Give each leaf the value of the last node shared with a label's path.

        Args:
            path: (B, H) index of the true node on each level, −1 below the label.
            values: (B, H + 1) of the root and of the path's nodes; below the label anything.

        Returns:
            (B, C).
        """
        levels = [values[:, :1]]
        for h, y in enumerate(path.unbind(dim=1)):
            node, level = y.clamp_min(0)[:, None], levels[-1].index_select(1, self.parent(h))
            own = torch.where(y[:, None] < 0, level.gather(1, node), values[:, h + 1 : h + 2])
            levels.append(level.scatter(1, node, own))
        return self.of_leaves(levels[1:])

    def siblings(self, h: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """List the siblings of some nodes of a level, (B,), and these themselves; levels count from 0.

        Returns:
            (B, S) the nodes, and which of them count: not all nodes have S siblings.
        """
        order, start, parent = self.get_buffer(f"order{h}"), self.get_buffer(f"start{h}"), self.parent(h)[nodes]
        place = start[parent][:, None] + torch.arange(self.widest[h], device=nodes.device)
        return order[place.clamp(max=len(order) - 1)], place < start[parent + 1][:, None]

    def given_parent(self, logits: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Take a softmax among siblings: H tensors (B, C^h) of logits to log P(node | its parent)."""
        return tuple(log_softmax_among_siblings(z, self.parent(h), self.above[h]) for h, z in enumerate(logits))

    def down(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sum along the paths: H tensors (B, C^h) of log P(node | its parent) to log P(node)."""
        levels = [given[0]]
        for h, z in enumerate(given[1:], 1):
            levels.append(z + levels[-1][:, self.parent(h)])
        return tuple(levels)

    def along_paths(self, nodes: Tensor) -> Tensor:
        """Sum the numbers of the nodes on each leaf's path: (nodes of all levels, anything) to (C, anything)."""
        levels: list[Tensor] = []
        for h, own in enumerate(nodes.split(self.sizes)):
            levels.append(own + levels[-1].index_select(0, self.parent(h)) if levels else own)
        return levels[-1] if self.even else torch.cat(levels).index_select(0, self.place)

    def reach(self, levels: Sequence[Tensor]) -> list[Tensor | None]:
        """Compute how probable it is that a path reaches each level.

        A level's own output is learned from the paths that reach it. Of these, the share that nodes with children have
        goes on: reach^1 = 1, reach^{h+1} = reach^h · Σ_{with children} p^h / Σ_{all of level h} p^h.

        Args:
            levels: H tensors (B, C^h), each level's own probabilities.

        Returns:
            (B, 1) for each level; None where no leaf lies above the level, so that every path reaches it.
        """
        reach: list[Tensor | None] = [None]
        for h, p in enumerate(levels[:-1]):
            above = reach[-1]
            if self.ends[h]:
                inner = p.index_fill(1, self.nodes(h), 0).sum(dim=1, keepdim=True)
                share = inner / p.sum(dim=1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
                above = share if above is None else above * share
            reach.append(above)
        return reach

    def reached(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Multiply each level's own probabilities, H tensors (B, C^h), by those of reaching it; see `reach`."""
        pairs = zip(levels, self.reach(levels), strict=True)
        return tuple(p if reach is None else p * reach for p, reach in pairs)
