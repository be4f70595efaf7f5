"""From predictions to numbers with 95% confidence intervals.

Every metric here is a function of sums over examples (counts of hits, summed losses). That one fact serves all
of them: resampling examples becomes a matrix product of resample weights and per-example columns.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from transformers import EvalPrediction

from bert_helpers.errors import DataError

RESAMPLES = 2000
PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
Sums = np.ndarray  # (…, columns)
Statistic = Callable[[Sums], dict[str, np.ndarray]]


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
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(f"predictions of shape {logits.shape} do not fit labels of shape {labels.shape}.")
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels lie in {labels.min()}…{labels.max()}; the model has classes 0…{classes - 1}.")
    if not np.isfinite(logits).all():
        raise DataError(f"prediction {int(np.argmax(~np.isfinite(logits).all(axis=1))) + 1} is not finite.")
    one_hot = np.eye(classes)
    true, predicted = one_hot[labels], one_hot[logits.argmax(axis=1)]
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    columns = np.column_stack([true, predicted, true * predicted, loss])

    def statistic(sums: Sums) -> dict[str, np.ndarray]:
        true, predicted, hits = (sums[..., i * classes : (i + 1) * classes] for i in range(3))
        n = true.sum(axis=-1)
        f1 = 2 * hits / np.maximum(true + predicted, 1)
        return {
            "accuracy": hits.sum(axis=-1) / n,
            "f1": f1[..., 1] if classes == 2 else f1.mean(axis=-1),
            "log_loss": sums[..., -1] / n,
        }

    return columns, statistic


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

    def statistic(sums: Sums) -> dict[str, np.ndarray]:
        return {"f1": sums[..., 0] / sums[..., 2], "exact_match": sums[..., 1] / sums[..., 2]}

    return bootstrap(sum_by_group(np.array(scores), groups), statistic, n_resamples=n_resamples, seed=seed)


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


def bootstrap(
    columns: np.ndarray, statistic: Statistic, *, n_resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Percentile bootstrap intervals (Efron 1979) of metrics that depend on the sums of `columns`.

    `columns`: (units, columns), one row per resampled unit: an example, or a group of examples that belong
    together, already summed. `statistic` maps sums (…, columns) to a dict of metrics (…).
    Returns one row a metric with columns `value`, `low`, `high`.
    """
    n = len(columns)
    rng = np.random.default_rng(seed)
    chunk = max(1, 5_000_000 // n)  # resamples at a time: weights stay under 40 MB
    sums = []
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums.append(weights.astype(np.float64) @ columns)
    resampled = statistic(np.concatenate(sums))
    tails = [(1 - level) / 2, (1 + level) / 2]
    rows = {}
    for name, value in statistic(columns.sum(axis=0)).items():
        low, high = np.quantile(resampled[name], tails)
        rows[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return pd.DataFrame.from_dict(rows, orient="index")


def format_interval(row: pd.Series) -> str:
    """A row of a metrics table as text: "0.871 (0.829 to 0.912)"."""
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
