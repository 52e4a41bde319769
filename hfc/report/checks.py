"""Where the numbers come from, and checks whether they can be trusted and compared."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hfc.report.caches import are_several, differing
from hfc.report.cells import Cell, Table, plus_minus
from hfc.report.identity import counts, feature_columns, labels, recipe
from hfc.report.rows import BENCHMARK_TEST_ROWS, Leaderboard, Row

ENOUGH_SEEDS = 3

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}

OK, MIND, WRONG = "ok", "mind", "wrong"


@dataclass(frozen=True)
class Check:
    """Something to know before a number is trusted."""

    state: str
    """OK, MIND (it limits what the numbers say) or WRONG (they must not be compared, or mean nothing)."""
    text: str


def check(rows: Sequence[Row], boards: Sequence[Leaderboard], more: Iterable[Check] = ()) -> list[Check]:
    """Check everything that the runs alone can show; what is wrong comes first.

    Args:
        rows: all of them.
        boards: those that share their test images.
        more: checks of what the runs alone do not show.
    """
    checks = [
        *_weights(rows),
        *_images(boards),
        *_shared(rows),
        *_trees(rows),
        *_repeated(boards),
        *_code(rows),
        *_seeds(rows),
        *_folds(rows),
        *_benchmark(rows),
        *_data(rows),
        *more,
    ]
    return sorted(checks, key=lambda line: (WRONG, MIND, OK).index(line.state))


def _weights(rows: Sequence[Row]) -> Iterable[Check]:
    untrained = [row.label for row in rows if row.first.cache.random_weights]
    if untrained:
        yield Check(
            WRONG,
            "Rows marked [RANDOM WEIGHTS] rest on features of an untrained backbone: they measure speed, not skill.",
        )
    else:
        yield Check(OK, "All features come from trained weights.")


def _images(boards: Sequence[Leaderboard]) -> Iterable[Check]:
    if len(boards) > 1:
        parts = "; ".join(some([o.label for o in board.outcomes]) + f" on {_tested(board)}" for board in boards)
        images = {board.best.predictions[0].images for board in boards}
        same = "images and labels" if len(images) == len(boards) else "groups of images"
        remedy = "" if len(images) == len(boards) else "; train them again on one cache with one column of groups"
        yield Check(WRONG, f"Rows were not tested on the same {same}, and are compared apart: {parts}{remedy}.")
    elif boards:
        yield Check(OK, f"All rows were tested on the same {_tested(boards[0])} with the same labels.")


def _tested(board: Leaderboard) -> str:
    return board.best.groups.words("images")


SHARED: tuple[tuple[str, Callable[[Row], object]], ...] = (
    ("features", lambda row: row.first.cache.features_sha256),
    ("labels and splits", lambda row: labels(row.first)),
    ("numbers of training and validation images", lambda row: _with_leaf(row)),
)


def _shared(rows: Sequence[Row]) -> Iterable[Check]:
    """Check that rows share all but the method. Else a difference is not one of methods alone."""
    differ = [name for name, value in SHARED if len({str(value(row)) for row in rows}) > 1]
    if differ == ["features"] and are_several(rows):
        names = " and ".join(name for name, _ in differing(rows, feature_columns()))
        yield Check(
            MIND,
            f"Rows have features of different {names}: which method is better is told by rows on the same features, "
            "and which features by rows of the same method; see Which features.",
        )
    elif differ:
        yield Check(
            WRONG,
            f"Rows differ in their {' and '.join(differ)}: their differences are not differences of methods alone; "
            "see Provenance.",
        )
    elif len(rows) > 1:
        yield Check(
            OK, "All rows rest on the same features, labels, splits and numbers of training and validation images."
        )


def _with_leaf(row: Row) -> tuple[int, int]:
    """Count the training and validation images whose label is a leaf; whether others are used is a setting."""
    rows = row.first.rows
    return rows.train - rows.inner.get("train", 0), rows.val - rows.inner.get("val", 0)


def _trees(rows: Sequence[Row]) -> Iterable[Check]:
    """Check for trees that share a name and differ. A reader would take them for one."""
    digests: dict[str, set[str]] = {}
    for row in rows:
        tree = row.first.hierarchy
        digests.setdefault(tree.name, set()).add(tree.digest)
    edited = [name for name, different in digests.items() if len(different) > 1]
    if edited:
        yield Check(
            WRONG,
            f"Rows have different trees of one name, {some(edited)}: what depends on the tree (hF, distance, levels) "
            "must not be compared among them; see Provenance.",
        )


def _repeated(boards: Sequence[Leaderboard]) -> Iterable[Check]:
    """Check that the predictions give the accuracy that the result claims."""
    wrong = [
        run.result.run
        for board in boards
        for outcome in board.outcomes
        for run, correct in zip(outcome.row.runs, outcome.correct, strict=True)
        if abs(float(correct.mean()) - run.result.test["top1"]) > 1e-9
    ]
    if wrong:
        yield Check(WRONG, f"The predictions of {some(wrong)} do not give the top-1 in their result.json.")
    elif boards:
        yield Check(OK, "Every run's stored predictions give the top-1 that it reports.")


def _code(rows: Sequence[Row]) -> Iterable[Check]:
    digests = {run.result.code.digest for row in rows for _, run in row.trainings}
    commits = sorted({commit for row in rows for commit in row.commit.split(", ")})
    if len(digests) > 1 or len(commits) > 1:
        yield Check(MIND, "Rows come from different versions of the code; see Provenance.")
    elif any(commit.endswith("+") for commit in commits):
        yield Check(MIND, f"All runs come from one code, but with changes beside commit {commits[0].rstrip('+')}.")
    else:
        yield Check(OK, f"All runs come from one version of the code ({commits[0]}).")


def _seeds(rows: Sequence[Row]) -> Iterable[Check]:
    fewest = min(len(row.seeds) for row in rows)
    if fewest < ENOUGH_SEEDS:
        few = "one seed" if fewest == 1 else f"{fewest} seeds"
        yield Check(MIND, f"Some rows have {few} only: how much another seed changes them is hardly known.")
    else:
        yield Check(OK, f"Every row has at least {fewest} seeds.")
    if len({tuple(row.seeds) for row in rows}) > 1:
        yield Check(MIND, "Rows were trained with different seeds.")


def _folds(rows: Sequence[Row]) -> Iterable[Check]:
    """Check that no outer fold is missing."""
    lacking = []
    for label, run in [(row.label, run) for row in rows for run in row.runs]:
        if outer := run.result.outer:
            there = {part.result.outer.number for part in run.parts if part.result.outer}
            if missing := sorted(set(range(outer.folds)) - there):
                lacking.append(f"{label}, seed {run.result.seed}: fold {', '.join(map(str, missing))}")
    if lacking:
        yield Check(WRONG, f"Outer folds are missing, so that not all images are tested: {'; '.join(lacking)}.")
    elif folds := {row.first.outer.folds for row in rows if row.first.outer}:
        many = " or ".join(map(str, sorted(folds)))
        yield Check(OK, f"All images are tested once, by runs that were tuned and trained without them ({many} folds).")


def _benchmark(rows: Sequence[Row]) -> Iterable[Check]:
    origins = sorted({row.first.cache.origin for row in rows if not row.comparable})
    if origins and all(row.of_deepfashion for row in rows):
        yield Check(
            MIND,
            f"Measured on {'; '.join(origins)}. The cited rows are for DeepFashion's {BENCHMARK_TEST_ROWS:,} test "
            "images: they stand here for reference and must not be compared with the measured ones.",
        )
    elif not origins:
        yield Check(OK, "Measured on DeepFashion's whole test split, as the cited rows are.")
    if any(origin.startswith("drawn sample") for origin in origins):
        yield Check(
            MIND,
            "The pictures are drawn by a program: these numbers show that the pipeline works, nothing about clothes.",
        )
    if any(row.first.hierarchy.name.startswith("deepfashion-") for row in rows):
        yield Check(
            MIND,
            "The groupings deepfashion-5 and deepfashion-10 are this project's own; the paper's can no longer be had.",
        )


def _data(rows: Sequence[Row]) -> Iterable[Check]:
    if len({row.first.hierarchy.digest for row in rows}) > 1:
        yield Check(
            MIND, "Rows have different trees: compare top-k, not what depends on the tree (hF, distance, levels)."
        )
    if unused := {reason: n for row in rows for reason, n in row.first.rows.unused.items() if n}:
        yield Check(MIND, "Left out: " + ", ".join(f"{n:,} rows {reason}" for reason, n in unused.items()) + ".")
    if inner := _inner(rows):
        yield Check(
            MIND,
            f"The label of some images is an inner node: {inner}. Test images of this kind count on "
            "the levels down to their label, and not where leaves are judged.",
        )
    if any(row.first.settings.decode == "least-cost" for row in rows):
        yield Check(MIND, "Rows decoded by least cost have scores and no probabilities: ignore their calibration.")


def _inner(rows: Sequence[Row]) -> str:
    """Count the images with an inner label, by split; rows that have other ones are named."""
    by_words: dict[str, list[str]] = {}
    for row in rows:
        counts = [(row.first.rows.inner.get(split, 0), words) for split, words in SPLIT_WORDS.items()]
        by_words.setdefault(", ".join(f"{n:,} for {words}" for n, words in counts if n), []).append(row.label)
    if len(by_words) == 1:
        return next(iter(by_words))
    return "; ".join(f"{words or 'none'} ({some(labels)})" for words, labels in by_words.items())


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """List the first names, and count the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


FACTS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("cache", lambda row: row.first.cache.path),
    ("data", lambda row: row.first.cache.origin),
    ("train / val / test", lambda row: counts(row.first)),
    ("outer folds", lambda row: f"{row.first.outer.folds}, the rows above of one of them" if row.first.outer else ""),
    ("labels", lambda row: labels(row.first)[0][:12] or "the cache's own"),
    ("labels and splits", lambda row: labels(row.first)[1][:12] or "not recorded"),
    ("backbone", lambda row: f"{row.first.cache.backbone} at {row.first.cache.image_size} px"),
    ("crops to features", lambda row: recipe(row.first)),
    ("weights", lambda row: f"{weights(row)} ({row.first.cache.weights_digest[:12]})"),
    ("feature key", lambda row: row.first.cache.feature_key[:12]),
    ("features", lambda row: row.first.cache.features_sha256[:12]),
    ("hierarchy", lambda row: _tree(row)),
    ("seeds", lambda row: ", ".join(map(str, row.seeds))),
    ("commit", lambda row: row.commit),
    ("machine", lambda row: machine(row)),
    ("last trained", lambda row: max(run.result.created for run in row.runs)[:10]),
    ("seconds a run", lambda row: plus_minus([run.result.seconds.train for _, run in row.trainings], 1, 1)),
)


def provenance(rows: Sequence[Row]) -> Table:
    """Make the table of where numbers come from; what all rows share stands once."""
    body = []
    for name, words in FACTS:
        labels_by_value: dict[str, list[str]] = {}
        for row in rows:
            labels_by_value.setdefault(words(row), []).append(row.label)
        for value, row_labels in labels_by_value.items() if any(labels_by_value) else ():
            body.append((Cell(name), Cell(value), Cell("all" if len(labels_by_value) == 1 else "; ".join(row_labels))))
    note = "What all rows share stands once; digests by their first twelve digits."
    return Table("provenance", "Where the numbers come from", ("what", "value", "of"), tuple(body), note)


def weights(row: Row) -> str:
    """Name the source of the backbone's weights."""
    cache = row.first.cache
    return "RANDOM" if cache.random_weights else cache.weights


def _tree(row: Row) -> str:
    tree = row.first.hierarchy
    return f"{tree.name} ({' > '.join(map(str, tree.sizes))}, {tree.digest[:12]})"


def machine(row: Row) -> str:
    """Name the machines that a row was trained on."""
    machines = (run.result.machine for _, run in row.trainings)
    words = (f"{m.device}, {m.precision}, threads: {m.threads}, {m.platform}" for m in machines)
    return "; ".join(dict.fromkeys(words))
