"""A whole classification run from notebook parameters, and its diagnosis: in memory, or from the folder it left.

For comparing many runs, as notebook 2 does; notebook 1 shows the steps one by one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import BertTokenizerFast, Trainer

from bert_helpers import checks_data, checks_model, checks_run, data, models, training
from bert_helpers.diagnosis import Finding, ranked
from bert_helpers.errors import DataError

DEFAULTS = {"GRADIENT_ACCUMULATION": 1, "EARLY_STOPPING": 0, "WEIGHT_DECAY": 0.01, "LABEL_SMOOTHING": 0.0,
            "DROPOUT": 0.1, "TRUNCATION": "head", "PRECISION": "auto", "SEED": 0}  # fmt: skip
FILES = ("metrics.json", "history.json", "predictions.csv")


@dataclass(frozen=True)
class Run:
    """What was trained on what, and what came out; the last four are empty until it has trained."""

    parameters: Mapping[str, object]
    dataset: DatasetDict
    encoded: DatasetDict
    tokenizer: BertTokenizerFast
    trainer: Trainer
    log_history: list[dict[str, float]]
    history: pd.DataFrame | None = None
    validation: np.ndarray | None = None  # logits (rows, classes) of the validation rows
    logits: np.ndarray | None = None  # of the test rows


def prepare(dataset: DatasetDict, parameters: Mapping[str, object]) -> Run:
    """Encoded splits and a fresh `Trainer`; `parameters` are notebook 1's, and may have those of a fix.

    That is, WEIGHT_DECAY, LABEL_SMOOTHING, DROPOUT and TRUNCATION as well; names it does not know are not used.
    """
    p = {**DEFAULTS, **parameters}
    tokenizer, names = models.load_tokenizer(p["MODEL"]), dataset["train"].features["label"].names
    task = training.TASKS["classification"]
    encoded = task.encode(dataset, tokenizer, max_length=p["MAX_LENGTH"], keep=p["TRUNCATION"])
    fields = {"num_labels": len(names), "id2label": dict(enumerate(names)), "hidden_dropout_prob": p["DROPOUT"]}
    model = models.load_model(p["MODEL"], task.model_class, seed=p["SEED"], **fields)
    args = training.training_arguments(
        Path(p["OUTPUT_DIR"]) / "checkpoints",
        epochs=p["EPOCHS"],
        batch_size=p["BATCH_SIZE"],
        gradient_accumulation=p["GRADIENT_ACCUMULATION"],
        learning_rate=p["LEARNING_RATE"],
        precision=p["PRECISION"],
        early_stopping=p["EARLY_STOPPING"],
        seed=p["SEED"],
        weight_decay=p["WEIGHT_DECAY"],
        label_smoothing_factor=p["LABEL_SMOOTHING"],
        disable_tqdm=True,
    )
    trainer = training.make_trainer(
        model, args, encoded, task="classification", tokenizer=tokenizer, early_stopping=p["EARLY_STOPPING"]
    )
    return Run(p, dataset, encoded, tokenizer, trainer, trainer.state.log_history)


def finish(run: Run, *, test: Dataset | None = None) -> Run:
    """Train it and predict the validation and test rows; `test` takes the place of its own test rows."""
    run.trainer.train()
    held_out = run.encoded["test"] if test is None else _encode(run, test)
    return replace(
        run,
        log_history=run.trainer.state.log_history,
        history=training.history(run.trainer),
        validation=training.predict(run.trainer, run.encoded["validation"]).predictions,
        logits=training.predict(run.trainer, held_out).predictions,
    )


def _encode(run: Run, rows: Dataset) -> Dataset:
    options = {"max_length": run.parameters["MAX_LENGTH"], "keep": run.parameters["TRUNCATION"]}
    return training.TASKS["classification"].encode(DatasetDict(test=rows), run.tokenizer, **options)["test"]


def diagnose(run: Run, *, rate: float | None = None) -> list[Finding]:
    """Findings in the data, the tokens and the finished run; `rate` is `checks_run.matrix_product_rate`'s, or None."""
    labels = np.asarray(run.dataset["validation"]["label"])
    return _diagnose(run.dataset, run.encoded, run.tokenizer, run.parameters, run.log_history, run.history,
                     run.validation, labels, checks_run.weight_size(run.trainer.model), rate)  # fmt: skip


def diagnose_folder(folder: Path, *, source: str | None = None, rate: float | None = None) -> list[Finding]:
    """Findings in a run that notebook 1 left in `folder`; `source` says where its data lies, if not where it did.

    Raises DataError when a file is missing, or it is the run of another task.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder.name}: no {missing[0]}; a classification run has {', '.join(FILES)}, and model/.")
    p = {**DEFAULTS, **json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["parameters"]}
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    sizes = {name: p[name.upper()] for name in ("train_size", "validation_size", "test_size")}
    columns = {"text_column": p["TEXT_COLUMN"], "label_column": p["LABEL_COLUMN"]}
    dataset = data.load_classification(source or p["DATA"], **columns, **sizes, seed=p["SEED"])
    names = dataset["train"].features["label"].names
    rows = pd.read_csv(folder / "predictions.csv", keep_default_na=False, dtype={"label": str})
    rows = rows[rows.split == "validation"]
    if rows.label.tolist() != [names[label] for label in dataset["validation"]["label"]]:
        raise DataError(f"{folder.name}: predictions.csv is not of these validation rows; say where the data lies.")
    model = str(folder / "model")
    tokenizer, task = models.load_tokenizer(model), training.TASKS["classification"]
    encoded = task.encode(dataset, tokenizer, max_length=p["MAX_LENGTH"], keep=p["TRUNCATION"])
    logits, labels = rows[[f"logit_{name}" for name in names]].to_numpy(), dataset["validation"]["label"]
    weight = checks_run.weight_size(models.load_trained(model, task.model_class))
    return _diagnose(dataset, encoded, tokenizer, p, history, training.history_table(history),
                     logits, np.asarray(labels), weight, rate)  # fmt: skip


def _diagnose(
    dataset: DatasetDict,
    encoded: DatasetDict,
    tokenizer: BertTokenizerFast,
    parameters: Mapping[str, object],
    log_history: list[dict[str, float]],
    history: pd.DataFrame,
    logits: np.ndarray,
    labels: np.ndarray,
    weight: float,
    rate: float | None,
) -> list[Finding]:
    task, chance = "classification", checks_model.chance_loss(encoded["train"], task="classification")
    options = {"difference": parameters.get("DIFFERENCE"), "seed": parameters["SEED"]}
    return ranked(
        [
            *checks_data.check_dataset(dataset, task=task, **options),
            *checks_model.check_tokens(dataset, encoded, tokenizer, task=task, batch_size=parameters["BATCH_SIZE"]),
            *checks_run.check_run(
                log_history,
                history,
                chance=chance,
                learning_rate=parameters["LEARNING_RATE"],
                weight=weight,
                logits=logits,
                labels=labels,
                rate=rate,
            ),
        ]
    )
