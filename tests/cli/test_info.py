"""`info` shows what training would read from a source, and what is wrong with it, without training."""

import inspect
import json

import pandas as pd
import pytest

from bert_helpers import files, parameters
from bert_helpers.cli import main as cli
from bert_helpers.tasks.registry import TASKS

TEAMS = ["bills", "parcels", "app"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tickets = [{"message": f"where is my parcel number {i}", "team": TEAMS[i % 3]} for i in range(40)]
    pd.DataFrame(tickets).to_csv("tickets.csv", index=False, sep=";")
    return tmp_path


def shown(capsys, *words, status=0):
    capsys.readouterr()
    assert cli.main(["info", *words, "--json"]) == status
    out, err = capsys.readouterr()
    assert err == ""
    content = json.loads(out)
    assert list(content) == ["source", "format", "task", "splits", "assumed", "faults"]
    for split in content["splits"].values():
        assert list(split) == ["rows", "labels", "first"]
    for fault in content["faults"]:
        assert fault.keys() == {"problem", "source", "row", "column", "fix", "parameter"}
    return content


COLUMNS = ("--text-column", "message", "--label-column", "team")


def test_a_file_is_shown_as_it_would_be_read(home, capsys):
    content = shown(capsys, "tickets.csv", "--task", "classification", *COLUMNS)
    assert (content["source"], content["format"], content["task"]) == ("tickets.csv", "csv", "classification")
    assert content["splits"].keys() == {"train"}  # nothing is held out
    train = content["splits"]["train"]
    assert (train["rows"], train["labels"]) == (40, {"bills": 14, "parcels": 13, "app": 13})
    assert [row["label"] for row in train["first"]] == TEAMS
    assert [row["text"] for row in train["first"]] == [f"where is my parcel number {i}" for i in range(3)]
    assert content["faults"] == []


def test_options_of_reading_are_those_of_train(home, capsys):
    (home / "old.csv").write_bytes("text,label\nschön,a\ngrün,b\nblau,a\n".encode("cp1252"))
    content = shown(capsys, "old.csv", "--task", "classification")
    assert "cp1252" in json.dumps(content["assumed"])
    content = shown(capsys, "old.csv", "--task", "classification", "--encoding", "cp1252")
    assert "cp1252" not in json.dumps(content["assumed"])
    assert content["splits"]["train"]["first"][0]["text"] == "schön"
    assert cli.main(["info", "old.csv", "--task", "classification", "--tags-column", "x"]) == 2
    assert "--tags-column is no parameter" in capsys.readouterr().err
    others = {"DATA", "MODEL", "TYPES", "READING", "SOURCE", "TRAIN_SIZE", "VALIDATION_SIZE", "TEST_SIZE", "SEED"}
    taken = {name.upper() for task in TASKS.values() for name in inspect.signature(task.load).parameters}
    assert taken - others <= parameters.of_info().keys()
    rows = "".join(f"row {i}\tFood, drinks; Price{i % 3}\n" for i in range(30))
    (home / "tags.tsv").write_text(f"text\tlabels\n{rows}")
    (fault,) = shown(capsys, "tags.tsv", "--task", "multilabel")["faults"]
    assert "say which it is by --label-delimiter" in fault["fix"]
    content = shown(capsys, "tags.tsv", "--task", "multilabel", "--label-delimiter", ";")
    assert content["splits"]["train"]["labels"]["Food, drinks"] == 30
    assert (spell := cli._spelling(cli._parse(["predict", "x"]).parser))("LABEL_DELIMITER") == "LABEL_DELIMITER"
    assert [spell("QA_BATCH_SIZE"), spell("DELIMITER")] == ["--batch-size", "--delimiter"]


def test_each_bad_row_is_a_fault_and_the_rows_are_shown_all_the_same(home, capsys):
    texts = [f"text {i}" if i % 2 else "" for i in range(30)]
    pd.DataFrame({"text": texts, "label": TEAMS * 10}).to_csv("bad.csv", index=False)
    content = shown(capsys, "bad.csv", "--task", "classification")
    assert [fault["row"] for fault in content["faults"]] == [2 * i + 1 for i in range(10)]
    assert {fault["problem"] for fault in content["faults"]} == {"the text is empty (15 rows)"}
    assert {(fault["source"], fault["column"]) for fault in content["faults"]} == {("bad.csv", "text")}
    assert content["splits"]["train"]["rows"] == 30
    few = shown(capsys, "bad.csv", "--task", "classification", "--text-column", "label", "--label-column", "text")
    assert "label" in few["faults"][0]["problem"]


def test_too_few_rows_to_hold_out_are_a_fault(home, capsys):
    (home / "two.csv").write_text("text,label\nno more,a\nmore,b\n")
    content = shown(capsys, "two.csv", "--task", "classification")
    assert content["splits"]["train"]["rows"] == 2
    assert "too few to hold out" in content["faults"][0]["problem"]


@pytest.mark.parametrize("name", ["nosuch.csv", "empty.csv", "noise.parquet", "elsewhere"])
def test_where_nothing_can_be_read_the_status_is_2(name, home, capsys):
    (home / "empty.csv").write_text("")
    (home / "noise.parquet").write_bytes(b"noise" * 9)
    for words in ([name], [name, "--task", "ner"]):
        content = shown(capsys, *words, status=2)
        assert content["splits"] == {}
        assert len(content["faults"]) == 1


@pytest.mark.parametrize("task", TASKS)
def test_the_sample_of_each_task_is_shown_by_split(task, home, capsys):
    content = shown(capsys, "sample", "--task", task)
    rows = sum(split["rows"] for split in content["splits"].values())
    assert rows == sum(map(len, TASKS[task].load("sample").values()))
    labels = content["splits"]["train"]["labels"]
    if task == "qa":
        assert labels["with an answer"] + labels["without an answer"] == content["splits"]["train"]["rows"]
        assert labels["contexts"] == len({*TASKS[task].load("sample")["train"]["context"]})
    if TASKS[task].numeric:
        assert sum(labels.values()) == content["splits"]["train"]["rows"]


def test_without_a_task_it_says_which_could_be_served(home, capsys):
    pd.DataFrame({"text": ["a b", "c d", "e f"] * 9, "label": TEAMS * 9}).to_csv("plain.csv", index=False)
    (home / "words.conll").write_text("Bo B-PER\nleft O\n\nBrask B-LOC\n\nNo O\n")
    assert "classification" in shown(capsys, "plain.csv")["task"]
    assert shown(capsys, "words.conll")["task"] == ["ner"]
    assert shown(capsys, "words.conll")["splits"]["train"]["labels"] == {"PER": 1, "LOC": 1}


def test_columns_of_other_names_are_guessed_and_said(home, capsys):
    content = shown(capsys, "tickets.csv")
    assert "classification" in content["task"]
    assert content["splits"]["train"]["first"][0]["label"] == "bills"
    assert cli.main(["info", "tickets.csv"]) == 0
    text = capsys.readouterr().out
    assert "--text-column 'message' --label-column 'team'" in text
    assert "40 rows: bills 14" in text
    assert "(of all rows); 0% longer than --max-length" in text
    many = [{"body": f"where is my parcel number {i}", "topics": ["late", "lost"][: i % 3]} for i in range(30)]
    pairs = [{"one": f"a cat number {i} sat", "two": f"it sat on mat {i}", "same": "ny"[i % 2]} for i in range(30)]
    files = {
        "--text-column 'body' --label-column 'topics'": pd.DataFrame(many),
        "--text-column 'body' --label-column 'late,lost'": pd.DataFrame(
            [{"body": row["body"], **{name: int(name in row["topics"]) for name in ("late", "lost")}} for row in many]
        ),
        "--text-column 'one' --pair-column 'two' --label-column 'same'": pd.DataFrame(pairs),
        "--text-column 'body' --pair-column '' --low 1 --high 9 --label-column 'grade'": pd.DataFrame(
            [{"body": row["body"], "grade": round(1 + 8 * i / 29, 2)} for i, row in enumerate(many)]
        ),
    }
    for words, table in files.items():
        table.to_json("table.json", orient="records")
        assert cli.main(["info", "table.json"]) == 0
        assert f"{words} (guessed" in capsys.readouterr().out


def test_a_runs_folder_is_shown_from_its_record(home, capsys):
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    described = {"source": "tickets.csv", "rows": {"train": 9}, "assumed": {"tickets.csv": {"encoding": "cp1252"}}}
    record = {"metrics": {"accuracy": score}, "parameters": {}, "data": described, "tasks": ["classification"],
              "model": "tiny", "findings": [{"finding": "leakage", "symptom": "3 rows"}]}  # fmt: skip
    files.write_json(home / "results/x/metrics.json", record)
    assert cli.main(["info", "results/x"]) == 0
    text = capsys.readouterr().out
    for words in (
        "accuracy 0.500 (0.400 to 0.600)",
        "tickets.csv (9 train rows)",
        "encoding cp1252",
        "leakage: 3 rows",
    ):
        assert words in text
    assert cli.main(["info", "results/x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "results/x", **record}
