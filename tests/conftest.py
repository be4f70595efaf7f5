"""Shared fixtures: a tiny random BERT with the packaged model's vocabulary, and small data files."""

import os

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that needs a Hub brings its own (test_hub.py)

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from bert_helpers import data, models

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a 2-layer BERT, 32 wide, 64 positions, random weights, real tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    models.load_tokenizer(models.DEFAULT_MODEL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_bert):
    return models.load_tokenizer(str(tiny_bert))


@pytest.fixture
def reviews(tmp_path):
    """Writes rows as a file of the given name and returns its path."""

    def write(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def small_dataset():
    """48 / 16 / 16 reviews of the sample."""
    return data.load_classification("sample", train_size=48, validation_size=16, test_size=16)
