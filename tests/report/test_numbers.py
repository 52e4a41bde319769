"""Every number of a report against one counted from the run folders, whatever rows share and however they are named.

The counts here are loops over `predictions.h5` and `result.json`: nothing of hfc.report is asked for them but the draws
of the bootstrap, which tests/report/test_statistics.py holds to an oracle of its own.
"""

import csv
import html
import json
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hfc.report import write_report
from hfc.report.statistics import bootstrap
from tests.support.made_runs import TREE, tree_of, write_run

TREES = {
    "plain": ("a/tree.csv", TREE),
    "edited": ("b/tree.csv", TREE.replace("Hat,hats", "Hat,tops")),
    "blanks": ("c/tree  two.csv", TREE),
    "blank": ("c/tree two.csv", TREE),
    "composed": ("c/caf\u00e9.csv", TREE),
    "decomposed": ("d/cafe\u0301.csv", TREE),
    "named as a distinction": ("e/tree) 160 px (x.csv", TREE),
}
SPLITS = ("validation", "test")
FIELDS = {"backbone": "made-up", "image_size": 224, "pool": "mean", "resize": "squash", "views": ["identity"]}
CHANGES: dict[str, dict[str, Any]] = {  # of one part of a row each
    "same": {},
    "160 px": {
        "cache__image_size": 160,
        "cache__key_fields": FIELDS | {"image_size": 160},
        "cache__feature_key": "1" * 64,
    },
    "max pooling": {"cache__key_fields": FIELDS | {"pool": "max"}, "cache__feature_key": "2" * 64},
    "other bytes": {"cache__features_sha256": "3" * 64},
    "other cache": {"cache__features_sha256": "4" * 64, "cache__path": "cache/other.h5"},
    "other labels": {"cache__labels_sha256": "5" * 64, "cache__labels": "other.csv", "cache__labels_digest": "6" * 64},
    "fewer rows": {"rows__train": 90},
    "fp32": {"config__precision": "fp32"},
    "rate": {"config__learning_rate": 0.5},
    "changed": {"changed": {"dropout": 0.5}, "config__dropout": 0.5},
    "other images": {"ids": [f"other/{i}.jpg" for i in range(60)]},
    "random": {"cache__random_weights": True, "cache__weights": "random", "cache__feature_key": "7" * 64},
}


def draw(folder: Path, rng: np.random.Generator, origin: str) -> dict[str, list[Path]]:
    """Runs of some random rows, most of them of one name: by the name of the row the folders of its seeds."""
    trees = rng.choice(list(TREES), size=2, replace=False).tolist()
    combinations = [(m, c, t) for m in ("flat", "hmcn-f") for t in trees for c in CHANGES][: 3 * len(CHANGES)]
    rows: dict[str, list[Path]] = {}
    made = {name: tree_of(folder / file, text) for name, (file, text) in TREES.items()}
    for i in rng.choice(len(combinations), size=int(rng.integers(3, 8)), replace=False):
        method, change, tree = combinations[i]
        for seed in sorted(rng.choice(5, size=int(rng.integers(1, 4)), replace=False).tolist()):
            place = folder / "runs" / f"{i}-{seed}"
            changes = {"cache__key_fields": FIELDS, "cache__origin": origin} | CHANGES[change]
            skill = float(rng.choice([0.5, 1.0, 2.0]))
            curves = {split: [{"beta": b / 10, "top1": float(rng.random())} for b in range(11)] for split in SPLITS}
            changes["beta"] = curves | {"best_on_validation": float(rng.integers(11)) / 10}
            changes["stopping"] = [
                {"confidence": c, "specificity": float(rng.random()), "correct": float(rng.random()), "precision": 0.5}
                for c in (0.0, 0.5, 0.9)
            ]
            write_run(place, made[tree], method=method, seed=seed, skill=skill + i / 1000, **changes)
            rows.setdefault(f"{method}, {change}, {tree}", []).append(place)
    return rows


class Counted:
    """What a row's runs say, counted image by image."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.results = [json.loads((folder / "result.json").read_text("utf-8")) for folder in folders]
        lines = list(csv.reader((folders[0] / "hierarchy.csv").read_text("utf-8").splitlines()))
        self.levels, paths = lines[0][::-1], [line[::-1] for line in lines[1:]]
        self.paths = {path[-1]: path for path in paths}
        self.seeds = [result["seed"] for result in self.results]
        self.images: list[dict[str, dict[str, Any]]] = []  # of each seed
        for folder in folders:
            with h5py.File(folder / "predictions.h5") as file:
                ids = [name.decode() for name in file["id"][:]]
                final, target = file["final"][:].astype(np.float64).tolist(), file["target"][:].tolist()
            seen = {}
            for name, shares, leaf in zip(ids, final, target, strict=True):
                order = sorted(range(len(shares)), key=lambda j, shares=shares: (-shares[j], j))
                truth, answer = paths[leaf], paths[order[0]]
                seen[name] = {
                    "truth": truth[-1],
                    "rank": order.index(leaf),
                    "answer": answer[-1],
                    "confidence": shares[order[0]] / sum(shares),
                    "on path": [a == b for a, b in zip(truth, answer, strict=True)],
                }
            self.images.append(dict(sorted(seen.items())))

    def scores(self, kind: str) -> np.ndarray:
        """(N,) of each image its score, mean over seeds: top{k} or hF."""
        found = []
        for name in self.images[0]:
            each = [seed[name] for seed in self.images]
            right = [np.mean(e["on path"]) if kind == "hF" else e["rank"] < int(kind[3:]) for e in each]
            found.append(sum(right) / len(right))
        return np.array(found)

    def right(self, seeds: Sequence[int]) -> list[int]:
        """Of each image how many of some seeds are right."""
        chosen = [self.images[self.seeds.index(seed)] for seed in seeds]
        return [sum(seed[name]["rank"] == 0 for seed in chosen) for name in self.images[0]]

    def metric(self, name: str) -> list[float]:
        outer, _, inner = name.partition("/")
        return [r["test"][outer][inner] if inner else r["test"][outer] for r in self.results]


def spread(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    more = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.fmean(values):.{digits}f}{more}"


def points(value: float) -> str:
    text = f"{100 * value:+.2f}".replace("-", "−")
    return "+0.00" if text == "−0.00" else text


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def compared(a: Counted, b: Counted) -> tuple[dict[str, Any], tuple[int, int], float]:
    """Intervals of a minus b, the images on which one is right more often, and the p of swapping the two at random."""
    kinds = ["top1", "top3", "top5", *(["hF"] if a.paths == b.paths else [])]
    intervals = {kind: bootstrap(a.scores(kind) - b.scores(kind)) for kind in kinds}
    shared = [seed for seed in a.seeds if seed in b.seeds]
    fewest = min(len(a.seeds), len(b.seeds))
    one, two = a.right(shared or a.seeds[:fewest]), b.right(shared or b.seeds[:fewest])
    gains = [x - y for x, y in zip(one, two, strict=True)]
    ways = Counter({0: 1})  # in how many ways the gains, swapped or not, have a sum
    for gain in gains:
        swapped: Counter[int] = Counter()
        for total, count in ways.items():
            swapped[total + gain] += count
            swapped[total - gain] += count
        ways = swapped
    as_far = sum(count for total, count in ways.items() if abs(total) >= abs(sum(gains)))
    only = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return intervals, only, as_far / 2 ** len(gains)


def holm(p: Sequence[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, p[i] * (len(p) - rank))
        corrected[i] = min(1.0, highest)
    return corrected


class Page:
    """The tables of a page and the numbers beside them."""

    def __init__(self, folder: Path) -> None:
        text = (folder / "report.html").read_text("utf-8")
        self.text = re.sub(r'<button type="button" class="why".*?</button>', "", text)  # explanations of words
        self.figures = folder / "figures"
        self.used: set[str] = set()

    def table(self, name: str) -> list[list[str]]:
        """Header and rows."""
        self.used.add(name)
        body = re.search(rf'<h3 id="table-{name}">.*?<table>(.*?)</table>', self.text, re.DOTALL)
        assert body, name
        lines = re.findall(r"<tr[^>]*>(.*?)</tr>", body[1], re.DOTALL)
        return [[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL)] for line in lines]

    def csv(self, name: str) -> list[dict[str, str]]:
        with (self.figures / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


def check_differences(page: Page, prefix: str, rows: dict[str, Counted], best: str, folder: Path) -> None:
    """The headline, the table of pairs, its CSV and the picture of what is behind the best."""
    labels = list(rows)
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]
    found = [compared(rows[a], rows[b]) for a, b in pairs]
    corrected = holm([p for *_, p in found])
    with (folder / "differences.csv").open(encoding="utf-8", newline="") as stream:
        written = {(row["first"], row["second"], row["metric"]): row for row in csv.DictReader(stream)}
    against = {line[0]: line[5:7] for line in page.table(f"{prefix}headline")[1:]}
    assert against[best] == ["–", "–"]
    shown = {(line[0], line[1]): line[2:] for line in page.table(f"{prefix}differences")[1:]} if pairs else {}
    assert len(shown) == len(pairs)
    behind = {row["method"]: row for row in page.csv(f"{prefix}behind-the-best")} if pairs else {}
    verdict = f"{best} has the highest top-1: {spread(rows[best].metric('top1'))}% ("
    if pairs:
        gap = found[0][0]["top1"]
        verdict = f" It is {100 * gap.difference:.2f} points above {labels[1]} (95% interval {points(gap.low)} to "
        verdict += f"{points(gap.high)}, corrected p {p_text(corrected[0])}): "
    assert verdict in html.unescape(page.text)
    for (a, b), (intervals, only, p), holms in zip(pairs, found, corrected, strict=True):
        texts = [f"{points(i.difference)} [{points(i.low)}, {points(i.high)}]" for i in intervals.values()]
        has_hf = any("hF" in key[2] for key in written if key[0] in rows)
        row = [*texts, *(["–"] if has_hf and "hF" not in intervals else []), f"{only[0]}\u00a0:\u00a0{only[1]}"]
        assert shown[a, b] == [*row, p_text(p), p_text(holms)]
        for kind, interval in intervals.items():
            line = written[a, b, kind]
            numbers = [float(line[key]) for key in ("difference", "low", "high")]
            assert numbers == pytest.approx([interval.difference, interval.low, interval.high])
        line = written[a, b, "top1"]
        assert [float(line[k]) for k in ("only_first_right", "only_second_right", "p", "p_corrected")] == pytest.approx(
            [*only, p, holms]
        )
        if a == best:
            i = intervals["top1"]
            star = " *" if holms < 0.05 and (only[0] - only[1]) * i.difference > 0 else ""
            text = f"{points(-i.difference)} [{points(-i.high)}, {points(-i.low)}]"
            assert against[b] == [text, p_text(holms) + star], b
            drawn = [float(behind[b][key]) for key in ("difference", "low", "high", "p_corrected")]
            assert drawn == pytest.approx([-i.difference, -i.high, -i.low, holms])
            assert behind[b]["best"] == best


def check_categories(page: Page, prefix: str, best: Counted) -> None:
    """What stands of each category of the best row, and of the pairs that are confused."""
    every = [(image["truth"], image["answer"]) for seed in best.images for image in seed.values()]
    for leaf, recall, precision, f1, images, taken, _, group in page.table(f"{prefix}precision")[1:]:
        right, own = every.count((leaf, leaf)), [answer for truth, answer in every if truth == leaf]
        given = [truth for truth, answer in every if answer == leaf]
        assert int(images) * len(best.seeds) == len(own)
        assert recall == f"{100 * right / len(own):.1f}"
        assert precision == (f"{100 * right / len(given):.1f}" if given else "–")
        assert f1 == f"{100 * 2 * right / (len(own) + len(given)):.1f}"
        wrong = Counter(answer for answer in own if answer != leaf)
        assert taken.endswith(f" {100 * max(wrong.values()) / len(own):.1f}%" if wrong else "–")
        assert [group, leaf] == best.paths[leaf]
    for truth, answer, images, share, _ in page.table(f"{prefix}confused")[1:]:
        assert images == f"{every.count((truth, answer)) / len(best.seeds):.4g}"
        assert share == f"{100 * every.count((truth, answer)) / sum(t == truth for t, _ in every):.1f}"


def check_group(page: Page, prefix: str, rows: dict[str, Counted]) -> None:
    """What stands of each row of a group, beside the differences."""
    for line in page.table(f"{prefix}headline")[1:]:
        own = rows[line[0]]
        assert line[1:5] == [spread(own.metric(name)) for name in ("top1", "top3", "top5", "hF")]
        assert line[7] == str(len(own.seeds))
    sure = {
        label: [statistics.fmean(i["confidence"] for i in seed.values()) for seed in own.images]
        for label, own in rows.items()
    }
    for label, ece, confidence, above in page.table(f"{prefix}calibration")[1:]:
        top1 = statistics.fmean(rows[label].metric("top1"))
        assert (ece, confidence) == (spread(rows[label].metric("ece")), spread(sure[label]))
        assert above == points(statistics.fmean(sure[label]) - top1)
    order, lines = list(rows), []
    if len(rows) > 1:
        header, *lines = page.table(f"{prefix}categories")
        order = header[3:]
    for leaf, above, images, *shares in lines:
        for label, share in zip(order, shares, strict=True):
            own = rows[label]
            inside = [[e for e in seed.values() if e["truth"] == leaf] for seed in own.images]
            assert int(images) == len(inside[0])
            right = [e["rank"] == 0 for seed in inside for e in seed]
            assert share == f"{100 * sum(right) / len(right):.1f}"
        assert " > ".join([above, leaf]) == " > ".join(rows[order[0]].paths[leaf])
    check_categories(page, prefix, next(iter(rows.values())))
    for row in page.csv(f"{prefix}categories"):
        for label, own in rows.items():
            right = [e["rank"] == 0 for seed in own.images for e in seed.values() if e["truth"] == row["category"]]
            assert float(row[label]) == pytest.approx(statistics.fmean(right))
    for row in page.csv(f"{prefix}severity"):
        heights = [e["on path"].count(False) for seed in rows[row["method"]].images for e in seed.values()]
        assert float(row["share_of_test_images"]) == pytest.approx(heights.count(int(row["lca_height"])) / len(heights))
    for row in page.csv(f"{prefix}rejection"):
        shares = []
        for seed in rows[row["method"]].images:
            kept = round(float(row["share_answered"]) * len(seed))
            surest = sorted(seed.values(), key=lambda e: -np.float32(e["confidence"]))[:kept]
            shares.append(sum(e["rank"] == 0 for e in surest) / kept)
        assert float(row["top1"]) == pytest.approx(statistics.fmean(shares))
    answers: dict[str, int] = {}
    for row in page.csv(f"{prefix}reliability"):
        if row["calibrated"] == "yes":
            answers[row["method"]] = answers.get(row["method"], 0) + int(row["answers"])
    assert answers == {label: sum(map(len, own.images)) for label, own in rows.items()}


def parts_of(row: Counted) -> tuple[list[object], list[object], list[object], list[object]]:
    """What a row has of its method, and its features, labels and tree."""
    first = row.results[0]
    cache, tree = first["cache"], first["hierarchy"]
    settings = {key: value for key, value in first["config"].items() if key != "seed"}
    return (
        [first["method"], first["changed"], settings],
        [cache["feature_key"], cache["features_sha256"]],
        [cache["labels_sha256"], cache.get("labels_digest"), first["rows"]],
        [tree["name"], tree["digest"]],
    )


def check_features(page: Page, prefix: str, rows: dict[str, Counted]) -> None:
    """The tables of rows on several caches: what they cost, and those that differ in one thing alone."""
    if len({own.results[0]["cache"]["features_sha256"] for own in rows.values()}) == 1:
        assert f'id="table-{prefix}caches"' not in page.text
        return
    header, *lines = page.table(f"{prefix}caches")
    assert [line[0] for line in lines] == list(rows)
    for label, top1, *costs in lines:
        assert (top1, costs[:2]) == (spread(rows[label].metric("top1")), ["unknown"] * 2)  # their caches are not here
        shown = dict(zip(header[4:], costs[2:], strict=True))
        cache, tree = rows[label].results[0]["cache"], rows[label].results[0]["hierarchy"]
        expected = {"px": str(cache["image_size"]), "pool": cache["key_fields"]["pool"], "weights": cache["weights"]}
        expected |= {"tree": tree["name"], "labels": cache.get("labels") or "the cache's own labels"}
        assert all(shown[name].removeprefix("labels ") == expected[name] for name in shown)
    pairs = []
    for a, b in combinations(rows, 2):
        (method, *one), (other, *two) = parts_of(rows[a]), parts_of(rows[b])
        if method == other and sum(x != y for x, y in zip(one, two, strict=True)) == 1:
            pairs.append((a, b))
    found = [compared(rows[a], rows[b]) for a, b in pairs]
    known = {pair: (*one[:1], p) for pair, one, p in zip(pairs, found, holm([p for *_, p in found]), strict=True)}
    lines = page.table(f"{prefix}matched")[1:] if pairs else []
    assert len(lines) == len(pairs)
    for label, gained, what, p, means in lines:
        assert what
        for (a, b), (intervals, corrected) in list(known.items()):
            i, swapped = intervals["top1"], label == b
            low, high = (i.low, i.high) if swapped else (-i.high, -i.low)
            gain = i.difference if swapped else -i.difference
            ends = [f"{100 * statistics.fmean(rows[name].metric('top1')):.2f}" for name in (a, b)]
            shown = " → ".join(reversed(ends) if swapped else ends)
            if label in (a, b) and (gained, means) == (f"{points(gain)} [{points(low)}, {points(high)}]", shown):
                assert p == p_text(corrected)
                del known[a, b]
                break
        else:
            pytest.fail(f"{label}: {what} is no pair that differs in one thing alone")


def check_rows(page: Page, rows: dict[str, Counted], folder: Path) -> None:
    """The tables of all rows, and the files beside the page."""
    scales = {"top-1 %": "top1", "macro top-1 %": "top1_macro", "hF %": "hF", "full path %": "full_path_accuracy"}
    scales |= {"inconsistent %": "inconsistency", "mistake severity": "mistake_severity"}
    papers = next(iter(rows.values())).results[0]["cache"]["origin"] == "DeepFashion"
    measured = [line for line in page.table("table1")[1:] if line[5] == "measured"] if papers else []
    assert [line[0] for line in measured] == (list(rows) if papers else [])
    for label, top3, top5, _, seeds, _ in measured:
        own = rows[label]
        assert [top3, top5, seeds] == [spread(own.metric("top3")), spread(own.metric("top5")), str(len(own.seeds))]
    header, *lines = page.table("hierarchical")
    assert [line[0] for line in lines] == list(rows)
    for label, *cells in lines:
        for title, cell in zip(header[1:], cells, strict=True):
            percent = title.endswith("%")
            values = rows[label].metric(scales.get(title, title))
            assert cell == spread(values, 100 if percent else 1, 2 if percent else 3), (label, title)
    header, *lines = page.table("levels")
    for label, *cells in lines:
        assert cells == [spread(rows[label].metric(f"level_accuracy/{name}")) for name in header[1:]]
    tex = (folder / "table1.tex").read_text("utf-8").splitlines()
    ours = [line for line in tex if line.endswith(r"\\")][13 if papers else 1 :]
    assert len(ours) == len({line.split(" & ")[0] for line in ours}) == len(rows)
    names = ("top3", "top5") if papers else ("top1", "top3", "top5", "hF")
    for line, own in zip(ours, rows.values(), strict=True):
        cells = [spread(own.metric(name)).replace("±", r"$\pm$") for name in names]
        assert line.split(" & ")[1 : 1 + len(names)] == cells
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        written = [row for row in csv.DictReader(stream) if row["kind"] == "measured"]
    assert [row["label"] for row in written] == list(rows)
    for row in written:
        own = rows[row["label"]]
        for name in ("top1", "top3", "top5", "hF", "ece", "mistake_severity", "distance@3"):
            assert float(row[f"{name}_mean"]) == pytest.approx(statistics.fmean(own.metric(name)))
    for label, *cells in page.table("betas")[1:]:
        found = [result["beta"] for result in rows[label].results]
        at = {split: [{b["beta"]: b["top1"] for b in curves[split]} for curves in found] for split in SPLITS}
        best = [curves["best_on_validation"] for curves in found]
        expected = ["0.7", *(spread([curve[0.7] for curve in at[split]]) for split in SPLITS)]
        expected.append(", ".join(f"{beta:g}" for beta in best))
        expected += [spread([curve[b] for curve, b in zip(at[split], best, strict=True)]) for split in SPLITS]
        assert cells == expected
    pictures = {name: page.csv(name) for name in ("beta", "stopping", "validation")}
    for label, own in rows.items():
        points = {name: [row for row in found if row["method"] == label] for name, found in pictures.items()}
        for i, row in enumerate(points["beta"]):
            values = [result["beta"]["test"][i]["top1"] for result in own.results]
            assert float(row["test_top1"]) == pytest.approx(statistics.fmean(values))
        for i, row in enumerate(points["stopping"]):
            for column, key in (("specificity", "specificity"), ("on_true_path", "correct")):
                values = [result["stopping"][i][key] for result in own.results]
                assert float(row[column]) == pytest.approx(statistics.fmean(values))
        assert [len(points[name]) for name in ("beta", "stopping")] == [11, 3]
        assert sorted(row["seed"] for row in points["validation"]) == sorted(map(str, own.seeds * 3))
    said = {label: set() for label in rows}
    for what, value, whose in page.table("provenance")[1:]:
        for label in rows if whose == "all" else whose.split("; "):
            said[label].add((what, value))
    for label, own in rows.items():
        cache, tree = own.results[0]["cache"], own.results[0]["hierarchy"]
        assert ("cache", cache["path"]) in said[label]
        assert ("features", cache["features_sha256"][:12]) in said[label]
        digest = cache.get("labels_digest", "")[:12] or "not recorded"
        assert ("labels and splits", digest) in said[label]
        pool = cache["key_fields"]["pool"]
        assert ("crops to features", f"{pool} pooling, views identity, resize squash") in said[label]
        assert ("seeds", ", ".join(map(str, own.seeds))) in said[label]
        assert any(what == "hierarchy" and tree["digest"][:12] in value for what, value in said[label])


@pytest.mark.parametrize("seed", range(6))
def test_every_number_on_the_page_is_that_of_its_row(seed: int, tmp_path: Path) -> None:
    made = draw(tmp_path, np.random.default_rng(seed), "DeepFashion" if seed % 2 else "made-up features")
    write_report([tmp_path / "runs"], tmp_path / "out")
    known = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["rows"]
    assert sorted(sorted(row["folders"]) for row in known) == sorted(sorted(map(str, row)) for row in made.values())
    labels = [row["label"] for row in known]
    assert len({" ".join(label.split()) for label in labels}) == len(labels)
    assert len({row["key"] for row in known}) == len(known)
    rows = {row["label"]: Counted([Path(folder) for folder in row["folders"]]) for row in known}
    page = Page(tmp_path / "out")
    groups: dict[str, dict[str, Counted]] = {}
    for label, own in rows.items():
        truth = str([(name, image["truth"]) for name, image in own.images[0].items()])
        groups.setdefault(truth, {})[label] = own
    for i in range(1, len(groups) + 1):
        prefix = f"{i}-" if len(groups) > 1 else ""
        best = page.table(f"{prefix}headline")[1][0]
        (group,) = [group for group in groups.values() if best in group]
        means = {label: statistics.fmean(own.metric("top1")) for label, own in group.items()}
        order = sorted(group, key=lambda label: (-means[label], label))
        assert [line[0] for line in page.table(f"{prefix}headline")[1:]] == order
        check_differences(page, prefix, {label: group[label] for label in order}, best, tmp_path / "out")
        check_group(page, prefix, group)
        check_features(page, prefix, {label: group[label] for label in order})
    check_rows(page, rows, tmp_path / "out")
    assert page.used == set(re.findall(r'<h3 id="table-([^"]*)"', page.text))  # no table was left out here
