"""Findings from a run: its learning curves, predictions and time, and the error that ended it."""

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from scipy.special import log_softmax
from scipy.stats import chi2
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import LabelSmoother
from transformers.trainer_utils import PredictionOutput

from bert_helpers.diagnosis.findings import FALSE_ALARM, Evidence, Finding, check
from bert_helpers.errors import TrainingError
from bert_helpers.evaluation.calibration import fit_temperature
from bert_helpers.machine.out_of_memory import is_out_of_memory
from bert_helpers.metrics import check_classification, probabilities
from bert_helpers.tasks import qa
from bert_helpers.tasks.thresholds import HALF, gain_of_fitting

LEARNED = 0.5  # of the way from the lowest loss possible to that of guessing
LITTLE = "on the training rows themselves, less than half of what could be learned was learned"
# Root mean square of a weight in a BERT's encoder layers: 0.061 in the packaged model, 0.042 in bert-base. Adam moves
# each weight by about the learning rate per step, so the usual rates (1e-4 and 5e-5, respectively) are one or two
# thousandths of a weight's size.
WEIGHT = 0.05
LARGE_STEP, USUAL_STEP, SMALL_PATH = 0.01, 0.0015, 0.02
# How far a step can change the output of all layers, relative to its size: a weight moves by at most the learning rate,
# so a layer's output by learning rate * sqrt(width) / size of a weight, and layers add up. With 5e-5 that is 0.4 in
# bert-base and 0.9 in bert-large (weights of 0.042), which then sometimes fails to train (Devlin et al. 2019); with
# 3e-4, the rate for entities here, 0.6 in the packaged model and 2.4 in bert-base.
LARGE_CHANGE, USUAL_CHANGE = 1.0, 0.25
FEW_STEPS = 100  # including warm-up and decay; fault-free runs on the samples have 90 to 300
TEMPERATURE = 1.5
GAIN = 0.02
BUSY = 0.1  # fault-free runs of the packaged model reached 0.28 (entities) and 0.36 (reviews) on 2 CPU cores in bf16


@check
def check_failure(error: BaseException, *, parameters: Mapping[str, object]) -> Iterator[Finding]:
    """Find `out_of_memory` or `not_finite_loss`, if that ended the run; `parameters` are the notebook's."""
    cause = error.__cause__ if isinstance(error, TrainingError) else error  # TrainingError: not even one row fits
    if cause and is_out_of_memory(cause):
        batch, steps = int(parameters["BATCH_SIZE"]), int(parameters["GRADIENT_ACCUMULATION"])
        half, reason = max(1, batch // 2), "half a batch needs half the activations"
        fix = {"BATCH_SIZE": half, "GRADIENT_ACCUMULATION": steps * (2 if batch > 1 else 1)}
        if cause is not error:
            half, reason, fix = 0, "a batch of one row does not fit either", {"MAX_LENGTH_FACTOR": 0.5}
        symptom = f"out of memory: {str(cause)[:80]}"
        yield Finding("out_of_memory", symptom, Evidence(batch, half, reason), "the batch is too large", fix)
    elif isinstance(error, TrainingError) and re.search(r"\bis -?(nan|inf)\b", error.problem):
        yield _not_finite(error.problem, float(parameters["LEARNING_RATE"]))


def _not_finite(symptom: str, learning_rate: float) -> Finding:
    return Finding(
        "not_finite_loss",
        symptom,
        Evidence(math.nan, math.inf, "a loss is a finite number; after NaN every weight is NaN"),
        "the learning rate is too high, values exceed the range of fp16, or weights were not finite to begin with",
        {"LEARNING_RATE": min(learning_rate / 10, USUAL_STEP * WEIGHT), "PRECISION": "fp32"},
    )


# --- learning curves ---------------------------------------------------------------------------------------


@check
def check_history(
    log_history: Sequence[Mapping[str, float]],
    *,
    chance: float,
    learning_rate: float,
    lowest: float = 0.0,
    weight: float = WEIGHT,
    usual: float | None = None,
    kept: float | None = None,
) -> Iterator[Finding]:
    """Find `out_of_memory`, `not_finite_loss`, `learning_rate_too_high`, `learning_rate_too_low` or `underfitting`.

    `log_history` is the Trainer's (`trainer.state.log_history`, a run's history.json); `chance` the loss of guessing,
    `lowest` that of perfect predictions (the task's `chance_loss` and `lowest_loss`); `learning_rate` the run's
    parameter, needed if the run was too short to log the rates; `weight` the typical size of a weight before training
    (`models.weight_size`); `usual` the learning rate to advise (`usual_rate`); `kept` the training loss of the
    epoch whose model was kept, if that was not the last.
    """
    for entry in [entry for entry in log_history if "micro_batch_size" in entry][-1:]:
        size, times = int(entry["micro_batch_size"]), int(entry["parts"])
        yield Finding(
            "out_of_memory",
            f"memory ran out at step {entry['step']:.0f}; the run went on with batches of {size}",
            Evidence(size * times, size, "rows that fit at a time"),
            "the batch is too large for this machine",
            {"BATCH_SIZE": size, "GRADIENT_ACCUMULATION": times},
        )
    losses = [(name, entry) for entry in log_history for name in entry if name.endswith("loss")]
    bad = [(name, entry) for name, entry in losses if entry[name] is None or not math.isfinite(entry[name])]
    trained = [entry["eval_train_loss"] for entry in log_history if "eval_train_loss" in entry]
    last = trained[-1] if trained else -math.inf
    loss = last if kept is None else kept
    bar = lowest + LEARNED * (chance - lowest)
    if bad:
        name, entry = bad[0]
        yield _not_finite(f"{name} is not finite at step {entry.get('step', 0):.0f}", learning_rate)
    elif loss > bar >= last:
        yield Finding(
            "underfitting",
            f"the training loss is {loss:.2f} in the epoch that was kept; guessing gives {chance:.2f}",
            Evidence((loss - lowest) / (chance - lowest), LEARNED, LITTLE),
            "later epochs memorised the training rows, which helped on no others: too few rows, or texts that do not "
            "determine the label",
            {},
            "look at the labels, or give more training rows",
        )
    elif loss > bar:
        steps = np.arange(1, max(entry.get("step", 1) for entry in log_history) + 1)
        logged = [(entry["step"], entry["learning_rate"]) for entry in log_history if "learning_rate" in entry]
        rates = np.interp(steps, *zip(*logged, strict=True)) if logged else np.full(len(steps), learning_rate)
        usual = usual or usual_rate(weight)
        yield _not_learned((loss, chance, lowest), rates, weight, highest=max(learning_rate, rates.max()), usual=usual)


def usual_rate(weight: float, *, depth: int = 0, width: int = 1) -> float:
    """Return a learning rate to begin with, for weights of this size and `depth` layers of this width.

    >>> usual_rate(0.061, depth=6, width=384), usual_rate(0.042, depth=12, width=768)
    (9.2e-05, 3.2e-05)
    """
    rate = weight * min(USUAL_STEP, USUAL_CHANGE / max(1e-9, depth * math.sqrt(width)))
    return float(f"{rate:.1e}")  # two digits: more would mean nothing


def _not_learned(
    losses: tuple[float, float, float], rates: np.ndarray, weight: float, *, highest: float, usual: float
) -> Finding:
    """Say why the training rows were not learned: steps (of these `rates`) too long, their sum too short, or neither.

    `highest` is the run's learning rate as a parameter: when a short run first logs one, it has already decayed.
    """
    path, peak = float(rates.sum() / weight), float(rates.max() / weight)
    loss, chance, lowest = losses
    symptom = f"the training loss ends at {loss:.2f}; guessing gives {chance:.2f}"
    symptom += f", and smoothed labels allow {lowest:.2f}" if lowest else ""
    if peak > LARGE_STEP:
        reason = "a step may move a weight by 1% of its size, ten times as far as usual"
        cause = "the learning rate is too high: each step overshoots, and what was learned before is lost"
        name, evidence, fix = "learning_rate_too_high", Evidence(peak, LARGE_STEP, reason), {"LEARNING_RATE": usual}
    elif path < SMALL_PATH and highest / weight < USUAL_STEP / 3:
        reason = "over the whole run a weight can move by 2% of its size: practically nothing"
        cause = "the learning rate is too low for so few steps"
        name, evidence, fix = "learning_rate_too_low", Evidence(path, SMALL_PATH, reason), {"LEARNING_RATE": usual}
    else:
        cause = "too few steps, too much dropout or weight decay, or texts that do not determine the label"
        name, evidence = "underfitting", Evidence((loss - lowest) / (chance - lowest), LEARNED, LITTLE)
        fix = {"LEARNING_RATE": max(usual, float(highest)), "EPOCHS_FACTOR": max(3, math.ceil(FEW_STEPS / len(rates)))}
    return Finding(name, symptom, evidence, cause, fix)


# --- predictions -------------------------------------------------------------------------------------------


@check
def check_fit(history: pd.DataFrame, losses: np.ndarray, counts: np.ndarray | int = 1) -> Iterator[Finding]:
    """Find `overfitting`: the validation loss rose well above its lowest, and the training loss is far below it.

    `history` is from `training.history`. The spread of `losses`, the final loss of each validation row, shows how far
    their mean could rise by chance; `counts` are the labels of each row, by which it is weighted (`row_losses`).
    """
    train, last = history.train_loss.iloc[-1], history.validation_loss.iloc[-1]
    lowest, best = history.validation_loss.min(), history.validation_loss.idxmin()
    counts = np.broadcast_to(counts, losses.shape)
    off = counts * (losses - np.average(losses, weights=counts))
    error = float(np.std(off, ddof=1) / math.sqrt(len(off)) / counts.mean())  # of a ratio of two means
    if min(last - lowest, last - train) > 2 * error:
        yield Finding(
            "overfitting",
            f"the validation loss rose from {lowest:.2f} (epoch {best:g}) to {last:.2f}, while the training loss fell "
            f"to {train:.2f}",
            Evidence(last - lowest, 2 * error, "two standard errors of the validation loss"),
            "too many passes over too few rows: the model memorises them",
            {"EARLY_STOPPING": 1, "EPOCHS": max(1, math.ceil(best)), "WEIGHT_DECAY": 0.1},
        )


def row_losses(trainer: Trainer, output: PredictionOutput) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's own loss in nats, and its number of labels (of a sentence: of labelled words).

    Like the losses in the history, these are weighted and smoothed if those that were trained on are.
    """
    logits, labels = map(torch.from_numpy, output[:2])
    plain = LabelSmoother(epsilon=0.0)  # cross entropy
    if labels.shape == logits.shape:  # several labels per row
        plain = lambda output, labels: binary_cross_entropy_with_logits(output.logits, labels)  # noqa: E731
    loss = trainer.compute_loss_func or trainer.label_smoother or plain
    rows = zip(logits.split(1), labels.split(1), strict=True)
    losses = [float(loss(SequenceClassifierOutput(logits=row), label)) for row, label in rows]
    return np.array(losses), (labels != -100).reshape(len(labels), -1).sum(dim=1).numpy()


@check
def check_confidence(logits: np.ndarray, labels: np.ndarray) -> Iterator[Finding]:
    """Find `overconfidence`: dividing all logits by one number above 1.5 makes the labels much likelier.

    This is a likelihood-ratio test of the temperature (Guo et al. 2017) on rows that were not trained on. `logits` have
    the shape (rows, classes).
    """
    logits, labels = check_classification(logits, labels)
    right = np.mean(logits.argmax(axis=1) == labels)
    if right == 1:  # nothing to fit a temperature on
        return
    temperature = fit_temperature(logits, labels)
    chances = [log_softmax(values, axis=1)[np.arange(len(labels)), labels] for values in (logits, logits / temperature)]
    gain = 2 * float(np.sum(chances[1] - chances[0]))
    sure = float(probabilities(logits).max(axis=1).mean())
    if temperature > TEMPERATURE and gain > chi2.isf(FALSE_ALARM, 1):
        reason = "at 1.5, a probability of 95% should be 88%; likelihood-ratio test passed"
        yield Finding(
            "overconfidence",
            f"{sure:.0%} sure on average, but right in {right:.0%} of the rows",
            Evidence(temperature, TEMPERATURE, reason),
            "trained until it was certain of the training rows; its certainty does not carry over to others",
            {"LABEL_SMOOTHING": 0.1},
            f"or divide the logits by {temperature:.3g} (calibration.fit_temperature)",
        )


@check
def check_thresholds(
    logits: np.ndarray, labels: np.ndarray, thresholds: Sequence[float], *, seed: int = 0
) -> Iterator[Finding]:
    """Find `unfitted_thresholds`: all thresholds are 0.5, and fitted ones raise macro F1 on other rows.

    Thresholds are fitted on each half of the validation rows and used for the other half.
    """
    if any(threshold != HALF for threshold in thresholds):
        return
    gain = gain_of_fitting(logits, labels, seed=seed)
    if gain.low > 0 and gain.value > GAIN:
        yield Finding(
            "unfitted_thresholds",
            f"labels are decided at 0.5; fitted thresholds raise macro F1 by {gain.value:.2f} "
            f"({gain.low:+.2f} to {gain.high:+.2f})",
            Evidence(float(gain.value), GAIN, "macro F1 that a rule may cost; its interval excludes 0"),
            "rare labels seldom reach a probability of a half, even where they are likeliest",
            {"THRESHOLDS": "each"},
            "for a model that is trained already: tasks.thresholds.fit_thresholds, into its config's thresholds",
        )


@check
def check_no_answer(
    output: PredictionOutput, encoded: Dataset, rows: Dataset, threshold: float | None, *, seed: int = 0
) -> Iterator[Finding]:
    """Find `never_answers`: with the best threshold, answers are no better than giving none; or `unfitted_no_answer`.

    The second means that the threshold of the null score difference was never fitted, and another one is better.
    `output` is the trained model's for the validation rows; `threshold` is its config's: None if it always answers, 0
    if the validation rows had nothing to fit it on. Thresholds are fitted on each half of the rows for the other.
    """
    references, contexts = [answers["text"] for answers in rows["answers"]], list(rows["context"])
    kinds = {bool(texts) for texts in references}
    if len(kinds) == 1:
        if threshold == 0:
            yield Finding(
                "unfitted_no_answer",
                f"all validation questions have {'an' if True in kinds else 'no'} answer: no threshold can be fitted",
                Evidence(0, 1, "some with an answer and some without are needed"),
                "few validation questions, or a file of one kind only",
                {"redraw_splits": True},
            )
        return
    best = [answers[0] for answers in qa.predicted_answers(output.predictions, encoded, contexts)]
    gain = partial(qa.gain_of_fitting, best, references, contexts, seed=seed)
    if threshold is not None and (found := gain(-math.inf)).value <= 0:  # no question gets an answer
        yield Finding(
            "never_answers",
            f"answering at all changes F1 by {found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})",
            Evidence(float(found.value), 0, "answers must be worth more than giving none"),
            '"no answer" is learned first; there were too few questions or epochs to learn where answers are',
            {},
            "start from a model that was trained on questions with answers (MODEL)",
        )
    elif not threshold and (found := gain(math.inf if threshold is None else 0)).low > 0 and found.value > GAIN:
        yield Finding(
            "unfitted_no_answer",
            f"{'every question gets an answer' if threshold is None else 'the threshold for no answer is 0'}; a fitted "
            f"one raises F1 by {found.value:.2f} ({found.low:+.2f} to {found.high:+.2f})",
            Evidence(float(found.value), GAIN, "F1 that a rule may cost; its interval excludes 0"),
            "the model was trained or saved without fitting the threshold on validation questions",
            {},
            f"tasks.qa.fit_threshold, into the field {qa.THRESHOLD} of the model's config",
        )


# --- time --------------------------------------------------------------------------------------------------


@check
def check_speed(log_history: Sequence[Mapping[str, float]], *, rate: float) -> Iterator[Finding]:
    """Find `slow`: the run reached a small share of the machine's `matrix_product_rate` (operations per second)."""
    ends = [entry for entry in log_history if "total_flos" in entry and "train_runtime" in entry]
    share = float(ends[-1]["total_flos"] / ends[-1]["train_runtime"] / rate) if ends else math.inf
    if share < BUSY:
        yield Finding(
            "slow",
            f"training ran at {share:.1%} of the rate at which this machine multiplies matrices",
            Evidence(share, BUSY, "a quarter to a third of what fault-free runs of the packaged model reach on a CPU"),
            "the model waits for a slow collator or disk, or batches are tiny, debugging is on, or other programs run",
            {"DATALOADER_WORKERS": 2},
        )


def matrix_product_rate(*, precision: str, size: int = 1024, seconds: float = 0.5) -> float:
    """Measure the speed of this machine's matrix products, best of many, in floating-point operations per second."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best, started = math.inf, time.perf_counter()
    while time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        float((a @ b)[0, 0])  # reading a value waits for the device
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


@check
def check_run(
    log_history: Sequence[Mapping[str, float]],
    history: pd.DataFrame,
    *,
    chance: float,
    learning_rate: float,
    lowest: float = 0.0,
    weight: float = WEIGHT,
    usual: float | None = None,
    classes: tuple[np.ndarray, np.ndarray] | None = None,
    losses: tuple[np.ndarray, np.ndarray] | None = None,
    rate: float | None = None,
) -> Iterator[Finding]:
    """Run the checks of a finished run, whose `history` ends with the epoch whose model was kept.

    `classes` are logits and labels of the validation rows, if there are classes; logits have the shape (rows, classes),
    or (rows, decisions, classes) for tagged words and several labels. `losses` are their `row_losses`. The others are
    as in `check_history` and `check_speed`.
    """
    kept = history.train_loss.iloc[-1] if len(history) else None
    how = {"lowest": lowest, "learning_rate": learning_rate, "weight": weight, "usual": usual, "kept": kept}
    yield from check_history(log_history, chance=chance, **how)
    if losses is not None and np.isfinite(losses[0]).all() and len(history) > 1:
        yield from check_fit(history, *losses)
    # Decisions about one row are not independent of each other, as the test of `check_confidence` takes them to be.
    if classes is not None and np.isfinite(classes[0]).all() and np.ndim(classes[0]) == 2:
        yield from check_confidence(*classes)
    if rate:
        yield from check_speed(log_history, rate=rate)
