"""What a classifier tells of an image: a path of nodes, as text, JSON and a row of a table. No torch."""

from dataclasses import dataclass

from hfc.hierarchy import Hierarchy


@dataclass(frozen=True)
class Leaf:
    """A leaf that may be the answer."""

    path: tuple[str, ...]
    """Names of the nodes from the coarsest level to the leaf."""
    probability: float

    def to_dict(self) -> dict[str, object]:
        """The leaf as a JSON object."""
        return {"path": list(self.path), "probability": round(self.probability, 6)}


@dataclass(frozen=True, repr=False)
class Answer:
    """What a classifier tells of one region."""

    id: str
    """The image's path, or the row's id in a manifest."""
    path: tuple[str, ...]
    """Names of the nodes from the coarsest level to the answer: the best leaf; if that was not certain enough, a node
    above it, or none."""
    probabilities: tuple[float, ...]
    """Of each node of the path, its share of P_final: the sum over the leaves below it, over that of all leaves."""
    top: tuple[Leaf, ...]
    """The best leaves, best first."""
    error: str = ""
    """Why the image could not be read; then there is no answer."""
    within: tuple[str, ...] = ()
    """Names down to the node that answers were asked for below; its leaves alone share the probabilities."""
    batch_size: int = 0
    """Crops in a forward pass, where that was chosen: the last bits of features may be others than the run's."""

    @property
    def climbed(self) -> bool:
        """Whether it ends above the best leaf, as that was not certain enough."""
        return bool(self.top) and self.path != self.top[0].path

    def __str__(self) -> str:
        """The path and the probability of its last node."""
        if self.error:
            return f"cannot be read: {self.error}"
        return f"{' > '.join(self.path)} {self.probabilities[-1]:.2f}" if self.path else "not certain of any node"

    def __repr__(self) -> str:
        """The same in brackets, so that a list of answers can be read."""
        return f"<{self}>"

    def to_dict(self) -> dict[str, object]:
        """The answer as a JSON object: id and error, or id, path, probabilities, top.

        And within and batch_size, where they were asked for.
        """
        about: dict[str, object] = {"id": _utf8(self.id)} | ({"within": list(self.within)} if self.within else {})
        if self.error:
            return {**about, "error": _utf8(self.error)}
        return {
            **about,
            "path": list(self.path),
            "probabilities": [round(probability, 6) for probability in self.probabilities],
            "top": [leaf.to_dict() for leaf in self.top],
        } | ({"batch_size": self.batch_size} if self.batch_size else {})


class AnswerTable:
    """A table with a row for each answer: the path, its probabilities and the best leaves.

    Cells below the answer are blank. A leaf whose name others have too is written as its path.
    """

    def __init__(self, hierarchy: Hierarchy, top: int, *, within: bool = False, batch_size: bool = False) -> None:
        """Name the columns.

        Args:
            hierarchy: the tree, whose levels get a column each; a name that another column has gets " level" behind it.
            top: how many of the best leaves are told, at most all.
            within: whether a column tells below which node the answers were asked for.
            batch_size: whether one tells how many crops were to be in a forward pass.
        """
        self.leaves = min(top, len(hierarchy.leaves))
        self.names = {hierarchy.path(leaf): name for leaf, name in enumerate(hierarchy.leaves)}
        best = [name for k in range(1, self.leaves + 1) for name in (f"top{k}", f"top{k} probability")]
        self.last = ["within"] * within + ["batch_size"] * batch_size + ["error"]
        self.levels = hierarchy.columns(["id", *best, *self.last, "random_weights"])
        self.header = ["id", *self.levels, *(f"{level} probability" for level in self.levels), *best, *self.last]

    def row(self, answer: Answer) -> list[str]:
        """The cells of an answer."""
        blank = [""] * (len(self.levels) - len(answer.path))
        probabilities = [f"{probability:.6f}" for probability in answer.probabilities]
        best = [cell for leaf in answer.top for cell in (self.names[leaf.path], f"{leaf.probability:.6f}")]
        best += [""] * (2 * self.leaves - len(best))
        about = {
            "within": " > ".join(answer.within),
            "batch_size": str(answer.batch_size or ""),
            "error": _utf8(answer.error),
        }
        last = [about[name] for name in self.last]
        return [_utf8(answer.id), *answer.path, *blank, *probabilities, *blank, *best, *last]


def _utf8(text: str) -> str:
    """Text for a file in UTF-8; other bytes of a file's name become a replacement sign."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
