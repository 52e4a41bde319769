"""Which node of a tree a label means."""

import difflib
from collections import Counter, defaultdict
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


def from_root(names: Sequence[str]) -> str:
    """Write a path so that it means one node alone, whatever other nodes are called."""
    return f"{SEPARATOR} {join_path(names)}"


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
        self.below = Counter(leaf[:h] for leaf in leaves for h in range(1, len(leaf) + 1))
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

    def find(self, label: str, *, leaf_first: bool = True) -> list[Path]:
        """List the nodes that a label may mean: one, several, or none.

        A node's name comes first, then a whole path, and the end of one. A path that begins with `>` begins at the
        root. A name that is repeated further down, where nothing parts from it, is one node, the lowest.

        Args:
            label: a name or a path.
            leaf_first: a leaf's name is none of an inner node.
        """
        nodes = next(filter(None, self._readings(label, leaf_first)), [])
        lowest = max(nodes, key=len, default=())
        is_one = all(node == lowest[: len(node)] and self.below[node] == self.below[lowest] for node in nodes)
        return [lowest] if nodes and is_one else nodes

    def _readings(self, label: str, leaf_first: bool) -> Iterator[list[Path]]:
        words = split_path(label)
        named = self.by_name.get(canonical(label), [])
        if leaf_first:
            yield [path for path in named if path in self.leaves]
        yield named
        if len(words) > 1 and not words[0]:
            yield self.by_path.get(words[1:], [])
            return
        yield self.by_path.get(words, [])
        yield self.by_end.get(words, [])

    def only(self, label: str, where: str, *, leaf_first: bool = True) -> Path:
        """Find the node that a label means.

        Args:
            label: a name or a path, see `find`.
            where: what holds the label, for messages.
            leaf_first: a leaf's name is none of an inner node.

        Raises:
            HierarchyError: there is no such node, or several.
        """
        return self.pick(self.find(label, leaf_first=leaf_first), label, where)

    def pick(self, nodes: Sequence[Path], label: str, where: str) -> Path:
        """Take the only node of what `find` gave for a label.

        Raises:
            HierarchyError: there is none, or several.
        """
        if len(nodes) == 1:
            return nodes[0]
        start = f"{where}: hierarchy {self.name} has"
        if nodes:
            paths = some([from_root(self.written[path]) for path in nodes])
            raise HierarchyError(f"{start} {label!r} at several places; name one of them: {paths}")
        names = list(dict.fromkeys(names[-1] for names in self.written.values()))
        near = difflib.get_close_matches(split_path(label)[-1], names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {some(names)}"
        raise HierarchyError(f"{start} no node {label!r}; {hint}")
