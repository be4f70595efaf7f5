"""Shared fixtures: a tiny random BERT with the packaged model's vocabulary, and small data files.

PyTorch and Transformers are imported by the fixtures that need them: the tests of numbers alone then take 6 s, not 12.
"""
# ruff: noqa: E402

import gc
import os

gc.disable()  # until everything is imported: see pytest_collection_finish

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: if each had as many threads as there are cores, they would mostly wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that needs a Hub brings its own (test_hub.py)

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from made_up import reviews as made_up_reviews

from bert_helpers.tasks.registry import TASKS

ROOT = Path(__file__).resolve().parent.parent
# Modules that train, or start programs that take seconds; `make test-quick` leaves them out
TRAINS = {"test_checkpoints", "test_cli", "test_encoders", "test_files", "test_inputs", "test_names", "test_new_task",
          "test_notebooks", "test_out_of_memory", "test_readme", "test_runs", "test_security", "test_sweep",
          "test_training"}  # fmt: skip
collect_ignore = ["fsdp_on_cpu.py", "interrupted.py", "mutants.py", "sweep.py"]  # programs; doctests would import them


def pytest_collection_modifyitems(items):
    """Mark what `make test-quick` leaves out."""
    for item in items:
        if item.path.stem in TRAINS:
            item.add_marker("trains")


def pytest_collection_finish():
    """Exclude what was imported from the garbage collection at the beginning of every training: 0.3 s each."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a 2-layer BERT, 32 wide, 64 positions, random weights, real tokenizer."""
    import helpers
    import torch
    from transformers import BertConfig, BertModel

    from bert_helpers import models

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = BertModel(config)
    helpers.move_norms(model)
    model.save_pretrained(folder)
    models.load_tokenizer(models.DEFAULT_MODEL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_bert):
    from bert_helpers import models

    return models.load_tokenizer(str(tiny_bert))


@pytest.fixture
def reviews(tmp_path):
    """Write rows to a file of the given name and return its path."""

    def write(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def small_dataset():
    """48 / 16 / 16 reviews of the sample."""
    return TASKS["classification"].load("sample", train_size=48, validation_size=16, test_size=16)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def clean(rng):
    """Made-up reviews in which no check finds anything."""
    rows = {"train": 200, "validation": 100, "test": 100}
    return DatasetDict({name: made_up_reviews(rng, count) for name, count in rows.items()})


@pytest.fixture
def trainer(tiny_bert, clean, tokenizer, tmp_path):
    """An untrained trainer of the tiny model on those reviews."""
    import helpers
    from transformers import BertForSequenceClassification

    from bert_helpers import models, tokenization

    encoded = tokenization.encode_texts(clean, tokenizer, max_length=64)
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=2)
    args = helpers.arguments(tmp_path, precision="fp32", disable_tqdm=True, batch_size=8)
    return helpers.make_trainer(model, args, encoded, task="classification", tokenizer=tokenizer)
