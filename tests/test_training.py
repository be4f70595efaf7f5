import math
import os
import subprocess
import sys
from pathlib import Path

import helpers
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from sklearn.utils.class_weight import compute_class_weight
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import BertForSequenceClassification, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from bert_helpers import ParameterError, TrainingError, models, parameters, tokenization, training
from bert_helpers.machine import trackers
from bert_helpers.parameters import TRACKERS
from bert_helpers.tasks.classification import weighted_loss, weights_of
from bert_helpers.tasks.registry import TASKS

TASK = TASKS["classification"]


@pytest.fixture(scope="module")
def encoded(small_dataset, tokenizer):
    return tokenization.encode_texts(small_dataset, tokenizer, max_length=64)


def make(tiny_bert, encoded, tokenizer, folder, *, early_stopping=0, loss=None, **arguments):
    options = {"epochs": 2, "learning_rate": 1e-3, "precision": "fp32", "disable_tqdm": True, **arguments}
    args = helpers.arguments(folder, early_stopping=early_stopping, **options)
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, seed=0, num_labels=2)
    return helpers.make_trainer(
        *(model, args, encoded),
        task="classification",
        tokenizer=tokenizer,
        early_stopping=early_stopping,
        compute_loss_func=loss,
    )


def test_the_trainer_takes_the_arguments_of_transformers_own(tiny_bert, encoded, tokenizer, tmp_path):
    args = TrainingArguments(
        tmp_path, num_train_epochs=1, disable_tqdm=True, **training.for_this_machine(precision="fp32")
    )
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=2)
    splits = {"train_dataset": encoded["train"], "eval_dataset": encoded["validation"]}
    trainer = training.Trainer(model=model, args=args, processing_class=tokenizer, **splits)
    assert trainer.train().global_step == 6
    assert training.history(trainer).columns.tolist() == ["train_loss", "validation_loss"]
    unlabelled = trainer.predict(encoded["test"].remove_columns("labels"))
    assert unlabelled.label_ids is None
    assert np.array_equal(unlabelled.predictions, trainer.predict(encoded["test"]).predictions)
    rows = [{name: row[name] for name in ("input_ids", "labels")} for row in encoded["train"]]
    stock = transformers.Trainer(model, args, None, rows, rows[:8], processing_class=tokenizer)
    ours = training.Trainer(model, args, None, rows, rows[:8], processing_class=tokenizer)
    assert ours.evaluate()["eval_loss"] == stock.evaluate()["eval_loss"]  # rows that are no Dataset are treated alike


def test_every_epoch_has_train_and_validation_loss_and_accuracy(tiny_bert, encoded, tokenizer, tmp_path):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, epochs=3)
    trainer.train()
    history = training.history(trainer)
    assert history.index.tolist() == [1, 2, 3]
    assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"} <= set(history.columns)
    scores = TASKS["classification"].compute_metrics(None)(trainer.predict(encoded["validation"]))
    assert history.validation_accuracy[3] == pytest.approx(scores["accuracy"])
    assert history.validation_loss[3] == pytest.approx(scores["log_loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("train", "validation", "rows"), [(480, 80, 80), (60, 90, 60), (300, 350, 100), (20_000, 5_000, 2_000)]
)
def test_the_training_rows_scored_each_epoch_are_few(train, validation, rows):
    assert training.rows_scored(train, validation) == rows


def test_accumulated_batches_have_the_loss_and_weights_of_one(tiny_bert, encoded, tokenizer, tmp_path):
    """16 x 1 and 4 x 4 see the same rows per step; Trainer alone would log four times the loss and gradient."""
    runs = {}
    for batch_size, accumulation in ((16, 1), (4, 4)):
        trainer = make(
            tiny_bert,
            encoded,
            tokenizer,
            tmp_path,
            batch_size=batch_size,
            gradient_accumulation=accumulation,
            train_sampling_strategy="sequential",
            logging_steps=1,
        )
        trainer.model.config.hidden_dropout_prob = 0.0
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        runs[accumulation] = ([e["loss"] for e in log], [e["grad_norm"] for e in log])
    np.testing.assert_allclose(runs[1][0], runs[4][0], atol=1e-3)
    np.testing.assert_allclose(runs[1][1], runs[4][1], rtol=1e-2)


def test_one_seed_gives_one_result_and_another_another(tiny_bert, encoded, tokenizer, tmp_path):
    logits = []
    for seed in (0, 0, 1):
        trainer = make(tiny_bert, encoded, tokenizer, tmp_path, seed=seed)
        trainer.train()
        logits.append(trainer.predict(encoded["test"]).predictions)
    assert np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


def test_predictions_stand_in_the_order_of_the_rows(tiny_bert, encoded, tokenizer, tmp_path):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, batch_size=4)
    output = trainer.predict(encoded["train"])
    assert output.label_ids.tolist() == encoded["train"]["labels"]
    model = trainer.model.eval()
    for row in (0, 7, 31):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([encoded["train"][row]["input_ids"]])).logits[0].numpy()
        np.testing.assert_allclose(output.predictions[row], alone, atol=1e-5)
    assert trainer.args.train_sampling_strategy == "group_by_length"


def test_the_trainers_own_predict_shuffles_rows(tiny_bert, encoded, tokenizer, tmp_path):
    """The reason for `Trainer.predict`; if this fails, Transformers has changed and it can be removed."""
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, batch_size=4)
    stock = transformers.Trainer(trainer.model, trainer.args, trainer.data_collator, eval_dataset=trainer.eval_dataset)
    assert stock.predict(encoded["train"]).label_ids.tolist() != encoded["train"]["labels"]


@pytest.mark.parametrize(("logged", "when"), [(1, "loss is nan at step 1"), (1000, "eval_train_loss is nan at step 3")])
def test_weights_that_are_not_finite_stop_the_run(tiny_bert, encoded, tokenizer, tmp_path, logged, when):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, logging_steps=logged)
    with torch.no_grad():
        trainer.model.classifier.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=when + r".*LEARNING_RATE \(it is 0.001\)"):
        trainer.train()


def test_early_stopping_ends_the_run_with_the_best_epoch(tiny_bert, encoded, tokenizer, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("transformers.trainer_callback.logger.warning", warnings.append)
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, epochs=30, early_stopping=2, learning_rate=5e-3)
    trainer.train()
    history = training.history(trainer)
    assert len(history) < 30
    assert warnings == []  # of training rows, which are evaluated too, but not what stops a run
    final = TASKS["classification"].compute_metrics(None)(trainer.predict(encoded["validation"]))
    assert final["log_loss"] == pytest.approx(history.validation_loss.min(), abs=1e-5)


def test_overrides_reach_the_training_arguments(tmp_path):
    args = helpers.arguments(tmp_path, weight_decay=0.3, lr_scheduler_type="cosine")
    assert (args.weight_decay, args.lr_scheduler_type) == (0.3, "cosine")
    assert args.seed == 0


def test_precision_follows_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for multiplies, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(training, "multiplies_bf16", lambda m=multiplies: m)
        assert training.resolve_precision("auto") == expected
        assert training.resolve_precision("fp32") == "fp32"
    with pytest.raises(ParameterError, match="needs a GPU"):
        training.resolve_precision("fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, n=native: n)
        assert training.resolve_precision("auto") == expected


def test_bf16_changes_a_prediction_by_rounding_only(tiny_bert, encoded, tokenizer, tmp_path):
    full, half = (
        make(tiny_bert, encoded, tokenizer, tmp_path, precision=precision).predict(encoded["test"])
        for precision in ("fp32", "bf16")
    )
    np.testing.assert_allclose(full.predictions, half.predictions, atol=0.02)
    assert isinstance(training.history(make(tiny_bert, encoded, tokenizer, tmp_path)), pd.DataFrame)


def test_the_balanced_loss_weighs_rows_as_scikit_learn_does():
    labels = [0] * 30 + [1] * 10 + [2] * 5
    logits = torch.randn(45, 3, generator=torch.Generator().manual_seed(0))
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor(labels), weight=torch.tensor(weights, dtype=torch.float32)
    )
    loss = weighted_loss(weights_of("balanced", labels, range(3)))(
        SequenceClassifierOutput(logits=logits), torch.tensor(labels)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_balanced_loss_is_right_under_accumulation(tiny_bert, encoded, tokenizer, tmp_path):
    balanced = weighted_loss([0.6, 3.0])
    losses = []
    for batch, accumulation in ((16, 1), (4, 4)):
        trainer = make(
            *(tiny_bert, encoded, tokenizer, tmp_path),
            **{"batch_size": batch, "gradient_accumulation": accumulation, "loss": balanced, "logging_steps": 1},
        )
        trainer.model.config.hidden_dropout_prob = 0.0
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 6
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)


def test_the_table_in_notebooks_gets_scores_and_the_history_keeps_the_seconds(tiny_bert, encoded, tokenizer, tmp_path):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, epochs=1)
    shown = []

    class Table(training.TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            shown.append(set(metrics))

    trainer.add_callback(Table())  # after our own, as Trainer's progress table is
    trainer.train()
    assert shown
    assert not [name for names in shown for name in names if "runtime" in name or "per_second" in name]
    assert any("eval_validation_runtime" in entry for entry in trainer.state.log_history)


# --- trackers ----------------------------------------------------------------------------------------------


def scalars(folder):
    """Return what TensorBoard shows of a training: (name, step) -> value."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {(name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)}


def test_tensorboard_holds_the_history_a_folder_each_training(tiny_bert, encoded, tokenizer, tmp_path):
    for output in ("first", "second"):
        args = {"report_to": "tensorboard", "logging_steps": 1, "seed": len(output)}
        trainer = make(tiny_bert, encoded, tokenizer, tmp_path / output / "checkpoints", **args)
        assert trainer.args.run_name == output
        trainer.train()
        (folder,) = (tmp_path / output / "checkpoints/runs").iterdir()
        logged = {
            (name.replace("eval_", "eval/", 1) if name.startswith("eval_") else f"train/{name}", entry["step"]): value
            for entry in trainer.state.log_history
            for name, value in entry.items()
            if name != "step"
        }
        assert {("train/loss", 1), ("eval/validation_loss", 6), ("eval/validation_accuracy", 3)} <= logged.keys()
        assert scalars(folder) == pytest.approx(logged, rel=1e-5)


def test_without_trackers_none_is_imported(tiny_bert, encoded, tokenizer, tmp_path, monkeypatch):
    def imported():
        return [name for name in sys.modules if name.split(".")[0] in TRACKERS]

    for name in imported():
        monkeypatch.delitem(sys.modules, name)
    environment = dict(os.environ)
    make(tiny_bert, encoded, tokenizer, tmp_path, epochs=1).train()
    assert imported() == []
    assert dict(os.environ) == environment
    assert not (tmp_path / "runs").exists()
    found = "import sys, bert_helpers.cli.commands; print({name.split('.')[0] for name in sys.modules} & set(sys.argv))"
    assert subprocess.check_output([sys.executable, "-c", found, *TRACKERS], text=True) == "set()\n"


def test_trackers_with_stores_of_their_own_keep_them_below_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parameters, "trackers", lambda names: names.split(","))  # they are not installed
    monkeypatch.setattr(os, "environ", {"TRACKIO_DIR": "mine"})
    args = helpers.arguments(Path("results/a/b/checkpoints"), report_to="mlflow,trackio,wandb")
    assert args.report_to == ["mlflow", "trackio", "wandb"]
    assert trackers.run_name(Path("results/a/b/checkpoints")) == "a/b"
    store = tmp_path / "results"
    stores = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db", "TRACKIO_DIR": "mine", "WANDB_DIR": str(store)}
    assert os.environ == stores
