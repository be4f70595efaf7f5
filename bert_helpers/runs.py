"""A whole classification run from notebook parameters, and its diagnosis: in memory, or from the folder it left.

For comparing many runs, as notebook 2 does; notebook 1 shows the steps one by one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import DatasetDict
from transformers import BertTokenizerFast, Trainer

from bert_helpers import checkpoints, checks_data, checks_model, checks_run, data, models, repairs, results, training
from bert_helpers.diagnosis import Finding, changed, ranked
from bert_helpers.errors import DataError, ParameterError

DEFAULTS = {"GRADIENT_ACCUMULATION": 1, "EARLY_STOPPING": 0, "WEIGHT_DECAY": 0.01, "LABEL_SMOOTHING": 0.0,
            "DROPOUT": 0.1, "TRUNCATION": "head", "PRECISION": "auto", "DATALOADER_WORKERS": 0, "SEED": 0}  # fmt: skip
TRAINING = ("EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "MAX_LENGTH", *DEFAULTS)  # parameters that training depends on
FILES = ("metrics.json", "history.json", "predictions.csv")


@dataclass(frozen=True)
class Run:
    """What was trained on what, and what came out; the last three are empty until it has trained."""

    parameters: Mapping[str, object]
    dataset: DatasetDict
    encoded: DatasetDict
    tokenizer: BertTokenizerFast
    weight: float  # typical size of a weight, `checks_run.weight_size`
    trainer: Trainer | None  # None: the run was read from its folder
    log_history: list[dict[str, float]]
    history: pd.DataFrame | None = None
    validation: np.ndarray | None = None  # logits (rows, classes) of the validation rows
    logits: np.ndarray | None = None  # of the test rows


def prepare(dataset: DatasetDict, parameters: Mapping[str, object]) -> Run:
    """Encoded splits and a fresh `Trainer`; `parameters` are notebook 1's, and may have those of a fix.

    Those are WEIGHT_DECAY, LABEL_SMOOTHING, DROPOUT, TRUNCATION and DATALOADER_WORKERS; other names are not used.
    """
    p = {**DEFAULTS, **parameters}
    tokenizer, names = models.load_tokenizer(p["MODEL"]), dataset["train"].features["label"].names
    task = training.TASKS["classification"]
    encoded = task.encode(dataset, tokenizer, max_length=p["MAX_LENGTH"], keep=p["TRUNCATION"])
    fields = {"num_labels": len(names), "id2label": dict(enumerate(names)), "hidden_dropout_prob": p["DROPOUT"]}
    model = models.load_model(p["MODEL"], task.model_class, seed=p["SEED"], **fields)
    args = training.training_arguments(
        results.base_folder() / p["OUTPUT_DIR"] / "checkpoints",
        epochs=p["EPOCHS"],
        batch_size=p["BATCH_SIZE"],
        gradient_accumulation=p["GRADIENT_ACCUMULATION"],
        learning_rate=p["LEARNING_RATE"],
        precision=p["PRECISION"],
        early_stopping=p["EARLY_STOPPING"],
        seed=p["SEED"],
        weight_decay=p["WEIGHT_DECAY"],
        label_smoothing_factor=p["LABEL_SMOOTHING"],
        dataloader_num_workers=p["DATALOADER_WORKERS"],
        disable_tqdm=True,
    )
    trainer = training.make_trainer(
        model, args, encoded, task="classification", tokenizer=tokenizer, early_stopping=p["EARLY_STOPPING"]
    )
    weight = checks_run.weight_size(model)
    return Run(p, dataset, encoded, tokenizer, weight, trainer, trainer.state.log_history)


def finish(run: Run) -> Run:
    """Train it, and predict the validation and test rows."""
    checkpoints.train(run.trainer)
    return replace(
        run,
        log_history=run.trainer.state.log_history,
        history=training.history(run.trainer),
        validation=training.predict(run.trainer, run.encoded["validation"]).predictions,
        logits=training.predict(run.trainer, run.encoded["test"]).predictions,
    )


def retrain(run: Run, fix: Mapping[str, object]) -> Run:
    """The run again with a finding's `fix`, on mended training rows and with changed parameters; same test rows.

    Raises ParameterError for a fix that a new training does not prove (`retrainable`).
    """
    if not retrainable(fix):
        names = ", ".join(fix) or "nothing"
        raise ParameterError(f"the fix changes {names}: no new training on the same test rows can show what it does.")
    dataset = repairs.mend(run.dataset, fix, seed=run.parameters["SEED"])
    folder = f"{run.parameters['OUTPUT_DIR']}/retrained"  # the run's own checkpoints stay
    return finish(prepare(dataset, {**changed(run.parameters, fix), "OUTPUT_DIR": folder}))


def retrainable(fix: Mapping[str, object]) -> bool:
    """Whether a fix changes training rows or how they are trained on, and leaves the test rows as they are."""
    known = {name.removesuffix("_FACTOR") for name in fix} & {*TRAINING, *repairs.ACTIONS}
    return bool(known) and "redraw_splits" not in fix


def read(folder: Path, *, source: str = "", model: str = "") -> Run:
    """The finished run that notebook 1 left in `folder`.

    `source` and `model` say where its data and the model that it started from lie, if not where they did. (A record
    keeps only the last part of an absolute path.)

    Raises DataError when a file is missing, it is the run of another task, or the data is not what it was.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder.name}: no {missing[0]}; a classification run has {', '.join(FILES)}, and model/.")
    p = {**DEFAULTS, **json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["parameters"]}
    p |= {"MODEL": model or p["MODEL"], "DATA": source or p["DATA"]}
    log_history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    sizes = {name: p[name.upper()] for name in ("train_size", "validation_size", "test_size")}
    columns = {"text_column": p["TEXT_COLUMN"], "label_column": p["LABEL_COLUMN"]}
    dataset = data.load_classification(results.resolve(p["DATA"]), **columns, **sizes, seed=p["SEED"])
    logits = _read_logits(folder, dataset)
    trained, task = str(folder / "model"), training.TASKS["classification"]
    tokenizer = models.load_tokenizer(trained)
    encoded = task.encode(dataset, tokenizer, max_length=p["MAX_LENGTH"], keep=p["TRUNCATION"])
    weight = checks_run.weight_size(models.load_trained(trained, task.model_class))
    return Run(p, dataset, encoded, tokenizer, weight, None, log_history, training.history_table(log_history),
               logits["validation"], logits["test"])  # fmt: skip


def _read_logits(folder: Path, dataset: DatasetDict) -> dict[str, np.ndarray]:
    names = dataset["train"].features["label"].names
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False, dtype={"label": str, "predicted": str})
    logits = {}
    for split in ("validation", "test"):
        rows = table[table.split == split]
        if rows.label.tolist() != [names[label] for label in dataset[split]["label"]]:
            raise DataError(
                f"{folder.name}: predictions.csv is not of these {split} rows; say where the run's data lies."
            )
        logits[split] = rows[[f"logit_{name}" for name in names]].to_numpy()
    return logits


def diagnose(run: Run, *, rate: float | None = None) -> list[Finding]:
    """Findings in data, tokens and the finished run; `rate` is `checks_run.matrix_product_rate`'s, None: not judged."""
    task, p, history = "classification", run.parameters, run.history
    if p["EARLY_STOPPING"]:  # the model is that of the best epoch
        history = history.loc[: history.validation_loss.idxmin()]
    return ranked(
        [
            *checks_data.check_dataset(run.dataset, task=task, difference=p.get("DIFFERENCE"), seed=p["SEED"]),
            *checks_model.check_tokens(run.dataset, run.encoded, run.tokenizer, task=task, batch_size=p["BATCH_SIZE"]),
            *checks_run.check_run(
                run.log_history,
                history,
                chance=checks_model.chance_loss(run.encoded["train"], task=task),
                learning_rate=p["LEARNING_RATE"],
                weight=run.weight,
                logits=run.validation,
                labels=np.asarray(run.dataset["validation"]["label"]),
                rate=rate,
            ),
        ]
    )
