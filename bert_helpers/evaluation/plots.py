"""Figures, each of which answers one question, as matplotlib `Figure`s that are not shown yet; and text as HTML."""

import html
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas.io.formats.style import Styler
from scipy.special import logit
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.metrics import confusion_matrix as confusion_counts

from bert_helpers.tasks.thresholds import f1_curves

LABELS = {"f1": "F1"}
BLUE, ORANGE = "#0072b2", "#d55e00"  # of the Okabe-Ito palette, which the colour-blind can distinguish
SPLITS = (("train", BLUE, "o"), ("validation", ORANGE, "s"))  # with colour and marker


class Plot(Figure):
    """A figure with alternative text, for notebooks and for the pages made of them."""

    @property
    def alt(self) -> str:
        """The text of the axes: titles, labels and legends."""
        parts, legends = [self.get_supylabel(), self.get_supxlabel()], [*self.legends]
        for axis in filter(Axes.get_visible, self.axes):
            parts += [axis.get_title(), axis.get_ylabel(), axis.get_xlabel()]
            legends.append(axis.get_legend())
        parts += [text.get_text() for legend in filter(None, legends) for text in legend.get_texts()]
        return "Figure. " + "; ".join(filter(None, parts)).replace(r"\$", "$")

    def _repr_mimebundle_(self, **_: object) -> tuple[dict, dict]:
        return {}, {"image/png": {"alt": self.alt}}  # the picture comes from matplotlib's own formatter


def _figure(
    width: float = 6.4, height: float = 3.2, columns: int = 1, rows: int = 1, *, sharey: bool = False
) -> tuple[Figure, list]:
    figure = Plot(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _grid(count: int) -> tuple[Figure, list]:
    """Return a figure of `count` small axes, three in a row, with one vertical scale."""
    rows = -(-count // 3)
    figure, axes = _figure(9.3, 2.3 * rows, 3, rows, sharey=True)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _legend_above(figure: Figure, axis: Axes, *, columns: int, fontsize: str = "small") -> None:
    """Put the legend of one axis above all axes, where it covers no line."""
    lines = axis.get_legend_handles_labels()
    figure.legend(*lines, frameon=False, fontsize=fontsize, loc="outside upper center", ncols=columns)


def _literal(texts: Sequence[str]) -> list[str]:
    """Escape dollar signs, between which matplotlib would look for a formula and might fail."""
    return [str(text).replace("$", r"\$") for text in texts]


def length_histogram(lengths: Sequence[int], *, max_length: int) -> Figure:
    """Show how long the texts are in tokens, and where `max_length` cuts them."""
    figure, (axis,) = _figure()
    # About 40 bins of whole tokens: if some held two lengths and others three, the histogram would look like a comb.
    step = -(-int(np.ptp(lengths) + 1) // 40)
    axis.hist(lengths, bins=np.arange(min(lengths), max(lengths) + step + 1, step) - 0.5, color=BLUE)
    axis.axvline(max_length, color=ORANGE, linestyle="--", label=f"max_length = {max_length}")
    axis.set(xlabel="tokens in a text", ylabel="texts", title="Length of the training texts")
    axis.legend(frameon=False)
    return figure


def learning_curves(history: pd.DataFrame, *, chance: Mapping[str, float] = MappingProxyType({})) -> Figure:
    """Show whether the model still learns, and whether that carries over: loss and accuracy (or F1) by epoch.

    The epoch with the lowest validation loss is marked. `chance` holds the "loss", "accuracy" or "f1" of guessing.
    """
    names = [name for name in ("loss", "accuracy", "f1") if f"validation_{name}" in history][:2]
    figure, axes = _figure(width=4.2 * len(names), columns=len(names))
    best = history.validation_loss.idxmin()
    guessing = "guessing: " + ", ".join(
        f"{LABELS.get(name, name)} {chance[name]:.2f}" for name in names if name in chance
    )
    for axis, name in zip(axes, names, strict=True):
        for split, colour, marker in SPLITS:
            axis.plot(history.index, history[f"{split}_{name}"], color=colour, marker=marker, label=split)
        if name in chance:
            axis.axhline(chance[name], color="grey", linestyle="--", linewidth=1, label=guessing)
        axis.axvline(best, color="grey", linestyle=":", linewidth=1, label=f"lowest validation loss: epoch {best:g}")
        title = LABELS.get(name, name.capitalize())
        axis.set(xlabel="epoch", ylabel=LABELS.get(name, name), title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if name == "loss":
            axis.set_ylim(bottom=0)
        else:
            axis.set_ylim(top=1.02)
    _legend_above(figure, axes[0], columns=2 * len(names))
    return figure


def learning_rate_range(table: pd.DataFrame, *, chosen: float | None = None) -> Figure:
    """Show where the loss falls and where it rises, in a table of `learning_rates.learning_rate_range`."""
    figure, (axis,) = _figure()
    axis.plot(table.learning_rate, table.loss, color="grey", linewidth=0.8, alpha=0.6, label="loss of a batch")
    axis.plot(table.learning_rate, table.smoothed, color=BLUE, label="smoothed")
    if chosen:
        turn = table.loc[table.smoothed.idxmin()]
        axis.plot(turn.learning_rate, turn.smoothed, "o", color=BLUE, label=f"lowest: {turn.learning_rate:.1g}")
        axis.axvline(chosen, color=ORANGE, linestyle="--", label=f"chosen, a tenth of it: {chosen:.1g}")
    axis.set(xlabel="learning rate", ylabel="training loss", xscale="log", title="Learning-rate range test")
    axis.legend(frameon=False)
    return figure


def small_multiples(histories: Mapping[str, pd.DataFrame], *, chance: float | None = None) -> Figure:
    """Show how faulty runs differ from a sound one: both losses of each `training.history`, on one scale.

    A dotted line marks `chance`, the loss of guessing.
    """
    figure, axes = _grid(len(histories))
    for axis, (name, history) in zip(axes, histories.items(), strict=False):
        for split, colour, marker in SPLITS:
            axis.plot(history.index, history[f"{split}_loss"], color=colour, marker=marker, markersize=3, label=split)
        if chance is not None:
            axis.axhline(chance, color="grey", linestyle=":", linewidth=1, label=f"guessing: {chance:.2f}")
        axis.set_title(*_literal([name]), fontsize="medium")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0].set_ylim(bottom=0)  # shared by all axes, once all are drawn
    _legend_above(figure, axes[0], columns=3, fontsize="medium")
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel("loss", fontsize="medium")
    return figure


def confusion_matrix(labels: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> Figure:
    """Show which classes are confused: counts by true class (rows) and predicted class (columns)."""
    figure, (axis,) = _figure(width=1.6 + 1.1 * len(names), height=1.2 + 0.9 * len(names))
    counts = confusion_counts(labels, predicted, labels=range(len(names)))
    ConfusionMatrixDisplay(counts, display_labels=_literal(names)).plot(cmap="Blues", colorbar=False, ax=axis)
    axis.spines[["top", "right"]].set_visible(True)
    axis.set(xlabel="predicted class", ylabel="true class")
    return figure


# Backgrounds of dark text that are readable in dark themes too: CoNLL-2003's types, then any others
ENTITY_COLOURS = {"PER": "#fdbf6f", "ORG": "#fb9a99", "LOC": "#a6cee3", "MISC": "#cab2d6"}
OTHER_COLOURS = ("#b2df8a", "#ffff99", "#d9d9d9", "#fccde5")


class _Prose(Styler):
    """A styled table whose plain text is the table; that of pandas is an address in memory, which always changes."""

    def __repr__(self) -> str:
        return repr(self.data)


def prose(table: pd.DataFrame, *, width: int = 220) -> Styler:
    """Style a table of sentences for a notebook: text left-aligned (JupyterLab aligns it right), numbers to 3 digits.

    Text is cut before the word that exceeds `width` characters; HTML in it is escaped.
    """

    def shown(value: object) -> object:
        if isinstance(value, str):
            return textwrap.shorten(value, width, placeholder=" …")
        return f"{value:.3g}" if isinstance(value, float) else value

    # A random `uuid` would change the page at every run.
    cells = _Prose(table.map(shown), uuid="prose", cell_ids=False).format(escape="html")
    for axis in (0, 1):
        cells = cells.format_index(escape="html", axis=axis)
    return cells.set_table_styles([{"selector": "th, td", "props": "text-align: left"}])


def entities_html(tokens: Sequence[str], gold: Sequence[str], predicted: Sequence[str] | None = None) -> str:
    """Mark a sentence's entities in HTML; with `predicted`, on two lines to compare. All text is escaped."""
    if predicted is None:
        return f'<div style="margin:.6em 0;line-height:2">{_marked(tokens, gold)}</div>'
    # Long sentences continue beside the label, not below it.
    label = "display:inline-block;width:5.5em;margin-left:-5.5em;opacity:.7"
    lines = [
        f'<div style="padding-left:5.5em;line-height:2"><span style="{label}">{name}</span>'
        f"{_marked(tokens, tags)}</div>"
        for name, tags in (("gold", gold), ("predicted", predicted))
    ]
    return f'<div style="margin:.6em 0">{"".join(lines)}</div>'


def _marked(tokens: Sequence[str], tags: Sequence[str]) -> str:
    parts, position = [], 0
    for kind, first, last in [*get_entities(list(tags)), (None, len(tokens), 0)]:
        parts += map(html.escape, tokens[position:first])
        if kind is not None:
            parts.append(_mark(html.escape(" ".join(tokens[first : last + 1])), kind))
        position = last + 1
    return " ".join(parts)


def _mark(text: str, kind: str) -> str:
    colour = ENTITY_COLOURS.get(kind) or OTHER_COLOURS[sum(kind.encode()) % len(OTHER_COLOURS)]
    # A name that is broken across lines is rounded on both, and its type stays with its last word.
    style = f"background:{colour};color:#111;padding:.15em .35em;border-radius:.3em;box-decoration-break:clone"
    return f'<mark style="{style}">{text}&nbsp;<small><b>{html.escape(kind)}</b></small></mark>'


def type_confusion(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Figure:
    """Show which entity types are confused, word by word. O is no entity; O taken for O is left out."""
    true, found = ([tag[2:] or "O" for row in side for tag in row] for side in (gold, predicted))
    names = [*sorted({*true, *found} - {"O"}), "O"]
    counts = confusion_counts(true, found, labels=names)
    outside, counts[-1, -1] = counts[-1, -1], 0  # it would outshine all other counts
    figure, (axis,) = _figure(width=1.8 + 0.8 * len(names), height=1.5 + 0.6 * len(names))
    shown = ConfusionMatrixDisplay(counts, display_labels=_literal(names)).plot(cmap="Blues", colorbar=False, ax=axis)
    shown.text_[-1, -1].set_text("")
    shown.im_.set_data(np.ma.masked_array(counts, np.eye(len(names)) * np.arange(len(names)) == len(names) - 1))
    axis.set_facecolor("lightgrey")
    axis.spines[["top", "right"]].set_visible(True)
    axis.set(xlabel="predicted type (words)", ylabel="true type (words)")
    axis.set_title(f"grey: O taken for O, {outside:,} words", fontsize="medium")
    return figure


def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Show whether 80% confidence means right 80% of the time: one or two `calibration.reliability` tables by name.

    The bins have equally many rows, so points are close together where most rows are.
    """
    figure, (axis,) = _figure(width=5.6, height=4.2)
    axis.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="perfectly calibrated")
    for (name, table), colour, marker in zip(tables.items(), (BLUE, ORANGE), ("o", "s"), strict=False):
        errors = [(table.accuracy - table.low).clip(lower=0), (table.high - table.accuracy).clip(lower=0)]
        label = f"{_literal([name])[0]}, 95% intervals"
        axis.errorbar(table.confidence, table.accuracy, errors, color=colour, marker=marker, capsize=2, label=label)
    left, bottom = (min(table[name].min() for table in tables.values()) for name in ("confidence", "low"))
    axis.set(xlim=(np.floor(20 * left) / 20, 1.01), ylim=(np.floor(20 * bottom) / 20, 1.02))
    axis.set(xlabel="mean confidence in the bin", ylabel="accuracy in the bin")
    axis.legend(frameon=False, loc="lower right", fontsize="small")
    return figure


def risk_coverage(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Show the errors left if the least confident rows are refused: one or two `calibration.risk_coverage` by name.

    A dashed line marks the error rate of all rows, which uninformative confidence would give everywhere.
    """
    figure, (axis,) = _figure()
    for (name, curve), colour, style in zip(curves.items(), (BLUE, ORANGE), ("-", "--"), strict=False):
        axis.plot(curve.coverage, curve.risk, color=colour, linestyle=style, label=name)
        overall = curve.risk.iloc[-1]
        axis.axhline(overall, color="grey", linestyle="--", linewidth=1, label=f"all texts answered: {overall:.3f}")
    axis.set(xlabel="coverage: share of the texts answered", ylabel="error rate of the answers", xlim=(0, 1.01))
    axis.set_ylim(bottom=0)
    axis.set_title("Risk and coverage")
    axis.legend(frameon=False)
    return figure


def by_threshold(curves: pd.DataFrame, *, chosen: float, name: str) -> Figure:
    """Show the result of each threshold (the index) as one line per column, and the chosen threshold."""
    figure, (axis,) = _figure()
    for (column, values), colour, style in zip(
        curves.items(), ("black", BLUE, ORANGE), ("-", "--", "-."), strict=False
    ):
        axis.plot(curves.index, values, color=colour, linestyle=style, label=column)
    axis.axvline(chosen, color="grey", linestyle=":", label=f"chosen: {chosen:.2f}")
    axis.set(xlabel=f"threshold of the {name}", ylabel="F1", ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize="small")
    return figure


def label_thresholds(
    logits: np.ndarray, labels: np.ndarray, thresholds: Sequence[float], names: Sequence[str]
) -> Figure:
    """Show each label's F1 by threshold, and the fitted threshold, on the rows that it was fitted on."""
    figure, axes = _grid(len(names))
    grid = np.linspace(0.01, 0.99, 99)
    for axis, name, curve, chosen in zip(
        axes, _literal(names), f1_curves(logits, labels, logit(grid)), thresholds, strict=False
    ):
        axis.plot(grid, curve, color=BLUE, label="F1")
        axis.plot(chosen, np.interp(chosen, grid, curve), "o", color=ORANGE, label="fitted threshold")
        axis.axvline(0.5, color="grey", linestyle="--", linewidth=1, label="threshold 0.5")
        axis.set_title(name, fontsize="medium")
        axis.set_ylim(0, 1.02)
    _legend_above(figure, axes[0], columns=3, fontsize="medium")
    figure.supxlabel("threshold", fontsize="medium")
    figure.supylabel("F1", fontsize="medium")
    return figure


def resamples(values: Sequence[float], *, value: float, low: float, high: float, name: str) -> Figure:
    """Show a histogram of a metric's resampled values, the measured `value` and the ends of its interval."""
    figure, (axis,) = _figure()
    # Values from few rows are multiples of 1/rows; one bin per value shows no false gaps.
    distinct = np.unique(values)
    width = max(float(np.diff(distinct).min(initial=1.0)) if len(distinct) > 1 else 1.0, np.ptp(values) / 60)
    axis.hist(values, bins=np.arange(min(values) - width / 2, max(values) + width, width), color=BLUE, alpha=0.7)
    axis.axvline(value, color="black", linewidth=1.5, label=f"measured: {value:.3f}")
    for end, label in ((low, f"95% interval: {low:.3f} to {high:.3f}"), (high, None)):
        axis.axvline(end, color=ORANGE, linestyle="--", label=label)
    axis.set(xlabel=f"{name} of the resampled rows", ylabel="resamples")
    _legend_above(figure, axis, columns=2)
    return figure


def residuals(predictions: Sequence[float], labels: Sequence[float]) -> Figure:
    """Show where the model is wrong, and in which direction: true scores and residuals by predicted score.

    Against the true scores, the residuals of any imperfect model slope; against the predicted ones they should not.
    """
    figure, (left, right) = _figure(width=8.4, height=3.6, columns=2)
    predictions, labels = np.asarray(predictions).reshape(-1), np.asarray(labels)
    ends = [min(predictions.min(), labels.min()), max(predictions.max(), labels.max())]
    left.plot(ends, ends, color="grey", linestyle="--", linewidth=1)
    right.axhline(0, color="grey", linestyle="--", linewidth=1)
    left.scatter(predictions, labels, color=BLUE, s=14, alpha=0.5, linewidths=0)
    right.scatter(predictions, labels - predictions, color=BLUE, s=14, alpha=0.5, linewidths=0)
    left.set(xlabel="predicted score", ylabel="true score", title="Predicted and true")
    right.set(xlabel="predicted score", ylabel="true minus predicted score", title="Residuals")
    return figure
