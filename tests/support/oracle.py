"""Probabilities and losses of heads on any tree, by loops over paths: written from the definitions, in float64.

A node is its path. Of one row `z` are the logits of nodes, or of leaves.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from tests.support.trees import Node, nodes_of

Numbers = Mapping[Node, float]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def activated(z: Numbers, loss: str) -> dict[Node, float]:
    """Sigmoids under bce, else a softmax over all that are given."""
    if loss == "bce":
        return {node: sigmoid(value) for node, value in z.items()}
    top = max(z.values())
    total = sum(math.exp(value - top) for value in z.values())
    return {node: math.exp(value - top) / total for node, value in z.items()}


def binary(p: Numbers, true: Node, nodes: Iterable[Node]) -> float:
    """The sum of binary cross-entropies of some nodes; those on the path to the true one are right."""
    return -sum(math.log(p[node] if true[: len(node)] == node else 1 - p[node]) for node in nodes)


class Oracle:
    """A tree, given by the paths of its leaves."""

    def __init__(self, paths: Sequence[Node]) -> None:
        self.paths, self.levels = list(paths), nodes_of(list(paths))
        self.nodes = [node for level in self.levels for node in level]
        everywhere = [(), *self.nodes]
        self.below = {node: [path for path in self.paths if path[: len(node)] == node] for node in everywhere}
        # The longest way down to a leaf.
        self.height = {node: max(map(len, self.below[node])) - len(node) for node in everywhere}

    def distance(self, one: Node, other: Node) -> int:
        """The height of the lowest common ancestor."""
        common = 0
        while common < min(len(one), len(other)) and one[common] == other[common]:
            common += 1
        return self.height[one[:common]]

    def of_levels(self, z: Numbers, loss: str) -> dict[Node, float]:
        """Each level's own output."""
        own: dict[Node, float] = {}
        for level in self.levels:
            own |= activated({node: z[node] for node in level}, loss)
        return own

    def reached(self, own: Numbers) -> dict[Node, float]:
        """Each level's own output times the probability that a path gets there."""
        reached, reach = {}, 1.0
        for level in self.levels:
            reached |= {node: own[node] * reach for node in level}
            inner = [node for node in level if node not in self.paths]
            reach *= sum(own[node] for node in inner) / sum(own[node] for node in level)
        return reached

    def among_siblings(self, own: Numbers) -> dict[Node, float]:
        """P(node | its parent), in proportion to some numbers."""
        siblings: dict[Node, float] = {}
        for node in self.nodes:
            siblings[node[:-1]] = siblings.get(node[:-1], 0.0) + own[node]
        return {node: own[node] / siblings[node[:-1]] for node in self.nodes}

    def products(self, given: Numbers) -> dict[Node, float]:
        return {node: math.prod(given[node[:h]] for h in range(1, len(node) + 1)) for node in self.nodes}

    def sums(self, leaves: Numbers) -> dict[Node, float]:
        return {node: sum(leaves[path] for path in self.below[node]) for node in self.nodes}

    def level_losses(self, z: Numbers, label: Node, loss: str) -> list[float]:
        """ε of each level down to the label, 0 below it."""
        own, losses = self.of_levels(z, loss), []
        for h, level in enumerate(self.levels, 1):
            if len(label) < h:
                losses.append(0.0)
            elif loss == "bce":
                losses.append(binary(own, label[:h], level) / len(level))
            else:
                losses.append(-math.log(own[label[:h]]))
        return losses

    def leaf_loss(self, z: Numbers, label: Node, loss: str) -> float:
        """−log of the likelihood of the leaves below the label; by sigmoids, that no other leaf is there."""
        p, below = activated(z, loss), self.below[label]
        if loss == "softmax":
            return -math.log(sum(p[path] for path in below))
        known = [path for path in self.paths if path not in below or len(below) == 1]
        return binary(p, below[0], known) / len(self.paths)

    def hxe(self, z: Numbers, label: Node, alpha: float) -> float:
        p = self.sums(activated(z, "softmax"))
        total = 0.0
        for h in range(len(label)):
            total -= math.exp(-alpha * h) * math.log(p[label[: h + 1]] / (p[label[:h]] if h else 1.0))
        return total

    def path_loss(self, z: Numbers, label: Node, share: float) -> float:
        """−Σ q log P of the label, which has `share`, and of the nodes above it, which have the rest evenly."""
        p = self.sums(activated(z, "softmax"))
        above = [label[:h] for h in range(1, len(label))]
        shares = {label: share, **{node: (1 - share) / len(above) for node in above}} if above else {label: 1.0}
        return -sum(q * math.log(p[node]) for node, q in shares.items())

    def soft_labels(self, z: Numbers, label: Node, beta: float) -> float:
        """Classes are the leaves outside the label, and the label."""
        p, below = activated(z, "softmax"), set(self.below[label])
        largest = max((self.distance(a, b) for a, b in combinations(self.paths, 2)), default=1)
        outside = [path for path in self.paths if path not in below]
        weights = [math.exp(-beta * self.distance(path, label) / largest) for path in outside]
        logs = [math.log(p[path]) for path in outside]
        own = math.log(sum(p[path] for path in below))
        return -(own + sum(w * log for w, log in zip(weights, logs, strict=True))) / (1 + sum(weights))

    def nodes_loss(self, z: Numbers, label: Node) -> float:
        """Binary cross-entropy of all nodes, but those below a label that is an inner node; over all of them."""
        known = [node for node in self.nodes if node[: len(label)] != label or len(node) <= len(label)]
        return binary(activated(z, "bce"), label, known) / len(self.nodes)

    def violation(self, p: Numbers) -> float:
        return sum(max(0.0, p[node] - p[node[:-1]]) ** 2 for node in self.nodes if len(node) > 1)
