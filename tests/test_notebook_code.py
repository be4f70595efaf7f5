"""What notebooks 1 and 4 show in plain Transformers is what the package does, and the code at their ends runs."""

import json
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from datasets import Dataset, DatasetDict

from bert_helpers import models, tokenization

TEXTS = ["Too long, and dull throughout. " * 6, "Short.", "An unforgettable ending; go and see it. " * 3]


def essential_code(name: str) -> str:
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    (cell,) = (cell for cell in cells if cell.source.startswith("## What you have now"))
    (block,) = re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
    return block


@pytest.mark.parametrize(("truncation", "side"), [("tail", "left"), ("head", "right")])
def test_the_tokenizer_s_own_truncation_leaves_what_the_package_leaves(truncation, side, tiny_bert):
    tokenizer = models.load_tokenizer(str(tiny_bert))
    rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1]})
    ours = tokenization.encode_texts(DatasetDict(train=rows), tokenizer, max_length=24, truncation=truncation)["train"]
    tokenizer.truncation_side = side
    assert tokenizer(TEXTS, truncation=True, max_length=24)["input_ids"] == ours["input_ids"][:]
    assert ours["length"][:] == [24, 4, 24]


@pytest.mark.trains
def test_the_essential_code_of_notebook_1_runs_as_printed(tiny_bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"{'good' if i % 2 else 'bad'} film {i}", "label": i % 2} for i in range(40)]
    for name in ("train", "test"):
        pd.DataFrame(rows).to_csv(f"{name}.csv", index=False)
    code = essential_code("01_fine_tune.ipynb")
    assert len(code.splitlines()) <= 18
    exec(code.replace(models.DEFAULT_MODEL, str(tiny_bert)).replace("max_length=96", "max_length=48"), {})
    assert re.search(r"accuracy [01]\.\d+", capsys.readouterr().out)
    assert (tmp_path / "results/mine/model/model.safetensors").is_file()


@pytest.mark.trains
def test_the_essential_code_of_notebook_4_runs_as_printed_and_labels_as_the_package_does(
    tiny_bert, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    sentences = [{"tokens": ["Dunne", "left", "Wesselbruch"], "tags": [1, 0, 2]}] * 20
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences))
    code = essential_code("04_ner.ipynb")
    assert len(code.splitlines()) <= 32
    made = {}
    exec(code.replace(models.DEFAULT_MODEL, str(tiny_bert)).replace("num_train_epochs=10", "num_train_epochs=1"), made)
    labels = np.array([*made["rows"]["train"]["labels"], *made["rows"]["test"]["labels"]])
    assert labels.tolist() == [[-100, 1, 0, 2, -100, -100, -100, -100]] * 20
    assert re.search(r"^f1 +[01]\.\d+", capsys.readouterr().out, re.MULTILINE)
    assert (tmp_path / "results/mine/model/model.safetensors").is_file()
