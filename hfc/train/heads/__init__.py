"""Models on top of the features. To add one: a module here and a line in HEADS.

A head takes raw features (B, D) and gives logits of its own kind. Beside `forward` it has
    task_flows  names of the flows it has losses of; `local` has one on every level
    tasks       names of its task losses; those of one flow are alike before a slash: local/1, local/2, global
    blends      whether β changes what it answers
    standardise the layer that holds the training split's statistics
    shared      a weight tensor that every task passes through
    losses(logits, target (B, H)) -> the unweighted loss of each task, (B,) a row each
    predict(logits, beta) -> Prediction
Its constructor takes `dim`, `ancestors` and, by keyword alone, the training settings it uses (see hfc.train.settings).
"""

from collections.abc import Mapping

from hfc.train.heads.conditional import Conditional
from hfc.train.heads.flat import TREE_LOSSES, Flat
from hfc.train.heads.hmcnf import HMCNF
from hfc.train.heads.hmcnf_original import OriginalHMCNF
from hfc.train.heads.levels import Levels

__all__ = ["HEADS", "TREE_LOSSES", "Head"]

Head = Flat | HMCNF | OriginalHMCNF | Levels | Conditional

HEADS: Mapping[str, type[Head]] = {
    "flat": Flat,
    "hmcn-f": HMCNF,
    "hmcn-f-original": OriginalHMCNF,
    "levels": Levels,
    "conditional": Conditional,
}
