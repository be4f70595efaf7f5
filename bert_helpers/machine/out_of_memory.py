"""Continue after memory has run out: smaller batches, the same optimizer steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import Trainer, TrainingArguments

from bert_helpers.errors import TrainingError, parameter

Batch = dict[str, torch.Tensor]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a GPU or in the machine's memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(error)


class Halving:
    """Halve batches when memory runs out, and accumulate twice as many.

    The current optimizer step restarts from its first batch, so nothing is lost or counted twice: row order, effective
    batch, losses and schedule stay those of a run with enough memory, up to rounding (dropout draws other masks). Each
    halving is an entry in the log history, with `micro_batch_size` rows and `parts`.

    Raises TrainingError for several processes, whose gradients would be sums of different numbers of parts.
    """

    def __init__(self, args: TrainingArguments) -> None:
        if args.world_size > 1 or args.n_gpu > 1:
            raise TrainingError(
                "batches cannot be halved by one of several processes", fix=f"lower {parameter('BATCH_SIZE')}"
            )
        self.size = args.per_device_train_batch_size
        self.done: list[Batch] = []  # batches of the current optimizer step

    def training_step(
        self,
        trainer: Trainer,
        step: Callable[..., torch.Tensor],
        model: torch.nn.Module,
        inputs: Batch,
        items: torch.Tensor | int | None,
    ) -> torch.Tensor:
        """Return the loss of `step`, Transformers' own `training_step`, on the batch or its parts.

        Raises TrainingError if a single row does not fit.
        """
        self.done.append(inputs)
        todo = [inputs]
        while True:
            try:
                losses = [_in_parts(trainer, step, model, batch, self.size, items) for batch in todo]
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.size == 1:
                    raise TrainingError(
                        "memory is too small for a single row", fix=f"lower {parameter('MAX_LENGTH')}"
                    ) from error
            # Outside the except block nothing refers to the failed pass any more, so its memory is released.
            self.size, todo = (self.size + 1) // 2, list(self.done)
            model.zero_grad()
            clear_device_cache(garbage_collection=True)
            parts = -(-trainer.args.per_device_train_batch_size // self.size)
            trainer.log({"micro_batch_size": self.size, "parts": trainer.args.gradient_accumulation_steps * parts})
        if trainer.accelerator.sync_gradients:  # the optimizer steps next
            self.done.clear()
        return losses[-1]


@contextmanager
def room_for(trainer: Trainer, *, rows: int) -> Iterator[None]:
    """Let forward passes over more than `rows` rows run out of memory in training, for lessons and tests."""

    def check(model: torch.nn.Module, args: tuple[object, ...], kwargs: Batch) -> None:
        if model.training and len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError(f"out of memory. There is room for {rows} rows.")

    hook = trainer.model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _in_parts(
    trainer: Trainer,
    step: Callable[..., torch.Tensor],
    model: torch.nn.Module,
    batch: Batch,
    size: int,
    items: torch.Tensor | int | None,
) -> torch.Tensor:
    """Take the Trainer's step on parts of at most `size` rows, each weighted by its share of the batch's labels.

    The Trainer divides a loss by the number of accumulated batches; for half a batch, that number is doubled.
    """
    whole, total = trainer.current_gradient_accumulation_steps, _labels(batch)
    loss = 0.0
    try:
        for start in range(0, len(batch["input_ids"]), size):
            part = {name: tensor[start : start + size] for name, tensor in batch.items()}
            trainer.current_gradient_accumulation_steps = whole * total / max(_labels(part), 1)
            loss = loss + step(model, part, items)
    finally:
        trainer.current_gradient_accumulation_steps = whole
    return loss


def _labels(batch: Batch) -> int:
    """Count what the loss is the mean of: rows, or words with a label."""
    labels = batch.get("labels", batch.get("start_positions"))
    return int((labels != -100).sum()) if not labels.is_floating_point() else len(labels)
