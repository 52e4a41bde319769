"""Thousands of leaves: nothing that is trained or decoded grows with their square."""

import json
import subprocess
import sys

import pytest

LEAVES = 10_000
# A table of all pairs of leaves has 100 million cells: 400 MB of float32. Seven levels of 64 rows take 18 MB.
MOST = 200e6

STEP = """
import json, resource, sys
import numpy as np, torch
from hfc.config import METHODS, TrainConfig, resolve
from hfc.hierarchy import Hierarchy
from hfc.train.decoding import DECODINGS, leaf_paths
from hfc.train.heads.layers import Target
from hfc.train.settings import build_head
from hfc.train.slices import row_losses

torch.set_num_threads(1)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def step(method, leaves):
    sizes = [max(leaves // 4**h, 1) for h in range(6, -1, -1)]
    below = np.arange(leaves)
    ancestors = np.stack([below * size // leaves for size in sizes], axis=1)
    nodes = tuple(tuple(f"{h}.{i}" for i in range(size)) for h, size in enumerate(sizes))
    tree = Hierarchy("wide", tuple(map(str, range(7))), nodes, ancestors)
    given = {"method": method, "transform": "none", **({"width": 8} if "hmcn" in method else {})}
    head = build_head(resolve(TrainConfig, given), tree, 8)
    leaf = torch.randint(leaves, (64,))
    features, target = torch.randn(64, 8), Target(torch.from_numpy(ancestors)[leaf], leaf)
    sum(loss.mean() for loss in row_losses(head, head(features), target).values()).backward()
    with torch.inference_mode():
        head.eval()
        prediction = head.predict(head(features), 0.5)
        for decode in DECODINGS.values():
            decode(prediction, leaf_paths(tree))

step(sys.argv[1], 100)  # what torch itself takes
before = peak()
step(sys.argv[1], int(sys.argv[2]))
print(json.dumps(peak() - before))
"""


@pytest.mark.parametrize("method", ["flat+soft-labels", "levels+path"])
def test_a_step_and_every_decoding_take_memory_by_leaves_not_by_their_square(method: str) -> None:
    words = [sys.executable, "-c", STEP, method, str(LEAVES)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < MOST
