"""New texts through a fine-tuned model: rows without labels in, a table of predictions in the same order out."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import BertPreTrainedModel, BertTokenizerFast
from transformers.trainer_utils import PredictionOutput

from bert_helpers import metrics, models, runs, tasks, training
from bert_helpers.errors import ModelError
from bert_helpers.tasks import entities, qa


@dataclass(frozen=True)
class Predictor:
    """A fine-tuned model, and how its run read and encoded texts."""

    task: str  # a key of `tasks.TASKS`
    model: BertPreTrainedModel
    tokenizer: BertTokenizerFast
    parameters: Mapping[str, object]  # those of its run, or MAX_LENGTH and STRIDE

    @property
    def names(self) -> list[str]:
        """Its classes, or tags, in the order of its outputs."""
        return [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]

    @property
    def columns(self) -> dict[str, str]:
        """What its run called the columns of each field of a row: "text" in a column "message"."""
        return {field: self.parameters.get(name, field) for field, name in TASKS[self.task].fields.items()}


def load(folder: Path) -> Predictor:
    """The model in a run's folder, or in a folder of its own; the run's record says how its texts were encoded.

    Without a record texts are read as far as the model has positions, and windows share a quarter of that.
    Raises ModelError when there is no fine-tuned BERT of the four tasks, DataError when the record is broken.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; name that of a run or of a fine-tuned model.")
    folder = (folder / "model" if (folder / "model").is_dir() else folder).resolve()
    task = runs.task_of(folder)
    model = models.load_trained(str(folder), tasks.TASKS[task].model_class)
    if model.config.problem_type == "multi_label_classification":
        raise ModelError(f"{folder.name}: gives a text several labels; the classifiers of this project choose one.")
    tokenizer = models.load_tokenizer(str(folder))
    limit = tokenizer.model_max_length
    parameters = {"MAX_LENGTH": limit, "STRIDE": limit // 4}
    places = [folder.parent, folder.parent.parent] if folder.name == "model" else []
    if any((place / "metrics.json").is_file() for place in places):
        parameters |= runs.recorded(folder.parent, task)[0]
    return Predictor(task, model, tokenizer, parameters)


def predict(
    predictor: Predictor, rows: Dataset, *, precision: str = "auto", batch_size: int = 16, show_progress: bool = False
) -> pd.DataFrame:
    """A row for each of `rows`, in their order: the fields, and what the model says of them.

    classification: `label`, `probability`, and `probability_…` of each class, by softmax; regression: `score` in the
    units of the training data; ner: lists `tokens` and `tags`; qa: `answer`, `start`, `end` (characters of the
    context, `end` exclusive), `score` as in `qa.best_answers`.

    Computed as evaluations are: `training.predict` on the task's encoding, in the machine's precision unless another is
    given. It needs labels, so each row gets one that means nothing, and nothing computed from it is kept. A text for
    entities is split into the words that the tokenizer sees in it: at blanks, and around every punctuation mark.
    """
    task, spec = TASKS[predictor.task], tasks.TASKS[predictor.task]
    if predictor.task == "ner" and "tokens" not in rows.column_names:
        rows = Dataset.from_dict({"tokens": words(rows["text"], predictor.tokenizer)})
    labelled = Dataset.from_dict({**rows.to_dict(), **task.labels(rows)})
    options = tasks.options(spec.encode, predictor.parameters)
    encoded = spec.encode(DatasetDict(rows=labelled), predictor.tokenizer, **options)["rows"]
    with tempfile.TemporaryDirectory() as scratch:
        args = training.training_arguments(
            scratch, batch_size=batch_size, precision=precision, disable_tqdm=not show_progress
        )
        splits = DatasetDict(train=encoded, validation=encoded)  # which make_trainer asks for
        trainer = training.make_trainer(
            predictor.model, args, splits, task=predictor.task, tokenizer=predictor.tokenizer
        )
        trainer.compute_metrics = None
        output = training.predict(trainer, encoded)
    return pd.DataFrame({**rows.to_dict(), **task.results(output, encoded, rows, predictor.names)})


def words(texts: list[str], tokenizer: BertTokenizerFast) -> list[list[str]]:
    """Each text's words as the tokenizer splits them, in the text's own letters; one word for a text without any.

    >>> words(["Bo's in Brask."], models.load_tokenizer(models.DEFAULT_MODEL))
    [['Bo', "'", 's', 'in', 'Brask', '.']]
    """
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    rows = []
    for i, text in enumerate(texts):
        spans = [encoded.word_to_chars(i, word) for word in dict.fromkeys(encoded.word_ids(i))]
        rows.append([text[start:end] for start, end in spans] or [text])
    return rows


class Form(NamedTuple):
    """What a task's rows hold, and how its output becomes columns."""

    fields: dict[str, str]  # field -> the parameter that names its column
    labels: Callable[[Dataset], dict[str, list]]  # of rows: columns with labels that mean nothing
    results: Callable[
        [PredictionOutput, Dataset, Dataset, list[str]], dict[str, object]
    ]  # of encoded rows, rows, names


def _classes(output: PredictionOutput, encoded: Dataset, rows: Dataset, names: list[str]) -> dict[str, object]:
    chances = metrics.probabilities(output.predictions).round(6)
    each = {f"probability_{name}": chances[:, i] for i, name in enumerate(names)}
    return {"label": [names[i] for i in output.predictions.argmax(axis=1)], "probability": chances.max(axis=1), **each}


def _scores(output: PredictionOutput, encoded: Dataset, rows: Dataset, names: list[str]) -> dict[str, object]:
    return {"score": np.ravel(output.predictions).round(6)}


def _tags(output: PredictionOutput, encoded: Dataset, rows: Dataset, names: list[str]) -> dict[str, object]:
    return {"tags": entities.predicted_tags(output, encoded, names)}


def _answers(output: PredictionOutput, encoded: Dataset, rows: Dataset, names: list[str]) -> dict[str, object]:
    best = [answers[0] for answers in qa.predicted_answers(output.predictions, encoded, list(rows["context"]))]
    return {name: [answer[name] for answer in best] for name in ("answer", "start", "end", "score")}


TASKS = {
    "classification": Form({"text": "TEXT_COLUMN"}, lambda rows: {"label": [0] * len(rows)}, _classes),
    "regression": Form(
        {"text": "TEXT_COLUMN", "text_pair": "PAIR_COLUMN"}, lambda rows: {"label": [0.0] * len(rows)}, _scores
    ),
    "ner": Form(
        {"text": "", "tokens": "TOKENS_COLUMN"},
        lambda rows: {"ner_tags": [[0] * len(words) for words in rows["tokens"]]},
        _tags,
    ),
    "qa": Form(
        {"question": "", "context": ""},
        lambda rows: {"answers": [{"text": [text[:1]], "answer_start": [0]} for text in rows["context"]]},
        _answers,
    ),
}
