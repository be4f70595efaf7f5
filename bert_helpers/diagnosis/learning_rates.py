"""Find a learning rate by the range test of Smith (2017)."""

import copy
import math
from itertools import chain, count

import numpy as np
import pandas as pd
import torch
from transformers import Trainer


def learning_rate_range(
    trainer: Trainer, *, lowest: float = 1e-7, highest: float = 1.0, steps: int = 60, smoothing: float = 0.8
) -> pd.DataFrame:
    """Train a copy of the model for up to `steps` batches while the learning rate rises from `lowest` to `highest`.

    Returns one row per step: `learning_rate` (rising by a constant factor), `loss` and `smoothed` (exponential mean
    with weight `smoothing` on the past). Stops early if the smoothed loss is 4 times its lowest value or the loss is
    not finite. The trainer's own model and the random state are left unchanged.
    """
    model, rows, mean = copy.deepcopy(trainer.model).train(), [], 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=lowest, weight_decay=trainer.args.weight_decay)
    batches = chain.from_iterable(trainer.get_train_dataloader() for _ in count())
    with torch.random.fork_rng():
        torch.manual_seed(trainer.args.seed)
        for number, (rate, batch) in enumerate(zip(np.geomspace(lowest, highest, steps), batches, strict=False), 1):
            optimizer.param_groups[0]["lr"] = rate
            with torch.autocast(model.device.type, torch.bfloat16, enabled=trainer.args.bf16):
                loss = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            mean = smoothing * mean + (1 - smoothing) * loss.item()
            rows.append((rate, loss.item(), mean / (1 - smoothing**number)))
            if not math.isfinite(rows[-1][1]) or rows[-1][2] > 4 * min(row[2] for row in rows):
                break
    return pd.DataFrame(rows, columns=["learning_rate", "loss", "smoothed"])


def suggested_learning_rate(table: pd.DataFrame) -> float | None:
    """Return a tenth of the rate at which the smoothed loss was lowest; above that rate, steps are too long.

    None if the loss fell by less than a twentieth: the test is then inconclusive.
    """
    finite = table[np.isfinite(table.smoothed)]
    if finite.empty or finite.smoothed.min() > 0.95 * finite.smoothed.iloc[0]:
        return None
    return float(finite.learning_rate[finite.smoothed.idxmin()] / 10)
