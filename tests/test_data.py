import json
import os

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset
from hypothesis import given
from hypothesis import strategies as st

from bert_helpers import DataError, data
from bert_helpers.tasks import classification
from bert_helpers.tasks.registry import TASKS

ROWS = [{"text": f"text number {i}", "label": ["bad", "good", "so-so"][i % 3]} for i in range(60)]


def frame():
    return pd.DataFrame(ROWS)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


WRITERS = {
    "reviews.csv": lambda path: frame().to_csv(path, index=False),
    "semicolon.csv": lambda path: frame().to_csv(path, index=False, sep=";"),
    "crlf.csv": lambda path: frame().to_csv(path, index=False, lineterminator="\r\n"),
    "bom.csv": lambda path: frame().to_csv(path, index=False, encoding="utf-8-sig"),
    "reviews.tsv": lambda path: frame().to_csv(path, index=False, sep="\t"),
    "reviews.jsonl": lambda path: frame().to_json(path, orient="records", lines=True),
    "reviews.json": lambda path: frame().to_json(path, orient="records"),
    "reviews.parquet": lambda path: frame().to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    dataset = TASKS["classification"].load(path)
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 48, "validation": 6, "test": 6}
    assert dataset["train"].features["label"].names == ["bad", "good", "so-so"]
    back = [(r["text"], split.features["label"].int2str(r["label"])) for split in dataset.values() for r in split]
    assert sorted(back) == sorted((row["text"], row["label"]) for row in ROWS)


def test_a_folder_with_three_files_and_other_column_names(tmp_path):
    for name in ("train", "dev", "test"):
        frame().rename(columns={"text": "review", "label": "stars"}).to_csv(tmp_path / f"{name}.csv", index=False)
    dataset = TASKS["classification"].load(tmp_path, text_column="review", label_column="stars")
    assert [len(split) for split in dataset.values()] == [60, 60, 60]
    assert dataset["train"].column_names == ["text", "label"]


def test_the_splits_of_one_file_are_disjoint_stratified_and_seeded(tmp_path):
    path = tmp_path / "a.csv"
    frame().to_csv(path, index=False)
    one, same, other = (TASKS["classification"].load(path, seed=seed) for seed in (0, 0, 1))
    texts = [text for split in one.values() for text in split["text"]]
    assert len(set(texts)) == 60
    assert one["test"]["text"] == same["test"]["text"]
    assert one["test"]["text"] != other["test"]["text"]
    assert data.label_counts(one)["validation"].tolist() == [2, 2, 2]


def test_sizes_of_missing_splits_are_taken_from_the_training_rows(tmp_path):
    path = tmp_path / "a.csv"
    frame().to_csv(path, index=False)
    dataset = TASKS["classification"].load(path, validation_size=3, test_size=30)
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 27, "validation": 3, "test": 30}


def test_a_classs_only_row_is_never_held_out(tmp_path):
    lines = [f"text {i},{label}" for i, label in enumerate("ab" * 10 + "cdefg")]
    write(tmp_path / "a.csv", "text,label\n" + "\n".join(lines) + "\n")
    for seed in range(20):
        dataset = TASKS["classification"].load(tmp_path / "a.csv", validation_size=4, test_size=6, seed=seed)
        assert [len(split) for split in dataset.values()] == [15, 4, 6]
        assert set(dataset["train"]["label"]) == set(range(7))


def test_names_that_are_one_number_keep_one_order():
    names = ["10", "7", "007", "07", "0", "-0", "N/A", "n/a"]
    given = (names, names[::-1], names[3:] + names[:3])
    orders = {tuple(sorted(order, key=classification.natural_order)) for order in given}
    assert orders == {("-0", "0", "007", "07", "7", "10", "N/A", "n/a")}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([2, 10, 1], ["1", "2", "10"]),
        ([True, False, True], ["False", "True"]),
        ([1.0, 0.0, 1.0], ["0", "1"]),
        (["b", "a", "c"], ["a", "b", "c"]),
    ],
)
def test_labels_of_every_kind_become_named_classes(labels, names, tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": [f"t{i}" for i in range(30)], "label": labels * 10}).to_parquet(path)
    assert TASKS["classification"].load(path)["train"].features["label"].names == names


def test_class_names_stored_in_parquet_are_kept(tmp_path):
    rows = Dataset.from_dict({"text": ["a", "b"] * 10, "label": [0, 1] * 10})
    rows.cast_column("label", ClassLabel(names=["neg", "pos"])).to_parquet(tmp_path / "a.parquet")
    assert TASKS["classification"].load(tmp_path / "a.parquet")["train"].features["label"].names == ["neg", "pos"]


def test_words_that_look_like_missing_values_stay_words(tmp_path):
    write(tmp_path / "a.csv", "text,label\n" + "NA,null\nNone,007\n" * 10)
    with pytest.raises(DataError, match="the label 'null' says that there is none; leave such rows out by DROP_LABELS"):
        TASKS["classification"].load(tmp_path / "a.csv")
    dataset = TASKS["classification"].load(tmp_path / "a.csv", keep_labels="NA, null")
    assert set(dataset["train"]["text"]) == {"NA", "None"}
    assert dataset["train"].features["label"].names == ["007", "null"]


def test_a_class_of_one_row_and_500_classes_do_no_harm(tmp_path):
    rows = [{"text": f"t{i}", "label": f"c{i % 499}"} for i in range(2000)] + [{"text": "alone", "label": "only"}]
    pd.DataFrame(rows).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    dataset = TASKS["classification"].load(tmp_path / "a.jsonl")
    assert dataset["train"].features["label"].num_classes == 500


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), st.data())
def test_stratified_sampling_keeps_shares_to_within_a_row(labels, draw):
    size = draw.draw(st.integers(1, len(labels)))
    rows = data.stratified_indices(labels, size, seed=draw.draw(st.integers(0, 9)))
    assert len(set(rows.tolist())) == size
    labels = np.array(labels)
    for label in set(labels.tolist()):
        expected = (labels == label).mean() * size
        assert abs((labels[rows] == label).sum() - expected) <= 1


def test_the_fingerprint_depends_on_the_rows_alone(tmp_path):
    for name in ("a.csv", "b.jsonl"):
        WRITERS["reviews" + os.path.splitext(name)[1]](tmp_path / name)
    one, two = (TASKS["classification"].load(tmp_path / name) for name in ("a.csv", "b.jsonl"))
    assert data.fingerprint(one) == data.fingerprint(two)
    changed = one["train"].map(lambda row: {"text": row["text"].upper()})
    one["train"] = changed
    assert data.fingerprint(one) != data.fingerprint(two)


GOOD = "text,label\n" + "a,x\nb,y\n" * 20
OWN = "Was passiert ist;Zuständig\n" + "a;Müll\nb;3b\n" * 20
OWN_COLUMNS = {"text_column": "Was passiert ist", "label_column": "Zuständig"}


def test_blanks_around_names_of_columns_are_nobodys(tmp_path):
    write(tmp_path / "mine.csv", OWN.replace("Was passiert ist;", " Was passiert ist ;"))
    for name in ("Was passiert ist", " Was passiert ist "):
        dataset = TASKS["classification"].load(tmp_path / "mine.csv", text_column=name, label_column="Zuständig")
        assert dataset["train"].column_names == ["text", "label"]


@pytest.mark.parametrize("delimiter", list("^~#:/*+!&"))
def test_an_unusual_delimiter_is_found_by_the_names_of_the_columns(delimiter, tmp_path):
    write(tmp_path / "mine.csv", OWN.replace(";", delimiter))
    dataset = TASKS["classification"].load(tmp_path / "mine.csv", **OWN_COLUMNS)
    assert dataset["train"].features["label"].names == ["3b", "Müll"]
    assert set(dataset["train"]["text"]) == {"a", "b"}


def test_a_quoted_text_may_hold_delimiters_lines_and_marks(tmp_path):
    text = 'He said "well; no",\n\nthen left; it is 5" wide'
    write(tmp_path / "mine.csv", OWN + '"' + text.replace('"', '""') + '";3b\n5" disk;Müll\n')
    dataset = TASKS["classification"].load(tmp_path / "mine.csv", **OWN_COLUMNS)
    assert {text, '5" disk'} <= {row for split in dataset.values() for row in split["text"]}


def test_a_text_may_be_longer_than_a_field_of_the_csv_module(tmp_path):
    long = "word " * 60_000
    write(tmp_path / "mine.csv", f"text,label\n{long},a\n" + "x,b\ny,a\n" * 20)
    assert max(
        len(text) for split in TASKS["classification"].load(tmp_path / "mine.csv").values() for text in split["text"]
    ) == len(long)


def test_errors_keep_apart_columns_whose_names_are_swapped(tmp_path):
    write(tmp_path / "mine.csv", GOOD + "c,\n")
    with pytest.raises(DataError, match="row 41, column 'label': the text is empty"):
        TASKS["classification"].load(tmp_path / "mine.csv", text_column="label", label_column="text")


def test_an_unknown_label_in_a_later_split_is_named(tmp_path):
    write(tmp_path / "train.csv", GOOD)
    write(tmp_path / "test.csv", "text,label\na,x\nb,z\n")
    with pytest.raises(DataError, match=r"test.csv, row 2, column 'label': 'z' does not occur.*'x', 'y'"):
        TASKS["classification"].load(tmp_path)


def test_two_files_for_one_split_are_refused(tmp_path):
    for name in ("train.csv", "val.csv", "dev.csv"):
        write(tmp_path / name, GOOD)
    assert len(TASKS["classification"].load(tmp_path)["validation"]) == len(GOOD.splitlines()) - 1  # copies of one file
    write(tmp_path / "dev.csv", GOOD + "another text,x\n")
    with pytest.raises(DataError, match=r"both dev\.csv and val\.csv hold the validation split"):
        TASKS["classification"].load(tmp_path)


def test_a_folder_without_training_file_is_refused(tmp_path):
    write(tmp_path / "test.csv", GOOD)
    with pytest.raises(DataError, match="no train file"):
        TASKS["classification"].load(tmp_path)


def test_other_columns_are_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"id": i, "text": f"t{i}", "label": i % 2, "kind": "k"}) + "\n" for i in range(20))
    )
    assert set(TASKS["classification"].load(tmp_path / "a.jsonl")["test"].column_names) == {
        "id",
        "text",
        "label",
        "kind",
    }


def test_thinning_out_keeps_one_in_so_many_rows_of_the_rarest_class(small_dataset):
    thin = data.thin_out(small_dataset, 4, seed=0)
    assert data.label_counts(thin).to_numpy().tolist() == [[24, 8, 8], [6, 2, 2]]
    assert set(thin["train"]["text"]) < set(small_dataset["train"]["text"])
    assert thin["train"]["text"] != data.thin_out(small_dataset, 4, seed=1)["train"]["text"]
    assert data.thin_out(small_dataset, 1, seed=0)["train"]["text"] == small_dataset["train"]["text"]


def test_a_column_to_slice_by_is_named_when_it_is_not_there(small_dataset):
    assert set(data.slice_column(small_dataset["train"], "hard")) <= {"", "mixed", "irony", "negation", "part", "plot"}
    with pytest.raises(DataError, match="no column 'shop' to slice by; it has text, hard, label"):
        data.slice_column(small_dataset["train"], "shop")
