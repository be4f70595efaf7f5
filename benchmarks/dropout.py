"""What dropout inside attention costs on a CPU: seconds of one training step of 16 texts of 512 tokens.

python benchmarks/dropout.py
"""

import statistics
import time

import torch
from transformers import AutoModelForSequenceClassification

from bert_helpers import models
from bert_helpers.training import resolve_precision

ROUNDS = 4  # of which the first is not counted


def seconds(model, batch):
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=resolve_precision() == "bf16"):
        loss = model(**batch).loss
    loss.backward()
    return time.perf_counter() - started


def main():
    ids = torch.randint(1000, 9000, (16, 512))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(0, 2, (16,))}
    folder = models.locate(models.DEFAULT_MODEL)
    contenders = {
        share: AutoModelForSequenceClassification.from_pretrained(folder, attention_probs_dropout_prob=share).train()
        for share in (0.1, 0.0)
    }
    taken = [{share: seconds(model, batch) for share, model in contenders.items()} for _ in range(ROUNDS)][1:]
    for share in contenders:
        print(f"attention dropout {share}: {statistics.median(row[share] for row in taken):.2f} s")


if __name__ == "__main__":
    main()
