"""Which node of a tree a label means."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from hfc.errors import HierarchyError
from hfc.hierarchy.names import canonical, some

SEPARATOR = ">"

Path = tuple[int, ...]
"""A node: the index of each node on the way down to it."""


def split_path(text: str) -> tuple[str, ...]:
    """Split a written path, such as `Apparel > Tops`, into names as they are compared."""
    return tuple(canonical(word) for word in text.split(SEPARATOR))


def join_path(names: Sequence[str]) -> str:
    """Write a path as `split_path` reads it."""
    return f" {SEPARATOR} ".join(names)


class Lookup:
    """The nodes of a tree by what may be written for them."""

    def __init__(self, name: str, nodes: Sequence[tuple[Path, tuple[str, ...]]], leaves: set[Path]) -> None:
        """Order the nodes by their names.

        Args:
            name: of the tree, for messages.
            nodes: of each node its indices and its names, from the first level down to it.
            leaves: which of them are leaves.
        """
        self.name = name
        self.leaves = leaves
        self.written = dict(nodes)
        self.by_name: defaultdict[str, list[Path]] = defaultdict(list)
        self.by_end: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
        self.by_path: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
        for path, names in nodes:
            self.by_name[canonical(names[-1])].append(path)
            words = split_path(SEPARATOR.join(names))  # a name may hold the sign itself
            self.by_path[words].append(path)
            for start in range(1, len(words)):
                self.by_end[words[start:]].append(path)

    def find(self, label: str) -> list[Path]:
        """List the nodes that a label may mean: one, several, or none.

        A leaf's name comes first, then an inner node's, a whole path, and the end of one. A path that begins with `>`
        begins at the root.
        """
        return next(filter(None, self._readings(label)), [])

    def _readings(self, label: str) -> Iterator[list[Path]]:
        words = split_path(label)
        if len(words) > 1 and not words[0]:
            yield self.by_path.get(words[1:], [])
            return
        named = self.by_name.get(canonical(label), [])
        yield [path for path in named if path in self.leaves]
        yield named
        yield self.by_path.get(words, [])
        yield self.by_end.get(words, [])

    def only(self, label: str, where: str) -> Path:
        """Find the node that a label means.

        Raises:
            HierarchyError: there is no such node, or several.
        """
        nodes = self.find(label)
        if len(nodes) == 1:
            return nodes[0]
        if nodes:
            paths = some([join_path(self.written[path]) for path in nodes])
            raise HierarchyError(f"{where}: hierarchy {self.name} has {label!r} at several places; give one: {paths}")
        names = list(dict.fromkeys(names[-1] for names in self.written.values()))
        near = difflib.get_close_matches(split_path(label)[-1], names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {some(names)}"
        raise HierarchyError(f"{where}: hierarchy {self.name} has no node {label!r}; {hint}")
