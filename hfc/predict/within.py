"""Answers below one node of the tree: which node is meant, and what the tree is below it. Dimensions: C leaves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfc.hierarchy import Hierarchy


@dataclass(frozen=True, eq=False)
class Below:
    """The leaves that an answer may have."""

    path: tuple[str, ...]
    """Names from the coarsest level to the node that answers lie below; empty for the root."""
    leaves: NDArray[np.int64]
    """(K,) the leaves below the node, in the order of the tree; a leaf lies below itself."""


def below(tree: Hierarchy, node: str = "") -> Below:
    """Find a node, and the leaves below it.

    Args:
        tree: the tree.
        node: a name, or the end of a path such as `Apparel > Tops`; `> Tops` begins at the root. "": the root.

    Raises:
        HierarchyError: there is no such node, or several.
    """
    path = tree.lookup.only(node, "within", leaf_first=False) if node else ()
    leaves = np.flatnonzero((tree.ancestors[:, : len(path)] == path).all(axis=1))
    return Below(tree.names(path), leaves)
