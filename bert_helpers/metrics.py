"""From predictions to numbers with 95% confidence intervals.

A metric is written once, as a function of sums over examples or of the examples' weights; see `intervals`.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from transformers import EvalPrediction

from bert_helpers.errors import DataError
from bert_helpers.intervals import RESAMPLES, Metrics, Sums, Weights, bootstrap, intervals, ranker

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
Statistic = Callable[[Sums], Metrics]


class Measure(NamedTuple):
    """One run's metrics as a function of how often each unit is drawn: what intervals and comparisons are made of."""

    units: int
    statistic: Callable[[Weights], Metrics]  # weights (…, units) -> metrics (…)
    correct: np.ndarray | None = None  # (examples,) booleans, where an example is either right or wrong


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Class probabilities (examples, classes) by softmax of the logits."""
    return softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def classification_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy, F1 and log loss without intervals: `Trainer`'s `compute_metrics`."""
    columns, statistic = _classification(prediction.predictions, prediction.label_ids)
    return {name: float(value) for name, value in statistic(columns.sum(axis=0)).items()}


def classification_metrics(
    logits: np.ndarray, labels: np.ndarray, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Accuracy, F1 and log loss (rows) with `value`, `low` and `high` (columns), 95% bootstrap over examples.

    F1 is that of class 1 for two classes and the unweighted mean over classes (macro) for more; a class that
    is neither present nor predicted counts as 0. Log loss is in nats, by softmax of the logits (examples,
    classes). Raises DataError when logits and labels do not belong together.
    """
    columns, statistic = _classification(logits, labels)
    return bootstrap(columns, statistic, n_resamples=n_resamples, seed=seed)


def _classification(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Statistic]:
    logits, labels = check_classification(logits, labels)
    classes = logits.shape[1]
    true, predicted = (np.eye(classes)[index] for index in (labels, logits.argmax(axis=1)))
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    columns = np.column_stack([true, predicted, true * predicted, loss])

    def statistic(sums: Sums) -> Metrics:
        true, _, hits = _counts(sums, classes)
        n, f1 = true.sum(axis=-1), _f1(sums, classes)
        return {
            "accuracy": hits.sum(axis=-1) / n,
            "f1": f1[..., 1] if classes == 2 else f1.mean(axis=-1),
            "log_loss": sums[..., -1] / n,
        }

    return columns, statistic


def check_classification(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (examples, classes) and labels (examples,) as arrays; DataError when they do not belong together."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(f"predictions of shape {logits.shape} do not fit labels of shape {labels.shape}.")
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels lie in {labels.min()}…{labels.max()}; the model has classes 0…{classes - 1}.")
    if not np.isfinite(logits).all():
        raise DataError(f"prediction {int(np.argmax(~np.isfinite(logits).all(axis=1))) + 1} is not finite.")
    return logits, labels


def _counts(sums: Sums, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples of each class, predictions of it, and hits: (…, classes) each."""
    return sums[..., :classes], sums[..., classes : 2 * classes], sums[..., 2 * classes : 3 * classes]


def _f1(sums: Sums, classes: int) -> np.ndarray:
    true, predicted, hits = _counts(sums, classes)
    return 2 * hits / np.maximum(true + predicted, 1)


def full_classification_metrics(
    logits: np.ndarray, labels: np.ndarray, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """The full set (rows) with `value`, `low` and `high`, 95% bootstrap over examples.

    `accuracy`; `f1` (of class 1, for two classes), `f1_macro` and `f1_weighted` (means over classes, plain and by
    their share of the labels); `log_loss` (nats); `brier`: mean squared error of the probabilities (Brier 1950),
    of class 1's for two classes, summed over classes for more; `roc_auc` (one against the rest, mean over classes,
    for more than two), left out where a class has no examples or all. Raises DataError as `classification_metrics`.
    """
    measure = classification(logits, labels)
    return intervals(measure.statistic, measure.units, n_resamples=n_resamples, seed=seed)


def classification(logits: np.ndarray, labels: np.ndarray) -> Measure:
    """The metrics of `full_classification_metrics` without their intervals, for `comparison.compare`."""
    columns, short = _classification(logits, labels)
    chances, labels = probabilities(logits), np.asarray(labels)
    classes, n = chances.shape[1], len(labels)
    true = columns[:, :classes]
    squares = ((chances - true) ** 2).sum(axis=1) / (2 if classes == 2 else 1)
    ranked = range(1, 2) if classes == 2 else range(classes)
    ranks = [(ranker(chances[:, i]), true[:, i]) for i in ranked if 0 < true[:, i].sum() < n]

    def statistic(weights: Weights) -> Metrics:
        sums, total = weights @ columns, weights.sum(axis=-1)
        values, f1 = short(sums), _f1(sums, classes)
        share = sums[..., :classes] / total[..., None]
        binary = {"f1": values["f1"]} if classes == 2 else {}
        means = {"f1_macro": f1.mean(axis=-1), "f1_weighted": (f1 * share).sum(axis=-1)}
        losses = {"log_loss": values["log_loss"], "brier": weights @ squares / total}
        areas = [_roc_auc(weights, rank(weights), of) for rank, of in ranks]
        area = {"roc_auc": np.mean(areas, axis=0)} if len(ranks) == len(ranked) else {}
        return {"accuracy": values["accuracy"], **binary, **means, **losses, **area}

    return Measure(n, statistic, correct=np.argmax(logits, axis=1) == labels)


def _roc_auc(weights: Weights, ranks: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve as the Mann-Whitney statistic: the share of pairs in the right order, ties half."""
    positives = weights @ positive
    pairs = positives * (weights.sum(axis=-1) - positives)
    return ((weights * ranks) @ positive - positives**2 / 2) / np.where(pairs > 0, pairs, np.nan)


def class_metrics(
    logits: np.ndarray, labels: np.ndarray, *, names: Sequence[str], n_resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Recall and precision of each class, with intervals.

    Index: (class name, "recall" or "precision"); columns `value`, `low`, `high`, and `rows`: the class's examples.
    Recall is undefined (NaN) for a class without examples, precision for one that is never predicted.
    """
    columns, _ = _classification(logits, labels)
    classes = len(names)
    if columns.shape[1] != 3 * classes + 1:
        raise DataError(f"{classes} class names for {(columns.shape[1] - 1) // 3} classes.")

    def statistic(sums: Sums) -> Metrics:
        true, predicted, hits = _counts(sums, classes)
        of = {"recall": hits / np.where(true > 0, true, np.nan)}
        of["precision"] = hits / np.where(predicted > 0, predicted, np.nan)
        return {(name, kind): values[..., i] for i, name in enumerate(names) for kind, values in of.items()}

    table = bootstrap(columns, statistic, n_resamples=n_resamples, seed=seed)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["class", "metric"])
    return table.assign(rows=np.repeat(columns[:, :classes].sum(axis=0).astype(int), 2))


def regression_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Pearson, MSE and Spearman without intervals: `Trainer`'s `compute_metrics`."""
    measure = regression(prediction.predictions, prediction.label_ids)
    return {name: float(value) for name, value in measure.statistic(np.ones(measure.units)).items()}


def regression_metrics(
    predictions: np.ndarray, labels: np.ndarray, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Pearson and Spearman correlation and mean squared error (rows) with `value`, `low`, `high`, 95% bootstrap.

    `predictions` (examples,) or (examples, 1) and `labels` (examples,) in one unit; the MSE is in its square.
    Spearman is Pearson of the ranks, ties sharing their mean rank. Both are NaN where a side is constant.
    Raises DataError when the two do not belong together or hold something that is not finite.
    """
    measure = regression(predictions, labels)
    return intervals(measure.statistic, measure.units, n_resamples=n_resamples, seed=seed)


def regression(predictions: np.ndarray, labels: np.ndarray) -> Measure:
    """The metrics of `regression_metrics` without their intervals, for `comparison.compare`."""
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predictions.ndim == 2 and predictions.shape[1] == 1:
        predictions = predictions[:, 0]
    if labels.ndim != 1 or predictions.shape != labels.shape or not len(labels):
        raise DataError(f"predictions of shape {predictions.shape} do not fit labels of shape {labels.shape}.")
    for what, values in (("prediction", predictions), ("label", labels)):
        if not np.isfinite(values).all():
            raise DataError(f"{what} {int(np.argmax(~np.isfinite(values))) + 1} is not finite.")
    squares, sides = (predictions - labels) ** 2, [_standardized(values) for values in (predictions, labels)]
    ranks = [ranker(values) for values in sides]

    def statistic(weights: Weights) -> Metrics:
        return {
            "pearson": _correlation(weights, *sides),
            "mse": weights @ squares / weights.sum(axis=-1),
            "spearman": _correlation(weights, *(rank(weights) / len(labels) for rank in ranks)),
        }

    return Measure(len(labels), statistic)


def _standardized(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1; zeros where values differ by rounding only, so that they count as constant."""
    centred = values - values.mean()
    spread = centred.std()
    return centred / spread if spread > 1e-9 * np.abs(values).max() else np.zeros_like(values)


def _correlation(weights: Weights, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of weighted examples; `first` and `second`: (examples,) or (…, examples)."""
    total = weights.sum(axis=-1, keepdims=True)
    first, second = (side - (weights * side).sum(axis=-1, keepdims=True) / total for side in (first, second))
    variances = (weights * first**2).sum(axis=-1) * (weights * second**2).sum(axis=-1)
    covariance = (weights * first * second).sum(axis=-1)
    return covariance / np.sqrt(np.where(variances > 1e-18, variances, np.nan))


def qa_metrics(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """F1 and exact match (rows, 0 to 1) of one answer a question, with `value`, `low`, `high`, 95% bootstrap.

    Both as in SQuAD's evaluation, version 1.1 (Rajpurkar et al. 2016): the best over a question's references, after
    `normalize_answer`; F1 is that of the two bags of words, and 0 for an answer without words. `groups` names what is
    resampled, such as each question's context; questions without. Raises DataError when lengths differ or a question
    has no reference.
    """
    measure = question_answering(predictions, references, groups=groups)
    return intervals(measure.statistic, measure.units, n_resamples=n_resamples, seed=seed)


def question_answering(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, groups: Sequence[Hashable] | None = None
) -> Measure:
    """The metrics of `qa_metrics` without their intervals, for `comparison.compare`."""
    groups = range(len(predictions)) if groups is None else groups
    if not len(predictions) == len(references) == len(groups) > 0:
        raise DataError(f"{len(predictions)} answers, {len(references)} references and {len(groups)} groups.")
    bare = next((i for i, texts in enumerate(references) if not len(texts)), None)
    if bare is not None:
        raise DataError(f"question {bare + 1} has no reference answer.")
    scores = [
        (max(word_f1(answer, text) for text in texts), max(exact_match(answer, text) for text in texts), 1)
        for answer, texts in zip(predictions, references, strict=True)
    ]

    columns = sum_by_group(np.array(scores), groups)

    def statistic(weights: Weights) -> Metrics:
        f1, exact, questions = np.moveaxis(weights @ columns, -1, 0)
        return {"f1": f1 / questions, "exact_match": exact / questions}

    return Measure(len(columns), statistic)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and surplus blanks."""
    text = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, reference: str) -> bool:
    """Whether the two are equal once normalized."""
    return normalize_answer(answer) == normalize_answer(reference)


def word_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, repeated words counted as often as they occur."""
    answer_words, reference_words = normalize_answer(answer).split(), normalize_answer(reference).split()
    shared = (Counter(answer_words) & Counter(reference_words)).total()
    return 2 * shared / (len(answer_words) + len(reference_words)) if shared else 0.0


def sum_by_group(columns: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Rows of `columns` (examples, columns) added up by group: (groups, columns), for `bootstrap`."""
    group = pd.factorize(np.asarray(groups, dtype=object))[0]
    sums = np.zeros((group.max() + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums


def format_interval(row: pd.Series) -> str:
    """A row of a metrics table as text: "0.871 (0.829 to 0.912)", "0.571 (no interval)" or "undefined"."""
    if pd.isna(row["value"]):
        return "undefined"
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return f"{row['value']:.3f} (no interval)"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def headline(metrics: dict[str, dict]) -> dict[str, dict]:
    """The first three metrics of a record; of one with several tasks ("qa/f1") only, the first of each."""
    if plain := [name for name in metrics if "/" not in name]:
        return {name: metrics[name] for name in plain[:3]}
    firsts: dict[str, str] = {}
    for name in metrics:
        firsts.setdefault(name.split("/")[0], name)
    return {name: metrics[name] for name in firsts.values()}
