"""Predictions of a fine-tuned model for new texts: from rows without labels to a table in the same order."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from bert_helpers import files, models, records, runs, training
from bert_helpers.errors import ModelError
from bert_helpers.tasks import base
from bert_helpers.tasks.registry import TASKS


@dataclass(frozen=True)
class Predictor:
    """A fine-tuned model, and the parameters by which its run read and encoded texts."""

    task: str  # a key of `tasks.registry.TASKS`
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parameters: Mapping[str, object]  # those of its run, or MAX_LENGTH and STRIDE

    @property
    def columns(self) -> dict[str, str]:
        """The name of each field's column in the data of its run: field "text" in a column "message"."""
        return TASKS[self.task].columns(self.parameters)


def load(folder: Path) -> Predictor:
    """Load the model in a run's folder, or in a folder of its own; the run's record has the parameters of its encoding.

    Without a record, texts are read as far as the model has positions, and windows share a quarter of that. Raises
    ModelError if there is no fine-tuned encoder of one of the tasks, DataError if the record is broken.
    """
    if not folder.is_dir():
        raise ModelError("no such folder", source=str(folder), fix="name that of a run or of a fine-tuned model")
    files.finish_replacing(folder)
    folder = (folder / "model" if (folder / "model").is_dir() else folder).resolve()
    task = runs.task_of(folder)
    model = models.load_trained(str(folder), TASKS[task].model_class)
    tokenizer = models.load_tokenizer(str(folder))
    limit = tokenizer.model_max_length
    parameters = {"MAX_LENGTH": limit, "STRIDE": limit // 4}
    if folder.name == "model" and records.find(folder.parent):
        parameters |= records.read(folder.parent).of_task(task, TASKS[task].prefix).parameters
    return Predictor(task, model, tokenizer, parameters)


def predict(
    predictor: Predictor, rows: Dataset, *, precision: str = "auto", batch_size: int = 16, show_progress: bool = False
) -> pd.DataFrame:
    """Return one row for each of `rows`, in their order: the fields, and the model's prediction.

    classification: `label`, `probability`, and `probability_…` of each class, by softmax; multilabel: `labels`, the
    names of those that reach their threshold, and `probability_…` of each, by sigmoid; regression: `score` in the units
    of the training data; ner: lists `tokens` and `tags`, and of texts `entities` (start, end, type and text of each);
    qa: `answer` ("" for none), `start`, `end` (characters of the context, `end` exclusive), `score` as in
    `qa.best_answers`, and `null_score_difference` if a question may have no answer.

    Predictions are computed as in evaluations: by `Trainer.predict` on the task's encoding, by default in the machine's
    best precision. It needs labels, so each row gets a meaningless one, and nothing computed from it is kept. Texts are
    split into words for entities as WORDS says, by default as the tokenizer does.
    """
    task = TASKS[predictor.task]
    how = base.options(task.with_fields, predictor.parameters)
    rows = task.with_fields(rows, predictor.tokenizer, **how)
    labelled = Dataset.from_dict({**rows.to_dict(), **task.placeholders(rows, predictor.model.config)})
    options = base.options(task.encode, predictor.parameters)
    encoded = task.encode(DatasetDict(rows=labelled), predictor.tokenizer, **options)["rows"]
    with tempfile.TemporaryDirectory() as scratch:
        machine = {**training.for_this_machine(precision=precision), "eval_strategy": "no"}
        args = TrainingArguments(
            scratch, per_device_eval_batch_size=2 * batch_size, disable_tqdm=not show_progress, **machine
        )
        collator = task.collator(predictor.tokenizer)
        trainer = training.Trainer(predictor.model, args, collator, processing_class=predictor.tokenizer)
        output = trainer.predict(encoded)
    return pd.DataFrame({**rows.to_dict(), **task.table(output, encoded, rows, predictor.model.config)})
