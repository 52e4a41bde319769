"""Runs to tables: one row for each method, hierarchy and cache, averaged over seeds."""

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from hfc.runs import Run

BENCHMARK_TEST_ROWS = 40_000  # DeepFashion, Category and Attribute Prediction
HIERARCHICAL = (
    ("top1", "top-1 %", 100),
    ("top1_macro", "macro top-1 %", 100),
    ("hF", "hF %", 100),
    ("full_path_accuracy", "full path %", 100),
    ("inconsistency", "inconsistent %", 100),
    ("distance@1", "distance@1", 1),
    ("distance@3", "distance@3", 1),
    ("distance@5", "distance@5", 1),
    ("mistake_severity", "mistake severity", 1),
    ("ece", "ECE %", 100),
)


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> dict[str, Any]:
        """The result of the first seed: all seeds share what is not measured."""
        return self.runs[0].result

    @cached_property
    def label(self) -> str:
        """The method as the paper writes its rows, with settings that differ from its preset, and a mark if its
        features came from random weights."""
        result = self.first
        changed = ", ".join(f"{key}={value}" for key, value in result["changed"].items())
        mark = " [RANDOM WEIGHTS]" if result["cache"]["random_weights"] else ""
        return f"{result['method']} ({result['hierarchy']['name']})" + (f" {changed}" if changed else "") + mark

    @property
    def seeds(self) -> list[int]:
        """Seeds in order."""
        return [run.result["seed"] for run in self.runs]

    @property
    def commit(self) -> str:
        """The commits the numbers came from, shortened; the code's digest where there was no git."""
        found = {run.result["code"]["commit"] or "code " + run.result["code"]["digest"] for run in self.runs}
        return ", ".join(sorted(_short_commit(name) for name in found))

    def values(self, metric: str) -> list[float]:
        """A test metric, seed by seed; empty where the runs do not have it."""
        return [run.result["test"][metric] for run in self.runs if metric in run.result["test"]]

    @property
    def comparable(self) -> bool:
        """Whether the numbers stand beside published ones: DeepFashion with its whole test split."""
        origin, tested = self.first["cache"]["origin"], self.first["rows"]["test"]
        return bool(origin == "DeepFashion" and tested == BENCHMARK_TEST_ROWS)


def _short_commit(name: str) -> str:
    head = name.rstrip("+")
    return (head[:17] if head.startswith("code ") else head[:12]) + ("+" if name.endswith("+") else "")


def summarise(found: Sequence[Run]) -> list[Row]:
    """Group runs that differ in seed alone, by cache, method and hierarchy; of equal seeds the latest counts."""
    groups: dict[tuple[str, ...], dict[int, Run]] = {}
    for run in sorted(found, key=lambda run: str(run.result["created"])):
        result = run.result
        settings = sorted((k, str(v)) for k, v in result["changed"].items())
        key = (
            result["cache"]["feature_key"],
            result["cache"]["features_sha256"],
            result["hierarchy"]["name"],
            result["hierarchy"]["digest"],
            result["method"],
            str(settings),
            str(result["rows"]),
        )
        groups.setdefault(key, {})[result["seed"]] = run
    rows = [Row(tuple(run for _, run in sorted(seeds.items()))) for seeds in groups.values()]
    return sorted(rows, key=lambda row: (row.first["cache"]["path"], row.label))


def published() -> list[dict[str, str]]:
    """Published results that the table cites: method, top3, top5 (percent), landmarks, source, checked."""
    text = (resources.files("hfc.report") / "published.csv").read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def spread(values: Sequence[float], scale: float = 100, digits: int = 2, plus_minus: str = " ± ") -> str:
    """Mean and sample standard deviation; no deviation where there is one value, a dash where there is none."""
    if not values:
        return "–"
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean + (f"{plus_minus}{scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def _digits(scale: float) -> int:
    return 2 if scale == 100 else 3


def _table1(rows: Sequence[Row], plus_minus: str = " ± ") -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Header, cited rows and measured rows of the paper's Table 1."""
    header = ["method", "top-3 %", "top-5 %", "landmarks", "seeds", "origin"]
    cited = [
        [entry["method"], entry["top3"], entry["top5"], entry["landmarks"], "–", f"cited: {entry['source']}"]
        for entry in published()
    ]
    measured = [
        [
            row.label,
            spread(row.values("top3"), plus_minus=plus_minus),
            spread(row.values("top5"), plus_minus=plus_minus),
            "no",
            str(len(row.seeds)),
            "measured",
        ]
        for row in rows
    ]
    return header, cited, measured


def _grid(header: Sequence[str], body: Sequence[Sequence[str]], escape: Callable[[str], str] = str) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(escape(cell) for cell in line) + " |" for line in lines)


def _md(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def plain_text(rows: Sequence[Row]) -> str:
    """The measured rows, aligned for a terminal."""
    header = ["method", "top-1 %", "top-3 %", "top-5 %", "hF %", "severity", "seeds"]
    body = [
        [
            row.label,
            *(spread(row.values(metric)) for metric in ("top1", "top3", "top5", "hF")),
            spread(row.values("mistake_severity"), scale=1, digits=3),
            str(len(row.seeds)),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *body]]
    return "\n".join(line.rstrip() for line in lines)


def caveats(rows: Sequence[Row]) -> list[str]:
    """What a reader must know before trusting or comparing a number."""
    notes = []
    if any(row.first["cache"]["random_weights"] for row in rows):
        notes.append(
            "Rows marked [RANDOM WEIGHTS] rest on features of an untrained backbone: they measure speed, not skill."
        )
    origins = sorted({row.first["cache"]["origin"] for row in rows if not row.comparable})
    if origins:
        notes.append(
            f"Measured on {'; '.join(origins)}. The cited rows are for DeepFashion's {BENCHMARK_TEST_ROWS:,} test "
            "images: they stand here for reference and must not be compared with the measured ones."
        )
    if any(origin.startswith("drawn sample") for origin in origins):
        notes.append(
            "The pictures are drawn by a program: these numbers show that the pipeline works, nothing about clothes."
        )
    if any(row.first["hierarchy"]["name"].startswith("deepfashion-") for row in rows):
        notes.append(
            "The groupings deepfashion-5 and deepfashion-10 are this project's own; the paper's can no longer be had."
        )
    if len({tuple(row.first["rows"][split] for split in ("train", "val", "test")) for row in rows}) > 1:
        notes.append("Rows differ in how many images they were trained or tested on.")
    if unused := {reason: n for row in rows for reason, n in row.first["rows"]["unused"].items() if n}:
        notes.append("Left out: " + ", ".join(f"{n} rows {reason}" for reason, n in unused.items()) + ".")
    if len({commit for row in rows for commit in row.commit.split(", ")}) > 1:
        notes.append("Rows come from different versions of the code; see Provenance.")
    return notes


BETA_HEADER = (
    "method",
    "β of the run",
    "validation top-1 %",
    "test top-1 %",
    "β best on validation",
    "validation top-1 % there",
    "test top-1 % there",
)


def _betas(row: Row) -> list[str]:
    """A row's top-1 at the run's β and at the one best on validation, seed by seed; of runs that have them."""
    found = [run.result for run in row.runs if "beta" in run.result]
    own = [result["config"]["beta"] for result in found]
    best = [result["beta"]["best_on_validation"] for result in found]

    def top1(split: str, betas: Sequence[float]) -> str:
        curves = [{at["beta"]: at["top1"] for at in result["beta"][split]} for result in found]
        return spread([curve[beta] for curve, beta in zip(curves, betas, strict=True)])

    cells = [row.label]
    for shown, betas in ((sorted(set(own)), own), (best, best)):
        cells += [", ".join(f"{beta:g}" for beta in shown), top1("validation", betas), top1("test", betas)]
    return cells


def _beta_section(rows: Sequence[Row]) -> list[str]:
    """The parts of the report on β; none where no run has it, as of heads that do not blend."""
    shown = [row for row in rows if any("beta" in run.result for run in row.runs)]
    if not shown:
        return []
    return [
        "### β after training",
        "P\\_final = β P\\_local + (1−β) P\\_global of the trained heads. The other tables are at the run's own β. "
        "β best on validation, by top-1, is listed seed by seed; the validation figures there are flattered by the "
        "choice, the test figures are not.",
        _grid(BETA_HEADER, [_betas(row) for row in shown], _md),
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The whole report as Markdown."""
    header, cited, measured = _table1(rows)
    shown = [entry for entry in HIERARCHICAL if any(row.values(entry[0]) for row in rows)]
    hierarchical = [
        [row.label, *(spread(row.values(key), scale, _digits(scale)) for key, _, scale in shown)] for row in rows
    ]
    levels = [
        [
            row.label,
            "; ".join(f"{name} {spread(_level(row, name))}" for name in row.first["hierarchy"]["levels"]),
        ]
        for row in rows
    ]
    return "\n\n".join(
        [
            "# Results",
            "\n".join(f"- {_md(note)}" for note in caveats(rows)),
            "## Table 1: top-k accuracy",
            "Measured rows: mean ± sample standard deviation over seeds. Cited rows: as published.",
            _grid(header, measured + cited, _md),
            "## Table 2: hierarchical metrics",
            "Distance and severity are levels to climb to the lowest common ancestor. Severity looks at errors only: "
            "read it together with top-1.",
            _grid(["method", *(title for _, title, _ in shown)], hierarchical, _md),
            "### Accuracy of each level's own prediction, %",
            _grid(["method", "coarse to fine"], levels, _md),
            *_beta_section(rows),
            "## Training",
            "![Unweighted losses, learned loss weights and validation accuracy by epoch; the numbers are in each run's "
            "metrics.jsonl](training.png)",
            "## Provenance",
            _grid(PROVENANCE, [_provenance(row) for row in rows], _md),
            "",
        ]
    )


PROVENANCE = (
    "method",
    "cache",
    "data",
    "backbone",
    "weights",
    "feature key",
    "hierarchy",
    "commit",
    "seeds",
    "train / val / test",
)


def _provenance(row: Row) -> list[str]:
    result = row.first
    cache, hierarchy, counts = result["cache"], result["hierarchy"], result["rows"]
    weights = "RANDOM" if cache["random_weights"] else cache["weights"]
    return [
        row.label,
        cache["path"],
        cache["origin"],
        f"{cache['backbone']} at {cache['image_size']} px",
        f"{weights} ({cache['weights_digest'][:12]})",
        cache["feature_key"][:12],
        f"{hierarchy['name']} ({' > '.join(map(str, hierarchy['sizes']))}, {hierarchy['digest'][:12]})",
        row.commit,
        ", ".join(map(str, row.seeds)),
        f"{counts['train']} / {counts['val']} / {counts['test']}",
    ]


def _level(row: Row, name: str) -> list[float]:
    return [run.result["test"]["level_accuracy"][name] for run in row.runs]


def results_csv(rows: Sequence[Row]) -> str:
    """A line for each measured row and each cited one; accuracies as fractions, deviations beside the means."""
    keys = sorted({key for row in rows for key, value in row.first["test"].items() if isinstance(value, float)})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["kind", "method", "hierarchy", "changed", "cache", "weights", "commit", "seeds"]
    writer.writerow(head + [f"{key}_{part}" for key in keys for part in ("mean", "sd")] + ["source"])
    for row in rows:
        result = row.first
        fixed = ["measured", result["method"], result["hierarchy"]["name"]]
        fixed += [" ".join(f"{k}={v}" for k, v in result["changed"].items()), result["cache"]["path"]]
        fixed += [
            "RANDOM" if result["cache"]["random_weights"] else result["cache"]["weights"],
            row.commit,
            len(row.seeds),
        ]
        writer.writerow(fixed + [part for key in keys for part in _mean_sd(row.values(key))] + [""])
    for entry in published():
        cited = {"top3_mean": float(entry["top3"]) / 100, "top5_mean": float(entry["top5"]) / 100}
        cells = [cited.get(f"{key}_{part}", "") for key in keys for part in ("mean", "sd")]
        writer.writerow(["cited", entry["method"], "", "", "", "", "", "", *cells, entry["source"]])
    return stream.getvalue()


def _mean_sd(values: Sequence[float]) -> tuple[object, object]:
    if not values:
        return "", ""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else ""


def results_json(rows: Sequence[Row], found: Sequence[Run]) -> dict[str, Any]:
    """Everything the report is built from."""
    return {
        "rows": [
            {"label": row.label, "seeds": row.seeds, "runs": [run.result["run"] for run in row.runs]} for row in rows
        ],
        "runs": [run.result for run in found],
        "published": published(),
        "caveats": caveats(rows),
    }


def latex(rows: Sequence[Row]) -> str:
    """The paper's Table 1 with our rows below, for a document that loads booktabs."""
    _, cited, measured = _table1(rows, plus_minus=r" $\pm$ ")

    def line(cells: Sequence[str], origin: str) -> str:
        method, top3, top5, landmarks, seeds = cells[:5]
        mark = r"$\bigcirc$" if landmarks == "yes" else r"$\times$"
        return " & ".join((_tex(method), top3, top5, mark, _tex(seeds), origin)) + r" \\"

    return "\n".join(
        [
            *(f"% {note}" for note in caveats(rows)),
            r"\begin{tabular}{lccccl}",
            r"\toprule",
            r"Method & top-3 & top-5 & FLD & seeds & \\",
            r"\midrule",
            *(line(cells, "cited") for cells in cited),
            r"\midrule",
            *(line(cells, "measured") for cells in measured),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _tex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text.replace("\n", " "))
