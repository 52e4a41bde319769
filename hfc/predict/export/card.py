"""A run's model card in Markdown: classes, metrics, data, limits and provenance, read from the run."""

import json
from collections.abc import Iterable, Mapping, Sequence

from hfc.config import SPLITS
from hfc.errors import markdown as text
from hfc.hierarchy import Hierarchy
from hfc.metrics import LEVEL, METRICS, metric
from hfc.runs import Result, Run
from hfc.store.promise import Promise

RANDOM = "RANDOM WEIGHTS: the backbone was never trained, so the answers mean nothing. For benchmarks only."


def model_card(run: Run, hierarchy: Hierarchy, use: Sequence[str], tags: Sequence[str] = ()) -> str:
    """Write the model card of a run.

    Args:
        run: the run.
        hierarchy: its tree.
        use: Markdown lines on how the exported files are used.
        tags: what else model hubs list it under.

    Returns:
        Markdown, which begins with the YAML header that model hubs read.
    """
    result = run.result
    parts = [
        _header(result, tags),
        [f"# {text(result.run)}", "", *([f"**{RANDOM}**", ""] if _random(result) else []), _summary(result, hierarchy)],
        ["## Use", "", *use],
        ["## Classes", "", *_classes(hierarchy)],
        ["## How well it does", "", *_metrics(result)],
        *([["## Answers with a promise", "", *_promise(result.promise)]] if result.promise else []),
        ["## Data", "", *_data(result)],
        ["## Limits", "", *_limits(result, hierarchy)],
        ["## Where it comes from", "", *_provenance(result)],
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _random(result: Result) -> bool:
    return result.cache.random_weights


def _header(result: Result, tags: Sequence[str]) -> list[str]:
    """The header in YAML; its values are written as JSON, so that no name can break it."""
    scores = [
        {"type": kind, "name": METRICS[name].words, "value": round(result.test[name], 4)}
        for name, kind in (("top1", "accuracy"), ("hF", "f1"))
        if name in result.test
    ]
    origin = result.cache.origin
    task = {"type": "image-classification", "name": "Image classification"}
    measured = {"task": task, "dataset": {"type": "other", "name": origin}, "metrics": scores}
    header = {
        "library_name": "hfc",
        "pipeline_tag": "image-classification",
        "tags": ["hierarchical-classification", "fashion", result.settings.head, *tags],
        "model-index": [{"name": result.run, "results": [measured]}],
    }
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---"]


def _summary(result: Result, tree: Hierarchy) -> str:
    cache = result.cache
    levels = ", ".join(f"{size} of level {text(level)}" for level, size in zip(tree.levels, tree.sizes, strict=True))
    if not tree.even:
        levels += f"; {len(tree.leaves)} leaves, at depths {tree.depths.min()} to {tree.depths.max()}"
    return (
        f"Classifies a picture of a garment along a path of a tree ({levels}): the head {text(result.method)} on "
        f"features of a frozen {text(cache.backbone)}, trained by hfc {text(result.code.version)}."
    )


def _classes(hierarchy: Hierarchy) -> list[str]:
    """A table with a row for each leaf, from the coarsest level; blank below a leaf."""
    paths = [hierarchy.path(leaf) for leaf in range(len(hierarchy.leaves))]
    paths.sort(key=lambda path: path[:-1])
    return _table(hierarchy.levels, [(*path, *[""] * (len(hierarchy.levels) - len(path))) for path in paths])


def _metrics(result: Result) -> list[str]:
    test, inner = result.test, result.rows.inner.get("test", 0)
    keys = [key for key in METRICS if key in test and METRICS[key].scale == 100]
    keys += [key for key in test if key.startswith(LEVEL)]
    rows = [(metric(key).words, _percent(test[key])) for key in keys]
    rows.append((METRICS["mistake_severity"].words, f"{test['mistake_severity']:.3f}"))
    unknown = f" Of {inner} no leaf is known: they count on the levels of their labels alone." if inner else ""
    return [
        f"On {result.rows.test} test images, used once, after the epoch was picked on {result.rows.val} others; "
        f"one run, seed {result.seed}.{unknown}",
        "",
        *_table(("measure", "value"), rows),
    ]


def _promise(promise: Promise) -> list[str]:
    """What share of right answers can be asked for."""
    given, right = promise.test.sums()
    rows = [
        (
            _percent(target),
            f"{kept.threshold:.4f}",
            _percent(given[kept.place] / promise.test.rows),
            _percent(right[kept.place] / max(given[kept.place], 1)),
        )
        for target, kept in promise.listed().items()
    ]
    return [
        f"Answer with the deepest node of the best leaf's path whose probability reaches the threshold: with "
        f"{promise.confidence:.0%} confidence at least the target share of the answers below the root is right. "
        f"{promise.proof.rows} images prove it that had no part in any choice, each target by itself. In hfc: "
        "`target_precision`, for other targets too.",
        "",
        *_table(("target", "threshold", "of the test images answered", "of these right"), rows),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _data(result: Result) -> list[str]:
    cache, rows = result.cache, result.rows
    inner = ", ".join(str(rows.inner.get(split, 0)) for split in SPLITS)
    left_out = ", ".join(f"{count} {why}" for why, count in rows.unused.items() if count)
    return _table(
        ("what", "value"),
        [
            ("origin", cache.origin),
            ("images for training, validation, test", f"{rows.train}, {rows.val}, {rows.test}"),
            *([("of these, labelled with an inner node", inner)] if any(rows.inner.values()) else []),
            ("left out", left_out or "none"),
            ("labels", f"SHA-256 {cache.labels_sha256}" if cache.labels_sha256 else "those of the cache"),
        ],
    )


def _limits(result: Result, hierarchy: Hierarchy) -> list[str]:
    test = result.test
    lines = [
        f"It knows {len(hierarchy.leaves)} leaves and answers with one of them, whatever the picture shows.",
        f"The figures hold for pictures like those of the data above ({text(result.cache.origin)}); other cameras, "
        "shops or crops, and groups of the people in the pictures, were not measured.",
        f"The probability of an answer is on average {100 * test['ece']:.1f} percentage points away from the share of "
        "such answers that are right; choose a threshold on pictures of your own.",
        "The figures are of one run with one seed; another seed gives other figures.",
        "This card does not know what the backbone's weights were trained on, nor their licence.",
    ]
    if test["inconsistency"]:
        lines.append(f"In {_percent(test['inconsistency'])} of the test images its levels contradict each other.")
    return [f"- {line}" for line in ([f"**{RANDOM}**"] if _random(result) else []) + lines]


def _provenance(result: Result) -> list[str]:
    cache, tree, code = result.cache, result.hierarchy, result.code
    fields = cache.key_fields or {}
    names = ("image_size", "resize", "roi_margin", "pool", "views", "precision", "compile", "store")
    settings = {**result.changed, "decode": result.settings.decode, "beta": result.settings.beta}
    return _table(
        ("what", "value"),
        [
            ("run key", result.key),
            ("method, seed", f"{result.method}, {result.seed}"),
            ("settings other than the method's, decode and β", _settings(settings)),
            *([("temperature, fitted on validation", f"{result.temperature.value:.4f}")] if result.temperature else []),
            ("feature key", cache.feature_key),
            ("SHA-256 of the features", cache.features_sha256),
            ("crops and arithmetic", _settings({name: fields[name] for name in names if name in fields})),
            ("backbone", cache.backbone),
            ("digest of its weights", cache.weights_digest),
            ("hierarchy", f"{tree.name}, {tree.digest}"),
            ("code", f"hfc {code.version}, commit {code.commit or 'unknown'}, digest {code.digest}"),
            ("versions", _settings(result.versions)),
            ("machine", _settings(result.machine.plain())),
            ("trained", result.created),
        ],
    )


def _settings(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {'/'.join(map(str, value)) if isinstance(value, list) else value}" for name, value in values.items()
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell if cell == '---' else text(cell) for cell in row)} |" for row in lines]
