"""Layouts as a new user tries them, unprepared; `info` revealed for each what was in the way."""

import json

import pytest

from bert_helpers.errors import DataError
from bert_helpers.readers.source import assumed
from bert_helpers.tasks.registry import TASKS

TEXTS = [f"the crew of flight {i} was kind and nobody said why it was late" for i in range(30)]
LABELS = ["yes", "no"] * 15


def test_a_title_above_an_excel_table_is_left_out_and_said(tmp_path):
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (
        ["Complaints, first quarter"],
        [],
        ["No.", "Complaint", "Team"],
        *zip(range(30), TEXTS, LABELS, strict=False),
    ):
        book.active.append(row)
    book.save(tmp_path / "export.xlsx")
    options = {"text_column": "Complaint", "label_column": "Team"}
    rows = TASKS["classification"].load(tmp_path / "export.xlsx", **options)
    assert sum(map(len, rows.values())) == 30
    assert assumed(rows)["export.xlsx"]["title above the table"] == "Complaints, first quarter"


def test_the_questions_of_a_form_are_no_row_in_silence(tmp_path):
    """Columns are named by number; before, the question was taken for a class with one row."""
    lines = ['"Timestamp","What should we do better? (some words, please)","Are you satisfied with us?"']
    rows = enumerate(zip(TEXTS, LABELS, strict=True))
    lines += [f'"2026/03/01 9:14:{i:02} AM GMT+1","{text}","{label}"' for i, (text, label) in rows]
    (tmp_path / "form.csv").write_text("\n".join(lines))
    options = {"text_column": "2", "label_column": "3"}
    with pytest.raises(DataError, match="may name the columns or be a row"):
        TASKS["classification"].load(tmp_path / "form.csv", **options)
    rows = TASKS["classification"].load(tmp_path / "form.csv", **options, header="yes")
    assert sum(map(len, rows.values())) == 30
    assert rows["train"].features["label"].names == ["no", "yes"]


def test_decimal_commas_are_read_unless_they_may_be_thousands(tmp_path):
    def scores(*written):
        lines = [f"{text};{text};{score}" for text, score in zip(TEXTS, written * 10, strict=False)]
        (tmp_path / "a.csv").write_text("text;text_pair;label\n" + "\n".join(lines))
        rows = TASKS["regression"].load(tmp_path / "a.csv")
        assert assumed(rows)["a.csv"]["decimal sign"] == "a comma"
        return sorted({score for split in rows.values() for score in split["label"]})

    assert scores("0,5", "2", "4,25") == [0.5, 2.0, 4.25]
    with pytest.raises(DataError, match="write a point for the comma"):
        scores("1,500", "2,250", "3")
    with pytest.raises(DataError, match=r"scores go from 0\.5 to 42"):
        scores("0,5", "2", "42,0")


def test_numbers_are_labels_of_a_text_with_one(tmp_path):
    rows = [{"text": text, "labels": i % 3} for i, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert TASKS["multilabel"].load(tmp_path / "a.jsonl")["train"].features["labels"].feature.names == ["0", "1", "2"]


def test_a_hundred_thousand_bad_tags_are_named_in_seconds(tmp_path):
    (tmp_path / "a.csv").write_text("word,tag\n" + "".join(f"w{i},b{i % 9}\n" for i in range(100_000)))
    with pytest.raises(DataError) as caught:
        TASKS["ner"].load(tmp_path / "a.csv", tokens_column="word", tags_column="tag")
    assert len(caught.value.rows) == 100_000
