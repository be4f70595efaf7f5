"""`TrainingArguments` for the available hardware, and a `Trainer` whose loss is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from accelerate.utils import recursively_apply
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, TrainOutput

from bert_helpers import models, parameters, records
from bert_helpers.errors import ParameterError, TrainingError, parameter
from bert_helpers.machine import checkpoints, kernels, trackers
from bert_helpers.machine.out_of_memory import Halving
from bert_helpers.machine.precision import multiplies_bf16


def resolve_precision(precision: str = "auto") -> str:
    """Return the precision to compute in, "bf16", "fp16" or "fp32"; for "auto" the best one on this machine.

    That is bf16 where it is faster: on a CPU that passes `multiplies_bf16` (a training step on an AMD EPYC takes 0.6
    times as long as in fp32), and on a GPU from Ampere on; fp16 on older GPUs; fp32 elsewhere.

    Raises ParameterError for fp16 without a GPU.
    """
    if torch.cuda.is_available():
        best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    else:
        best = "bf16" if precision == "auto" and multiplies_bf16() else "fp32"
        if precision == "fp16":
            raise ParameterError(
                "is 'fp16', which needs a GPU", parameter="PRECISION", fix="use 'auto', 'bf16' or 'fp32'"
            )
    return best if precision == "auto" else precision


def for_this_machine(*, precision: str = "auto", report_to: str = "none", early_stopping: int = 0) -> dict[str, object]:
    """Return keyword arguments of `TrainingArguments` that suit this machine and the `Trainer` below.

    `precision` is as in `resolve_precision`; `report_to` names experiment trackers as in `parameters.trackers`.
    `early_stopping` (epochs without a lower validation loss; 0 = off) saves one checkpoint per epoch and ends with the
    best; `StopEarly` counts. Losses and metrics are evaluated after every epoch.

    Raises ParameterError for fp16 without a GPU, and for a tracker that cannot be used.
    """
    precision = resolve_precision(precision)
    return {
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        "dataloader_pin_memory": torch.cuda.is_available(),
        # Texts of similar length share a batch: IMDb at 512 tokens then trains 2.4 times as fast on a CPU.
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "logging_nan_inf_filter": False,  # on, NaN weights are logged as a loss of 0
        "save_strategy": "epoch" if early_stopping else "no",
        "restore_callback_states_from_checkpoint": bool(early_stopping),  # such as how long it has waited
        "load_best_model_at_end": bool(early_stopping),
        "metric_for_best_model": "eval_validation_loss",
        "greater_is_better": False,
        "report_to": trackers.keep_below_results(parameters.trackers(report_to)),
    }


def gather(trainer: Trainer, model_class: type[PreTrainedModel]) -> None:
    """Gather the whole model in the first process, which saves it; all processes must call this.

    Needed for a model that PyTorch's FSDP (`accelerate launch --use_fsdp`) has split among them.
    """
    if trainer.is_fsdp_enabled:
        state = trainer.accelerator.get_state_dict(trainer.model)
        trainer.model = model_class.from_config(trainer.model.config)
        if trainer.is_world_process_zero():
            trainer.model.load_state_dict(state)


class Trainer(transformers.Trainer):
    """A drop-in replacement of Transformers' `Trainer`: it takes the same arguments and differs in seven ways.

    - The loss is right under gradient accumulation.
    - On a CPU the model computes the same, except for dropout inside attention, in less time: `kernels.quicken`.
    - With `train_sampling_strategy="group_by_length"` batches come in random order: `SeededLengthGroups`.
    - Each evaluation measures the rows of `eval_dataset` and `rows_scored` training rows, always the same ones and both
      without dropout, so that the two curves can be compared; metrics are named `eval_validation_loss`,
      `eval_train_loss` and so on. (An `eval_dataset` that is a dict is evaluated as in Transformers.)
    - `train` continues from the newest valid checkpoint of the same run, and writes one every `checkpoint_minutes`. It
      ends at the first logged loss that is not finite. The trained model stays on disk until `save_model`.
    - With `halve_batches` it continues with smaller batches when memory runs out: `out_of_memory.Halving`.
      (`auto_find_batch_size` restarts the training, with another effective batch.)
    - `predict` returns rows in the order of the dataset.
    """

    def __init__(
        self, *args: object, checkpoint_minutes: float = 10.0, halve_batches: bool = False, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)
        kernels.quicken(self.model)
        self.args.run_name = self.args.run_name or trackers.run_name(Path(self.args.output_dir))
        self.checkpoint_minutes, self.halve_batches, self.halving = checkpoint_minutes, halve_batches, None
        self.identity, self.checkpoint_folder = None, None  # of the training: `checkpoints.resume`
        # The model's forward takes **kwargs, from which Transformers infers that it divides its loss by the number of
        # items in all accumulated batches. It does not: loss and gradients would be that many times too large.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.callback_handler.callbacks.insert(0, ShowScoresOnly())  # before the callback that shows the table
        train, validation = self.train_dataset, self.eval_dataset
        if isinstance(train, Dataset) and isinstance(validation, Dataset):
            count = rows_scored(len(train), len(validation))
            shown = np.sort(np.random.default_rng(self.args.seed).permutation(len(train))[:count])
            self.eval_dataset = {"train": train.select(shown), "validation": validation}

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: object = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train by `checkpoints.resume`; with arguments, or with rows that are no `Dataset`, as Transformers does.

        Raises TrainingError if a loss is not finite, if a single row does not fit into memory, after a signal, and if
        another process trains in the same folder; ParameterError if there is no room for a checkpoint.
        """
        self.halving = Halving(self.args) if self.halve_batches else None
        # Saved with the model: whether a learning rate is too high or too low depends on the initial weights.
        self.model.config.initial_weight_size = models.weight_size(self.model)
        if resume_from_checkpoint is not None or trial is not None or not isinstance(self.train_dataset, Dataset):
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        start = partial(super().train, ignore_keys_for_eval=ignore_keys_for_eval)
        return checkpoints.resume(self, start, minutes=self.checkpoint_minutes)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the gradients of one batch and return its loss."""
        step = super().training_step
        if self.halving is None:
            return step(model, inputs, num_items_in_batch)
        return self.halving.training_step(self, step, model, inputs, num_items_in_batch)

    def predict(
        self, test_dataset: Dataset, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Predict rows from long to short, and return the predictions in the order of `test_dataset`.

        Under `group_by_length` Transformers returns them in the sampler's order.
        """
        order = np.argsort(-np.asarray(self._lengths(test_dataset)), kind="stable")
        with self.accelerator.autocast():  # around all batches, so that weights are cast only once
            output = super().predict(test_dataset.select(order), ignore_keys, metric_key_prefix)
        # Set by a prediction before training; every later evaluation would report it as a metric.
        vars(self).pop("model_preparation_time", None)
        back = np.argsort(order)
        arrays = recursively_apply(lambda rows: rows[back], output[:2], test_type=lambda part: part is not None)
        return PredictionOutput(*arrays, output.metrics)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as Transformers does, and remove the files that the training left for a restart."""
        super().save_model(output_dir, _internal_call)
        if not _internal_call:
            checkpoints.discard(self)

    def get_test_dataloader(self, test_dataset: Dataset) -> torch.utils.data.DataLoader:
        """Return the loader of `predict`, with rows in their order whatever the sampling strategy of training."""
        return self._get_dataloader(test_dataset, "test", self.args.eval_batch_size, SequentialSampler)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and raise TrainingError for a loss that is NaN or infinite."""
        super().log(logs, start_time)
        for name, value in logs.items():
            if name.endswith("loss") and isinstance(value, float) and not math.isfinite(value):
                step, rate, precision = self.state.global_step, parameter("LEARNING_RATE"), parameter("PRECISION")
                problem = f"{name} is {value} at step {step}: training has diverged and cannot recover"
                fix = f"lower {rate} (it is {self.args.learning_rate:g}), or set {precision} to 'fp32'"
                raise TrainingError(problem, fix=fix)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        args, rows = self.args, self.train_dataset  # all columns; the argument has only those of the model
        if args.train_sampling_strategy != "group_by_length" or not isinstance(rows, Dataset):
            return super()._get_train_sampler(train_dataset)
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return SeededLengthGroups(size, self._lengths(rows), args.seed)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        with checkpoints.whole_or_removed(Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")):
            super()._save_checkpoint(model, trial)

    def _get_output_dir(self, trial: object) -> str:
        return str(self.checkpoint_folder or super()._get_output_dir(trial))

    def _lengths(self, rows: Dataset) -> Sequence[int]:
        """Return the number of tokens of each row, from the column that the arguments name, or by counting."""
        name = self.args.length_column_name
        return list(rows[name]) if name in rows.column_names else [len(ids) for ids in rows["input_ids"]]


def rows_scored(train: int, validation: int) -> int:
    """Return how many training rows are evaluated after every epoch: at least 100, or a tenth.

    But at most as many as there are validation rows. A tenth costs 3% of an epoch, because a forward pass is a third
    of a training step.
    """
    return min(train, validation, max(100, train // 10))


class SeededLengthGroups(LengthGroupedSampler):
    """Transformers' batches of rows of similar length, in a random order that depends on seed and epoch alone.

    By itself, `LengthGroupedSampler` leaves the batches of each stretch (50 of them, or a quarter of an epoch) sorted
    from long to short: again and again a model learns from long texts first and from short ones last, and short
    trainings end with worse models (benchmarks/quality.py; docs/speed.md has the figures). Here the longest batch stays
    first, so that memory runs out at the first step or not at all, and the others are shuffled. The sampler has its own
    random numbers: with the global ones, an interrupted run would continue with other rows.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, as the Trainer does before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(hash((self.seed, self.epoch)))
        rows = list(super().__iter__())
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        first, others = batches[:1], batches[1:]
        # An incomplete batch has to stay last, because this order is cut into batches by counting rows.
        short = [others.pop()] if others and len(others[-1]) < self.batch_size else []
        shuffled = [others[place] for place in torch.randperm(len(others), generator=self.generator)]
        return (row for batch in (*first, *shuffled, *short) for row in batch)


class StopEarly(EarlyStoppingCallback):
    """Consider only evaluations of the validation rows; for others the parent would warn that they lack its metric."""

    def on_evaluate(self, args: TrainingArguments, *state: object, metrics: dict[str, float], **kwargs: object) -> None:
        """Count epochs without a lower validation loss."""
        if args.metric_for_best_model in metrics:
            super().on_evaluate(args, *state, metrics, **kwargs)


class ShowScoresOnly(TrainerCallback):
    """Omit seconds and rows per second from the table that Trainer shows in notebooks; the history keeps them."""

    def on_evaluate(self, *state: object, metrics: dict[str, float], **kwargs: object) -> None:
        """Remove them from the metrics that later callbacks see."""
        for name in [name for name in metrics if name.endswith(("_runtime", "_per_second"))]:
            del metrics[name]


def history(trainer: Trainer) -> pd.DataFrame:
    """Return one row per epoch, without dropout: `train_loss`, `train_accuracy`, …, `validation_loss`, …"""
    return records.history_table(trainer.state.log_history)
