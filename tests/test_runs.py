from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bert_helpers import DataError, ParameterError, data, results, runs, training

PARAMETERS = {
    "DATA": "sample",
    "TEXT_COLUMN": "text",
    "LABEL_COLUMN": "label",
    "TRAIN_SIZE": 48,
    "VALIDATION_SIZE": 16,
    "TEST_SIZE": 16,
    "EPOCHS": 1,
    "BATCH_SIZE": 16,
    "LEARNING_RATE": 1e-7,
    "MAX_LENGTH": 64,
    "PRECISION": "fp32",
    "SEED": 0,
}


@pytest.fixture
def run(tiny_bert, small_dataset, tmp_path):
    parameters = {**PARAMETERS, "MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path)}
    return runs.finish(runs.prepare(small_dataset, parameters))


def leave(run, folder):
    """What notebook 1 writes."""
    names = run.dataset["train"].features["label"].names
    outputs = {name: training.predict(run.trainer, run.encoded[name]) for name in ("validation", "test")}
    results.save_model(run.trainer.model, run.tokenizer, folder / "model")
    results.write_json(folder / "history.json", run.log_history)
    results.save_predictions(folder, outputs, names)
    results.write_json(folder / "metrics.json", {"parameters": run.parameters})


def test_a_run_has_curves_and_logits_in_the_order_of_the_rows(run):
    assert run.history.index.tolist() == [1]
    output = training.predict(run.trainer, run.encoded["test"])
    assert np.array_equal(run.logits, output.predictions)
    assert run.validation.shape == (16, 2)


def test_parameters_of_a_fix_reach_the_run(tiny_bert, small_dataset, tmp_path):
    fix = {"WEIGHT_DECAY": 0.3, "LABEL_SMOOTHING": 0.2, "DROPOUT": 0.4, "TRUNCATION": "tail", "EARLY_STOPPING": 2}
    parameters = {**PARAMETERS, **fix, "MAX_LENGTH": 8, "MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path)}
    run = runs.prepare(small_dataset, parameters)
    args = run.trainer.args
    assert (args.weight_decay, args.label_smoothing_factor, args.save_strategy) == (0.3, 0.2, "epoch")
    assert run.trainer.model.config.hidden_dropout_prob == 0.4
    text = run.tokenizer(small_dataset["train"][0]["text"])["input_ids"]
    assert run.encoded["train"][0]["input_ids"] == [text[0], *text[-7:]]


def test_the_folder_a_run_left_says_what_the_run_says(run, tmp_path):
    leave(run, tmp_path / "run")
    again = runs.read(tmp_path / "run")
    found = runs.diagnose(again)
    assert [f.name for f in found] == [f.name for f in runs.diagnose(run)]
    assert "learning_rate_too_low" in [f.name for f in found]
    assert np.allclose(again.logits, run.logits, atol=1e-5)
    other = data.load_classification("sample", train_size=48, validation_size=16, test_size=16, seed=1)
    assert other["validation"]["label"] != run.dataset["validation"]["label"]
    results.write_json(tmp_path / "run" / "metrics.json", {"parameters": {**run.parameters, "SEED": 1}})
    with pytest.raises(DataError, match="not of these validation rows"):
        runs.read(tmp_path / "run")
    (tmp_path / "run" / "history.json").unlink()
    with pytest.raises(DataError, match=r"no history\.json"):
        runs.read(tmp_path / "run")


def test_a_fix_is_proven_on_the_same_test_rows(run):
    again = runs.retrain(run, {"LEARNING_RATE": 1e-3, "EPOCHS_FACTOR": 2, "remove_rows": [0, 1]})
    assert (again.parameters["LEARNING_RATE"], again.parameters["EPOCHS"]) == (1e-3, 2)
    assert len(again.dataset["train"]) == 46
    assert again.dataset["test"].to_dict() == run.dataset["test"].to_dict()
    assert not np.allclose(again.logits, run.logits)


@pytest.mark.parametrize(("stopping", "overfitted"), [(0, True), (1, False)])
def test_a_run_that_kept_its_best_epoch_is_judged_by_that(stopping, overfitted, run):
    curves = {"train_loss": [0.6, 0.4, 0.1], "validation_loss": [0.69, 0.6, 3.0]}
    history = pd.DataFrame(curves, index=[1.0, 2.0, 3.0])
    run = replace(run, history=history, parameters={**run.parameters, "EARLY_STOPPING": stopping})
    assert ("overfitting" in [f.name for f in runs.diagnose(run)]) == overfitted


@pytest.mark.parametrize("fix", [{}, {"TEST_SIZE": 400}, {"unfreeze": True}, {"redraw_splits": True, "EPOCHS": 2}])
def test_a_fix_that_training_does_not_prove_is_refused(run, fix):
    with pytest.raises(ParameterError, match="no new training"):
        runs.retrain(run, fix)
