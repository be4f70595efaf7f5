"""A whole run of any task from notebook parameters, trained here or read from its folder.

For the comparison of many runs in notebook 2, and for the command line; notebooks 1, 3 and 4 show each step.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

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
# The parameters that, besides data and environment, determine the trained model
RECIPE = ("MODEL", "EPOCHS", "BATCH_SIZE", "GRADIENT_ACCUMULATION", "LEARNING_RATE", "MAX_LENGTH", "EARLY_STOPPING",
          "WEIGHT_DECAY", "LABEL_SMOOTHING", "CLASS_WEIGHTS", "POSITIVE_WEIGHTS", "THRESHOLDS",
          "DROPOUT", "TRUNCATION", "SEED")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A model with its data, training and results; predictions are computed when first needed."""

    task: str  # a key of `tasks.registry.TASKS`
    parameters: Mapping[str, object]
    dataset: DatasetDict
    encoded: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    trainer: Trainer
    log_history: list[dict[str, float]]
    history: pd.DataFrame | None = None  # None: not trained

    @cached_property
    def validation(self) -> PredictionOutput:
        """The trained model's predictions for the validation rows."""
        return self.trainer.predict(self.encoded["validation"])

    @cached_property
    def test(self) -> PredictionOutput:
        """The trained model's predictions for the test rows."""
        return self.trainer.predict(self.encoded["test"])

    def predictions_and_references(self) -> tuple[Sequence, Sequence]:
        """Return those of the test rows as the task's measure needs them: logits, numbers, tags or answers."""
        rows, config = self.dataset["test"], self.trainer.model.config
        return TASKS[self.task].predictions_and_references(self.test, self.encoded["test"], rows, config)

    def measure(self) -> Measure:
        """Measure the predictions for the test rows."""
        return TASKS[self.task].measure(*self.predictions_and_references(), self.dataset["test"])


def prepare(dataset: DatasetDict, parameters: Mapping[str, object], *, task: str = "classification") -> Run:
    """Return a run that is ready to train, with encoded splits and a new `Trainer`.

    `parameters` are those of a notebook; any that are missing have their defaults.
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
    """Return OUTPUT_DIR as a folder in which a run can be saved.

    Raises ParameterError if it cannot be written, or if files that no run wrote are in the way of a run's.
    """
    folder = files.check_writable(files.base_folder() / path)
    names = (*FILES, records.NAME, "predictions.csv", "predictions.json", "model/README.md", "model/config.json")
    files.check_replaceable(folder, names, ours=records.written_by_run(folder))
    return folder


def _complete(task: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters, with defaults for those that a notebook or an old record lacks."""
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
    """Return a `training.Trainer` for the splits `train` and `validation`, set up by notebook parameters.

    Its checkpoints go to `folder`; `arguments` add to, or replace, those of `TrainingArguments`.

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
    """Train, predict the validation and test rows, and fit what the task fits on the former, such as thresholds.

    With `saved_later` the trained model stays on disk until `save`, in case of a crash in between.
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
    # Adam keeps two numbers per weight; of the many runs in memory only the models are needed.
    done.trainer.optimizer = done.trainer.lr_scheduler = None
    return done


def compare(first: Run, second: Run, *, names: tuple[str, str] = ("before", "after")) -> comparison.Comparison:
    """Compare two runs of one task on the same test rows, by `comparison.compare`.

    Raises DataError if tasks or rows differ.
    """
    if first.task != second.task:
        raise DataError(f"{names[0]} is a run of {first.task}, {names[1]} of {second.task}")
    tested = [fingerprint(DatasetDict(test=run.dataset["test"])) for run in (first, second)]
    if tested[0] != tested[1]:
        raise DataError(f"{names[0]} and {names[1]} were tested on different rows; nothing can be compared")
    return comparison.compare(first.measure(), second.measure(), names=names, seed=first.parameters["SEED"])


def scores(run: Run) -> pd.DataFrame:
    """Return the metrics of the test rows with `value`, `low` and `high` (95% intervals), as in notebooks 3 and 4.

    Those of entities also by type ("PER/f1").
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

    The files that its training left for a restart are then removed. The record contains the `findings` of a diagnosis
    (`findings.summary`), if any, and `more` metrics (rows with `value`, `low`, `high`), such as those on another kind
    of text. `publish` writes it; `cards.publish` adds a model card. A regressor's scale is first moved into its
    weights. Returns `scores`. Raises ParameterError if `folder` cannot be written.
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
    """Measure what the model card reports besides the metrics."""
    seed = run.parameters["SEED"]
    if run.measure().correct is not None:
        classes = list(run.trainer.model.config.id2label.values())
        outputs = {"validation": run.validation, "test": run.test}
        return limits.of_classifier(outputs, classes, seed=seed)
    worst = limits.of_parts(table[["/" in name for name in table.index]])
    sides = [TASKS[run.task].class_logits(output) for output in (run.validation, run.test)]
    if sides[0] is None or TASKS[run.task].reads_words:
        return worst
    return {"calibration": limits.calibration_of(*sides, seed=seed), **worst}


def read(folder: Path, *, source: str = "", model: str = "") -> Run:
    """Read the finished run in `folder`: model, history.json, and metrics.json, which may be one level up.

    `source` and `model` give the present place of its data and of the model that it started from. By default data is
    looked for in `records.data_places`; of an absolute path of a model a record keeps only the last part.

    Nothing is written: the trainer's folder is removed before this returns.

    Raises DataError if a file is missing or broken, or if the data has changed; ModelError for a model of no task.
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
    # The record may come from anywhere, so it determines neither where to write nor how many processes to start; and
    # trackers are not for a run that is only read.
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
    """Load a run's data from the first of `places` that holds its rows, and set DATA to it. Raises DataError."""
    known, errors = record.data.get("fingerprint") or "unknown", []
    for place in places:
        try:
            # Texts are split into words by the run's own tokenizer, not by that of the model it started from.
            options = base.options(task.load, {**parameters, "MODEL": str(folder / "model")})
            dataset = task.load(files.resolve(place), **options)
        except DataError as error:
            errors.append(DataError(str(error).removesuffix("."), source=folder.name, fix=records.ASK))
            continue
        if (found := fingerprint(dataset)) == known:
            parameters["DATA"] = place
            return dataset
        which = f"their fingerprint is {found[:12]}, the run's is {known[:12]}"
        problem = f"{place} does not hold the rows of this run: {which}"
        errors.append(DataError(problem, source=folder.name, fix=records.ASK))
    raise errors[0]


def _checked(values: Mapping[str, object], task: base.Task, folder: Path) -> dict[str, object]:
    """Return the parameters of a record, checked like those of a user. Raises DataError."""
    try:
        known = of_training(task.name)
        return {name: check(name, value) if name in known else value for name, value in values.items()}
    except ParameterError as error:
        raise DataError(f"its record says that {error.parameter} {error.problem}", source=folder.name) from error


def task_of(model: Path) -> str:
    """Return the task that a saved model was trained for, as its config shows (`Task.fits`).

    Raises ModelError if it is no fine-tuned encoder.
    """
    config = AutoConfig.from_pretrained(models.locate(str(model)))
    for name, task in TASKS.items():
        if task.fits(config):
            return name
    architecture = (config.architectures or ["model without a head"])[0]
    raise ModelError(f"a {architecture} is of none of the tasks {', '.join(TASKS)}", source=str(model))


def reusable(folder: Path, parameters: Mapping[str, object], dataset: DatasetDict) -> str:
    """Return the model in `folder` if training with `parameters` on `dataset` would end with the same; otherwise "".

    Recipe and seed, every row, precision, device and library versions must be the same. A model that was given by its
    absolute path is not recognized.
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
    """Return the device without its number of threads, which affects its speed but not its results."""
    return (name or "").partition(",")[0]
