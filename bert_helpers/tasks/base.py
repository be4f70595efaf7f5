"""What a task must have: one class in one file per task, with an object of each in `tasks.registry.TASKS`.

Tasks import neither PyTorch nor Transformers, which take five seconds: rows are read, and refused, without them.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from scipy.special import entr

from bert_helpers.metrics import Measure
from bert_helpers.parameters import PARAMETERS, of_reading

if TYPE_CHECKING:
    import torch
    from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.modeling_outputs import SequenceClassifierOutput
    from transformers.trainer_utils import PredictionOutput


class Examples(NamedTuple):
    """The rows of a split as the checks of `diagnosis` read them, whatever the task's columns are."""

    texts: list[str]  # what the model reads of each row, as one string
    labels: list  # for each row: the name of its class, a tuple of names, a number, or the IOB2 tags of its words
    passages: list[str]  # the part of each text that rows may share, such as a context; else the texts
    groups: list[Hashable]  # the source that passages may share, such as an article; else the passages
    classes: list[str] | None = None  # the names of all classes; None if labels are not classes
    words: list[list[str]] | None = None  # the words of each row, if labels are tags of words
    pairs: list[tuple[str, str]] | None = None  # the two texts of each row, if it has two
    cut: list[bool] | None = None  # for each annotated character span, whether it starts or ends inside a word

    @property
    def several(self) -> bool:
        """Whether a row has any number of labels."""
        return isinstance(self.labels[0], tuple)

    @property
    def counted(self) -> list:
        """All labels in one list: classes, each name of a tuple, or the types of all entities if labels are tags."""
        if self.several:
            return [label for row in self.labels for label in row]
        if self.words is None:
            return self.labels
        return [tag[2:] for tags in self.labels for tag in tags if tag.startswith("B-")]


class Task(ABC):
    """A kind of rows and labels, with everything that differs between it and other tasks.

    The keywords of `load` and `encode` are notebook parameters in lower case: see `options`. "Rows" are those of
    `load`, in canonical columns; "encoded rows" are those of `encode`.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]  # name of Transformers' AutoModelFor… class
    pipeline: ClassVar[str]  # the Hub's name of the task
    # Columns that the model may read -> parameter that names the user's column, "" if none does
    fields: ClassVar[Mapping[str, str]]
    usage: ClassVar[str]  # Python for the model card, with {folder}, {length} and {example}
    sample_texts: ClassVar[Sequence[str]]  # one text per field, for the card's command line and {example}
    prefix: ClassVar[str] = ""  # of the task's parameters in a notebook of several tasks
    reads_words: ClassVar[bool] = False  # whether texts are lists of words
    has_classes: ClassVar[bool] = False  # whether logits are those of classes, for rows or for words
    numeric: ClassVar[bool] = False  # whether labels are numbers with a unit; the model learns them standardized
    subsets: ClassVar[Sequence[str]] = ()  # of test rows, with metrics of their own in the card ("HasAns/f1")
    cuts_texts: ClassVar[bool] = False  # whether texts longer than MAX_LENGTH are truncated, not split into windows

    @property
    def model_class(self) -> type:
        """Return the class of the models."""
        import transformers  # its models import PyTorch

        return getattr(transformers, self.auto_class)

    @abstractmethod
    def load(self, source: str | Path, **options: object) -> DatasetDict:
        """Read and check a source; return the splits train, validation and test in canonical columns."""

    @abstractmethod
    def encode(self, dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, **options: object) -> DatasetDict:
        """Return token ids of the rows, with a column `length` and the labels in the columns that the model expects."""

    @abstractmethod
    def examples(self, split: Dataset) -> Examples:
        """Return the rows as the checks of `diagnosis` read them."""

    @abstractmethod
    def measure(self, predictions: Sequence, references: Sequence, rows: Dataset | None) -> Measure:
        """Measure what `predictions_and_references` returns; `rows` show which examples are resampled together."""

    @abstractmethod
    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return columns of meaningless labels for rows without labels, because `encode` reads them."""

    @abstractmethod
    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return the columns that a prediction adds to the rows; `config` is the trained model's."""

    @abstractmethod
    def save_predictions(
        self, folder: Path, predictions: Sequence, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write the test rows' `predictions` to a file in `folder`; `rows` and `outputs` are by split."""

    def columns(self, parameters: Mapping[str, object]) -> dict[str, str]:
        """Return the user's names of the columns that a run reads, by field, without those whose parameter is empty."""
        names = {
            field: parameters.get(name, PARAMETERS[name].of_task(self.name)) if name else field
            for field, name in self.fields.items()
        }
        return {field: column for field, column in names.items() if column}

    def counts(self, split: Dataset) -> dict[str, int]:
        """Return the counts that `info` shows for a task whose labels are not counted."""
        return {}

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return the config fields that depend on the training rows. Keywords are notebook parameters."""
        return {}

    def fitted_fields(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, object]:
        """Return the config fields that are fitted to the trained model's output for the validation rows."""
        return {}

    def finish_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the trained model in the form that any program can use."""
        return model

    def collator(self, tokenizer: PreTrainedTokenizerBase, **options: object) -> Callable[[list], dict]:
        """Return the function that pads encoded rows to a batch."""
        from transformers import DataCollatorWithPadding  # as above

        return DataCollatorWithPadding(tokenizer, **options)

    def compute_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """Return the function for the scores shown during training; None if logits need more than that to be scored."""

        def scores(prediction: EvalPrediction) -> dict[str, float]:
            if not np.isfinite(prediction.predictions).all():
                return {}  # nor is the loss finite, and `training.Trainer.log` raises an error that says so
            measure = self.measure(prediction.predictions, prediction.label_ids, None)
            return measure.values(measure.headline)

        return scores

    def loss(self, train: Dataset, config: PreTrainedConfig) -> Callable[..., torch.Tensor] | None:
        """Return a `Trainer`'s `compute_loss_func` for encoded training rows; None for the model's own loss.

        Its keywords and those of `model_fields`, `fitted_fields`, `chance_loss` and `lowest_loss` are notebook
        parameters in lower case, too. Smoothed labels without it are left to Transformers (`label_smoothing_factor`).
        """
        return None

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> tuple[Sequence, Sequence]:
        """Return the arguments of `measure`, from the trained model's output for the encoded rows and its config."""
        return output.predictions, np.asarray(rows["label"])

    def parts(self, predictions: Sequence, references: Sequence, seed: int) -> pd.DataFrame | None:
        """Return metrics of parts of the rows: `value`, `low`, `high` with an index of "PART/METRIC"."""
        return None

    def with_fields(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Return new rows with all fields that `encode` reads, if these may come in another form."""
        return rows

    def fits(self, config: PreTrainedConfig) -> bool:
        """Whether a saved model with this config was made for the task."""
        from bert_helpers.models import has_head  # as above

        return has_head(config, self.model_class)

    def chance_loss(self, encoded: Dataset, config: PreTrainedConfig, *, label_smoothing: float = 0.0) -> float:
        """Return the loss of always predicting the labels' shares, in nats: without smoothing, their entropy."""
        labels = np.concatenate([np.atleast_1d(np.asarray(row)) for row in encoded["labels"]])
        shares = np.bincount(labels[labels >= 0], minlength=config.num_labels) / np.sum(labels >= 0)
        return class_losses(shares, np.ones(len(shares)), label_smoothing)[0]

    def lowest_loss(self, encoded: Dataset, config: PreTrainedConfig, *, label_smoothing: float = 0.0) -> float:
        """Return the loss of the best possible predictions, in nats: above 0 if labels are smoothed."""
        one = np.eye(config.num_labels)[0]
        return class_losses(one, np.ones(len(one)), label_smoothing)[1]

    def class_logits(self, output: PredictionOutput) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the logits of classes and the right class numbers; None if logits are not those of classes."""
        return output[:2] if self.has_classes else None

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the loss of a head whose logits are all 0."""
        return math.log(model.config.num_labels)


def class_losses(shares: np.ndarray, weights: np.ndarray, smoothing: float) -> tuple[float, float]:
    """Return the cross entropy, in nats, of always predicting the classes' shares, and the lowest one possible.

    A row's loss, with labels smoothed as in PyTorch's `cross_entropy`, counts with the weight of its class.
    """
    smoothed = (1 - smoothing) * np.eye(len(weights)) + smoothing / len(weights)
    targets = weights[:, None] * smoothed  # (a row's class, any class)
    chance, each = (entr(rows).sum(axis=-1) - entr(rows.sum(axis=-1)) for rows in (shares @ targets, targets))
    return float(chance), float(shares @ each)


def mean_loss(total: Callable[..., torch.Tensor], **weights: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return a `Trainer`'s `compute_loss_func` from a loss of logits, labels and `weights`, summed over items."""

    def loss(
        outputs: SequenceClassifierOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        there = {name: tensor.to(labels.device) for name, tensor in weights.items()}
        # Trainer passes the number of labels in all accumulated batches, and leaves the division to this function.
        items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return total(outputs.logits.float(), labels, **there) / items

    return loss


def options(function: Callable, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the keyword arguments of a function from notebook parameters: TRAIN_SIZE for `train_size`.

    `**reading` takes all options of reading files.
    """
    names = {*inspect.signature(function).parameters}
    if "reading" in names:
        names |= {name.lower() for name in of_reading()}
    return {name: parameters[name.upper()] for name in names if name.upper() in parameters}


def class_names(config: PreTrainedConfig) -> list[str]:
    """Return the classes, or tags, in the order of the model's outputs."""
    return [config.id2label[i] for i in range(config.num_labels)]


def class_fields(names: Sequence[str]) -> dict[str, object]:
    """Return the config fields that name a model's classes."""
    numbers = {name: i for i, name in enumerate(names)}
    return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": numbers}
