"""What is read of a run's predictions, against sorting every row in Python."""

from pathlib import Path

import numpy as np

from hfc import runs
from hfc.report.seeds import read_seed
from tests.support.made_runs import guess, tree_of, write_run


def test_answers_ranks_and_shares_are_those_of_every_row_sorted(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    target = np.arange(30) % 6
    final = np.round(guess(tree, target, 1.0, 3), 1)  # ties go to the first leaf
    ids = [f"{(7 * i) % 30:02d}" for i in range(30)]
    seed = read_seed(runs.read(write_run(tmp_path / "r", tree, ids=ids, target=target, final=final)))
    assert seed.id.tolist() == sorted(ids)
    for place, row in enumerate(sorted(range(30), key=ids.__getitem__)):
        order = sorted(range(6), key=lambda leaf, row=row: (-final[row, leaf], leaf))
        assert (seed.target[place], seed.predicted[place]) == (target[row], order[0])
        assert seed.rank[place] == order.index(target[row])
        assert seed.confidence[place] == np.float32(final[row].max() / final[row].sum())
