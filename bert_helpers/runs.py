"""A whole run of any task from notebook parameters, and its diagnosis: in memory, or from the folder it left.

For comparing many runs, as notebook 2 does; notebooks 1, 3 and 4 show the steps one by one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from datasets import DatasetDict
from transformers import BertConfig, BertPreTrainedModel, BertTokenizerFast, Trainer
from transformers.trainer_utils import PredictionOutput

from bert_helpers import (
    checkpoints,
    checks_data,
    checks_model,
    checks_run,
    comparison,
    models,
    repairs,
    results,
    tasks,
    training,
)
from bert_helpers.data import fingerprint
from bert_helpers.diagnosis import Finding, changed, ranked
from bert_helpers.errors import DataError, ModelError, ParameterError

DEFAULTS = {"GRADIENT_ACCUMULATION": 1, "EARLY_STOPPING": 0, "WEIGHT_DECAY": 0.01, "LABEL_SMOOTHING": 0.0,
            "DROPOUT": 0.1, "TRUNCATION": "head", "PRECISION": "auto", "DATALOADER_WORKERS": 0, "SEED": 0}  # fmt: skip
# Parameters that training depends on
TRAINING = ("EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "MAX_LENGTH", "STRIDE", *DEFAULTS)
FILES = ("history.json", "model")


@dataclass(frozen=True)
class Run:
    """What was trained on what, and what came out; predictions are made when they are first asked for."""

    task: str  # a key of `tasks.TASKS`
    parameters: Mapping[str, object]
    dataset: DatasetDict
    encoded: DatasetDict
    tokenizer: BertTokenizerFast
    weight: float  # typical size of a weight, `checks_run.weight_size`
    trainer: Trainer
    log_history: list[dict[str, float]]
    history: pd.DataFrame | None = None  # None: it has not trained

    @cached_property
    def validation(self) -> PredictionOutput:
        """Of the validation rows, by the trained model."""
        return training.predict(self.trainer, self.encoded["validation"])

    @cached_property
    def test(self) -> PredictionOutput:
        """Of the test rows, by the trained model."""
        return training.predict(self.trainer, self.encoded["test"])

    def judged(self) -> tuple[Sequence, Sequence]:
        """Predictions and truth of the test rows, as the task's metrics take them: logits, numbers, tags, answers."""
        return tasks.TASKS[self.task].judged(self.test, self.encoded["test"], self.dataset["test"])


def prepare(dataset: DatasetDict, parameters: Mapping[str, object], *, task: str = "classification") -> Run:
    """Encoded splits and a fresh `Trainer`; `parameters` are a notebook's, and may have those of a fix.

    Those are WEIGHT_DECAY, LABEL_SMOOTHING, DROPOUT, TRUNCATION and DATALOADER_WORKERS; other names are not used.
    """
    p, spec = {**DEFAULTS, **parameters}, tasks.TASKS[task]
    tokenizer = models.load_tokenizer(p["MODEL"])
    encoded = spec.encode(dataset, tokenizer, **tasks.options(spec.encode, p))
    fields = {**spec.model_fields(dataset["train"]), "hidden_dropout_prob": p["DROPOUT"]}
    model = models.load_model(p["MODEL"], spec.model_class, seed=p["SEED"], **fields)
    trainer = _trainer(model, encoded, tokenizer, p, task)
    return Run(task, p, dataset, encoded, tokenizer, checks_run.weight_size(model), trainer, trainer.state.log_history)


def _trainer(
    model: BertPreTrainedModel,
    encoded: DatasetDict,
    tokenizer: BertTokenizerFast,
    p: Mapping[str, object],
    task: str,
) -> Trainer:
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
    return training.make_trainer(
        model, args, encoded, task=task, tokenizer=tokenizer, early_stopping=p["EARLY_STOPPING"]
    )


def finish(run: Run) -> Run:
    """Train it, and predict the validation and test rows."""
    checkpoints.train(run.trainer)
    done = replace(run, log_history=run.trainer.state.log_history, history=training.history(run.trainer))
    _ = done.validation, done.test
    # Adam keeps two numbers a weight; of many runs in memory only the models are needed.
    done.trainer.optimizer = done.trainer.lr_scheduler = None
    return done


def retrain(run: Run, fix: Mapping[str, object]) -> Run:
    """The run again with a finding's `fix`, on mended training rows and with changed parameters; same test rows.

    Raises ParameterError for a fix that a new training does not prove (`retrainable`).
    """
    if not retrainable(fix):
        names = ", ".join(fix) or "nothing"
        raise ParameterError(f"the fix changes {names}: no new training on the same test rows can show what it does.")
    dataset = repairs.mend(run.dataset, fix, seed=run.parameters["SEED"])
    folder = f"{run.parameters['OUTPUT_DIR']}/retrained"  # the run's own checkpoints stay
    return finish(prepare(dataset, {**changed(run.parameters, fix), "OUTPUT_DIR": folder}, task=run.task))


def retrainable(fix: Mapping[str, object]) -> bool:
    """Whether a fix changes training rows or how they are trained on, and leaves the test rows as they are."""
    known = {name.removesuffix("_FACTOR") for name in fix} & {*TRAINING, *repairs.ACTIONS}
    return bool(known) and "redraw_splits" not in fix


def compare(first: Run, second: Run, *, names: tuple[str, str] = ("before", "after")) -> comparison.Comparison:
    """`comparison.compare` of two runs of one task on the test rows, which must be the same.

    Raises DataError when they are not.
    """
    if first.task != second.task:
        raise DataError(f"{names[0]} is a run of {first.task}, {names[1]} of {second.task}.")
    tested = [fingerprint(DatasetDict(test=run.dataset["test"])) for run in (first, second)]
    if tested[0] != tested[1]:
        raise DataError(f"{names[0]} and {names[1]} were tested on different rows; nothing can be compared.")
    (one, truth), (other, _) = first.judged(), second.judged()
    groups = list(first.dataset["test"]["context"]) if first.task == "qa" else None
    measure, seed = tasks.TASKS[first.task].measure, first.parameters["SEED"]
    return comparison.compare(one, other, truth, measure=measure, groups=groups, names=names, seed=seed)


def read(folder: Path, *, source: str = "", model: str = "") -> Run:
    """The finished run that a notebook left in `folder`: model, history.json, and metrics.json there or one level up.

    `source` and `model` say where its data and the model that it started from lie, if not where they did. (A record
    keeps only the last part of an absolute path.)

    Raises DataError when a file is missing, or the data is not what it was; ModelError for a model of no task.
    """
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise DataError(f"{folder.name}: no {missing[0]}; a run's folder has {', '.join(FILES)} and metrics.json.")
    log_history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    if not log_history:
        raise DataError(f"{folder.name}: its history.json is empty: the model was not trained by that run.")
    task = task_of(folder / "model")
    spec = tasks.TASKS[task]
    recorded, described = _recorded(folder, task)
    p = {**DEFAULTS, **recorded}
    p |= {"MODEL": model or p["MODEL"], "DATA": source or p["DATA"]}
    dataset = spec.load(results.resolve(p["DATA"]), **tasks.options(spec.load, p))
    if fingerprint(dataset) != described["fingerprint"]:
        raise DataError(
            f"{folder.name}: {p['DATA']} does not hold the rows of this run; say where its data lies (RUN_DATA)."
        )
    tokenizer = models.load_tokenizer(str(folder / "model"))
    encoded = spec.encode(dataset, tokenizer, **tasks.options(spec.encode, p))
    trained = models.load_trained(str(folder / "model"), spec.model_class)
    weight, trainer = checks_run.weight_size(trained), _trainer(trained, encoded, tokenizer, p, task)
    history = training.history_table(log_history)
    return Run(task, p, dataset, encoded, tokenizer, weight, trainer, log_history, history)


def task_of(model: Path) -> str:
    """The task that a saved model was trained for, by its class; one output makes a sequence classifier a regressor.

    Raises ModelError when it is no fine-tuned BERT.
    """
    config = BertConfig.from_pretrained(models.locate(str(model)))
    architecture = (config.architectures or ["BERT without a head"])[0]
    for name, task in tasks.TASKS.items():
        if architecture == task.model_class.__name__ and task.numeric == (config.num_labels == 1):
            return name
    raise ModelError(f"{model}: a {architecture} is of none of the tasks {', '.join(tasks.TASKS)}.")


def _recorded(folder: Path, task: str) -> tuple[dict[str, object], dict[str, object]]:
    """Parameters, without the prefix that notebook 3's have, and description of the data, from the record."""
    for path in (folder / "metrics.json", folder.parent / "metrics.json"):
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            if task in record["data"]:  # one record of several tasks
                prefix, others = tasks.TASKS[task].prefix, tuple(t.prefix for t in tasks.TASKS.values() if t.prefix)
                own = {name: value for name, value in record["parameters"].items() if not name.startswith(others)}
                named = {
                    name.removeprefix(prefix): value
                    for name, value in record["parameters"].items()
                    if prefix and name.startswith(prefix)
                }
                return own | named, record["data"][task]
            return record["parameters"], record["data"]
    raise DataError(f"{folder.name}: no metrics.json; a run's folder has {', '.join(FILES)} and metrics.json.")


def diagnose(run: Run, *, rate: float | None = None, memory: float | None = None) -> list[Finding]:
    """Findings in data and tokens, and in the untrained model or the finished run, whichever it is.

    `rate` is `checks_run.matrix_product_rate`'s (None: speed is not judged), `memory` what a step may take in bytes
    (None: what is free).
    """
    p, task = run.parameters, run.task
    findings = [
        *checks_data.check_dataset(run.dataset, task=task, difference=p.get("DIFFERENCE"), seed=p["SEED"]),
        *checks_model.check_tokens(run.dataset, run.encoded, run.tokenizer, task=task, batch_size=p["BATCH_SIZE"]),
    ]
    if run.history is None:
        return ranked(findings + checks_model.check_model(run.trainer, task=task, memory=memory, seed=p["SEED"]))
    history = run.history
    if p["EARLY_STOPPING"]:  # the model is that of the best epoch
        history = history.loc[: history.validation_loss.idxmin()]
    certain = task in ("classification", "ner")  # the tasks whose logits are of classes
    return ranked(
        findings
        + checks_run.check_run(
            run.log_history,
            history,
            chance=checks_model.chance_loss(run.encoded["train"], task=task),
            learning_rate=p["LEARNING_RATE"],
            weight=run.weight,
            logits=run.validation.predictions if certain else None,
            labels=run.validation.label_ids if certain else None,
            rate=rate,
        )
    )
