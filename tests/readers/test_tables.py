"""Delimited text, JSON and Parquet: what is read is what was written, from the named file and no other."""

import csv
import json
import os
import re
import time
from operator import itemgetter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_helpers import BertHelpersError, DataError, data, models
from bert_helpers.readers import conll, delimited, hub, json_rows, parquet, source, tables
from bert_helpers.readers.source import Reading
from bert_helpers.tasks.registry import TASKS

fuzz = settings(max_examples=150, derandomize=True, deadline=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
ODD = [
    "",
    " ",
    "\0",
    "\n",
    "\r\n",
    '"',
    '""',
    "'",
    ",",
    ";",
    "\t",
    "|",
    "null",
    "NA",
    "007",
    "\ufeff",
    "🍿",
    "פנטסטי",
    "\u2028",
]
FIELD = st.one_of(st.sampled_from(ODD), st.text(max_size=9), st.lists(st.sampled_from(ODD), max_size=4).map("".join))


@fuzz
@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(FIELD, min_size=width, max_size=width), max_size=12)
    ),
    delimiter=st.sampled_from(",;\t|^"),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    quote_all=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_every_field_of_a_delimited_file_arrives_as_it_was_written(rows, delimiter, ending, quote_all, mark, tmp_path):
    names = ["text", "label", "x y", "z"][: len(rows[0]) if rows else 1]

    def written(field):
        quoted = quote_all or not field or any(sign in field for sign in f'{delimiter}"\r\n')
        return '"' + field.replace('"', '""') + '"' if quoted else field

    lines = [delimiter.join(map(written, row)) + ending for row in [names, *rows]]
    (tmp_path / "a.csv").write_bytes((mark + "".join(lines)).encode())
    dataset = delimited.read_delimited(tmp_path / "a.csv", Reading(dict.fromkeys(names, "")))
    assert dataset.column_names == names
    assert [list(row.values()) for row in dataset] == rows


VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(1 - 2**63, 2**63 - 1), st.floats(allow_nan=False), FIELD,
    st.lists(FIELD, max_size=3), st.lists(st.one_of(st.integers(0, 9), FIELD), max_size=3),
)  # fmt: skip


@fuzz
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["text", "b", "line", "ü"]), VALUE).map(lambda row: {"text": "t"} | row)
    ),
    lines=st.booleans(),
    batch=st.integers(1, 3),
)
def test_every_value_of_a_json_file_arrives_as_it_was_written(rows, lines, batch, tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "BATCH", batch)
    path = tmp_path / "a.json"
    text = "\n\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=1)
    path.write_text(text, encoding="utf-8")
    dataset = json_rows.read_json(path, Reading())
    assert dataset.column_names == list(dict.fromkeys(name for row in rows for name in row))
    for name in dataset.column_names:
        assert data.values_of(dataset, name) == [row.get(name) for row in rows]
    assert data.fingerprint(DatasetDict(rows=dataset))  # `datasets` decodes JSON by rules other than Python's


SIGNS = st.lists(
    st.sampled_from(['"', '""', ",", "\n", "\r", "\r\n", " ", "a", "é", "\0", "🍿", "\t", "x,y\n", '"a",b\n']),
    max_size=25,
).map("".join)


@settings(fuzz, max_examples=1500)
@given(
    text=SIGNS,
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_NONE]),
    width=st.integers(1, 3),
    header=st.booleans(),
)
def test_what_is_parsed_quickly_is_what_the_exact_parser_gives(text, quoting, width, header):
    layout = delimited.Layout(",", quoting, [f"c{i}" for i in range(width)], header)
    try:
        first = next(filter(None, layout.rows(text)), None)
    except csv.Error:
        first = None
    quick = delimited._read_quickly(text.encode(), layout) if first or not header else None
    if quick is not None:
        assert quick.to_pydict() == delimited._read_exactly(Path("a.csv"), text.encode(), layout, Reading()).to_pydict()


@fuzz
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, st.integers(0, 9)), min_size=1),
    form=st.sampled_from(["csv", "tsv", "jsonl", "json", "split", "columns", "parquet"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_table_holds_is_what_a_plain_parser_gives(rows, form, encoding, tmp_path):
    table = pd.DataFrame(rows, columns=["text", "label", "n"])
    path = tmp_path / f"a.{form if form in ('csv', 'tsv', 'jsonl', 'parquet') else 'json'}"
    if form == "parquet":
        table.to_parquet(path)
    elif form in ("csv", "tsv"):
        path.write_bytes(table.to_csv(index=False, sep=",\t"[form == "tsv"], quoting=csv.QUOTE_ALL).encode(encoding))
    else:
        orient = {"jsonl": "records", "json": "records"}.get(form, form)
        path.write_bytes(table.to_json(orient=orient, lines=form == "jsonl", force_ascii=False).encode(encoding))
    splits = source.read_source(
        path, sample="", formats=tables.FORMATS, reading=Reading({"text": "TEXT_COLUMN", "label": "LABEL_COLUMN"})
    )
    assert splits["train"]["text"][:] == [text for text, _, _ in rows]
    assert splits["train"]["label"][:] == [label for _, label, _ in rows]
    assert [int(n) for n in splits["train"]["n"][:]] == [n for _, _, n in rows]


LINE = FIELD.map(lambda text: re.sub(r"[\r\n]", "x__label__", text).strip()).filter(bool)
LINES = {"fastText.txt": "__label__{1} {0}", "TREC.label": "{1} {0}", "texts.txt": "{0}", "above.csv": '"{2}",{1}'}
ABOVE = "Texts, and what they are\n# by hand\n\ntext,fine_label\n"


@fuzz
@given(
    rows=st.lists(st.tuples(LINE, st.sampled_from(["HUM:ind", "LOC:city"]))),
    name=st.sampled_from([*LINES, "pos.txt"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_a_row_a_line_is_what_a_plain_parser_gives(rows, name, encoding, ending, tmp_path):
    rows, path = [("a text", "HUM:ind"), *rows, ("the last", "LOC:city")], tmp_path / name.partition(".")[0] / name
    path.parent.mkdir(exist_ok=True)

    def write(name, lines):
        (path.parent / name).write_bytes("".join(f"{line}\n" for line in lines).replace("\n", ending).encode(encoding))

    lines = [LINES.get(name, "").format(*row, row[0].replace('"', '""')) for row in rows]
    write(name, [*ABOVE.split("\n")[:-1], *lines] if name == "above.csv" else lines)
    if name == "texts.txt":
        write("labels.txt", [label for _, label in rows])
    if name == "pos.txt":
        for label, file in {"HUM:ind": "neg.txt", "LOC:city": "pos.txt"}.items():
            write(file, [text for text, of in rows if of == label])
        rows = [(text, {"HUM:ind": "neg", "LOC:city": "pos"}[label]) for text, label in sorted(rows, key=itemgetter(1))]
    reading = Reading({"text": "TEXT_COLUMN", "fine_label": "LABEL_COLUMN"})
    whole = path.parent if name == "pos.txt" else path
    found = source.read_source(whole, sample="", formats=tables.FORMATS, reading=reading)["train"]
    assert list(zip(found["text"], found["fine_label"], strict=True)) == rows


def read(path, wanted=("text",)):
    splits = source.read_source(path, sample="", formats=tables.FORMATS, reading=Reading(dict.fromkeys(wanted, "")))
    return {name: split["text"][:] for name, split in splits.items()}


def test_rows_may_lack_fields_and_lines_may_be_blank(tmp_path):
    (tmp_path / "a.csv").write_text('\n\ntext,label\n"a"\n\n   \nb,"x\ny"\n,\n')
    dataset = delimited.read_delimited(tmp_path / "a.csv", Reading({"text": "", "label": ""}))
    assert dataset.to_dict() == {"text": ["a", "b", ""], "label": ["", "x\ny", ""]}
    (tmp_path / "b.csv").write_text('text\n" "\n\n  \n""\n')  # if there is one column, blanks are a row
    assert read(tmp_path / "b.csv") == {"train": [" ", "  ", ""]}


def test_columns_that_nobody_asked_for_get_names(tmp_path):
    (tmp_path / "a.csv").write_text("text,b,b,,\nx,1,2,3,4\n")
    dataset = delimited.read_delimited(tmp_path / "a.csv", Reading({"text": ""}))
    assert dataset.to_list() == [{"text": "x", "b": "1", "b: 2": "2", "Unnamed: 3": "3", "Unnamed: 4": "4"}]


def test_a_long_field_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "x" * 10_000_000 + ",a\ny,b\n")
    assert list(map(len, read(path)["train"])) == [10_000_000, 1]


# --- the file that is named ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("name", "others"), [("new[1]", ["new1"]), ("star*", ["star1", "star"]), ("a?c", ["abc"]),
                                              ("hf:..x", []), ("a%20b", ["a b"]), ("**", ["x"])])  # fmt: skip
def test_a_name_is_no_pattern(name, others, ending, tmp_path):
    for stem in [*others, name]:
        table = pa.table({"text": [f"of {stem}"]})
        write = {
            ".csv": lambda path, table: path.write_text(f"text\n{table['text'][0]}\n"),
            ".jsonl": lambda path, table: path.write_text(json.dumps(table.to_pylist()[0])),
            ".parquet": lambda path, table: pq.write_table(table, path),
        }[ending]
        write(tmp_path / f"{stem}{ending}", table)
    assert read(tmp_path / f"{name}{ending}") == {"train": [f"of {name}"]}


def test_the_name_of_a_folder_is_no_pattern(tmp_path):
    folder = tmp_path / "data [2024] *"
    folder.mkdir()
    for name in ("train", "dev"):
        (folder / f"{name}.csv").write_text(f"text\n{name}\n")
    assert read(folder) == {"train": ["train"], "validation": ["dev"]}


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.conll"])
def test_a_file_is_read_as_it_is_not_as_it_was_at_the_same_time(name, tmp_path):
    contents = {"s.csv": "text,label\nOLD,a\n", "s.jsonl": '{"text": "OLD"}\n', "s.conll": "OLD O\n"}
    path = tmp_path / name
    kind = source.Format(
        (".conll",), lambda path, reading: conll.read_conll(path, reading).rename_columns({"tokens": "text"})
    )
    for text in ("OLD", "NEW"):
        path.write_text(contents[name].replace("OLD", text))
        os.utime(path, (1_577_836_800, 1_577_836_800))
        rows = source.read_source(
            path, sample="", formats=(*tables.FORMATS, kind), reading=Reading({"text": ""} if name != "s.conll" else {})
        )["train"]
        assert text in str(rows[0]["text"])
        assert not rows.cache_files


def test_a_name_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody.csv").write_text("text\nof a file\n")
    assert read("~nobody.csv") == {"train": ["of a file"]}
    with pytest.raises(DataError, match="no such file"):
        read("~nobody-else.csv")


def test_a_missing_folder_below_one_that_is_here_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for load in (read, models.load_tokenizer):
        with pytest.raises(BertHelpersError, match=r"no such file or folder|no model here"):
            load("results/tickets")
        with pytest.raises(BertHelpersError, match="the Hub cannot be reached"):
            load("somebody/tickets")


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv: not a file"):
        read(tmp_path)


# --- sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_too_many_columns_are_refused_at_once(name, tmp_path):
    columns = {"text": "x", **{f"c{i}": "1" for i in range(100_000 if name != "a.parquet" else 5_000)}}
    if name == "a.csv":
        (tmp_path / name).write_text("\n".join([",".join(columns), ",".join(columns.values())] * 2))
    elif name == "a.jsonl":  # many keys in each row, or different keys in each
        rows = [json.dumps({"text": "x", **dict.fromkeys(list(columns)[i : i + 500], 1)}) for i in range(0, 10**5, 500)]
        (tmp_path / name).write_text("\n".join(rows))
    else:
        pq.write_table(pa.table({name: [value] for name, value in columns.items()}), tmp_path / name)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"00[01] columns; keep those that are needed; 2,000 are read"):
        read(tmp_path / name)
    assert time.perf_counter() - started < 5


def test_a_small_parquet_file_that_becomes_a_large_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "UNPACKED", 1_000_000)
    pq.write_table(pa.table({"text": ["x" * 1000] * 100_000}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"unpacks to more than [12] MB"):
        read(tmp_path / "a.parquet")


def test_classes_without_names_are_not_made(tmp_path):
    features = {"label": {"num_classes": 10**9, "_type": "ClassLabel"}}
    table = pa.table({"text": ["a"], "label": [1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a column has classes without names"):
        read(tmp_path / "a.parquet")


# --- Parquet --------------------------------------------------------------------------------------------------


def test_an_image_that_a_file_declares_is_never_decoded(tmp_path):
    features = Features({"text": Value("string"), "picture": Image()})
    table = pa.table({"text": ["a"], "picture": [{"bytes": None, "path": "http://127.0.0.1:9/x.png"}]})
    pq.write_table(table.cast(features.arrow_schema), tmp_path / "a.parquet")
    dataset = parquet.read_parquet(tmp_path / "a.parquet", Reading())
    assert dataset[0] == {"text": "a", "picture": {"bytes": None, "path": "http://127.0.0.1:9/x.png"}}


def test_an_image_that_a_data_set_of_the_hub_declares_is_never_decoded(monkeypatch):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a"]), "pictures": List(Image())})
    picture = {"bytes": b"no picture", "path": None}
    table = pa.table({"text": ["a"], "label": [0], "pictures": [[picture]]}).cast(features.arrow_schema)
    monkeypatch.setattr(hub, "read_hub", lambda *name: DatasetDict(train=Dataset(table)))
    split = source.read_source("owner/name", sample="", formats=tables.FORMATS)["train"]
    assert split[0] == {"text": "a", "label": 0, "pictures": [picture]}
    assert split.features["label"] == features["label"]
    assert data.fingerprint(DatasetDict(rows=split))


@pytest.mark.parametrize(
    "column", [pa.array([2**31 - 1], pa.date32()), pa.array([0], pa.timestamp("s", tz="No/Where"))]
)
def test_what_python_has_no_value_for_is_refused(column, tmp_path):
    pq.write_table(pa.table({"text": ["a"], "when": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        read(tmp_path / "a.parquet")


def test_categories_are_their_names_and_damaged_texts_refused(tmp_path):
    pq.write_table(
        pa.table({"text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode()}), tmp_path / "a.parquet"
    )
    assert parquet.read_parquet(tmp_path / "a.parquet", Reading())["label"][:] == ["x", "y"]
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table({"text": bad}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: not a readable Parquet file .*UTF"):
        read(tmp_path / "b.parquet")


# --- columns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["seven", 7])
@pytest.mark.parametrize("name", ["line", "__line__"])
def test_a_column_named_line_is_no_place(name, value, tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["B-Y", "X"], name: value}] * 2
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as caught:
        TASKS["ner"].load(tmp_path / "a.jsonl")
    assert (caught.value.rows, caught.value.unit, caught.value.problem) == ([1, 2], "row", "word 2: 'X' is not a tag")


def test_values_in_many_brackets_are_kept(tmp_path):
    deep = [["x"]]
    for _ in range(100):
        deep = {"a": [deep]}
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a", "deep": deep}))
    split = json_rows.read_json(tmp_path / "a.jsonl", Reading())
    assert data.values_of(split.select([0]), "deep") == [deep]


def test_a_number_of_more_than_64_bits_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{{"text": "b", "n": [{10**30}]}}\n')
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.jsonl")
    assert (caught.value.rows, caught.value.unit) == ([2], "line")
    assert "more than 64 bits" in caught.value.problem
