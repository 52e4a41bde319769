"""The benchmarks run, and print what notebooks/results.md quotes."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfc.config import ExtractConfig, TrainConfig, resolve
from hfc.hierarchy import load_hierarchy
from hfc.runs import read
from hfc.sample import draw_sample
from hfc.train.ablation import read_ablation
from tests.bench.runtimes import compare_runtimes
from tests.bench.small import TEN
from tests.bench.twins import COSINES
from tests.bench.uneven import UNEVEN, right, write_padded
from tests.support.made_up import small_cache, write_tree_csv

ROOT = Path(__file__).parent.parent
RUNS = {
    "extract": (
        ["--backbone", "test_efficientnet", "--images", "32", "--turns", "1", "--runtimes", ""],
        "end_to_end_of_forward",
    ),
    "decode": (["--images", "60", "--turns", "1"], "crops_per_s"),
    "assemble": (["--rows", "5000", "--dim", "64"], "assemble_of_plain"),
    "update": (["--rows", "5000", "--dim", "64"], "peak_mb"),
    "read": (["--rows", "500"], "peak_mb_of_the_process"),
    "train": (["--rows", "6000", "--dim", "32", "--turns", "1", "--slice", "300"], "of_the_matrix_products"),
    "stream": (["--rows", "6000", "--dim", "32", "--turns", "1"], "streamed_of_resident"),
    "leaves": (["--leaves", "60", "--rows", "900", "--dim", "16", "--levels", "4", "--epochs", "1"], "report"),
    "passes": (["--backbones", "test_efficientnet", "--image-size", "64", "--threads", "1"], "fp32, 1"),
    "linear": (["--rows", "200", "--held", "60", "--dim", "16", "--leaves", "4", "--turns", "1"], "ratio"),
    "twin_search": (["--rows", "3000", "--dim", "64"], "twins"),
    "seeds": (
        ["--rows", "2000", "--dim", "32", "--turns", "1", "--epochs", "1", "--seeds", "2", "--methods", "flat"],
        "of_single",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_prints_one_json_object(name: str) -> None:
    words, key = RUNS[name]
    command = [sys.executable, "-m", "tests.bench", name, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["benchmark"] == name
    assert json.loads(line)[key]


@pytest.mark.slow
def test_a_training_is_timed_repeated_and_tested_step_by_step(tmp_path: Path) -> None:
    def lines(*words: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "tests.bench", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    made, own = tmp_path / "made.h5", small_cache(tmp_path / "c.h5")
    assert lines("made_up", str(made), "--rows", "3000", "--dim", "16")[0]["rows"] == 3000
    timed = lines("steps", "--cache", str(made), "--methods", "flat", "--ways", "single,stacked", "--turns", "1")
    assert [(line["step"], line["runs"]) for line in timed] == [("single", 1), ("stacked", 5)]
    assert all(line["ms_a_step"] > 0 and line["ms_a_validation"] > 0 for line in timed)
    words = (str(own), "--hierarchy", str(write_tree_csv(tmp_path / "tree.csv")))
    same = lines("resume", *words, "--epochs", "3")
    assert len(same) == 6
    assert all(line["twice_the_same"] and line["resumed_the_same"] for line in same)
    ways = ("--ways", "cpu/single/fp32,cpu/stacked/fp32", "--methods", "flat", "--seeds", "2", "--epochs", "3")
    alone, stacked = lines("accuracy", *words, *ways)
    assert stacked["top1"][0] == pytest.approx(alone["top1"][0], abs=3)


@pytest.mark.slow
def test_a_small_set_tells_where_the_time_of_many_runs_goes(tmp_path: Path) -> None:
    cache = small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    (tmp_path / "plan.toml").write_text(
        'methods = ["flat", "levels"]\nfolds = 2\nsearch_seeds = [0]\nseeds = [1]\nepochs = 2\n'
        "[grid]\nlearning_rate = [0.001, 0.003]"
    )
    command = [sys.executable, "-m", "tests.bench", "small", str(cache), "--hierarchy", str(tmp_path / "tree.csv")]
    command += ["--methods", "levels,flat", "--seeds", "2", "--set", "epochs=2", "--turns", "1", "--jobs", "2"]
    done = subprocess.run([*command, "--plan", str(tmp_path / "plan.toml")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    runs, table = map(json.loads, done.stdout.splitlines())
    assert (runs["runs"], runs["jobs"]) == (4, "2")
    assert list(runs["of_processes"]) == ["start-up", "loading", "writing", "steps", "validation", "test"]
    assert all(value >= 0 for value in runs["of_processes"].values())
    assert (table["trainings"], table["searched"]) == (8, {"flat": 4, "levels": 4})


@pytest.mark.slow
def test_a_step_is_told_by_its_parts(tmp_path: Path) -> None:
    cache = small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    words = ["parts", str(cache), "--hierarchy", str(tmp_path / "tree.csv"), "--turns", "1", "--methods", "flat"]
    command = [sys.executable, "-m", "tests.bench", *words, "--batches", "64,128", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    small, large = map(json.loads, done.stdout.splitlines())
    assert (small["batch"], large["batch"], small["threads"]) == (64, 128, 1)
    assert large["multiplications"] == 2 * small["multiplications"] > 0
    assert set(small["of_a_step"]) == {"adam", "dropout", "products"}
    assert 0 < small["of_a_step"]["products"] < 1


@pytest.mark.slow
def test_the_table_of_twins_has_a_line_for_each_cosine(tmp_path: Path) -> None:
    draw_sample(tmp_path / "sample", images=40, seed=0)
    pictures = sorted((tmp_path / "sample").rglob("*.jpg"))
    rows = [f"{picture.relative_to(tmp_path)},Tee,train" for picture in pictures]  # whole pictures, without boxes
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split", *rows]))
    command = [sys.executable, "-m", "tests.bench", "twins", str(tmp_path / "m.csv"), "--copies", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["cosine"] for line in lines] == list(COSINES)
    shares = [list(line["recall"].values()) for line in lines]
    assert all(0 <= later <= sooner <= 1 for a, b in pairwise(shares) for sooner, later in zip(a, b, strict=True))
    assert lines[0]["recall"]["recompressed, quality 75"] == 1


@pytest.mark.slow
def test_the_table_of_lengths_has_a_line_for_each_size_method_and_length(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    words = ["--cache", str(cache), "--hierarchy", str(tree), "--rows", "50,100", "--made-up", "300", "--held", "60"]
    small = ["--dim", "16", "--leaves", "30", "--methods", "flat,levels", "--epochs", "2,0", "--seeds", "1"]
    command = [sys.executable, "-m", "tests.bench", "length", *words, *small]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    asked = [("linear", 13), ("flat", 2), ("flat", 40), ("levels", 2), ("levels", 40)]
    sizes = [("photographs", 50), ("photographs", 100), ("made up", 300)]
    assert [(line["data"], line["rows"], line["method"], line["epochs"]) for line in lines] == [
        (*size, *one) for size in sizes for one in asked
    ]
    assert lines[7]["top1"] > 70  # the clusters lie far apart
    assert [line["by_the_rows"] for line in lines] == 3 * [True, False, True, False, True]
    assert all(line["cpu_s"] > 0 for line in lines)


@pytest.mark.slow
def test_planted_labels_are_found_by_every_list(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    words = ["none.csv", "--cache", str(cache), "--hierarchy", str(tree), "--method", "flat", "--seeds", "1"]
    command = [sys.executable, "-m", "tests.bench", "review", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["list"] for line in lines] == [
        "hfc review",
        "as many as estimated",
        "all rows, by p_label",
        "off the diagonal, by p_label",
        "off the diagonal, by margin",
    ]
    for line in lines:  # the clusters lie far apart
        assert (line["planted"], line["precision"], line["right_suggestions"]) == (18, 1, 1)
        assert min(line["recall"], line["recall_of_siblings"], line["recall_of_strangers"]) > 0.7


@pytest.mark.slow
def test_a_share_of_the_labels_is_cut_back_and_used_or_left_out(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    words = ["none.csv", "--cache", str(cache), "--hierarchy", str(tree), "--seeds", "2", "--epochs", "2"]
    command = [sys.executable, "-m", "tests.bench", "partial", *words, "--methods", "flat"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    first, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (first["share"], first["train"], first["with_inner_label"]) == (0, 216, 0)
    assert [(line["share"], line["inner_labels"]) for line in lines] == [
        (share, name) for share in (0.3, 0.6, 0.9) for name in ("use", "leave-out", "use - leave-out")
    ]
    rows = [(line["train"], line["with_inner_label"]) for line in lines if "train" in line]
    assert rows == [(216, 65), (151, 0), (216, 130), (86, 0), (216, 194), (22, 0)]
    for use, without, difference in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        for score in ("top1", "group"):
            assert difference[score][0] == pytest.approx(use[score][0] - without[score][0], abs=0.02)


def test_the_photographs_uneven_tree_has_hat_and_shoes_at_depth_1_and_others_at_2_and_3(tmp_path: Path) -> None:
    tree = load_hierarchy(str(UNEVEN))
    depth = dict(zip(tree.leaves, tree.depths.tolist(), strict=True))
    assert [leaf for leaf in depth if depth[leaf] == 1] == ["Hat", "Shoes"]
    assert [leaf for leaf in depth if depth[leaf] == 2] == ["Body", "Dress", "Pants", "Shorts", "Skirt"]
    assert {leaf for leaf in depth if depth[leaf] == 3} == {
        *("Blazer", "Hoodie", "Outwear"),
        *("Blouse", "Longsleeve", "Polo", "Shirt", "T-Shirt", "Top", "Undershirt"),
    }
    assert tree.path(tree.leaves.index("Hat")) == ("Hat",)
    assert tree.path(tree.leaves.index("Polo")) == ("upper", "top", "Polo")
    padded = write_padded(tree, tmp_path / "padded.csv").read_text().splitlines()
    assert padded[0] == UNEVEN.read_text().splitlines()[0]
    assert {"Hat,Hat,Hat", "Dress,Dress,full-body", "Polo,top,upper"} <= {*padded}


@pytest.mark.slow
def test_an_uneven_tree_is_held_against_an_even_one(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    header, first, *others = tree.read_text().splitlines()
    alone = ",".join([first.split(",")[0], *[""] * first.count(",")])  # its first leaf below the root
    (tmp_path / "uneven.csv").write_text("\n".join([header, alone, *others]))
    trees = ["--even", str(tree), "--uneven", str(tmp_path / "uneven.csv")]
    words = ["none.csv", *trees, "--cache", str(cache), "--seeds", "2", "--methods", "flat,levels"]
    command = [sys.executable, "-m", "tests.bench", "uneven", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    flat, levels = [json.loads(line) for line in done.stdout.splitlines()]
    assert (flat["method"], levels["method"]) == ("flat", "levels")
    assert flat["even"] == flat["padded"] == flat["uneven"]  # it knows no tree
    assert min(levels[tree][0] for tree in ("even", "padded", "uneven")) > 90  # the clusters lie far apart
    assert levels["difference"] == pytest.approx(levels["uneven"][0] - levels["even"][0], abs=0.02)
    assert levels["interval"][0] <= levels["difference"] <= levels["interval"][1]
    assert (flat["images"], flat["interval"]) == (72, [0, 0])


def test_with_outer_folds_every_image_is_answered_once(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    settings = {"method": "levels", "hierarchy": str(tree), "epochs": 1}
    configs = [resolve(TrainConfig, {**settings, "seed": seed}) for seed in range(2)]
    own, nested = (right(cache, configs, tmp_path / "runs", folds, 1) for folds in (0, 2))
    assert (own.shape, nested.shape) == ((2, 72), (2, 360))
    runs = [read(folder).result for folder in sorted((tmp_path / "runs").iterdir())]
    for seed in range(2):
        top1 = {run.outer.number: run.test["top1"] for run in runs if run.outer and run.seed == seed}
        (alone,) = [run.test["top1"] for run in runs if not run.outer and run.seed == seed]
        assert own[seed].mean() == pytest.approx(alone)
        assert [nested[seed, :180].mean(), nested[seed, 180:].mean()] == pytest.approx([top1[0], top1[1]])


@pytest.mark.slow
def test_what_was_tried_has_a_line_for_each_method_and_seed_and_a_table(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    words = ["none.csv", "--hierarchy", str(tree), "--cache", str(cache), "--seeds", "2", "--epochs", "3"]
    command = [sys.executable, "-m", "tests.bench", "tried", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    first, second = ({row["method"]: row for row in rows if row["seed"] == seed} for seed in (0, 1))
    assert len(first) + len(second) == len(rows)
    assert [*second] == [method for method in first if method not in ("linear", "nearest neighbours")]
    for method, row in first.items():
        assert row["top1"] > (50 if method == "Hier-COS" else 90), method  # the clusters lie far apart
        if method in second and row["chosen"].startswith("strength"):
            assert second[method]["chosen"] == row["chosen"]
    head, rule, *body = [line for line in lines if line.startswith("|")]
    assert head.startswith("| method | top-1 % | top-3 % | top-5 % | macro top-1 % | mistake severity | distance@5 |")
    assert head.count("|") == rule.count("|")
    assert [line.split(" | ")[0] for line in body] == [f"| {method}" for method in first]
    mean = (first["flat"]["nll"] + second["flat"]["nll"]) / 2
    assert f"| {mean:.3f} ± " in body[0]


@pytest.mark.slow
def test_load_has_a_line_for_each_piece_of_work_way_and_number_of_busy_processes() -> None:
    small = ["--images", "170", "--turns", "1", "--epochs", "1", "--methods", "flat", "--pieces", "one_image"]
    cache = ["--way", "before:OMP_NUM_THREADS=1", "--busy", "0,1", "--all-of-few"]  # not in threads that spin
    command = [sys.executable, "-m", "tests.bench", "load", *small, *cache]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    cells = [(line["work"], line["way"], line["busy"]) for line in lines]
    ways = ("hfc", "before")
    assert cells == [(work, way, busy) for work in ("one_image", "flat") for way in ways for busy in (0, 1)]
    assert all(line["of_the_fair_share"] == 1 for line in lines if line["busy"] == 0)
    assert all(line["speed_of_before"] == 1 for line in lines if line["way"] == "before")


def test_an_unknown_benchmark_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bench", "speed"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    stages = "extract,predict,passes,decode,feed,forward,correct,fidelity,assemble,update,read"
    more = "train,stream,made_up,steps,resume,accuracy,seeds,small,parts,leaves,linear,length,twins,twin_search,review"
    assert f"usage: python -m tests.bench {{{stages},{more},partial,uneven,tried,load}}" in done.stderr


@pytest.mark.slow
def test_other_runtimes_are_held_against_the_network_in_float32() -> None:
    pytest.importorskip("onnxruntime")
    config = resolve(ExtractConfig, {"backbone": "test_efficientnet", "weights": "random", "image_size": 64})
    crops = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3)).astype(np.uint8)
    runtimes = compare_runtimes(config, crops, ["torch", "onnxruntime_fp32"], 1)
    assert list(runtimes) == ["torch", "onnxruntime_fp32"]
    assert runtimes["torch"]["of_torch"] == 1
    assert runtimes["onnxruntime_fp32"]["least_cosine"] > 0.99999


def test_the_table_of_ten_methods_is_a_plan() -> None:
    plan = read_ablation(str(TEN), "tree.csv")
    assert len(plan.searches) == 10
    assert {(len(search.points), search.folds, search.seeds) for search in plan.searches.values()} == {(6, 5, (0,))}
    assert (plan.seeds, plan.trainings) == ((10,), 10 * (6 * 5 + 1))
