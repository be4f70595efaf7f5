"""What users get wrong, as a table: each is one typed error that names the place and the cure, before any training."""

import gzip
import io
import json
import time

import numpy as np
import pandas as pd
import pytest
from transformers import BertForSequenceClassification

from bert_helpers import DataError, ModelError, ParameterError, data, models, tasks, tokenization
from bert_helpers.tasks import TASKS

LOAD = {
    "classification": tasks.TASKS["classification"].load,
    "regression": tasks.TASKS["regression"].load,
    "ner": tasks.TASKS["ner"].load,
    "qa": tasks.TASKS["qa"].load,
}
REVIEWS = "text,label\n" + "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(40))
WORDS = "".join(f"Ann B-PER\nsings{i} O\n\n" for i in range(40))


def json_lines(*odd, **columns):
    """40 sound rows, then the odd ones."""
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
FILES = {
    "classification": {
        # classification: what rows there are
        "one row": ("a.csv", "text,label\nx,a\n", "a.csv: 1 rows are too few"),
        "two rows": ("a.csv", "text,label\nx,a\ny,b\n", "a.csv: 2 rows are too few"),
        "one class": ("a.csv", REVIEWS.replace(",b", ",a"), "one class only"),
        "header only": ("a.csv", "text,label\n", "holds no rows"),
        "empty file": ("a.csv", "", "the file is empty"),
        "blank lines": ("a.csv", "\n\n\n", "holds no rows"),
        "dates as labels": (
            "a.csv",
            "text,label\n" + "".join(f"x{i},2024-01-{i % 28 + 1:02d}\n" for i in range(40)),
            "28 classes in 32 training rows: most occur once.*LABEL_COLUMN",
        ),
        # labels
        "no label": ("a.csv", REVIEWS + "x,\n", "a.csv, row 41, column 'label': the label is missing"),
        "NaN label": ("a.jsonl", json_lines().replace('"a"', "1.0").replace('"b"', "NaN"), "row 2.*nan is not a"),
        "infinite label": ("a.jsonl", json_lines().replace('"a"', "0.0").replace('"b"', "Infinity"), "inf is not a"),
        "real label": ("a.jsonl", json_lines().replace('"a"', "0.0").replace('"b"', "1.5"), "1.5 is not a class"),
        "list as label": ("a.jsonl", json_lines().replace('"a"', '["a"]').replace('"b"', '["b"]'), "row 1.*is not a"),
        "timestamps": ("a.parquet", parquet(text=AB, label=pd.to_datetime(["2024-01-01"] * 40)), "row 1.*is not a"),
        # texts
        "blank text": ("a.csv", REVIEWS + "   ,a\n", "row 41, column 'text': the text is empty"),
        "invisible text": ("a.csv", REVIEWS + "\u200b\u2060\ufeff,a\n", "row 41.*the text is empty"),
        "null text": ("a.jsonl", json_lines({"text": None, "label": "a"}), "row 41.*null"),
        "megabyte cell": ("a.csv", REVIEWS + "word " * 200_000 + ",a\n", "row 41.*1,000,000 characters"),
        "NUL in a cell": ("a.csv", REVIEWS + "a\0b,a\n", "row 41.*NUL character"),
        "nested text": ("a.jsonl", '{"text": {"body": "x"}, "label": "a"}\n' * 20, "struct.*not text"),
        "mixed types": ("a.jsonl", json_lines({"text": 3, "label": "a"}), "'text'.*not text"),
        "bytes as text": ("a.parquet", parquet(text=[b"x"] * 40, label=AB), "holds binary, not text"),
        "half a character": ("a.jsonl", json_lines() + '{"text": "\\ud800", "label": "a"}\n', "line 41: half a"),
        # headers and shapes
        "misspelt header": ("a.csv", REVIEWS.replace("label", "lable"), "no column 'label'.*'lable'"),
        "header twice": ("a.csv", "text,text,label\n" + "x,y,a\nz,w,b\n" * 20, "2 columns 'text'; rename"),
        "label header twice": ("a.csv", "text,label,label\n" + "x,a,b\n" * 40, "2 columns 'label'; rename"),
        "too many fields": ("a.csv", REVIEWS + "x,y,z,a\n", "a.csv, line 42: 4 fields where the header has 2"),
        "too few fields": ("a.csv", REVIEWS + "x\n", "row 41, column 'label'"),
        "quote not closed": (
            "a.csv",
            REVIEWS + '"never closed,a\nx,b\n',
            "line 42: a quotation mark opens a text and is not closed",
        ),
        "JSON object": ("a.json", '{"data": {"a": 1}}', "no column 'text'"),
        "null before a row": ("a.jsonl", "null" + json_lines(), "line 1: not valid JSON"),
        "null for a row": ("a.jsonl", json_lines() + "null\n", "line 41: not an object"),
        "JSON number": ("a.json", "3", "item 1: not an object; write rows as"),
        "JSON of lists": ("a.json", json.dumps([["x", "a"]] * 20), r"item 1 \(also items 2, .*\): not an object"),
        "JSON cut off": ("a.jsonl", json_lines() + '{"text": "y", "la', "line 41: not valid JSON"),
        "JSON too deep": ("a.json", "[" * 100_000, "line 1: not valid JSON"),
        "NULs after JSON": ("a.jsonl", json_lines() + "\0\0\n", "line 41: not valid JSON"),
        # files that are something else
        "gzip": ("a.csv", gzip.compress(REVIEWS.encode()), "not a text file but gzip data; unpack it"),
        "Excel": ("a.csv", b"PK\x03\x04" + b"0" * 99, "Excel file; unpack it or save it as CSV"),
        "UTF-16": ("a.csv", REVIEWS.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        "Latin-1": ("a.csv", (REVIEWS + "caf\xe9,a\n").encode("latin-1"), "line 42: byte 4 is not UTF-8"),
        "surrogate bytes": ("a.csv", REVIEWS.encode() + b"\xed\xa0\x80,a\n", "line 42: byte 1 is not UTF-8"),
        "Parquet called CSV": ("a.csv", parquet(text=AB, label=AB), "Parquet data; name it .parquet"),
        "zip called Parquet": ("a.parquet", b"PK\x03\x04" + b"0" * 99, "not a readable Parquet file"),
        "Parquet cut off": ("a.parquet", parquet(text=AB, label=AB)[:-50], "not a readable Parquet file"),
        "unknown kind": ("a.xlsx", "x", "unknown kind of file; known are .csv"),
    },
    "regression": {
        "score NaN": ("a.csv", pairs("nan"), "row 4, column 'label': 'nan' is not a finite number"),
        "score infinite": ("a.csv", pairs("inf"), "'inf' is not a finite number"),
        "score off the scale": ("a.csv", pairs("7"), "7 lies outside the scale of 0 to 5"),
        "score a word": ("a.csv", pairs("high"), "'high' is not a finite number"),
        "score missing": ("a.csv", pairs(""), "row 4, column 'label': the score is missing"),
        "no second text": ("a.csv", REVIEWS, "no column 'text_pair'"),
        "second text blank": ("a.csv", pairs("1").replace("b7", "  "), "row 8, column 'text_pair'"),
    },
    "ner": {
        "no tags": ("a.conll", "Ann\nsings\n\n" * 20, "line 1: 'Ann' does not end in a tag"),
        "no such tag": ("a.conll", WORDS + "Bob X-PER\n\n", "line 121: 'X-PER' is not a tag"),
        "illegal sequence": (
            "a.conll",
            WORDS + "in O\nBob I-PER\n\nAnn B-PER\nLee I-PER\n\n",
            "line 122: I-PER after O",
        ),
        "no entity": ("a.conll", WORDS.replace("B-PER", "O"), "no entity: every tag is O"),
        "no words": ("a.conll", "\n\n", "the file holds no words"),
        "words not UTF-8": ("a.conll", WORDS.encode() + b"caf\xe9 O\n", "line 121: byte 4 is not UTF-8"),
        "words gzipped": ("a.conll", gzip.compress(WORDS.encode()), "gzip data"),
        "NUL in a word": ("a.conll", WORDS + "A\0n O\n", "line 121: the word .* is not text"),
        "a column missing": ("a.conll", WORDS + "Lee\n\n", "line 121"),
        "more words than tags": (
            "a.jsonl",
            sentences({"tokens": ["a", "b"], "ner_tags": ["O"]}),
            "row 21.*2 words but 1 tags",
        ),
        "sentence as a string": (
            "a.jsonl",
            '{"tokens": "Ann sings", "ner_tags": "B-PER O"}\n' * 20,
            "row 1.*list of words",
        ),
        "empty sentence": ("a.jsonl", sentences({"tokens": [], "ner_tags": []}), "row 21.*not empty"),
    },
    "qa": {
        "no JSON": ("a.json", "{", "not a file in SQuAD's format"),
        "other nesting": ("a.json", "[1, 2]", "a JSON array.*data > paragraphs"),
        "JSON bottomless": ("a.json", "[" * 100_000, "not a file in SQuAD's format"),
        "answer elsewhere": (
            "a.json",
            squad(answers=[{"text": "Ann", "answer_start": 3}]),
            "'q0'.*first holds it at 0",
        ),
        "answer before the text": (
            "a.json",
            squad(answers=[{"text": "Ann", "answer_start": -1}]),
            "not at answer_start -1",
        ),
        "start no number": ("a.json", squad(answers=[{"text": "Ann", "answer_start": "x"}]), "not a file in SQuAD's"),
        "no answer": ("a.json", squad(answers=[]), "'q0' .*: 0 answer texts"),
        "empty answer": ("a.json", squad(answers=[{"text": " ", "answer_start": 3}]), "an answer is empty"),
        "empty question": ("a.json", squad(question="\u200b"), "'q0' .*: the question is empty"),
        "NUL in a context": ("a.json", squad(context="Ann\0sings"), "'q0' .*: .*NUL character"),
        "megabyte context": ("a.json", squad(context="Ann sings. " * 100_000), "1,000,000 characters"),
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
            "20 questions on 1 contexts are too few",
        ),
        "table for questions": ("a.csv", REVIEWS, "a.csv: questions are not read from a table; give them as"),
    },
}


@pytest.mark.parametrize(("task", "case"), [(task, case) for task, cases in FILES.items() for case in cases])
def test_a_bad_file_is_named_with_place_and_cure(task, case, tmp_path, monkeypatch, capfd):
    name, content, message = FILES[task][case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.perf_counter()
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        LOAD[task](name)
    assert time.perf_counter() - started < 5
    assert name in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert capfd.readouterr().err == ""  # one error, not a reader's reports before it


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
        tasks.TASKS["classification"].load(tmp_path / "a.csv", label_column="text")


def test_columns_may_be_named_crosswise(tmp_path):
    (tmp_path / "a.csv").write_text(REVIEWS.replace("text,label", "label,text"))
    dataset = tasks.TASKS["classification"].load(tmp_path / "a.csv", text_column="label", label_column="text")
    assert dataset["train"].features["label"].names == ["a", "b"]
    assert dataset["train"][0]["text"].startswith("text number")


MODELS = {
    "nothing there": ({}, "no model here"),
    "no weights": ({"config.json": '{"model_type": "bert"}'}, "cannot be loaded: .*no file named model.safetensors"),
    "config cut off": ({"config.json": "{", "model.safetensors": "x"}, "config.json is not a model's config"),
    "another kind of model": ({"config.json": '{"model_type": "gpt2"}', "model.safetensors": "x"}, "'gpt2' model"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model_folder(case, tmp_path):
    files, message = MODELS[case]
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        models.load_model(str(tmp_path), BertForSequenceClassification)


@pytest.mark.parametrize("task", LOAD)
@pytest.mark.parametrize("max_length", [65, 512, 10**5])
def test_a_max_length_above_the_models_limit(max_length, task, tokenizer):
    dataset = LOAD[task]("sample", train_size=20, validation_size=5, test_size=5)
    with pytest.raises(ParameterError, match=f"MAX_LENGTH is {max_length}.*64"):
        TASKS[task].encode(dataset, tokenizer, max_length=max_length)


# --- odd, but fine -----------------------------------------------------------------------------------------

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
    dataset = tasks.TASKS["classification"].load(tmp_path / "a.csv", test_size=1)
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
    assert (
        tasks.TASKS["classification"].load(tmp_path / "a.csv", text_column=name)["train"]["text"][0].startswith("text ")
    )


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_a_byte_order_mark(ending, mark, tmp_path):
    (tmp_path / "a.csv").write_bytes(mark + REVIEWS.replace("\n", ending).encode())
    assert sum(map(len, tasks.TASKS["classification"].load(tmp_path / "a.csv").values())) == 40


def test_a_class_of_one_row_and_a_split_without_a_class(tmp_path):
    (tmp_path / "train.csv").write_text(REVIEWS + "lonely,c\n")
    (tmp_path / "validation.csv").write_text("text,label\nx,a\ny,a\n")
    (tmp_path / "test.csv").write_text("text,label\nx,c\ny,b\n")
    dataset = tasks.TASKS["classification"].load(tmp_path)
    assert data.label_counts(dataset).loc["c"].tolist() == [1, 0, 1]
