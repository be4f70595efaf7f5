"""What a task must have: one class in one file for each, of which `tasks.registry.TASKS` holds an object.

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
    labels: list  # of each row: the name of its class, a tuple of names, a number, or the IOB2 tags of its words
    passages: list[str]  # the part of each text that other rows may share, such as a context; else the texts
    groups: list[Hashable]  # the source that passages may share, such as an article; else the passages
    classes: list[str] | None = None  # names of the classes there are; None where labels are no classes
    words: list[list[str]] | None = None  # of each row, where labels are tags of words
    pairs: list[tuple[str, str]] | None = None  # the two texts of each row, where it has two
    cut: list[bool] | None = None  # of each annotated span of characters, whether it begins or ends amid a word

    @property
    def several(self) -> bool:
        """Whether a row has any number of labels."""
        return isinstance(self.labels[0], tuple)

    @property
    def counted(self) -> list:
        """Every label on its own: one a row, or all of its names, or the type of every entity where labels are tags."""
        if self.several:
            return [label for row in self.labels for label in row]
        if self.words is None:
            return self.labels
        return [tag[2:] for tags in self.labels for tag in tags if tag.startswith("B-")]


class Task(ABC):
    """A kind of rows and labels, with all that differs between it and other tasks.

    The keywords of `load` and `encode` are notebook parameters in lower case: see `options`. Rows are those of `load`,
    in canonical columns; encoded rows are those of `encode`.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]  # name of Transformers' AutoModelFor…, of any encoder
    pipeline: ClassVar[str]  # the Hub's name for what the model does
    # Columns that the model may read -> parameter that names the user's column, "" if none does
    fields: ClassVar[Mapping[str, str]]
    usage: ClassVar[str]  # Python for the model card, with {folder}, {length} and {example}
    sample_texts: ClassVar[Sequence[str]]  # for the card's command line, and {example}: one of each field
    prefix: ClassVar[str] = ""  # of its parameters in a notebook of several tasks
    reads_words: ClassVar[bool] = False  # texts come as lists of words
    has_classes: ClassVar[bool] = False  # whether logits are of classes, for rows or for words
    numeric: ClassVar[bool] = False  # whether labels are numbers with a unit; the model learns them standardized
    subsets: ClassVar[
        Sequence[str]
    ] = ()  # of test rows, whose metrics ("HasAns/f1") the card gives beside those of all
    cuts_texts: ClassVar[bool] = False  # whether texts longer than MAX_LENGTH lose tokens, instead of making windows

    @property
    def model_class(self) -> type:
        """Return the class of the models."""
        import transformers  # PyTorch comes with its models

        return getattr(transformers, self.auto_class)

    @abstractmethod
    def load(self, source: str | Path, **options: object) -> DatasetDict:
        """Read and check a source; returns the splits train, validation and test in canonical columns."""

    @abstractmethod
    def encode(self, dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, **options: object) -> DatasetDict:
        """Turn rows into token ids, with a column `length` and the labels under the model's names."""

    @abstractmethod
    def examples(self, split: Dataset) -> Examples:
        """Return the rows as the checks of `diagnosis` read them."""

    @abstractmethod
    def measure(self, predictions: Sequence, references: Sequence, rows: Dataset | None) -> Measure:
        """Measure predictions as `predictions_and_references` gives them; `rows` say what is resampled together."""

    @abstractmethod
    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return columns of labels that mean nothing, for rows without labels: `encode` reads them."""

    @abstractmethod
    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return the columns that a prediction adds to its rows; `config` is that of the trained model."""

    @abstractmethod
    def save_predictions(
        self, folder: Path, predictions: Sequence, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write the test rows' `predictions` to a file in `folder`; `rows` and `outputs` are by split."""

    def columns(self, parameters: Mapping[str, object]) -> dict[str, str]:
        """Return the user's names of the columns that a run reads, by field; none where a parameter is empty."""
        names = {
            field: parameters.get(name, PARAMETERS[name].of_task(self.name)) if name else field
            for field, name in self.fields.items()
        }
        return {field: column for field, column in names.items() if column}

    def counts(self, split: Dataset) -> dict[str, int]:
        """Return what `info` counts in place of labels, if a task has none that are counted."""
        return {}

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return the fields of the model's config that training rows decide. Keywords are notebook parameters."""
        return {}

    def fitted_fields(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, object]:
        """Return the fields of the trained model's config that its output for the validation rows decides."""
        return {}

    def finish_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the trained model as any program is to use it."""
        return model

    def collator(self, tokenizer: PreTrainedTokenizerBase, **options: object) -> Callable[[list], dict]:
        """Return the function that makes a padded batch of encoded rows."""
        from transformers import DataCollatorWithPadding  # as above

        return DataCollatorWithPadding(tokenizer, **options)

    def compute_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """Return the scores shown while training, or None where logits become predictions after it only."""

        def scores(prediction: EvalPrediction) -> dict[str, float]:
            measure = self.measure(prediction.predictions, prediction.label_ids, None)
            return measure.values(measure.headline)

        return scores

    def loss(self, train: Dataset, config: PreTrainedConfig) -> Callable[..., torch.Tensor] | None:
        """Return a `Trainer`'s `compute_loss_func` for encoded training rows; None for the model's own loss.

        Keywords of it, of `fitted_fields` and of `chance_loss` are notebook parameters in lower case too.
        """
        return None

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> tuple[Sequence, Sequence]:
        """Return what `measure` takes, from the trained model's output for the encoded rows, and its config."""
        return output.predictions, np.asarray(rows["label"])

    def parts(self, predictions: Sequence, references: Sequence, seed: int) -> pd.DataFrame | None:
        """Return more rows of metrics, of parts of the rows: `value`, `low`, `high`, named "PART/METRIC"."""
        return None

    def with_fields(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Return the rows with each field that `encode` reads, where new texts may come in another form."""
        return rows

    def fits(self, config: PreTrainedConfig) -> bool:
        """Whether a saved model with this config is one of the task."""
        from bert_helpers.models import has_head  # as above

        return has_head(config, self.model_class)

    def chance_loss(self, encoded: Dataset, config: PreTrainedConfig) -> float:
        """Return the loss of saying what the labels are on average, in nats: their entropy."""
        labels = np.concatenate([np.atleast_1d(np.asarray(row)) for row in encoded["labels"]])
        shares = np.bincount(labels[labels >= 0]) / np.sum(labels >= 0)
        return float(entr(shares).sum())

    def class_logits(self, output: PredictionOutput) -> tuple[np.ndarray, np.ndarray] | None:
        """Return logits of classes, and the numbers of the right ones; None where they are of no classes."""
        return output[:2] if self.has_classes else None

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the loss of a head whose logits are all 0."""
        return math.log(model.config.num_labels)


def mean_loss(total: Callable[..., torch.Tensor], **weights: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return a `Trainer`'s `compute_loss_func` from one of logits, labels and `weights` that adds up its items."""

    def loss(
        outputs: SequenceClassifierOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        there = {name: tensor.to(labels.device) for name, tensor in weights.items()}
        # Trainer counts the labels of all accumulated batches, and leaves the division to this function.
        items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return total(outputs.logits.float(), labels, **there) / items

    return loss


def options(function: Callable, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the keywords of a function that notebook parameters give: TRAIN_SIZE for `train_size`.

    `**reading` takes all that say how files are read.
    """
    names = {*inspect.signature(function).parameters}
    if "reading" in names:
        names |= {name.lower() for name in of_reading()}
    return {name: parameters[name.upper()] for name in names if name.upper() in parameters}


def class_names(config: PreTrainedConfig) -> list[str]:
    """Return the classes, or tags, in the order of the model's outputs."""
    return [config.id2label[i] for i in range(config.num_labels)]


def class_fields(names: Sequence[str]) -> dict[str, object]:
    """Return the fields of a model's config that name its classes."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }
