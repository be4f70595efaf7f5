"""Names from a nasty alphabet, for files, columns, labels and folders: what is written can be read back unchanged.

What a run cannot keep it refuses before training: one line, status 2, nothing left behind.
"""

import csv
import json
import os

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from bert_helpers import data, records
from bert_helpers.cli import main as cli
from bert_helpers.tasks.registry import TASKS

FEW, MANY = 2, 30  # trainings in `make test` and in `make test-slow`
SIGNS = ["[1]", "*", "?", "-", "--data", "~", "/", "\\", "\n", "\r", "\t", " ", "\u202e", "\u200b", "\x1b[31m", "\x07",
         '"', "'", "<b>", "&amp;", "$x^$", "{0}", "{{ x }}", "%s", "é", "e\u0301", "A", "a", "İ", "x" * 70, ".", "..",
         "@", "#", "|", ";", ",", ":", "=", "null", "07", "🍿"]  # fmt: skip
NOT_UTF8 = "\udcff"  # Python's form of a byte in a name that is not UTF-8
TEXT = st.lists(st.sampled_from(SIGNS), min_size=1, max_size=4).map("".join)
NAME = st.lists(st.sampled_from([*SIGNS, *[NOT_UTF8] * 4]), min_size=1, max_size=4).map("".join)
FILE = NAME.map(lambda name: name.replace("/", "_")[:80])
COLUMNS = st.lists(TEXT, min_size=2, max_size=3, unique_by=str.strip).filter(lambda names: all(map(str.strip, names)))
LABELS = st.lists(TEXT, min_size=2, max_size=3, unique_by=str.strip).filter(lambda names: all(map(str.strip, names)))
ENDINGS = [".csv", ".tsv", ".jsonl", ".json", ".parquet"]
# A failure of a training would take minutes to shrink.
quiet = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck),
         "phases": (Phase.explicit, Phase.generate)}  # fmt: skip


def write(path, table):
    """Write the same rows in the format that the name ends in."""
    if path.suffix in (".csv", ".tsv"):
        sep = "\t" if path.suffix == ".tsv" else ","
        content = table.to_csv(index=False, sep=sep, quoting=csv.QUOTE_ALL, lineterminator="\n")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(content)
    elif path.suffix == ".parquet":
        path.write_bytes(table.to_parquet())
    else:
        rows = table.to_dict(orient="records")
        text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")


def made(columns, labels, rows=24):
    """Texts, their labels, and numbers that belong to nobody."""
    of = [labels[i % len(labels)] for i in range(rows)]
    texts = [f"text {i} {label}" for i, label in enumerate(of)]
    return pd.DataFrame(dict(zip(columns, [texts, of, [f"{i}" for i in range(rows)]], strict=False)))


@settings(max_examples=100, **quiet)
@given(file=FILE, columns=COLUMNS, labels=LABELS, ending=st.sampled_from(ENDINGS), in_folder=st.booleans())
def test_rows_are_read_under_any_name(file, columns, labels, ending, in_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    if in_folder:
        (folder / file).mkdir()
    path = folder / file / f"train{ending}" if in_folder else folder / f"{file}{ending}"
    table = made(columns, labels)
    write(path, table)
    text, label = columns[:2]
    dataset = TASKS["classification"].load(
        str(path.parent if in_folder else path), text_column=text, label_column=label
    )
    names = dataset["train"].features["label"].names
    assert sorted(names) == sorted(map(str.strip, labels))
    read = {(row["text"], names[row["label"]]) for split in dataset.values() for row in split}
    assert read == {(a, b.strip()) for a, b in zip(table[text], table[label], strict=True)}
    for column in columns[2:]:
        kept = next(name for name in dataset["test"].column_names if name.strip() == column.strip())
        assert set(data.slice_column(dataset["test"], kept)) <= set(table[column])
    assert data.fingerprint(dataset)


def call(capfd, *words):
    capfd.readouterr()
    try:
        status = cli.main(list(words))
    except SystemExit as left:
        status = left.code
    out, err = capfd.readouterr()
    assert "\x1b" not in err
    return status, out, err


def check_run(tiny_bert, folder, capfd, *, file, columns, labels, ending, output, model):
    """Train, evaluate, predict and write the gallery, or be refused at once."""
    table, path = made(columns, labels), folder / f"{file}{ending}"
    write(path, table)
    before = path.read_bytes()
    (folder / model).symlink_to(tiny_bert)
    options = {"data": path.name, "text-column": columns[0], "label-column": columns[1], "model": f"./{model}",
               "output-dir": f"results/{output}", "epochs": 1, "max-length": 16, "precision": "fp32"}  # fmt: skip
    status, out, err = call(capfd, "train", "classification", *(f"--{k}={v}" for k, v in options.items()))
    assert path.read_bytes() == before
    if status == 2:
        assert err.count("\n") == 1, err
        assert not any("metrics.json" in names or "model" in folders for _, folders, names in os.walk("results"))
        return
    assert status == 0, err
    run = os.path.normpath(f"results/{output}")
    record = records.read(folder / run)
    for name in ("TEXT_COLUMN", "LABEL_COLUMN"):
        assert record.parameters[name] == options[name.lower().replace("_", "-")]
    assert sorted(os.listdir(run)) == ["checkpoints", "history.json", "metrics.json", "model", "predictions.csv"]
    status, out, err = call(capfd, "evaluate", "--json", "--", run)
    assert status == 0, err
    value = json.loads(out)["metrics"]["accuracy"]["value"]
    assert value == pytest.approx(record.metrics["accuracy"]["value"])
    words = [f"--file={path.name}", "--format=jsonl", "--precision=fp32", "--", run]
    status, out, err = call(capfd, "predict", *words)
    assert status == 0, err
    rows = [json.loads(row) for row in out.splitlines()]
    assert [row["text"] for row in rows] == table[columns[0]].tolist()
    assert {row["label"] for row in rows} <= set(map(str.strip, labels))
    status, out, err = call(capfd, "gallery")
    assert status == 0, err
    page = (folder / "results/index.html").read_text(encoding="utf-8").partition("<body")[2]
    assert "metrics.json" in page
    assert "<b>" not in page


@pytest.fixture
def check(tiny_bert, tmp_path_factory, capfd, monkeypatch):
    def in_a_folder_of_its_own(names):
        folder = tmp_path_factory.mktemp("names")
        monkeypatch.chdir(folder)
        check_run(tiny_bert, folder, capfd, **names)

    return in_a_folder_of_its_own


PLAIN = {"file": "a", "columns": ["text", "label"], "labels": ["a", "b"], "ending": ".csv", "output": "x", "model": "m"}
NAMES = st.fixed_dictionaries(
    {"file": FILE, "columns": COLUMNS, "labels": LABELS, "ending": st.sampled_from(ENDINGS), "output": FILE,
     "model": FILE.filter(lambda name: name not in (".", ".."))}
)  # fmt: skip


@settings(max_examples=FEW, **quiet)
@given(names=NAMES)
@example(names={**PLAIN, "file": f"caf{NOT_UTF8}", "columns": ["~text", "/label"], "labels": ["a", "A"]})
@example(names={**PLAIN, "output": f"x{NOT_UTF8}"})
@example(names={**PLAIN, "model": f"m{NOT_UTF8}"})
@example(names={**PLAIN, "file": "-x[1]", "columns": ["--text", "-"], "labels": ["\u202ea", "\x1b[31m"], "output": "~"})
def test_a_run_under_any_name_is_recorded_or_refused(names, check):
    check(names)


@pytest.mark.slow
@settings(max_examples=MANY, **quiet)
@given(names=NAMES)
def test_many_runs_under_any_name_are_recorded_or_refused(names, check):
    check(names)
