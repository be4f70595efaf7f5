"""A table of users' mistakes: each is one typed error that names the place and the fix before any training."""

import csv
import gzip
import io
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import BertForSequenceClassification

from bert_helpers import DataError, ModelError, ParameterError, data, models, tokenization
from bert_helpers.tasks.registry import TASKS

LOAD = {
    "classification": TASKS["classification"].load,
    "regression": TASKS["regression"].load,
    "ner": TASKS["ner"].load,
    "qa": TASKS["qa"].load,
}
REVIEWS = "text,label\n" + "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(40))
WORDS = "".join(f"Ann B-PER\nsings{i} O\n\n" for i in range(40))


def json_lines(*odd, **columns):
    """40 good rows, then the bad ones."""
    rows = [{"text": f"x{i}", "label": "ab"[i % 2], **columns} for i in range(40)]
    return "".join(json.dumps(row) + "\n" for row in [*rows, *odd])


def pairs(score):
    return "text,text_pair,label\n" + "".join(f"a{i},b{i},{score if i == 3 else 1}\n" for i in range(40))


def sentences(*odd):
    rows = [{"tokens": ["Ann", f"sings{i}"], "ner_tags": ["B-PER", "O"]} for i in range(20)]
    return "".join(json.dumps(row) + "\n" for row in [*rows, *odd])


def squad(context="Ann sings.", **changes):
    question = {"id": "q", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}], **changes}
    articles = [
        {"title": "t", "paragraphs": [{"context": f"{context}{i}", "qas": [{**question, "id": f"q{i}"}]}]}
        for i in range(20)
    ]
    return json.dumps({"data": articles})


def parquet(**columns):
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


AB = ["a", "b"] * 20
OWN = "Was passiert ist;Zuständig\n" + "a;Müll\nb;3b\n" * 20
OWN_COLUMNS = {"text_column": "Was passiert ist", "label_column": "Zuständig"}
# By task and case: a file's name and content, and options of `load`; the error is in bad_input.tsv
FILES = {
    "classification": {
        # classification: what rows there are
        "one row": ("a.csv", "text,label\nx,a\n"),
        "two rows": ("a.csv", "text,label\nx,a\ny,b\n"),
        "one class": ("a.csv", REVIEWS.replace(",b", ",a")),
        "header only": ("a.csv", "text,label\n"),
        "empty file": ("a.csv", ""),
        "blank lines": ("a.csv", "\n\n\n"),
        "dates as labels": (
            "a.csv",
            "text,label\n" + "".join(f"x{i},2024-01-{i % 28 + 1:02d}\n" for i in range(40)),
        ),
        # labels
        "no label": ("a.csv", REVIEWS + "x,\n"),
        "NaN label": ("a.jsonl", json_lines().replace('"a"', "1.0").replace('"b"', "NaN")),
        "infinite label": ("a.jsonl", json_lines().replace('"a"', "0.0").replace('"b"', "Infinity")),
        "real label": ("a.jsonl", json_lines().replace('"a"', "0.0").replace('"b"', "1.5")),
        "timestamps": ("a.parquet", parquet(text=AB, label=pd.to_datetime(["2024-01-01"] * 40))),
        "several labels missing": ("a.csv", REVIEWS + "c,\nc,x\nc,\nc, \n"),
        # texts
        "text a number": ("a.jsonl", '{"text": 1, "label": 1}\n' * 9),
        "a text empty, and another": ("a.csv", REVIEWS + " ,x\na,x\n ,y\n"),
        "many texts empty": ("a.csv", REVIEWS + " ,x\n" * 12),
        "blank text": ("a.csv", REVIEWS + "   ,a\n"),
        "invisible text": ("a.csv", REVIEWS + "\u200b\u2060\ufeff,a\n"),
        "null text": ("a.jsonl", json_lines({"text": None, "label": "a"})),
        "megabyte cell": ("a.csv", REVIEWS + "word " * 200_000 + ",a\n"),
        "NUL in a cell": ("a.csv", REVIEWS + "a\0b,a\n"),
        "nested text": ("a.jsonl", '{"text": {"body": "x"}, "label": "a"}\n' * 20),
        "mixed types": ("a.jsonl", json_lines({"text": ["a"], "label": "a"})),
        "bytes as text": ("a.parquet", parquet(text=[b"x"] * 40, label=AB)),
        "half a character": ("a.jsonl", json_lines() + '{"text": "\\ud800", "label": "a"}\n'),
        # headers and shapes
        "misspelt header": ("a.csv", REVIEWS.replace("label", "lable")),
        "header twice": ("a.csv", "text,text,label\n" + "x,y,a\nz,w,b\n" * 20),
        "label header twice": ("a.csv", "text,label,label\n" + "x,a,b\n" * 40),
        "too many fields": ("a.csv", REVIEWS + "x,y,a\n"),
        "too few fields": ("a.csv", REVIEWS + "x\n"),
        "quote not closed": (
            "a.csv",
            REVIEWS + '"never closed,a\nx,b\n',
        ),
        "JSON object": ("a.json", '{"data": {"a": 1}}'),
        "null before a row": ("a.jsonl", "null" + json_lines()),
        "null for a row": ("a.jsonl", json_lines() + "null\n"),
        "JSON number": ("a.json", "3"),
        "JSON of lists": ("a.json", json.dumps([["x", "a"]] * 20)),
        "JSON cut off": ("a.jsonl", json_lines() + '{"text": "y", "la'),
        "JSON too deep": ("a.json", "[" * 100_000),
        "NULs after JSON": ("a.jsonl", json_lines() + "\0\0\n"),
        "misspelt column in JSON": ("a.jsonl", '{"review": "a", "label": 1}\n' * 9),
        "names with an umlaut": ("mine.csv", OWN + ";3b\n", OWN_COLUMNS),
        "label with an umlaut": ("mine.csv", OWN + "c;\n", OWN_COLUMNS),
        "delimiter and names unknown": ("mine.csv", OWN.replace(";", "~").replace("ist", "war"), OWN_COLUMNS),
        "no header": ("mine.csv", OWN.split("\n", 1)[1].replace("a;", "007;"), OWN_COLUMNS),
        # pandas would read all of these as one row less
        "unclosed, then quoted": ("mine.csv", OWN + 'c;"d;Müll\ne;"f";3b\n', OWN_COLUMNS),
        "unclosed before a quoted text": ("mine.csv", OWN + '"c;Müll\n"d";3b\n', OWN_COLUMNS),
        "unclosed at the end": ("mine.csv", OWN + 'c;3b\n"d;Müll\n', OWN_COLUMNS),
        "text behind a quoted text": ("mine.csv", OWN + '"c" and d;Müll\n', OWN_COLUMNS),
        # files that are something else
        "gzip": ("a.csv", gzip.compress(REVIEWS.encode())),
        "Excel": ("a.csv", b"PK\x03\x04" + b"0" * 99),
        "surrogate bytes": ("a.csv", REVIEWS.encode() + b"\xed\xa0\x80,a\n"),
        "Parquet called CSV": ("a.csv", parquet(text=AB, label=AB)),
        "zip called Parquet": ("a.parquet", b"PK\x03\x04" + b"0" * 99),
        "Parquet cut off": ("a.parquet", parquet(text=AB, label=AB)[:-50]),
        "unknown kind": ("a.docx", "x"),
    },
    "regression": {
        "score NaN": ("a.csv", pairs("nan")),
        "score infinite": ("a.csv", pairs("inf")),
        "score off the scale": ("a.csv", pairs("7")),
        "score a word": ("a.csv", pairs("high")),
        "score missing": ("a.csv", pairs("")),
        "no second text": ("a.csv", REVIEWS),
        "second text blank": ("a.csv", pairs("1").replace("b7", "  ")),
    },
    "ner": {
        "no tags": ("a.conll", "Ann\nsings\n\n" * 20),
        "no such tag": ("a.conll", WORDS + "Bob X-PER\n\n"),
        "illegal sequence": (
            "a.conll",
            WORDS + "in O\nBob E-PER\n\nAnn B-PER\nLee E-PER\n\n",
        ),
        "no entity": ("a.conll", WORDS.replace("B-PER", "O")),
        "no words": ("a.conll", "\n\n"),
        "words not UTF-8": ("a.conll", WORDS.encode() + b"caf\xc3\xa9-caf\xe9 O\n"),
        "words gzipped": ("a.conll", gzip.compress(WORDS.encode())),
        "NUL in a word": ("a.conll", WORDS + "A\0n O\n"),
        "a column missing": ("a.conll", WORDS + "Lee\n\n"),
        "more words than tags": (
            "a.jsonl",
            sentences({"tokens": ["a", "b"], "ner_tags": ["O"]}),
        ),
        "sentence as a string": (
            "a.jsonl",
            '{"tokens": "Ann sings", "ner_tags": "B-PER O"}\n' * 20,
        ),
        "empty sentence": ("a.jsonl", sentences({"tokens": [], "ner_tags": []})),
    },
    "qa": {
        "no JSON": ("a.json", "{"),
        "other nesting": ("a.json", "[1, 2]"),
        "JSON bottomless": ("a.json", "[" * 100_000),
        "answer elsewhere": (
            "a.json",
            squad("Ann and Ann.", answers=[{"text": "Ann", "answer_start": 3}]),
        ),
        "answer before the text": (
            "a.json",
            squad("Ann and Ann.", answers=[{"text": "Ann", "answer_start": -1}]),
        ),
        "start no number": ("a.json", squad(answers=[{"text": "Ann", "answer_start": "x"}])),
        "empty answer": ("a.json", squad(answers=[{"text": " ", "answer_start": 3}])),
        "empty question": ("a.json", squad(question="\u200b")),
        "NUL in a context": ("a.json", squad(context="Ann\0sings")),
        "megabyte context": ("a.json", squad(context="Ann sings. " * 100_000)),
        "one context": (
            "a.jsonl",
            "".join(
                json.dumps(
                    {
                        "id": str(i),
                        "question": "Who?",
                        "context": "Ann sings.",
                        "answers": {"text": ["Ann"], "answer_start": [0]},
                    }
                )
                + "\n"
                for i in range(20)
            ),
        ),
        "table for questions": ("a.csv", REVIEWS),
    },
}


with (Path(__file__).parent / "bad_input.tsv").open(encoding="utf-8") as file:
    SAID = {row.pop("case"): row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


@pytest.mark.parametrize("case", [f"{task}: {case}" for task, cases in FILES.items() for case in cases])
def test_a_bad_file_is_named_with_place_and_fix(case, tmp_path, monkeypatch, capfd):
    task, _, what = case.partition(": ")
    name, content, *options = FILES[task][what]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.perf_counter()
    with pytest.raises(DataError) as caught:
        LOAD[task](name, **(options[0] if options else {}))
    assert time.perf_counter() - started < 5
    error = caught.value
    fields = {
        "row": ",".join(map(str, error.rows)),
        "unit": error.unit * bool(error.rows),
        "column": error.column or "",
    }
    assert {**fields, "parameter": error.parameter, "sentence": str(error)} == SAID[case]
    assert error.source.partition(", ")[0] == name
    assert capfd.readouterr().err == ""  # one error, not a reader's reports before it


def test_every_sentence_is_said():
    assert SAID.keys() == {f"{task}: {case}" for task, cases in FILES.items() for case in cases}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the source is empty"),
        ("nothing.csv", "no such file or folder"),
        ("./nowhere", "no such file or folder"),
        ("???", "no such file or folder"),
        ("loop.csv", "a link that leads nowhere, or in a circle"),
        ("dangling.csv", "a link that leads nowhere, or in a circle"),
        ("folder.csv", "no train file in the folder"),
        ("x" * 5000 + ".csv", "cannot be read"),
        ("somebody/something", "cannot be reached"),
    ],
)
@pytest.mark.parametrize("task", LOAD)
def test_a_source_that_is_not_there(source, message, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "dangling.csv").symlink_to("nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=message):
        LOAD[task](source)


def test_one_column_for_two_things(tmp_path):
    (tmp_path / "a.csv").write_text(REVIEWS)
    with pytest.raises(ParameterError, match="LABEL_COLUMN names the column 'text', as TEXT_COLUMN does"):
        TASKS["classification"].load(tmp_path / "a.csv", label_column="text")


def test_columns_may_be_named_crosswise(tmp_path):
    (tmp_path / "a.csv").write_text(REVIEWS.replace("text,label", "label,text"))
    dataset = TASKS["classification"].load(tmp_path / "a.csv", text_column="label", label_column="text")
    assert dataset["train"].features["label"].names == ["a", "b"]
    assert dataset["train"][0]["text"].startswith("text number")


MODELS = {
    "nothing there": ({}, "no model here"),
    "no weights": (
        {"config.json": '{"model_type": "bert"}'},
        "no model.safetensors here, and pickled weights .* are never opened",
    ),
    "ONNX": (
        {"config.json": '{"model_type": "bert"}', "model.onnx": ""},
        "no model.safetensors here, only model.onnx for ONNX",
    ),
    "an adapter": (
        {"adapter_config.json": '{"base_model_name_or_path": "owner/base"}'},
        "an adapter for the model 'owner/base', not a whole model",
    ),
    "one deeper": ({"0_Transformer/config.json": '{"model_type": "bert"}'}, "no model here .*/0_Transformer is one"),
    "config cut off": ({"config.json": "{", "model.safetensors": "x"}, "config.json is not JSON"),
    "another kind of model": ({"config.json": '{"model_type": "gpt2"}', "model.safetensors": "x"}, "'gpt2' model"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model_folder(case, tmp_path):
    files, message = MODELS[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        models.load_model(str(tmp_path), BertForSequenceClassification)


@pytest.mark.parametrize("task", LOAD)
@pytest.mark.parametrize("max_length", [65, 512, 10**5])
def test_a_max_length_above_the_models_limit(max_length, task, tokenizer):
    dataset = LOAD[task]("sample", train_size=20, validation_size=5, test_size=5)
    with pytest.raises(ParameterError, match=f"MAX_LENGTH is {max_length}.*64"):
        TASKS[task].encode(dataset, tokenizer, max_length=max_length)


# --- odd, but valid ----------------------------------------------------------------------------------------

ODD = {
    "emoji": "🍿🍿 10/10 👩‍👩‍👧",
    "right to left": "פנטסטי, ממש פנטסטי",
    "combining": "cafe\u0301 re\u0301sume\u0301 Z͑ͫ̓",
    "one token": "a",
    "a hundred thousand words": "word " * 100_000,
    "quotes and commas": 'She said "no, never", twice\nand left',
    "a word without end": "x" * 50_000,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_texts_are_read_and_encoded(name, tmp_path, tokenizer):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)] + [{"text": ODD[name], "label": "a"}]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    dataset = TASKS["classification"].load(tmp_path / "a.csv", test_size=1)
    texts = [text for split in dataset.values() for text in split["text"]]
    assert texts.count(ODD[name]) == 1
    encoded = tokenization.encode_texts(dataset, tokenizer, max_length=64)
    lengths = np.concatenate([split["length"] for split in encoded.values()])
    assert lengths.min() >= 3  # [CLS], something, [SEP]
    assert lengths.max() <= 64


@pytest.mark.parametrize(
    ("sep", "name"), [(",", "what was said, in full"), (";", 'a "quoted"; name'), ("\t", "two\nlines")]
)
def test_quoted_column_names(sep, name, tmp_path):
    table = pd.DataFrame({name: [f"text {i}" for i in range(40)], "label": AB})
    table.to_csv(tmp_path / "a.csv", index=False, sep=sep)
    assert TASKS["classification"].load(tmp_path / "a.csv", text_column=name)["train"]["text"][0].startswith("text ")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_a_byte_order_mark(ending, mark, tmp_path):
    (tmp_path / "a.csv").write_bytes(mark + REVIEWS.replace("\n", ending).encode())
    assert sum(map(len, TASKS["classification"].load(tmp_path / "a.csv").values())) == 40


def test_a_class_of_one_row_and_a_split_without_a_class(tmp_path):
    (tmp_path / "train.csv").write_text(REVIEWS + "lonely,c\n")
    (tmp_path / "validation.csv").write_text("text,label\nx,a\ny,a\n")
    (tmp_path / "test.csv").write_text("text,label\nx,c\ny,b\n")
    dataset = TASKS["classification"].load(tmp_path)
    assert data.label_counts(dataset).loc["c"].tolist() == [1, 0, 1]
