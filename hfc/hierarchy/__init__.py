"""The category tree: its nodes and paths, the files that it is read from, and the labels that name its nodes."""

from hfc.hierarchy.lookup import join_path
from hfc.hierarchy.names import canonical, some, spellings, warn_of_spellings
from hfc.hierarchy.reading import keep_tree, load_hierarchy, parse_hierarchy, tree_file
from hfc.hierarchy.tree import Hierarchy, falls, from_paths, lca_height

__all__ = [
    "Hierarchy",
    "canonical",
    "falls",
    "from_paths",
    "join_path",
    "keep_tree",
    "lca_height",
    "load_hierarchy",
    "parse_hierarchy",
    "some",
    "spellings",
    "tree_file",
    "warn_of_spellings",
]
