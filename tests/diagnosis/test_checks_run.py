"""The checks of a run's curves, predictions and time, apart from whether each finding is made."""

import math
import warnings

import numpy as np
import pytest
import torch
from made_up import history, log, names
from transformers.trainer_utils import PredictionOutput

from bert_helpers import TrainingError, runs
from bert_helpers.diagnosis import checks_run
from bert_helpers.errors import Interrupted
from bert_helpers.tasks.registry import TASKS


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (log(0.34, rate=1e-2), []),  # it has learned
        (log(0.7, rate=4.9e-4), ["underfitting"]),
        (log(0.7, rate=1.1e-5), ["underfitting"]),
        (log(0.7, rate=1e-4, steps=5), ["underfitting"]),  # a usual rate, but too few steps
        (log(math.nan), ["not_finite_loss"]),
        (log(0.3, eval_validation_loss=None), ["not_finite_loss"]),  # as history.json has it
        ([], []),
        (log(0.7)[2:], ["underfitting"]),  # too short to have logged a learning rate
    ],
)
def test_history(entries, expected):
    rate = next((entry["learning_rate"] for entry in entries if "learning_rate" in entry), 1e-4)
    assert names(checks_run.check_history(entries, chance=0.7, learning_rate=rate, weight=0.05)) == expected


def test_labels_that_are_smoothed_leave_a_loss_that_is_no_fault():
    for loss, expected in ((0.61, []), (0.63, ["underfitting"])):  # of nine tags at 0.1: half of 0.75 is below 0.49
        found = checks_run.check_history(log(loss), chance=0.75, lowest=0.49, learning_rate=1e-4, weight=0.05)
        assert names(found) == expected
    assert found[0].symptom == "the training loss ends at 0.63; guessing gives 0.75, and smoothed labels allow 0.49"
    assert found[0].evidence.value == pytest.approx(14 / 26)


def test_a_learning_rate_becomes_a_usual_one():
    for rate in (1e-2, 1e-7):
        (found,) = checks_run.check_history(log(0.7, rate=rate), chance=0.7, learning_rate=rate, weight=0.06)
        assert found.fix == {"LEARNING_RATE": pytest.approx(9e-5)}


@pytest.mark.parametrize(("steps", "times"), [(7, 15), (40, 3), (300, 3)])
def test_too_few_steps_become_a_hundred_at_least(steps, times):
    (found,) = checks_run.check_history(log(0.7, steps=steps), chance=0.7, learning_rate=1e-4, weight=0.05)
    assert found.fix == {"LEARNING_RATE": pytest.approx(1e-4), "EPOCHS_FACTOR": times}


def test_the_fix_of_a_run_of_few_steps_does_not_lower_its_learning_rate():
    late = [{"step": 10, "learning_rate": 6e-5}, {"step": 12, "eval_train_loss": 0.7}]  # of 12 steps, at 2e-4
    (found,) = checks_run.check_history(late, chance=0.7, learning_rate=2e-4, weight=0.05)
    assert found.fix == {"LEARNING_RATE": pytest.approx(2e-4), "EPOCHS_FACTOR": 9}


def test_errors_that_end_a_run():
    parameters = {"BATCH_SIZE": 16, "GRADIENT_ACCUMULATION": 2, "LEARNING_RATE": 1e-2}
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        (found,) = checks_run.check_failure(error, parameters=parameters)
        assert found.name == "out_of_memory"
        assert found.fix == {"BATCH_SIZE": 8, "GRADIENT_ACCUMULATION": 4}
    error = TrainingError("memory is too small for a single row", fix="lower MAX_LENGTH")
    error.__cause__ = MemoryError()
    (found,) = checks_run.check_failure(error, parameters=parameters)
    assert (found.name, found.fix) == ("out_of_memory", {"MAX_LENGTH_FACTOR": 0.5})
    (found,) = checks_run.check_failure(TrainingError("loss is nan at step 3"), parameters=parameters)
    assert found.name == "not_finite_loss"
    assert found.fix["LEARNING_RATE"] < 1e-3
    for error in (Interrupted("stopped by SIGINT at step 3 of 9", 2), TrainingError("process 5 is training here")):
        assert checks_run.check_failure(error, parameters=parameters) == []


def test_overfitting_needs_a_gap_and_names_the_best_epoch():
    losses = np.tile([0.0, 1.0], 50)  # standard error 0.05
    assert not [*checks_run.check_fit(history([0.6, 0.5, 0.7], train=0.65), losses)]  # training rows do no better
    (found,) = checks_run.check_fit(history([0.6, 0.5, 0.7]), losses)
    assert found.fix["EPOCHS"] == 2


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classification", {}),
        ("classification", {"CLASS_WEIGHTS": "negative: 9", "LABEL_SMOOTHING": 0.2}),
        ("multilabel", {}),
        ("multilabel", {"POSITIVE_WEIGHTS": "balanced"}),
        ("ner", {"LABEL_SMOOTHING": 0.2}),
    ],
)
def test_losses_of_rows_have_the_mean_that_the_history_has(task, options, tiny_bert, tmp_path):
    rows = TASKS[task].load("sample", train_size=40, validation_size=20, test_size=16)
    parameters = {"MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path), "MAX_LENGTH": 64, "BATCH_SIZE": 20, **options}
    trainer = runs.prepare(rows, {**parameters, "PRECISION": "fp32"}, task=task).trainer
    losses, labels = checks_run.row_losses(trainer, trainer.predict(trainer.eval_dataset["validation"]))
    expected = trainer.evaluate()["eval_validation_loss"]
    assert np.average(losses, weights=labels) == pytest.approx(expected, rel=1e-5)
    assert len(losses) == len(labels) == 20


@pytest.mark.parametrize(("labels", "weighted"), [(1, False), (1, True), (8, False)])
def test_a_loss_that_does_not_change_is_called_overfitting_in_few_runs(labels, weighted, rng):
    """Three epochs of one expected loss: of rows whose labels share a part of it, or of which a tenth weighs more."""
    alarms, weights = 0, np.where(weighted & (np.arange(150) % 10 == 0), 5.0, 0.55)
    for _ in range(300):
        shared, own = rng.exponential(1, (4, 150, 1)), rng.exponential(1, (4, 150, labels))
        first, *others = weights * (shared + own).mean(axis=2)
        epochs = np.array([first + other for other in others]) / 2
        alarms += len(checks_run.check_fit(history(epochs.mean(axis=1)), epochs[-1]))
    assert alarms <= 0.08 * 300


def test_a_sentence_weighs_by_its_words():
    losses, words = np.array([1.0, 2.0, 4.0]), np.array([10, 20, 70])
    off = words / 100 * (losses - 3.3)  # the part of each in the mean's error
    error = np.sqrt(3 / 2 * (off**2).sum())
    (found,) = checks_run.check_fit(history([0.1, 9.0]), losses, words)
    assert found.evidence.threshold == pytest.approx(2 * error)


def test_overconfidence_names_the_temperature(rng):
    chances = rng.uniform(0.5, 1, 400)
    labels = (rng.random(400) < chances).astype(int)
    logits = np.column_stack([np.zeros(400), np.log(chances / (1 - chances))])
    (found,) = checks_run.check_confidence(4 * logits, labels)
    assert found.fix == {"LABEL_SMOOTHING": 0.1}
    assert found.evidence.value == pytest.approx(4, rel=0.3)
    assert f"divide the logits by {found.evidence.value:.3g}" in found.advice
    few = np.array([[0, 6.0], [0, 6.0], [0, 6.0], [0, -6.0]])  # one of four wrong at 99.8%
    assert not [*checks_run.check_confidence(few[:2], np.array([1, 0]))]
    with warnings.catch_warnings(action="error"):
        assert checks_run.check_confidence(few, few.argmax(axis=1)) == []  # all right


def test_eight_equal_decisions_about_a_row_are_not_eight_rows(rng):
    sure, labels = 4.0 * (rng.random((30, 1)) < 0.5), (rng.random((30, 1)) < 0.5).astype(float)
    output = PredictionOutput(np.repeat(sure, 8, axis=1), np.repeat(labels, 8, axis=1), {})
    classes = TASKS["multilabel"].class_logits(output)
    assert names(checks_run.check_confidence(classes[0].reshape(-1, 2), classes[1].ravel())) == ["overconfidence"]
    assert checks_run.check_run(log(0.1), history([0.5]), chance=0.7, learning_rate=1e-4, classes=classes) == []


def test_calibrated_probabilities_are_called_overconfident_once_in_a_thousand(rng):
    chances = rng.uniform(0.5, 1, (2000, 100))
    labels = rng.random((2000, 100)) < chances
    logits = np.log(chances / (1 - chances))
    alarms = sum(
        len([*checks_run.check_confidence(np.column_stack([np.zeros(100), row]), label.astype(int))])
        for row, label in zip(logits, labels, strict=True)
        if not (label == 1).all()
    )
    assert alarms <= 8


def test_the_speed_of_this_machine():
    assert not [*checks_run.check_speed([], rate=1e11)]
    assert checks_run.matrix_product_rate(precision="fp32", size=128, seconds=0.05) > 1e8
