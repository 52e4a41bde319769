"""Figures from the epochs of runs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from hfc.report.tables import Row

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
TASKS = {"-": "local", "--": "global", ":": "violation"}


def training(rows: Sequence[Row], file: Path) -> None:
    """How each method trained: unweighted losses, learned weights and validation accuracy by epoch, first seed.

    Args:
        rows: grouped runs.
        file: the PNG to write.
    """
    figure, (losses, weights, accuracy) = plt.subplots(
        3, 1, figsize=(9, 10 + 0.25 * len(rows)), sharex=True, layout="constrained"
    )
    try:
        for i, row in enumerate(rows):
            _draw(row, COLOURS[i % len(COLOURS)], losses, weights, accuracy)
        losses.set(ylabel="loss, unweighted", yscale="log")
        weights.set(ylabel="loss weight (1/σ²)")
        accuracy.set(ylabel="validation, selected metric, %", xlabel="epoch")
        for axes in (losses, weights, accuracy):
            axes.grid(alpha=0.3)
        for dash, task in TASKS.items():
            if any(task in row.runs[0].epochs[0]["weights"] for row in rows):
                losses.plot([], [], dash, color="gray", label=task)
        losses.legend(title="line: task", fontsize="small")
        figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", fontsize="small", ncols=2)
        partial = file.with_name(f".{file.stem}.part.png")
        figure.savefig(partial, dpi=120)
        partial.replace(file)
    finally:
        plt.close(figure)


def _draw(row: Row, colour: str, losses: Axes, weights: Axes, accuracy: Axes) -> None:
    run = row.runs[0]
    epochs = [line["epoch"] for line in run.epochs]
    for dash, task in TASKS.items():
        if task in run.epochs[0]["weights"]:
            losses.plot(epochs, [line["loss"][task] for line in run.epochs], dash, color=colour)
            weights.plot(epochs, [line["weights"][task] for line in run.epochs], dash, color=colour)
    chosen = run.result["selected"]
    values = [100 * line["val"][chosen["metric"]] for line in run.epochs]
    accuracy.plot(epochs, values, color=colour, label=f"{row.label}, seed {row.seeds[0]}")
    accuracy.plot(chosen["epoch"], 100 * chosen["val"][chosen["metric"]], "o", color=colour)
