"""Figures, one question each. Every function returns a matplotlib `Figure` and shows nothing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

BLUE, ORANGE = "#0072b2", "#d55e00"  # of the Okabe-Ito palette: told apart by the colour-blind


def _figure(width: float = 6.4, height: float = 3.2, columns: int = 1) -> tuple[Figure, list]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def length_histogram(lengths: Sequence[int], *, max_length: int) -> Figure:
    """How long are the texts in tokens, and where does `max_length` cut?"""
    figure, (axis,) = _figure()
    axis.hist(lengths, bins=40, color=BLUE)
    axis.axvline(max_length, color=ORANGE, linestyle="--", label=f"max_length = {max_length}")
    axis.set(xlabel="tokens in a text", ylabel="texts", title="Length of the training texts")
    axis.legend(frameon=False)
    return figure


def learning_curves(history: pd.DataFrame) -> Figure:
    """Does the model still learn, and does what it learns carry over? Loss and accuracy by epoch."""
    names = [name for name in ("loss", "accuracy") if f"validation_{name}" in history]
    figure, axes = _figure(width=4.2 * len(names), columns=len(names))
    for axis, name in zip(axes, names, strict=True):
        for split, colour, marker in (("train", BLUE, "o"), ("validation", ORANGE, "s")):
            axis.plot(history.index, history[f"{split}_{name}"], color=colour, marker=marker, label=split)
        axis.set(xlabel="epoch", ylabel="loss (nats)" if name == "loss" else name, title=name.capitalize())
        axis.set_xticks(_whole(history.index))
        axis.legend(frameon=False)
    return figure


def _whole(epochs: Sequence[float]) -> np.ndarray:
    last = int(np.ceil(max(epochs)))
    return np.arange(0, last + 1, max(1, last // 8))


def confusion_matrix(labels: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> Figure:
    """Which classes are taken for which? Rows: the true class, in shares of it; counts are written in."""
    figure, (axis,) = _figure(width=1.6 + 1.1 * len(names), height=1.2 + 0.9 * len(names))
    ConfusionMatrixDisplay.from_predictions(
        labels, predicted, labels=range(len(names)), display_labels=names, cmap="Blues", colorbar=False, ax=axis
    )
    axis.spines[["top", "right"]].set_visible(True)
    axis.set(xlabel="predicted class", ylabel="true class")
    return figure
