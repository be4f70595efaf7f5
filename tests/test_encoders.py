"""Every family of encoders, every task: it learns, is saved and read back, predicts, is diagnosed and has a card."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from encoders import FAMILIES, RARE, make_encoder
from safetensors.torch import save_model
from transformers import AutoModel, AutoTokenizer

from bert_helpers import models, prediction, records, runs
from bert_helpers.diagnosis import checks_data, checks_model, diagnose
from bert_helpers.diagnosis.findings import summary
from bert_helpers.machine import kernels
from bert_helpers.report import cards
from bert_helpers.tasks.registry import TASKS

# 16 rows three times, in one batch
PARAMETERS = {"EPOCHS": 3, "BATCH_SIZE": 16, "LEARNING_RATE": 1e-3, "MAX_LENGTH": 64, "STRIDE": 8, "DROPOUT": 0.0,
              "PRECISION": "fp32", "SEED": 0}  # fmt: skip
NEW = {
    "classification": {"text": ["A fine film.", "Dull."]},
    "multilabel": {"text": ["The tap drips.", "Thanks."]},
    "regression": {"text": ["One.", "Two."], "text_pair": ["The first.", "A dog."]},
    "ner": {"text": ["Bo lives in Brask.", "Nobody."]},
    "qa": {"question": ["Who lives there?"], "context": ["Bo lives in Brask."]},
}


@pytest.fixture(scope="session")
def encoder_of(tmp_path_factory):
    """Return the folder of a family's tiny encoder."""
    texts, made = list(TASKS["classification"].load("sample")["train"]["text"])[:300], {}

    def make(family):
        if family not in made:
            made[family] = make_encoder(family, tmp_path_factory.mktemp(family), texts)
        return made[family]

    return make


@pytest.fixture(scope="session")
def few_rows():
    return {task: spec.load("sample", train_size=16, validation_size=4, test_size=4) for task, spec in TASKS.items()}


@pytest.fixture(scope="session")
def found_in_rows(few_rows):
    """Return the diagnosis of the rows, which does not depend on the encoder."""
    return {task: checks_data.check_dataset(rows, task=task) for task, rows in few_rows.items()}


@pytest.mark.parametrize("task", NEW)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_learns_is_read_back_predicts_is_diagnosed_and_has_a_card(
    family, task, encoder_of, few_rows, found_in_rows, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    parameters = {**PARAMETERS, "MODEL": str(encoder_of(family)), "DATA": "sample", "OUTPUT_DIR": "run"}
    run = runs.prepare(few_rows[task], parameters, task=task)
    trainer = run.trainer
    batch = checks_model.batch_of(trainer, np.arange(16))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a check failed
        assert checks_model.check_encoder(trainer.model) == []
        assert checks_model.check_initial_loss(trainer, batch, TASKS[task]) == []
        assert checks_model.check_gradients(trainer, batch) == []
    before = outputs(trainer.model, batch)
    run = runs.finish(run)
    after = outputs(trainer.model, batch)
    assert after.pop("loss") < before["loss"]
    rows = [*found_in_rows[task], *checks_model.check_tokens(run.dataset, run.encoded, run.tokenizer, task=task)]
    findings = diagnose.diagnose(run, rows=rows)
    runs.save(run, tmp_path / "run", findings=summary(findings), publish=cards.publish)
    assert all(finding.symptom in (tmp_path / "run/model/README.md").read_text() for finding in findings)
    quick = records.read(tmp_path / "run").kernels
    own_attention = ("convbert", "deberta-v2", "mpnet")  # of another kind
    assert ("attention by length" in quick) == (family not in own_attention)
    predictor = prediction.load(tmp_path / "run")
    assert predictor.task == task
    reread = outputs(predictor.model, batch)
    torch.testing.assert_close({name: reread[name] for name in after}, after, atol=1e-4, rtol=1e-4)
    table = prediction.predict(predictor, Dataset.from_dict(NEW[task]), precision="fp32")
    assert len(table) == len(next(iter(NEW[task].values())))


@torch.no_grad()
def outputs(model, batch):
    return dict(model.eval()(**batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_token_ids_and_states_are_those_of_transformers_own_example(family, encoder_of, few_rows):
    folder = encoder_of(family)
    tokenizer, plain = models.load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    rows = few_rows["classification"]
    ours = TASKS["classification"].encode(rows, tokenizer, max_length=40)["train"]["input_ids"]
    assert list(ours) == plain(list(rows["train"]["text"]), truncation=True, max_length=40)["input_ids"]
    pairs = few_rows["regression"]["train"]
    ours = TASKS["regression"].encode(few_rows["regression"], tokenizer, max_length=60)["train"]
    theirs = plain(list(pairs["text"]), list(pairs["text_pair"]), truncation="longest_first", max_length=60)
    assert list(ours["input_ids"]) == theirs["input_ids"]
    assert ("token_type_ids" in ours.column_names) == ("token_type_ids" in theirs)
    batch = plain(list(rows["train"]["text"]), truncation=True, max_length=40, padding=True, return_tensors="pt")
    quick = AutoModel.from_pretrained(folder).eval()
    expected = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    kernels.quicken(quick)
    seen = batch["attention_mask"].bool()
    torch.testing.assert_close(quick(**batch).last_hidden_state[seen], expected[seen], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_tokens_as_the_model_has_positions_for_and_no_more(family, encoder_of):
    folder = str(encoder_of(family))
    limit = models.load_tokenizer(folder).model_max_length
    assert limit in (64, 66)
    model, ids = AutoModel.from_pretrained(folder), torch.full((1, limit), 9)
    assert model(input_ids=ids).last_hidden_state.shape[1] == limit
    if limit == 64:  # positions count from an offset
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limit + 1), 9))


def test_a_model_of_another_task_learns_with_the_loss_of_the_new_one(encoder_of, few_rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = str(encoder_of("distilbert"))
    for task in ("regression", "ner", "qa", "regression"):
        parameters = {**PARAMETERS, "EPOCHS": 1, "MODEL": start, "DATA": "sample", "OUTPUT_DIR": task}
        runs.save(runs.finish(runs.prepare(few_rows[task], parameters, task=task)), tmp_path / task)
        start = str(tmp_path / task / "model")
        assert runs.task_of(Path(start)) == task


def test_a_new_head_in_place_of_another_is_said(encoder_of, tmp_path):
    folder = encoder_of("roberta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = models.load_model(str(folder), TASKS["classification"].model_class, num_labels=3)
    models.save_model(model, models.load_tokenizer(str(folder)), tmp_path / "three")
    with pytest.warns(UserWarning, match="the head is new; the files have another, classifier"):
        model = models.load_model(str(tmp_path / "three"), TASKS["classification"].model_class, num_labels=2)
    assert models.output_layer(model).out_features == 2
    with pytest.warns(UserWarning, match="the head is new"):
        models.load_model(str(tmp_path / "three"), TASKS["qa"].model_class)


@pytest.mark.parametrize("family", RARE)
def test_fused_weights_convolutions_and_quantized_embeddings(family, encoder_of, tmp_path):
    name = str(encoder_of(family))
    model, tokenizer = models.load_model(name, TASKS["ner"].model_class, num_labels=3), models.load_tokenizer(name)
    models.fit_embeddings(model, tokenizer)
    assert 0 < models.weight_size(model) < 1
    save_model(model, str(tmp_path / "checkpoint.safetensors"))  # weights that share memory: an error
