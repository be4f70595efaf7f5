"""Trainers for the tests, with the arguments that these vary; all others are as in a run."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from bert_helpers import training
from bert_helpers.tasks.registry import TASKS


def arguments(
    folder, *, epochs=3, batch_size=16, gradient_accumulation=1, learning_rate=5e-5, precision="auto",
    early_stopping=0, report_to="none", **others,
):  # fmt: skip
    """Return TrainingArguments for this machine; `others` add to them or replace them."""
    recipe = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 2 * batch_size,
        "gradient_accumulation_steps": gradient_accumulation,
        "learning_rate": learning_rate,
        "weight_decay": 0.01,
        "warmup_steps": 0.1,
        "logging_steps": 10,
        "seed": 0,
    }
    machine = training.for_this_machine(precision=precision, report_to=report_to, early_stopping=early_stopping)
    return TrainingArguments(str(Path(folder)), **{**recipe, **machine, **others})


def make_trainer(model, args, encoded, *, task, tokenizer, early_stopping=0, **options):
    """Return a Trainer with the task's collator and metrics; `options` are further arguments."""
    spec = TASKS[task]
    return training.Trainer(
        model=model,
        args=args,
        data_collator=spec.collator(tokenizer),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        compute_metrics=spec.compute_metrics(model.config),
        callbacks=[training.StopEarly(early_stopping)] if early_stopping else None,
        **options,
    )


def move_norms(model):
    """Make random weights look trained: in a trained encoder no norm multiplies by exactly 1."""
    with torch.no_grad():
        for module in model.modules():
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                module.weight *= 1.01
