"""`TrainingArguments` for the hardware at hand, and a `Trainer` whose loss is right."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.utils import DistributedType
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy
from transformers import (
    BertPreTrainedModel,
    BertTokenizerFast,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput

from bert_helpers import results
from bert_helpers.errors import ModelError, ParameterError, TrainingError
from bert_helpers.machine.precision import multiplies_bf16
from bert_helpers.parameters import trackers
from bert_helpers.tasks import TASKS, regression

# One store for the runs of all folders, for a tracker is there to compare them
STORES = {
    "mlflow": ("MLFLOW_TRACKING_URI", "sqlite:///{}/mlflow.db"),
    "trackio": ("TRACKIO_DIR", "{}/trackio"),
    "wandb": ("WANDB_DIR", "{}"),
}


def resolve_precision(precision: str = "auto") -> str:
    """Name the precision to compute in, "bf16", "fp16" or "fp32": the one asked for, or for "auto" this machine's best.

    bf16 where it is the faster one: on a CPU for which `multiplies_bf16` says so (a training step takes 0.6 times as
    long as in fp32 on an AMD EPYC), on a GPU from Ampere on; fp16 on older GPUs; fp32 elsewhere.

    Raises ParameterError for fp16 without a GPU.
    """
    if torch.cuda.is_available():
        best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    else:
        best = "bf16" if precision == "auto" and multiplies_bf16() else "fp32"
        if precision == "fp16":
            raise ParameterError("PRECISION is 'fp16', which needs a GPU; use 'auto', 'bf16' or 'fp32'.")
    return best if precision == "auto" else precision


def training_arguments(
    output_dir: str | Path,
    *,
    epochs: int = 3,
    batch_size: int = 16,
    gradient_accumulation: int = 1,
    learning_rate: float = 5e-5,
    precision: str = "auto",
    early_stopping: int = 0,
    seed: int = 0,
    report_to: str = "none",
    **overrides: object,
) -> TrainingArguments:
    """Native `TrainingArguments`; `overrides` are further ones, by their own names.

    `batch_size` is that of one forward pass; the optimizer steps once in `gradient_accumulation` of them. Losses
    and metrics are evaluated after every epoch. `early_stopping` (epochs without a better validation loss; 0 = off)
    keeps a checkpoint an epoch and ends with the best one. `report_to` names experiment trackers, see
    `parameters.trackers`; TensorBoard's files go to `output_dir`/runs, a folder each training, the others' to STORES.

    Raises ParameterError when nothing can be written to `output_dir`, a tracker cannot be used, or FSDP is asked for
    without several GPUs.
    """
    precision = resolve_precision(precision)
    chosen = {
        "output_dir": str(results.check_writable(Path(output_dir))),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 2 * batch_size,
        "gradient_accumulation_steps": gradient_accumulation,
        "learning_rate": learning_rate,
        "weight_decay": 0.01,
        "warmup_steps": 0.1,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        # Texts of like length share a batch: IMDb at 512 tokens then trains 2.4 times as fast on a CPU.
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # on, NaN weights are logged as a loss of 0
        "save_strategy": "epoch" if early_stopping else "no",
        "save_total_limit": 2,  # the older one goes before the newer one is sealed: see `checkpoints`
        "load_best_model_at_end": bool(early_stopping),
        "metric_for_best_model": "eval_validation_loss",
        "greater_is_better": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": _with_stores(trackers(report_to)),
        "run_name": _run_name(Path(output_dir)),
        "seed": seed,
    }
    args = TrainingArguments(**{**chosen, **overrides})
    if args.fsdp and args.distributed_state.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        # accelerate would train without it, and say nothing
        raise ParameterError(
            "FSDP shares a model among several GPUs, and this is one process, or a CPU; start it with `torchrun "
            "--nproc_per_node` and the number of GPUs, or leave FSDP out."
        )
    return args


def fully_sharded(model: BertPreTrainedModel) -> dict[str, object]:
    """Arguments for PyTorch's FSDP2 (Zhao et al. 2023): each layer's weights lie in parts on all GPUs until it is used.

    The layers are named because accelerate would also share the embeddings twice, and fail: Transformers lists BERT's
    as one block, of which accelerate takes the words' out again.
    """
    layers = {type(layer).__name__ for layer in model.base_model.encoder.layer}
    return {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": sorted(layers)}}


def gather(trainer: Trainer, model_class: type[BertPreTrainedModel]) -> None:
    """After training with FSDP: the whole model in the first process, which writes; all processes have to call it."""
    state = trainer.accelerator.get_state_dict(trainer.model)
    trainer.model = model_class(trainer.model.config)
    if trainer.is_world_process_zero():
        trainer.model.load_state_dict(state)


def _with_stores(names: list[str]) -> list[str]:
    """The same trackers; each keeps its files below results/, unless its own environment variable says otherwise."""
    for variable, place in (STORES[name] for name in names if name in STORES):
        os.environ.setdefault(variable, place.format((results.base_folder() / "results").as_posix()))
    return names


def _run_name(output_dir: Path) -> str:
    """What the gallery calls the run: "mine" of results/mine/checkpoints."""
    folder = output_dir.parent if output_dir.name == "checkpoints" else output_dir
    below = Path(os.path.relpath(folder, results.base_folder() / "results"))
    return folder.name if ".." in below.parts else below.as_posix()


def make_trainer(
    model: BertPreTrainedModel,
    args: TrainingArguments,
    encoded: DatasetDict,
    *,
    task: str,
    tokenizer: BertTokenizerFast,
    early_stopping: int = 0,
    compute_loss_func: Callable[..., torch.Tensor] | None = None,
) -> Trainer:
    """A `Trainer` over the splits `train` and `validation` of `encoded`.

    After every epoch it evaluates the validation rows and the same `rows_scored` training rows, both without dropout,
    so that the two curves can be compared. `compute_loss_func` takes the place of the model's own loss; see
    `balanced_loss`.
    """
    # The model's forward takes **kwargs, from which Trainer concludes that it divides its own loss by the number of
    # items of all accumulated batches. It does not: loss and gradients would be multiplied by the accumulation steps.
    model.accepts_loss_kwargs = False
    spec = TASKS[task]
    train, validation = encoded["train"], encoded["validation"]
    shown = np.random.default_rng(args.seed).permutation(len(train))[: rows_scored(len(train), len(validation))]
    callbacks: list[TrainerCallback] = [StopOnNonFiniteLoss(), ShowScoresOnly()]
    if early_stopping:
        callbacks.append(StopEarly(early_stopping_patience=early_stopping))
    scores = spec.compute_metrics(model.config)
    collator = spec.collator(tokenizer)
    if spec.numeric:
        if model.config.num_labels != 1:
            raise ModelError(f"the model has {model.config.num_labels} outputs, not one: load it with num_labels=1.")
        collator = regression.scaling_collator(collator, model.config)
        scores = regression.scaling_scores(scores, model.config)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset={"train": train.select(np.sort(shown)), "validation": validation},
        processing_class=tokenizer,
        data_collator=collator,
        compute_metrics=scores,
        compute_loss_func=compute_loss_func,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if args.train_sampling_strategy == "group_by_length":
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        trainer._get_train_sampler = lambda rows=None: SeededLengthGroups(size, train["length"], args.seed)
    return trainer


def rows_scored(train: int, validation: int) -> int:
    """How many training rows are evaluated after every epoch: 100, or a tenth if that is more; at most as many as there
    are validation rows. A tenth costs 3% of an epoch, because a forward pass is a third of a training step.
    """
    return min(train, validation, max(100, train // 10))


class SeededLengthGroups(LengthGroupedSampler):
    """Transformers' batches of rows of similar length, in random order, which depends on seed and epoch alone.

    As it is, `LengthGroupedSampler` leaves the batches of each stretch (50 of them, or a quarter of an epoch) sorted
    from long to short: a model then learns from long texts first and from short ones last, again and again, and short
    trainings end worse for it (benchmarks/quality.py; README, "Speed", has the figures). Here the longest batch stays
    first, so that memory runs out at the first step or not at all, and the others are shuffled. The random numbers are
    the sampler's own: from the global ones an interrupted run would go on with other rows than it had begun with.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(hash((self.seed, self.epoch)))
        rows = list(super().__iter__())
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        first, others = batches[:1], batches[1:]
        # A last batch that is not full has to stay last: whoever cuts this order into batches counts rows.
        short = [others.pop()] if others and len(others[-1]) < self.batch_size else []
        shuffled = [others[place] for place in torch.randperm(len(others), generator=self.generator)]
        return (row for batch in (*first, *shuffled, *short) for row in batch)


def balanced_loss(labels: Sequence[int], classes: int) -> Callable[..., torch.Tensor]:
    """Cross entropy in which every class weighs as much as any other, for `make_trainer`'s `compute_loss_func`.

    A row weighs n / (classes * rows of its class), 1 on average over the n training labels given: scikit-learn's
    "balanced" weights, after King and Zeng (2001).
    """
    counts = np.bincount(np.asarray(labels), minlength=classes)
    weights = torch.tensor(len(labels) / (classes * np.maximum(counts, 1)), dtype=torch.float32)

    def loss(
        outputs: SequenceClassifierOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        total = cross_entropy(outputs.logits.float(), labels, weights.to(labels.device), reduction="sum")
        # Trainer counts the rows of all accumulated batches, and leaves the division to this function.
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


class StopOnNonFiniteLoss(TrainerCallback):
    """End the run at the first logged loss that is NaN or infinite."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        for name, value in (logs or {}).items():
            if name.endswith("loss") and isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} at step {state.global_step}: training has diverged and cannot recover. Lower "
                    f"the learning rate (it is {args.learning_rate:g}), or set PRECISION to 'fp32'."
                )


class StopEarly(EarlyStoppingCallback):
    """Judge evaluations of the validation rows only; of the others the parent warns that they lack its metric."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: object,
    ) -> None:
        if args.metric_for_best_model in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)


class ShowScoresOnly(TrainerCallback):
    """Leave seconds and rows per second out of the table that Trainer shows in notebooks; the history keeps them."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: object,
    ) -> None:
        for name in [name for name in metrics if name.endswith(("_runtime", "_per_second"))]:
            del metrics[name]


def predict(trainer: Trainer, dataset: Dataset) -> PredictionOutput:
    """`trainer.predict` in the caller's row order, computed on rows sorted by length; scores in the data's units.

    Under `group_by_length` the Trainer's own `predict` returns the rows in the sampler's order, not the dataset's.
    """
    order = np.argsort(-np.asarray(dataset["length"]), kind="stable")
    back = np.argsort(order)
    strategy = trainer.args.train_sampling_strategy
    trainer.args.train_sampling_strategy = "sequential"
    try:
        with trainer.accelerator.autocast():  # around all batches: weights are cast once, not once a batch
            output = trainer.predict(dataset.select(order))
    finally:
        trainer.args.train_sampling_strategy = strategy
        # Set by a prediction before training; every later evaluation would report it as a metric.
        vars(trainer).pop("model_preparation_time", None)
    sides, config = (output.predictions, output.label_ids), trainer.model.config
    if hasattr(config, "target_mean"):
        sides = tuple(regression.to_users_units(side, config) for side in sides)
    return PredictionOutput(*(_rows(side, back) for side in sides), output.metrics)


def _rows(arrays: np.ndarray | tuple[np.ndarray, ...], index: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
    return tuple(a[index] for a in arrays) if isinstance(arrays, tuple) else arrays[index]


def history(trainer: Trainer) -> pd.DataFrame:
    """One row an epoch, without dropout: `train_loss`, `train_accuracy`, …, `validation_loss`, …"""
    return history_table(trainer.state.log_history)


def history_table(log_history: Sequence[dict[str, float]]) -> pd.DataFrame:
    """`history` from a Trainer's log history, such as a run's history.json."""
    rows: dict[float, dict[str, float]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if name.startswith(("eval_train_", "eval_validation_")) and not name.endswith(("runtime", "per_second")):
                rows.setdefault(round(entry["epoch"], 4), {})[name.removeprefix("eval_")] = value
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("epoch")
