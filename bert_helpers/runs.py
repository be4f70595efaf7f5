"""A whole run of any task from notebook parameters: in memory, or from the folder it left.

For comparing many runs, as notebook 2 does, and for the command line; notebooks 1, 3 and 4 show the steps one by one.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import DatasetDict
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_utils import PredictionOutput

from bert_helpers import files, models, records, training
from bert_helpers.data import fingerprint
from bert_helpers.errors import DataError, ModelError, ParameterError
from bert_helpers.evaluation import comparison, limits
from bert_helpers.machine import checkpoints, kernels
from bert_helpers.metrics import Measure
from bert_helpers.parameters import PARAMETERS, check, of_training
from bert_helpers.records import Record
from bert_helpers.tasks import base
from bert_helpers.tasks.registry import TASKS

FILES = ("history.json", "model/model.safetensors")
# What decides, beside data and environment, which model a training ends with
RECIPE = ("MODEL", "EPOCHS", "BATCH_SIZE", "GRADIENT_ACCUMULATION", "LEARNING_RATE", "MAX_LENGTH", "EARLY_STOPPING",
          "WEIGHT_DECAY", "LABEL_SMOOTHING", "CLASS_WEIGHTS", "POSITIVE_WEIGHTS", "THRESHOLDS",
          "DROPOUT", "TRUNCATION", "SEED")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What was trained on what, and what came out; predictions are made when they are first asked for."""

    task: str  # a key of `tasks.registry.TASKS`
    parameters: Mapping[str, object]
    dataset: DatasetDict
    encoded: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    trainer: Trainer
    log_history: list[dict[str, float]]
    history: pd.DataFrame | None = None  # None: it has not trained

    @cached_property
    def validation(self) -> PredictionOutput:
        """Of the validation rows, by the trained model."""
        return self.trainer.predict(self.encoded["validation"])

    @cached_property
    def test(self) -> PredictionOutput:
        """Of the test rows, by the trained model."""
        return self.trainer.predict(self.encoded["test"])

    def predictions_and_references(self) -> tuple[Sequence, Sequence]:
        """Return those of the test rows, as the task's measure takes them: logits, numbers, tags, answers."""
        rows, config = self.dataset["test"], self.trainer.model.config
        return TASKS[self.task].predictions_and_references(self.test, self.encoded["test"], rows, config)

    def measure(self) -> Measure:
        """Measure the predictions for the test rows."""
        return TASKS[self.task].measure(*self.predictions_and_references(), self.dataset["test"])


def prepare(dataset: DatasetDict, parameters: Mapping[str, object], *, task: str = "classification") -> Run:
    """Encoded splits and a fresh `Trainer`; `parameters` are a notebook's, and may have those of a fix.

    Those are WEIGHT_DECAY, LABEL_SMOOTHING, DROPOUT, TRUNCATION and DATALOADER_WORKERS; other names are not used.
    """
    p, spec = _complete(task, parameters), TASKS[task]
    tokenizer = models.load_tokenizer(p["MODEL"], words=spec.reads_words)
    encoded = spec.encode(dataset, tokenizer, **base.options(spec.encode, p))
    options = base.options(spec.model_fields, p)
    fields = {**spec.model_fields(dataset["train"], **options), **models.dropout_field(p["MODEL"], p["DROPOUT"])}
    model = models.load_model(p["MODEL"], spec.model_class, seed=p["SEED"], **fields)
    models.fit_embeddings(model, tokenizer)
    trainer = make_trainer(task, model, encoded, tokenizer, p, output_folder(p["OUTPUT_DIR"]) / "checkpoints")
    return Run(task, p, dataset, encoded, tokenizer, trainer, trainer.state.log_history)


def output_folder(path: str) -> Path:
    """Return OUTPUT_DIR as a folder, once it is known that a run can be saved there.

    Raises ParameterError when it cannot be written, or has files that no run wrote in the places of a run's.
    """
    folder = files.check_writable(files.base_folder() / path)
    names = (*FILES, records.NAME, "predictions.csv", "predictions.json", "model/README.md", "model/config.json")
    files.check_replaceable(folder, names, ours=records.written_by_run(folder))
    return folder


def _complete(task: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters with the table's defaults for those that a notebook or an old record does not have."""
    return {**of_training(task), **given}


def make_trainer(
    task: str,
    model: PreTrainedModel,
    encoded: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    parameters: Mapping[str, object],
    folder: Path,
    **arguments: object,
) -> Trainer:
    """Return a `training.Trainer` over the splits `train` and `validation`, as notebook parameters say.

    Its checkpoints go to `folder`; `arguments` are more of `TrainingArguments`, or others.

    Raises ParameterError for a precision or tracker that cannot be used here.
    """
    p, spec = _complete(task, parameters), TASKS[task]
    machine = {"precision": p["PRECISION"], "report_to": p["REPORT_TO"], "early_stopping": p["EARLY_STOPPING"]}
    recipe = {
        "num_train_epochs": p["EPOCHS"],
        "per_device_train_batch_size": p["BATCH_SIZE"],
        "per_device_eval_batch_size": 2 * p["BATCH_SIZE"],
        "gradient_accumulation_steps": p["GRADIENT_ACCUMULATION"],
        "learning_rate": p["LEARNING_RATE"],
        "warmup_steps": 0.1,
        "weight_decay": p["WEIGHT_DECAY"],
        "label_smoothing_factor": p.get("LABEL_SMOOTHING", 0.0),
        "dataloader_num_workers": p["DATALOADER_WORKERS"],
        "seed": p["SEED"],
        "logging_steps": 10,
        "disable_tqdm": True,
    }
    args = TrainingArguments(str(folder), **{**recipe, **training.for_this_machine(**machine), **arguments})
    return training.Trainer(
        model=model,
        args=args,
        data_collator=spec.collator(tokenizer),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        compute_metrics=spec.compute_metrics(model.config),
        compute_loss_func=spec.loss(encoded["train"], model.config, **base.options(spec.loss, p)),
        callbacks=[training.StopEarly(p["EARLY_STOPPING"])] if p["EARLY_STOPPING"] else None,
    )


def finish(run: Run, *, saved_later: bool = False) -> Run:
    """Train it, predict the validation and test rows, and fit on the former what the task fits, such as a threshold.

    With `saved_later` the trained model stays on disk until `save` has run, for a restart after a crash in between.
    """
    run.trainer.train()
    if not saved_later:
        checkpoints.discard(run.trainer)
    done = replace(run, log_history=run.trainer.state.log_history, history=training.history(run.trainer))
    _ = done.validation, done.test
    spec, config, validation = TASKS[run.task], done.trainer.model.config, run.encoded["validation"]
    options = base.options(spec.fitted_fields, run.parameters)
    config.update(spec.fitted_fields(done.validation, validation, run.dataset["validation"], config, **options))
    training.gather(done.trainer, spec.model_class)
    # Adam keeps two numbers a weight; of many runs in memory only the models are needed.
    done.trainer.optimizer = done.trainer.lr_scheduler = None
    return done


def compare(first: Run, second: Run, *, names: tuple[str, str] = ("before", "after")) -> comparison.Comparison:
    """`comparison.compare` of two runs of one task on the test rows, which must be the same.

    Raises DataError when they are not.
    """
    if first.task != second.task:
        raise DataError(f"{names[0]} is a run of {first.task}, {names[1]} of {second.task}.")
    tested = [fingerprint(DatasetDict(test=run.dataset["test"])) for run in (first, second)]
    if tested[0] != tested[1]:
        raise DataError(f"{names[0]} and {names[1]} were tested on different rows; nothing can be compared.")
    return comparison.compare(first.measure(), second.measure(), names=names, seed=first.parameters["SEED"])


def scores(run: Run) -> pd.DataFrame:
    """The task's metrics (rows) of the test rows with `value`, `low`, `high`: 95% intervals, as in notebooks 3 and 4.

    Entities also by type ("PER/f1").
    """
    return _scores(run, *run.predictions_and_references())


def _scores(run: Run, predictions: Sequence, references: Sequence) -> pd.DataFrame:
    task, seed = TASKS[run.task], run.parameters["SEED"]
    table = task.measure(predictions, references, run.dataset["test"]).intervals(seed=seed)
    parts = task.parts(predictions, references, seed)
    return table if parts is None else pd.concat([table, parts])


def save(
    run: Run,
    folder: Path,
    *,
    findings: Sequence[Mapping[str, object]] | None = None,
    more: pd.DataFrame | None = None,
    publish: Callable[[Path, Record], Path] = records.write,
) -> pd.DataFrame:
    """Write a finished run as the notebooks do: model/, history.json, predictions and metrics.json, all or none.

    What its training left for a restart is removed then. The record has the `findings` of its diagnosis, if there was
    one (`findings.summary`), and `more` metrics (rows with `value`, `low`, `high`), such as those on text of another
    kind. `publish` writes it, with a model card where it is `cards.publish`. A regressor's scale moves into its weights
    first. Returns `scores`. Raises ParameterError when `folder` cannot be written.
    """
    spec, p, model = TASKS[run.task], run.parameters, run.trainer.model
    predictions, references = run.predictions_and_references()
    table = _scores(run, predictions, references)
    model = spec.finish_model(model)
    train = next((entry["train_runtime"] for entry in reversed(run.log_history) if "train_runtime" in entry), 0.0)
    record = records.make(
        tasks=[run.task],
        metrics=table if more is None else pd.concat([table, more]),
        parameters=dict(p),
        data=records.describe_data(p["DATA"], run.dataset),
        model=p["MODEL"],
        precision=training.resolve_precision(p["PRECISION"]),
        seed=p["SEED"],
        seconds={"train": train, "evaluate": run.test.metrics["test_runtime"]},
        limits={run.task: _limits(run, table)},
        findings=findings,
        training=run.trainer.identity,
        kernels=kernels.used(model),
    )
    with records.new_run(folder) as new:
        models.save_model(model, run.tokenizer, new / "model")
        files.write_json(new / "history.json", run.log_history)
        spec.save_predictions(new, predictions, run.dataset, {"validation": run.validation, "test": run.test})
        publish(new, record)
    checkpoints.discard(run.trainer)
    return table


def _limits(run: Run, table: pd.DataFrame) -> dict[str, dict]:
    """Measure what the model card says besides the metrics."""
    seed = run.parameters["SEED"]
    if run.measure().correct is not None:
        classes = list(run.trainer.model.config.id2label.values())
        outputs = {"validation": run.validation, "test": run.test}
        return limits.of_classifier(outputs, classes, seed=seed)
    worst = limits.of_parts(table[["/" in name for name in table.index]])
    sides = [TASKS[run.task].class_logits(output) for output in (run.validation, run.test)]
    if sides[0] is None or np.ndim(sides[0][0]) > 2:  # no classes, or those of words
        return worst
    rows = len(run.dataset["validation"])
    return {"calibration": {**limits.calibration_of(*sides, seed=seed), "rows": rows}, **worst}


def read(folder: Path, *, source: str = "", model: str = "") -> Run:
    """The finished run that a notebook left in `folder`: model, history.json, and metrics.json there or one level up.

    `source` and `model` say where its data and the model that it started from lie, if not where they did: data is
    looked for in `records.data_places`; of a model a record keeps only the last part of an absolute path.

    Nothing is written: the trainer's folder is gone when this returns.

    Raises DataError when a file is missing or broken, or the data is not what it was; ModelError for a model of no
    task.
    """
    records.check_run(folder)
    log_history = records.read_history(folder / "history.json")
    if not log_history:
        raise DataError("its history.json is empty: the model was not trained by that run", source=folder.name)
    task = task_of(folder / "model")
    spec = TASKS[task]
    record = records.read(folder).of_task(task, spec.prefix)
    if not {"MODEL", "OUTPUT_DIR"} <= record.parameters.keys():
        raise DataError("its metrics.json is not the record of a training", source=folder.name)
    p = _complete(task, record.parameters)
    # The record may come from anywhere: it decides neither where to write nor how many processes start. And what is
    # read is nobody's experiment.
    p |= {"MODEL": model or p["MODEL"], "REPORT_TO": "none", "DATALOADER_WORKERS": 0}
    places = [source] if source else records.data_places(folder, task, p)
    p["OUTPUT_DIR"] = os.path.relpath(folder, files.base_folder())
    p = _checked(p, spec, folder)
    dataset = _load_again(folder, spec, p, places, record)
    tokenizer = models.load_tokenizer(str(folder / "model"))
    encoded = spec.encode(dataset, tokenizer, **base.options(spec.encode, p))
    trained = models.load_trained(str(folder / "model"), spec.model_class)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(task, trained, encoded, tokenizer, p, Path(scratch))
    history = records.history_table(log_history)
    return Run(task, p, dataset, encoded, tokenizer, trainer, log_history, history)


def _load_again(
    folder: Path, task: base.Task, parameters: dict[str, object], places: Sequence[str], record: Record
) -> DatasetDict:
    """Load a run's data from the first of `places` that holds its rows, which becomes DATA. Raises DataError."""
    known, errors = record.data.get("fingerprint") or "unknown", []
    for place in places:
        try:
            # Texts are split into words by its own tokenizer, which is here, not by that of the model it started from.
            options = base.options(task.load, {**parameters, "MODEL": str(folder / "model")})
            dataset = task.load(files.resolve(place), **options)
        except DataError as error:
            errors.append(DataError(f"{folder.name}: {error} {records.ASK}"))
            continue
        if (found := fingerprint(dataset)) == known:
            parameters["DATA"] = place
            return dataset
        which = f"their fingerprint is {found[:12]}, that of the run's {known[:12]}"
        errors.append(DataError(f"{folder.name}: {place} does not hold the rows of this run: {which}. {records.ASK}"))
    raise errors[0]


def _checked(values: Mapping[str, object], task: base.Task, folder: Path) -> dict[str, object]:
    """Return parameters of a record, each checked as one that is given is. Raises DataError."""
    try:
        known = of_training(task.name)
        return {name: check(name, value) if name in known else value for name, value in values.items()}
    except ParameterError as error:
        raise DataError(f"its record says that {error.parameter} {error.problem}", source=folder.name) from error


def task_of(model: Path) -> str:
    """The task that a saved model was trained for, by its class; one output makes a sequence classifier a regressor.

    Raises ModelError when it is no fine-tuned encoder.
    """
    config = AutoConfig.from_pretrained(models.locate(str(model)))
    for name, task in TASKS.items():
        if task.fits(config):
            return name
    architecture = (config.architectures or ["model without a head"])[0]
    raise ModelError(f"{model}: a {architecture} is of none of the tasks {', '.join(TASKS)}.")


def reusable(folder: Path, parameters: Mapping[str, object], dataset: DatasetDict) -> str:
    """The model of the run in `folder` where training with `parameters` on `dataset` would end with the same; else "".

    The same are: recipe and seed, every row, precision, device and versions of the libraries. A model named by its
    whole path is not known again.
    """
    try:
        record = records.read(folder)
    except DataError:
        return ""
    defaults = {name: row.default for name, row in PARAMETERS.items()}
    then, now = ({**defaults, **given} for given in (record.parameters, parameters))
    here = records.environment(training.resolve_precision(now["PRECISION"]))
    here["device"] = _device(here["device"])
    same = (
        all(then.get(name) == now.get(name) for name in RECIPE)
        and record.data.get("fingerprint") == fingerprint(dataset)
        and {**record.versions, "device": _device(record.device), "precision": record.precision} == here
        and (folder / "model").is_dir()
    )
    return str(folder / "model") if same else ""


def _device(name: str | None) -> str:
    """Return the device without its number of threads, which decides how fast it is and not what it computes."""
    return (name or "").partition(",")[0]
