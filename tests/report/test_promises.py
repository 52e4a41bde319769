"""What a report says of promises."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from hfc.report import figures, promises, write_report
from hfc.report.rows import read_leaderboards, summarise
from hfc.runs import find
from hfc.store.promise import Counts, Promise
from tests.support.made_runs import TREE, tree_of, write_folds, write_run


def promise(right: int = 58) -> Promise:
    """Of 60 test images: all are answered below 0.5, of which `right` are right."""
    proof = Counts(rows=200, given=((40, 0), (60, 100), (0, 200)), right=((40, 0), (60, 93), (0, 120)))
    test = Counts(rows=60, given=((9, 3), (12, 45), (0, 60)), right=((9, 3), (12, right - 12), (0, 30)))
    return Promise(confidence=0.95, thresholds=(0.8, 0.5, 0.0), chosen=proof, proof=proof, test=test)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tree = tree_of(tmp_path / "tree.csv", TREE)
    for seed, right in enumerate((50, 55)):
        write_run(tmp_path / f"proven{seed}", tree, seed=seed, promise=promise(right).plain())
    write_run(tmp_path / "plain", tree, method="levels")
    return tmp_path


def test_each_run_and_target_has_a_line(place: Path) -> None:
    table = promises.table(summarise(find([place])))
    assert table.header == (
        *("method", "seed", "target %", "threshold", "on group %", "on leaf %"),
        *("no answer %", "right %", "95% interval"),
    )
    lines = [[cell.text for cell in line] for line in table.rows]
    assert [line[:3] for line in lines[:4]] == [["flat (tree)", "0", target] for target in ("80", "90", "95", "99")]
    low, high = binomtest(50, 57).proportion_ci(method="exact")
    own = ["0.5000", "20.0", "75.0", "5.0", "87.7", f"{100 * low:.1f} to {100 * high:.1f}"]
    assert [line[3:] for line in lines[:4]] == [own, own, ["–"] * 6, ["–"] * 6]
    assert lines[4][:3] == ["flat (tree)", "1", "80"]
    assert lines[4][7] == "96.5"
    assert len(lines) == 8
    assert table.rows[2][3].tip == "at most 91.9% can be promised, by 200 rows"


def test_each_outer_fold_has_a_promise_of_its_own(tmp_path: Path) -> None:
    write_folds(tmp_path / "r", tree_of(tmp_path / "tree.csv"), folds=2, promise=promise().plain())
    (board,) = read_leaderboards(find([tmp_path / "r"]))
    assert board.best.row.first.promise is None
    lines = [[cell.text for cell in line[:3]] for line in promises.table([board.best.row]).rows]
    assert lines == [["flat (tree)", f"0, fold {k}", t] for k in (0, 1) for t in ("80", "90", "95", "99")]


def test_without_a_promise_there_is_no_line(place: Path) -> None:
    assert promises.table([row for row in summarise(find([place])) if row.first.method == "levels"]).rows == ()


@pytest.mark.parametrize(("right", "given"), [(0, 9), (9, 9), (4, 9), (570, 600)])
def test_the_interval_is_that_of_clopper_and_pearson(right: int, given: int) -> None:
    expected = binomtest(right, given).proportion_ci(method="exact")
    assert promises.interval(right, given) == pytest.approx((expected.low, expected.high))


def test_the_curve_of_rejection_carries_confidence_and_promises(place: Path) -> None:
    (board,) = read_leaderboards(find([place]))
    figure = figures.rejection(board)
    assert figure.header == ("method", "share_answered", "top1", "confidence")
    by_label = {outcome.label: outcome for outcome in board.outcomes}
    for label, share, _, confidence in figure.data:
        seeds = by_label[str(label)].confidence
        kept = round(float(str(share)) * 60)
        surest = [sorted(seed.tolist(), reverse=True)[kept - 1] for seed in seeds]
        assert confidence == pytest.approx(np.mean(surest))
    # Both seeds promise 80% and 90%, by the same threshold.
    for target in (80, 90):
        assert f"flat (tree), promised {target}%: 92.1% right of 95.0%" in figure.drawing
    assert "promised 95%" not in figure.drawing
    assert figure.note.endswith("Large points: the answers of a promise, inner nodes among them.")


def test_a_report_says_how_a_threshold_gets_a_promise(place: Path, tmp_path: Path) -> None:
    write_report([place], tmp_path / "with")
    for run in place.glob("proven*"):
        shutil.rmtree(run)
    write_report([place], tmp_path / "without")
    with_promise, without = ((tmp_path / name / "report.md").read_text("utf-8") for name in ("with", "without"))
    assert "promise_share" in without.replace("\\", "")
    assert "promise_share" not in with_promise.replace("\\", "")
