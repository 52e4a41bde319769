"""Models on top of the features. To add one, write a module here and a line in HEADS; see `base.Head`."""

from collections.abc import Mapping

from hfc.train.heads.base import Head
from hfc.train.heads.conditional import Conditional
from hfc.train.heads.flat import TREE_LOSSES, Flat
from hfc.train.heads.hmcnf import HMCNF
from hfc.train.heads.hmcnf_original import OriginalHMCNF
from hfc.train.heads.levels import Levels
from hfc.train.heads.linear import Linear
from hfc.train.heads.ps_softmax import PSSoftmax

__all__ = ["HEADS", "TREE_LOSSES", "Head"]

HEADS: Mapping[str, type[Head]] = {
    "flat": Flat,
    "hmcn-f": HMCNF,
    "hmcn-f-original": OriginalHMCNF,
    "levels": Levels,
    "linear": Linear,
    "conditional": Conditional,
    "ps-softmax": PSSoftmax,
}
