"""Random trees for property tests."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray


@st.composite
def trees(draw: st.DrawFn) -> NDArray[np.int64]:
    """(C, H) ancestors of a tree of 1 to 6 levels and at least two leaves, which come in any order."""
    depth = draw(st.integers(1, 6))
    paths: list[tuple[int, ...]] = [(i,) for i in range(draw(st.integers(1, 4)))]
    for _ in range(depth - 1):
        most = 3 if len(paths) < 12 else 1
        counts = draw(st.lists(st.integers(1, most), min_size=len(paths), max_size=len(paths)))
        parents = [path for path, count in zip(paths, counts, strict=True) for _ in range(count)]
        paths = [(*path, i) for i, path in enumerate(parents)]
    assume(len(paths) > 1)
    tree = np.array(draw(st.permutations(paths)), dtype=np.int64)
    tree[:, -1] = np.arange(len(tree))
    return tree
