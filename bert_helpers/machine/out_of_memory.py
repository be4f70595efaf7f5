"""Going on after memory has run out: smaller batches, the same optimizer steps."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import torch
from transformers import Trainer

from bert_helpers.diagnosis.checks_run import is_out_of_memory
from bert_helpers.errors import TrainingError

Batch = dict[str, torch.Tensor]


def halve_batch_when_out_of_memory(trainer: Trainer) -> Trainer:
    """From now on `trainer.train()` halves its batches when memory runs out, and accumulates twice as many.

    The optimizer step under way starts over from its first batch, so nothing is lost and nothing counted twice: order
    of the rows, effective batch, losses and schedule stay those of a run with enough memory, up to rounding (dropout
    draws other masks). Each halving is an entry of the log history, `micro_batch_size` rows and `parts`.

    Raises TrainingError when a single row does not fit; and at once for several processes, whose gradients would be
    summed in different numbers of parts.
    """
    if trainer.args.world_size > 1 or trainer.args.n_gpu > 1:
        raise TrainingError("batches cannot be halved by one of several processes; lower BATCH_SIZE.")
    step, done = trainer.training_step, []  # batches of the optimizer step under way
    size = trainer.args.per_device_train_batch_size

    def training_step(model: torch.nn.Module, inputs: Batch, num_items_in_batch: int | None = None) -> torch.Tensor:
        nonlocal size
        done.append(inputs)
        todo = [inputs]
        while True:
            try:
                losses = [_in_parts(trainer, step, model, batch, size, num_items_in_batch) for batch in todo]
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise TrainingError("memory is too small for a single row: lower MAX_LENGTH.") from error
            # Outside of the except block the failed pass is no longer referred to, and its memory comes back.
            size, todo = (size + 1) // 2, list(done)
            model.zero_grad()
            _release(trainer, size)
        if trainer.accelerator.sync_gradients:  # the optimizer steps next
            done.clear()
        return losses[-1]

    trainer.training_step = training_step
    return trainer


@contextmanager
def room_for(trainer: Trainer, *, rows: int) -> Iterator[None]:
    """For lessons and tests: while training, a forward pass over more than `rows` rows runs out of memory."""
    forward = trainer.model.forward

    @wraps(forward)  # the Trainer reads from its signature which columns to keep
    def limited(*args: object, **kwargs: torch.Tensor) -> object:
        if trainer.model.training and len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError(f"out of memory. There is room for {rows} rows.")
        return forward(*args, **kwargs)

    trainer.model.forward = limited
    try:
        yield
    finally:
        trainer.model.forward = forward


def _release(trainer: Trainer, size: int) -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    batch = trainer.args.per_device_train_batch_size
    trainer.log({"micro_batch_size": size, "parts": trainer.args.gradient_accumulation_steps * -(-batch // size)})


def _in_parts(
    trainer: Trainer,
    step: Callable[..., torch.Tensor],
    model: torch.nn.Module,
    batch: Batch,
    size: int,
    items: int | None,
) -> torch.Tensor:
    """The Trainer's step on parts of at most `size` rows, each weighted by its share of the batch's labels.

    The Trainer divides a loss by the batches accumulated; a part of half a batch is divided by twice as many.
    """
    whole, total = trainer.current_gradient_accumulation_steps, _labels(batch)
    loss = 0.0
    try:
        for part in _parts(batch, size):
            trainer.current_gradient_accumulation_steps = whole * total / max(_labels(part), 1)
            loss = loss + step(model, part, items)
    finally:
        trainer.current_gradient_accumulation_steps = whole
    return loss


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    rows = len(next(iter(batch.values())))
    for start in range(0, rows, size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def _labels(batch: Batch) -> int:
    """What the loss is the mean of: rows, or words with a label."""
    labels = batch.get("labels", batch.get("start_positions"))
    return int((labels != -100).sum()) if not labels.is_floating_point() else len(labels)
