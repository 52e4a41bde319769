"""Models on top of the features. To add one: a module here and a line in HEADS.

A head takes raw features (B, D) and gives logits of its own kind. Beside `forward` it has
    tasks       names of its task losses
    settings    names of the training settings its constructor takes, after `dim` and `ancestors`
    standardise the layer that holds the training split's statistics
    losses(logits, target (B, H)) -> the unweighted loss of each task
    predict(logits, beta) -> Prediction
"""

from collections.abc import Mapping

from hfc.heads.flat import Flat
from hfc.heads.hmcnf import HMCNF
from hfc.heads.hmcnf_original import OriginalHMCNF

Head = Flat | HMCNF | OriginalHMCNF

HEADS: Mapping[str, type[Flat] | type[HMCNF] | type[OriginalHMCNF]] = {
    "flat": Flat,
    "hmcn-f": HMCNF,
    "hmcn-f-original": OriginalHMCNF,
}
