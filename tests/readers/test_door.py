"""Files as users have them: each is written as it is published or exported, and read completely, with a note on what
was assumed. A file that can be read in two ways is refused, and the error names both.

Formats without a public example follow their published descriptions: gluebenchmark.com and its tasks' TSVs,
nlp.stanford.edu/projects/snli, archive.ics.uci.edu/dataset/228, huggingface.co/datasets/takala/financial_phrasebank,
fasttext.cc/docs/en/supervised-tutorial, labelstud.io/guide/export, prodi.gy/docs/api-interfaces, doccano's README,
pandas.pydata.org's DataFrame.to_json, huggingface.co/docs/datasets/repository_structure, cogcomp.seas.upenn.edu's
QA/QC (TREC), github.com/cardiffnlp/tweeteval, cs.cornell.edu/people/pabo/movie-review-data, github.com/clinc/oos-eval.
"""

import gzip
import json
import zipfile

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from bert_helpers import DataError
from bert_helpers.readers.source import assumed
from bert_helpers.tasks.registry import TASKS

TEXTS = [f"a text, number {i}" for i in range(40)]
LABELS = ["ham", "spam"] * 20
ROWS = list(zip(TEXTS, LABELS, strict=True))
TABLE = pd.DataFrame({"text": TEXTS, "label": LABELS})


def load(source, task="classification", **options):
    """Return all rows of a source as sorted pairs of text and label, and what was assumed."""
    dataset = TASKS[task].load(source, **options)
    names = dataset["train"].features["label"]
    rows = [
        (row["text"], names.int2str(row["label"]) if isinstance(names, ClassLabel) else row["label"])
        for split in dataset.values()
        for row in split
    ]
    return sorted(rows), assumed(dataset)


def write(path, content):
    """Write text or bytes, and create the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- encodings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "options", "said"),
    [
        ("utf-8", {}, None),
        ("utf-8-sig", {}, None),
        ("utf-16", {}, "utf-16"),
        ("cp1252", {}, "cp1252"),
        ("latin-1", {}, "cp1252"),
        ("cp1251", {"encoding": "cp1251"}, None),
        ("utf-16-le", {"encoding": "utf-16-le"}, None),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_encodings(written, options, said, ending, tmp_path):
    texts = [*TEXTS[1:], "caf\xe9 and cr\xe8me" if "1251" not in written else "кофе"]
    table = pd.DataFrame({"text": texts, "label": LABELS})
    text = (
        table.to_csv(index=False) if ending == "csv" else table.to_json(orient="records", lines=True, force_ascii=False)
    )
    write(tmp_path / f"a.{ending}", text.encode(written))
    rows, notes = load(tmp_path / f"a.{ending}", **options)
    assert rows == sorted(zip(texts, LABELS, strict=True))
    assert notes == ({f"a.{ending}": {"encoding": said}} if said else {})


def test_curly_quotes_are_cp1252_and_what_is_none_there_is_latin_1(tmp_path):
    write(
        tmp_path / "a.csv",
        "text;label\n" + "\u201cyes, it was a good one\u201d \u20ac5;a\nno;b\n".encode("cp1252").decode("latin-1") * 9,
    )
    content = (tmp_path / "a.csv").read_bytes().decode().encode("latin-1")
    write(tmp_path / "a.csv", content)
    assert load(tmp_path / "a.csv")[0][-1][0] == "\u201cyes, it was a good one\u201d \u20ac5"
    write(tmp_path / "a.csv", content + b"\x81x;a\n")
    assert load(tmp_path / "a.csv")[1]["a.csv"]["encoding"] == "latin-1"


@pytest.mark.parametrize(
    "content",
    [
        ("text,label\n" + "caf\xe9 cr\xe8me,a\nx,b\n" * 9).encode() + b"caf\xe9,a\n",  # one line of another encoding
        ("text,label\n" + "\u043a\u043e\u0444\u0435 \u0438 \u0447\u0430\u0439,a\nx,b\n" * 9).encode("cp1251"),
        ("text,label\n" + "\u54c8\u54c8\u54c8,a\nx,b\n" * 9).encode("gb18030"),
    ],
)
def test_text_of_several_possible_encodings_stops_and_names_the_option(content, tmp_path):
    write(tmp_path / "a.csv", content)
    with pytest.raises(
        DataError, match="is not UTF-8; save the file as UTF-8, or name its encoding by ENCODING"
    ) as bad:
        load(tmp_path / "a.csv")
    assert bad.value.parameter == "ENCODING"


# --- columns ------------------------------------------------------------------------------------------------


def test_columns_without_names_are_kept_aside(tmp_path):
    lines = [f'{label},"{text}",,,' for text, label in ROWS]
    write(tmp_path / "spam.csv", "\r\n".join(["v1,v2,,,", *lines, ""]))
    dataset = TASKS["classification"].load(tmp_path / "spam.csv", text_column="v2", label_column="v1")
    assert sorted(row["text"] for split in dataset.values() for row in split) == sorted(TEXTS)
    assert {"Unnamed: 2", "Unnamed: 3"} <= {*dataset["train"].column_names}


def without_header(path):
    return write(path, "".join(f'"{i % 2 + 1}","title {i}","body, {i}"\r\n' for i in range(40)))


@pytest.mark.parametrize(
    ("column", "text"), [("3", "body, {}"), ("2,3", "title {} body, {}"), ("3, 2", "body, {} title {}")]
)
def test_columns_by_number_and_texts_joined(column, text, tmp_path):
    rows, notes = load(without_header(tmp_path / "a.csv"), text_column=column, label_column="1")
    assert rows == sorted((text.format(i, i), str(i % 2 + 1)) for i in range(40))
    assert notes["a.csv"]["header"] == "no"


def test_texts_joined_by_name(tmp_path):
    table = TABLE.assign(title="A title")
    table.to_csv(tmp_path / "a.csv", index=False)
    rows, notes = load(tmp_path / "a.csv", text_column="title,text")
    assert rows == sorted((f"A title {text}", label) for text, label in ROWS)
    assert notes == {"a.csv": {"text": "'title' + 'text'"}}


def test_names_that_are_numbers_are_names(tmp_path):
    TABLE.rename(columns={"text": "0", "label": "1"}).to_csv(tmp_path / "a.csv")  # with pandas' index before them
    assert load(tmp_path / "a.csv", text_column="0", label_column="1") == (sorted(ROWS), {})


def test_a_header_is_kept_when_columns_are_named_by_number(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    rows, notes = load(tmp_path / "a.csv", text_column="1", label_column="2")
    assert rows == sorted(ROWS)
    assert notes["a.csv"]["header"] == "yes"


def test_a_first_line_that_may_be_a_header_or_a_row_stops(tmp_path):
    write(tmp_path / "a.csv", "a short text,rare\n" + "".join(f"{t[7:]},{label}\n" for t, label in ROWS))
    with pytest.raises(DataError, match=r"may name the columns or be a row: .*; say HEADER yes or HEADER no"):
        load(tmp_path / "a.csv", text_column="1", label_column="2")
    assert len(load(tmp_path / "a.csv", text_column="1", label_column="2", header="yes")[0]) == 40
    assert len(load(tmp_path / "a.csv", text_column="1", label_column="2", header="no")[0]) == 41


def test_a_delimiter_that_cannot_be_known_stops(tmp_path):
    write(tmp_path / "a.csv", "".join(f"{label};1,x{i}\n" for i, label in enumerate(LABELS)))
    with pytest.raises(DataError, match="the delimiter may be ',' or ';'; name it by DELIMITER"):
        load(tmp_path / "a.csv", text_column="2", label_column="1")
    rows, _ = load(tmp_path / "a.csv", text_column="2", label_column="1", delimiter=";")
    assert rows[0] == ("1,x0", "ham")


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("train.txt", "{text};{label}", {"delimiter": ";", "columns": "1 is text, 2 is label"}),
        ("SMSSpamCollection", "{label}\t{text}", {"delimiter": "tab", "columns": "1 is label, 2 is text"}),
        ("Sentences_50Agree.txt", "{text}@{label}", {"delimiter": "@", "columns": "1 is text, 2 is label"}),
        ("a.tsv", "{label}\t{text}", {"columns": "1 is label, 2 is text"}),
    ],
)
def test_two_columns_without_a_header(name, line, said, tmp_path):
    write(tmp_path / name, "".join(line.format(text=text, label=label) + "\n" for text, label in ROWS))
    assert load(tmp_path / name) == (sorted(ROWS), {name: {"header": "no"} | said})


def test_a_header_that_names_other_columns_is_no_row(tmp_path):
    TABLE.rename(columns={"text": "review", "label": "stars"}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="no column 'text' in the header; it has 'review', 'stars'"):
        load(tmp_path / "a.csv")


def test_a_name_in_another_case(tmp_path):
    TABLE.rename(columns={"text": "Text", "label": "Label"}).to_csv(tmp_path / "a.csv", index=False)
    assert load(tmp_path / "a.csv") == (sorted(ROWS), {"a.csv": {"text": "'Text'", "label": "'Label'"}})
    TABLE.assign(TEXT="x").rename(columns={"text": "Text"}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="no column 'text'"):
        load(tmp_path / "a.csv")


def test_the_column_that_is_missing_is_named_whatever_the_others_are(tmp_path):
    TABLE.rename(columns={"text": "Text", "label": "stars"}).to_csv(tmp_path / "a.csv", index=False)
    for column in ("text", "1", "stars,Text"):
        with pytest.raises(DataError, match="no column 'label' in the header; it has 'Text', 'stars'") as bad:
            load(tmp_path / "a.csv", text_column=column)
        assert bad.value.parameter == "LABEL_COLUMN"


def test_rows_of_another_width_in_a_file_without_a_header_are_named(tmp_path):
    lines = [f"{label},{text[7:]}" for text, label in ROWS]
    write(tmp_path / "a.csv", "\n".join([*lines[:20], "ham,one,two", *lines[20:], "spam,three,four", ""]))
    with pytest.raises(DataError, match=r"line 21 .*: 3 fields where the first row has 2") as bad:
        load(tmp_path / "a.csv", text_column="2", label_column="1")
    assert bad.value.rows == [21, 42]


def test_the_line_in_which_excel_says_the_delimiter(tmp_path):
    write(tmp_path / "a.csv", "sep=;\r\n" + TABLE.to_csv(index=False, sep=";", lineterminator="\r\n"))
    assert load(tmp_path / "a.csv")[0] == sorted(ROWS)


def test_marks_behind_a_backslash(tmp_path):
    texts = [f'She said "{text}"' for text in TEXTS]
    table = pd.DataFrame({"text": texts, "label": LABELS})
    table.to_csv(tmp_path / "a.csv", index=False, escapechar="\\", doublequote=False)
    rows, notes = load(tmp_path / "a.csv")
    assert rows == sorted(zip(texts, LABELS, strict=True))
    assert notes == {"a.csv": {"quotation marks": "in texts after a backslash"}}


def test_what_stands_above_the_header_is_left_out_and_lines_are_counted(tmp_path):
    above = "Reviews, May 2024\n# by hand, twice\n\n"
    write(tmp_path / "a.csv", above + TABLE.to_csv(index=False))
    assert load(tmp_path / "a.csv") == (sorted(ROWS), {"a.csv": {"lines above the header": "3, left out"}})
    write(tmp_path / "b.csv", above + "#" + TABLE.to_csv(index=False))
    assert load(tmp_path / "b.csv") == (
        sorted(ROWS),
        {"b.csv": {"lines above the header": "3, left out", "text": "'#text'"}},
    )
    write(tmp_path / "a.csv", above + TABLE.to_csv(index=False) + "a,b,c\n")
    with pytest.raises(DataError, match="line 45: 3 fields where the header has 2"):
        load(tmp_path / "a.csv")


def test_accents_of_mac_roman_are_not_taken_for_cp1252(tmp_path):
    table = TABLE.assign(text=[f"{text}, caf\xe9 cr\xe8me" for text in TEXTS])
    write(tmp_path / "a.csv", table.to_csv(index=False, lineterminator="\r").encode("mac-roman"))
    with pytest.raises(DataError, match=r"name its encoding by ENCODING \(cp1252, mac-roman"):
        load(tmp_path / "a.csv")
    assert load(tmp_path / "a.csv", encoding="mac-roman")[0][0][0].endswith("caf\xe9 cr\xe8me")
    with pytest.raises(DataError, match=r"is not klingon \(unknown encoding: klingon\); name another by ENCODING"):
        load(tmp_path / "a.csv", encoding="klingon")


# --- GLUE and its relatives ---------------------------------------------------------------------------------


def test_cola_has_no_header_and_stray_marks(tmp_path):
    texts = [*TEXTS[:-2], '"Who?" said she', '"Nobody']
    write(tmp_path / "train.tsv", "".join(f"gj04\t{i % 2}\t\t{text}\n" for i, text in enumerate(texts)))
    rows, notes = load(tmp_path / "train.tsv", text_column="4", label_column="2")
    assert rows == sorted((text, str(i % 2)) for i, text in enumerate(texts))
    assert notes == {"train.tsv": {"header": "no", "quotation marks": "part of the texts"}}


def test_colas_test_split_has_a_header_and_other_columns(tmp_path):
    write(tmp_path / "train.tsv", "".join(f"gj04\t{i % 2}\t*\t{text}\n" for i, text in enumerate(TEXTS)))
    write(tmp_path / "test.tsv", "index\tsentence\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(TEXTS)))
    rows, notes = load(tmp_path, text_column="4", label_column="2")
    assert len(rows) == len(TEXTS)
    assert notes["test.tsv"] == {"left out": "it has no column 4"}


GLUE = {
    "SST-2": ("sentence\tlabel", "{0} \t{2}", {"text_column": "sentence"}),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "{3}\t1\t2\t{0}\t{1}\t{2}",
            {"text_column": "question1", "pair_column": "question2", "label_column": "is_duplicate"}),
    "RTE": ("index\tsentence1\tsentence2\tlabel", "{3}\t{0}\t{1}\t{2}",
            {"text_column": "sentence1", "pair_column": "sentence2"}),
    "MNLI": ("index\tgenre\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label",
             "{3}\tfiction\t(ROOT (S {0}))\t{0}\t{1}\tneutral\t{2}",
             {"text_column": "sentence1", "pair_column": "sentence2", "label_column": "gold_label"}),
    "STS-B": ("index\tgenre\told_index\tsentence1\tsentence2\tscore", "{3}\tmain-news\t1\t{0}\t{1}\t{2}.250",
              {"text_column": "sentence1", "pair_column": "sentence2", "label_column": "score"}),
}  # fmt: skip


@pytest.mark.parametrize("name", GLUE)
def test_the_tables_of_glue(name, tmp_path):
    header, line, options = GLUE[name]
    rows = [line.format(f'"{text}', f"{text[::-1]}", i % 2, i) for i, text in enumerate(TEXTS)]
    write(tmp_path / f"{name}/train.tsv", "\n".join([header, *rows, ""]))
    found = load(tmp_path / name, "regression" if name == "STS-B" else "classification", **options)[0]
    assert [text.strip() for text, _ in found] == sorted(f'"{text}' for text in TEXTS)
    assert {label for _, label in found} == ({0.25, 1.25} if name == "STS-B" else {"0", "1"})


def test_marks_of_two_rows_quote_nothing_in_a_file_with_tabs(tmp_path):
    texts = ['"The first', *TEXTS[2:], 'the last"']
    write(tmp_path / "a.tsv", "id\ttext\tlabel\n" + "".join(
        f"{i}\t{text}\t{label}\n" for i, (text, label) in enumerate(zip(texts, LABELS, strict=True))))  # fmt: skip
    rows, notes = load(tmp_path / "a.tsv")
    assert rows == sorted(zip(texts, LABELS, strict=True))
    assert notes == {"a.tsv": {"quotation marks": "part of the texts"}}
    texts = ["two\nlines", *TEXTS[1:]]  # one that follows the rules of quoting
    pd.DataFrame({"text": texts, "label": LABELS}).to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    assert load(tmp_path / "a.tsv") == (sorted(zip(texts, LABELS, strict=True)), {})


def test_snli_has_rows_without_a_label(tmp_path):
    labels = ["neutral", "entailment", "-", "contradiction"] * 10
    rows = [{"sentence1": text, "gold_label": label} for text, label in zip(TEXTS, labels, strict=True)]
    write(tmp_path / "snli_1.0_train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text_column": "sentence1", "label_column": "gold_label"}
    with pytest.raises(
        DataError, match="the label '-' says that there is none; leave such rows out by DROP_LABELS -"
    ) as bad:
        load(tmp_path / "snli_1.0_train.jsonl", **columns)
    assert bad.value.rows == list(range(3, 41, 4))
    kept, notes = load(tmp_path / "snli_1.0_train.jsonl", **columns, drop_labels="-")
    assert len(kept) == 30
    assert notes["snli_1.0_train.jsonl"]["rows labelled -, left out"] == "10 (3, 7, 11, 15, 19, 23, 27, 31, 35, 39)"


# --- labels -------------------------------------------------------------------------------------------------


def test_whole_floats_are_whole_numbers(tmp_path):
    write(
        tmp_path / "train.csv", "text,label\n" + "".join(f"{text[:6]} {i},{i % 2}.0\n" for i, text in enumerate(TEXTS))
    )
    write(tmp_path / "test.csv", "text,label\n" + "".join(f"{text[:6]} {i},{i % 2}\n" for i, text in enumerate(TEXTS)))
    assert {label for _, label in load(tmp_path)[0]} == {"0", "1"}
    write(tmp_path / "a.csv", "text,label\n" + "x,1.0\ny,1.5\n" * 10)
    assert {label for _, label in load(tmp_path / "a.csv")[0]} == {"1.0", "1.5"}


@pytest.mark.parametrize("word", ["nan", "None", "NA", "-", "-1", "null"])
def test_labels_that_say_there_is_none(word, tmp_path):
    write(tmp_path / "a.csv", "text,label\n" + f"x,0\ny,1\nz,{word}\n" * 10)
    with pytest.raises(
        DataError, match=f"by DROP_LABELS {word}, or say by KEEP_LABELS {word} that it is a class"
    ) as bad:
        load(tmp_path / "a.csv")
    assert bad.value.rows == list(range(3, 31, 3))
    assert {label for _, label in load(tmp_path / "a.csv", drop_labels=word)[0]} == {"0", "1"}
    assert {label for _, label in load(tmp_path / "a.csv", keep_labels=word)[0]} == {"0", "1", word}


def test_minus_one_is_a_class_where_there_is_one_other(tmp_path):
    write(tmp_path / "a.csv", "text,label\n" + "x,1\ny,-1\n" * 10)
    assert {label for _, label in load(tmp_path / "a.csv")[0]} == {"-1", "1"}


def test_empty_rows_are_left_out_by_option_and_counted(tmp_path):
    write(tmp_path / "a.csv", "text,label\n" + "x,a\ny,b\n" * 10 + ' ,a\nz,\n"",b\nlast,c,d\n')
    with pytest.raises(DataError, match="line 25: 3 fields where the header has 2"):
        load(tmp_path / "a.csv", drop_empty=True)
    write(tmp_path / "a.csv", "text,label\n" + "x,a\ny,b\n" * 10 + ' ,a\nz,\n"",b\nlast,-\n')
    rows, notes = load(tmp_path / "a.csv", drop_empty=True, drop_labels="-")
    assert rows == sorted([("x", "a"), ("y", "b")] * 10)
    assert notes["a.csv"]["rows without a text or a label, left out"] == "3 (21, 22, 23)"
    write(tmp_path / "a.csv", "text,label\n,a\n" + "x,a\ny,b\n" * 10 + "z,-\n")
    with pytest.raises(DataError, match="row 22"):  # counted as in the file
        load(tmp_path / "a.csv", drop_empty=True)


def test_a_split_without_labels_is_left_out(tmp_path, caplog):
    TABLE.to_csv(tmp_path / "train.csv", index=False)
    TABLE[["text"]].to_csv(tmp_path / "test.csv", index=False)
    TABLE.assign(label=-1).to_csv(tmp_path / "dev.csv", index=False)
    rows, notes = load(tmp_path)
    assert rows == sorted(ROWS)
    assert notes == {name: {"left out": "no labels; use it with predict"} for name in ("test.csv", "dev.csv")}
    assert len(caplog.messages) == 1


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table", "values"])
def test_json_of_pandas(orient, tmp_path):
    TABLE.to_json(tmp_path / "a.json", orient=orient, index=None if orient != "table" else False)
    rows, notes = load(tmp_path / "a.json")
    assert rows == sorted(ROWS)
    assert bool(notes) == (orient == "values")


@pytest.mark.parametrize(
    "content",
    [
        {"data": TABLE.to_dict("records")},
        {"version": "1.0", "examples": TABLE.to_dict("records")},
        TABLE.to_dict("list"),
        {"features": [{"name": "text"}], "rows": [{"row_idx": 1, "row": row} for row in TABLE.to_dict("records")]},
        [{"id": i, "text": text, "label": [label]} for i, (text, label) in enumerate(ROWS)],  # doccano
        [{"text": text, "annotations": [{"label": label, "user": 1}], "meta": {}} for text, label in ROWS],
        [{"text": t, "label": label, "_input_hash": 1, "answer": "accept"} for t, label in ROWS]  # Prodigy
        + [{"text": "x", "label": "spam", "answer": "reject"}],
        [
            {"text": text, "options": [{"id": "ham"}, {"id": "spam"}], "accept": [label], "answer": "accept"}
            for text, label in ROWS
        ]
        + [{"text": "x", "options": [], "accept": [], "answer": "ignore"}],
        [
            {"id": i, "data": {"text": text}, "annotations": [{"id": 1, "was_cancelled": False, "result": [
                {"type": "choices", "from_name": "sentiment", "to_name": "text", "value": {"choices": [label]}}]}]}
            for i, (text, label) in enumerate(ROWS)
        ],
        [{"id": 3, "text": text, "label": label, "annotator": 1, "lead_time": 2.5} for text, label in ROWS],
        [{"id": i, "text": text, "label": {"choices": [label]}} for i, (text, label) in enumerate(ROWS)],
    ],
)  # fmt: skip
@pytest.mark.parametrize("lines", [False, True])
def test_json_as_tools_write_it(content, lines, tmp_path):
    if lines and isinstance(content, dict):
        pytest.skip("is no list of rows")
    text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
    write(tmp_path / ("a.jsonl" if lines else "a.json"), text)
    assert load(tmp_path / ("a.jsonl" if lines else "a.json"))[0] == sorted(ROWS)


def test_fields_within_fields_are_named_by_points(tmp_path):
    rows = [{"data": {"text": text, "id": 1}, "label": {"name": label, "id": 2}} for text, label in ROWS]
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"no column 'label'; it has .*, 'label\.name', 'label\.id'; name the right one"
    ):
        load(tmp_path / "a.jsonl")
    found = load(tmp_path / "a.jsonl", label_column="label.name")
    assert found == (sorted(ROWS), {"a.jsonl": {"text": "'data.text'"}})
    for name, part in (("train", rows[:30]), ("test", rows[30:])):
        write(tmp_path / f"splits/{name}.jsonl", "\n".join(map(json.dumps, part)))
    nested = {"text_column": "data.text", "label_column": "label.name"}
    assert load(tmp_path / "splits", **nested) == (sorted(ROWS), {})
    both = [{**row, "text": "another"} for row in rows]  # a column of that name comes first
    write(tmp_path / "b.json", json.dumps(both))
    with pytest.raises(DataError, match=r"name one of its fields by LABEL_COLUMN: label\.name, label\.id"):
        load(tmp_path / "b.json")
    assert {text for text, _ in load(tmp_path / "b.json", label_column="label.name")[0]} == {"another"}


def test_rows_two_objects_deep(tmp_path):
    rows = TABLE.to_dict("records")
    write(tmp_path / "a.json", json.dumps({"success": True, "result": {"fields": [1, 2], "records": rows}}))
    assert load(tmp_path / "a.json") == (sorted(ROWS), {})


def test_splits_in_one_file(tmp_path):
    splits = {"train": TABLE[:30].to_dict("records"), "dev": TABLE[30:].to_dict("records")}
    write(tmp_path / "a.json", json.dumps(splits))
    assert load(tmp_path / "a.json") == (sorted(ROWS), {})
    assert len(TASKS["classification"].load(tmp_path / "a.json")["validation"]) == 10
    write(tmp_path / "a.json", json.dumps(splits | {"more": [["x", "y"]]}))
    with pytest.raises(DataError, match="holds splits, and 'more'; write each split as a file"):
        load(tmp_path / "a.json")


def test_clinc_has_texts_of_no_class_apart(tmp_path):
    other = [[f"of no class, {i}", "oos"] for i in range(8)]
    parts = {"oos_val": other[:4], "val": ROWS[:20], "train": ROWS[20:], "oos_train": other[4:]}
    write(tmp_path / "data_full.json", json.dumps(parts))
    rows, notes = load(tmp_path / "data_full.json")
    assert rows == sorted([*ROWS, *map(tuple, other)])
    assert set(notes) == {"oos_val_and_val.json", "train_and_oos_train.json"}


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_number_among_texts_is_a_text(ending, tmp_path):
    rows = [{"text": text, "label": label} for text, label in ROWS] + [{"text": 1984, "label": "ham"}]
    write(tmp_path / f"a.{ending}", json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    found, notes = load(tmp_path / f"a.{ending}")
    assert found == sorted([*ROWS, ("1984", "ham")])
    assert notes == {f"a.{ending}": {"numbers among the texts": "1, as texts"}}


def test_blanks_before_quotation_marks_are_not_part_of_the_texts(tmp_path):
    write(tmp_path / "a.csv", '"label", "text"\n' + "".join(f'{label}, "{t}, ""so"""\n' for t, label in ROWS))
    found = load(tmp_path / "a.csv")
    assert found == (
        sorted((f'{t}, "so"', label) for t, label in ROWS),
        {"a.csv": {"blanks after delimiters": "left out"}},
    )
    write(tmp_path / "a.csv", "label;text\n" + "".join(f'{label}; "{t}" it said\n' for t, label in ROWS))
    assert load(tmp_path / "a.csv")[0] == sorted((f' "{t}" it said', label) for t, label in ROWS)


def test_annotators_who_differ_are_named(tmp_path):
    rows = [
        {"text": t, "annotations": [{"label": 1, "user": 1}, {"label": i % 2, "user": 2}]} for i, t in enumerate(TEXTS)
    ]
    write(tmp_path / "a.json", json.dumps(rows))
    with pytest.raises(DataError, match="annotators chose different classes") as bad:
        load(tmp_path / "a.json")
    assert bad.value.rows == list(range(1, 41, 2))


def test_labels_in_another_order_are_the_same_and_fields_without_a_text_are_named(tmp_path):
    chosen = [{"result": [{"value": {"choices": labels}}]} for labels in (["a", "b"], ["b", "a"])]
    rows = [{"data": {"review": t, "url": "x"}, "annotations": chosen} for t in TEXTS]
    write(tmp_path / "a.json", json.dumps(rows))
    labels = TASKS["multilabel"].load(tmp_path / "a.json", text_column="review")["train"]["labels"]
    assert all(row == [0, 1] for row in labels)
    with pytest.raises(DataError, match="no column 'text'; it has 'review', 'url'; name the right one by TEXT_COLUMN"):
        load(tmp_path / "a.json")


def test_a_column_of_labels_named_answer_is_not_prodigys(tmp_path):
    rows = [{"text": text, "answer": {"ham": "accept", "spam": "reject"}[label]} for text, label in ROWS]
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert load(tmp_path / "a.jsonl", label_column="answer") == (sorted((r["text"], r["answer"]) for r in rows), {})


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_several_labels_in_a_row_are_another_task(name, tmp_path):
    rows = [{"text": t, "label": ["a", "b"][: i % 2 + 1]} for i, t in enumerate(TEXTS)]
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    cells = [{**row, "label": json.dumps({"choices": row["label"]}) if i % 2 else "a"} for i, row in enumerate(rows)]
    pd.DataFrame(cells).to_csv(tmp_path / "a.csv", index=False)  # as Label Studio writes it
    with pytest.raises(DataError, match="several labels; train multilabel") as bad:
        load(tmp_path / name)
    assert bad.value.rows == list(range(2, 41, 2))


def test_fasttext(tmp_path):
    for name, rows in (("cooking.train", ROWS[:30]), ("cooking.valid", ROWS[30:])):
        write(tmp_path / name, "".join(f"__label__{label} {text}\n" for text, label in rows))
    rows, notes = load(tmp_path)
    assert rows == sorted(ROWS)
    assert notes["cooking.train"] == {"format": "fastText"}


def test_trecs_questions_have_two_labels(tmp_path):
    labels = ["HUM:ind", "LOC:city"] * 20
    lines = "".join(f"{label} {text} ?\n" for text, label in zip(TEXTS, labels, strict=True))
    write(tmp_path / "train_5500.label", lines)
    with pytest.raises(DataError, match="no column 'label'; it has 'text', 'coarse_label', 'fine_label'"):
        load(tmp_path)
    for column, width in (("coarse_label", 3), ("fine_label", 8)):
        found = sorted((f"{text} ?", label[:width]) for text, label in zip(TEXTS, labels, strict=True))
        assert load(tmp_path, label_column=column)[0] == found
    write(tmp_path / "train_5500.label", lines + "no class\n")
    with pytest.raises(DataError, match="line 41: not a class and a question"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("texts", "labels"),
    [("seq.in", "label"), ("texts.txt", "labels.txt"), ("train.text", "train.labels"), ("train/seq.in", "train/label")],
)
def test_texts_and_labels_in_two_files(texts, labels, tmp_path):
    write(tmp_path / texts, "\n".join(TEXTS) + "\n")
    write(tmp_path / labels, "\n".join(LABELS))
    rows, notes = load(tmp_path)
    assert rows == sorted(ROWS)
    assert notes == {texts.rpartition("/")[2]: {"labels": f"the lines of {labels.rpartition('/')[2]}"}}
    write(tmp_path / labels, "\n".join(LABELS[1:]))
    with pytest.raises(DataError, match="40 lines of text, but 39 of labels"):
        load(tmp_path)


def test_tweet_eval_has_two_files_for_each_split(tmp_path):
    for split, rows in (("train", ROWS[:30]), ("val", ROWS[30:])):
        write(tmp_path / f"{split}_text.txt", "".join(f"{text}\n" for text, _ in rows))
        write(tmp_path / f"{split}_labels.txt", "".join(f"{label}\n" for _, label in rows))
    write(tmp_path / "mapping.txt", "0\tham\n1\tspam\n")
    assert load(tmp_path)[0] == sorted(ROWS)


@pytest.mark.parametrize("names", [("rt-polarity.neg", "rt-polarity.pos"), ("neg.txt", "pos.txt")])
def test_a_file_for_each_class(names, tmp_path):
    for name in names:
        write(tmp_path / name, "".join(f"{name[-7:]} {text}\n" for text in TEXTS))
    rows, notes = load(tmp_path)
    assert len(rows) == 80
    assert all(label in text for text, label in rows)
    assert list(notes.values()) == [{"classes": ", ".join(names)}]


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("a.spacy", "write its documents as JSON Lines, each by json.dumps"),
        ("a.xml", "write its rows as CSV, such as by pandas.read_xml"),
        ("a.tar.gz", "unpack it"),
        ("a.pkl", "a pickle can run code"),
        ("a.docx", "write its texts in a column of a CSV"),
    ],
)
def test_files_that_are_not_read_say_what_becomes_of_them(name, fix, tmp_path):
    write(tmp_path / name, gzip.compress(b"x") if name.endswith("gz") else b"x")
    with pytest.raises(DataError, match=fix):
        load(tmp_path / name)
    write(tmp_path / "a.txt", "<?xml version='1.0'?>\n<rows/>\n")
    with pytest.raises(DataError, match="not a text file but XML; write its rows as CSV"):
        load(tmp_path / "a.txt")


# --- Excel --------------------------------------------------------------------------------------------------


def test_excel(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    with pd.ExcelWriter(tmp_path / "a.xlsx") as file:
        TABLE.assign(label=[1.0, 2.0] * 20).to_excel(file, sheet_name="rows", index=False)
        pd.DataFrame({"note": ["made by hand"]}).to_excel(file, sheet_name="about", index=False)
    expected = sorted((text, str(i % 2 + 1)) for i, text in enumerate(TEXTS))
    assert load(tmp_path / "a.xlsx") == (expected, {"a.xlsx": {"sheet": "rows"}})
    assert load(tmp_path / "a.xlsx", sheet="1") == (expected, {})
    assert load(tmp_path / "a.xlsx", text_column="1", label_column="2")[0] == expected
    with pytest.raises(DataError, match="no sheet 'three'; it has 'rows', 'about'; name one by SHEET"):
        load(tmp_path / "a.xlsx", sheet="three")
    with pd.ExcelWriter(tmp_path / "b.xlsx") as file:
        for name in ("May", "June"):
            TABLE.to_excel(file, sheet_name=name, index=False)
    with pytest.raises(DataError, match="the sheets 'May' and 'June' have the columns; name one by SHEET"):
        load(tmp_path / "b.xlsx")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(DataError, match="openpyxl, which is not installed; pip install openpyxl, or save it as CSV"):
        load(tmp_path / "a.xlsx")


@pytest.mark.parametrize(("ending", "library"), [("xls", "xlrd"), ("ods", "odfpy")])
def test_spreadsheets_whose_library_is_missing(ending, library, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library.removesuffix("py"), None)
    start = bytes.fromhex("d0cf11e0a1b11ae1")
    write(tmp_path / f"a.{ending}", start + bytes(600))
    if ending == "ods":
        with zipfile.ZipFile(tmp_path / "a.ods", "w") as file:
            file.writestr("content.xml", "<office:document-content/>")
    with pytest.raises(DataError, match=f"{library}, which is not installed; pip install {library}, or save it as CSV"):
        load(tmp_path / f"a.{ending}")


def test_two_rows_of_names_above_a_table(tmp_path):
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (["Complaint", None, "Result"], ["No.", "text", "label"], *((i, *row) for i, row in enumerate(ROWS))):
        book.active.append(row)
    book.active.merge_cells("A1:B1")
    book.save(tmp_path / "a.xlsx")
    assert load(tmp_path / "a.xlsx") == (sorted(ROWS), {"a.xlsx": {"title above the table": "Complaint Result"}})
    with pytest.raises(DataError, match="may name the columns or be a row: 'Complaint', '', 'Result'"):
        load(tmp_path / "a.xlsx", text_column="2", label_column="3")


# --- folders and archives -----------------------------------------------------------------------------------


def test_a_folder_for_each_class(tmp_path):
    for split, rows in (("train", ROWS[:30]), ("test", ROWS[30:])):
        for i, (text, label) in enumerate(rows):
            write(tmp_path / f"aclImdb/{split}/{label}/{i}_7.txt", text)
    write(tmp_path / "aclImdb/train/unsup/0_0.txt", "of no class")
    write(tmp_path / "aclImdb/train/labeledBow.feat", "1:2")
    write(tmp_path / "aclImdb/README", "Large Movie Review Dataset")
    rows, notes = load(tmp_path / "aclImdb")
    assert rows == sorted(ROWS)
    assert notes == {"train": {"left out": "unsup, 1 texts without a label"}}
    assert load(tmp_path) == (rows, notes)  # as in an unpacked archive
    assert load(tmp_path / "aclImdb/train")[0] == sorted(ROWS[:30])


def test_what_save_to_disk_wrote(tmp_path):
    rows = Dataset.from_pandas(TABLE).class_encode_column("label")
    DatasetDict(train=rows.select(range(30)), test=rows.select(range(30, 40))).save_to_disk(tmp_path / "both")
    rows.save_to_disk(tmp_path / "one")
    assert load(tmp_path / "both")[0] == load(tmp_path / "one")[0] == sorted(ROWS)
    (tmp_path / "both/train/data-00000-of-00001.arrow").write_bytes(b"damaged")
    with pytest.raises(DataError, match="not a readable data set of save_to_disk"):
        load(tmp_path / "both")


def shard(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["text", "label"]).to_parquet(path)


def test_clones_of_data_sets_of_the_hub(tmp_path):
    write(tmp_path / "README.md", "---\nlicense: mit\n---\n# Reviews\n")
    write(tmp_path / ".git/train.csv", "text,label\n")
    shard(tmp_path / "data/train-00000-of-00002.parquet", ROWS[:10])
    shard(tmp_path / "data/train-00001-of-00002.parquet", ROWS[10:30])
    shard(tmp_path / "data/test-00000-of-00001.parquet", ROWS[30:])
    assert load(tmp_path) == (sorted(ROWS), {})


def test_the_card_of_a_data_set_names_configs(tmp_path):
    shard(tmp_path / "en/one.parquet", ROWS)
    shard(tmp_path / "de/one.parquet", ROWS[:20])
    entry = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {0}/*.parquet\n"
    write(tmp_path / "README.md", "---\nconfigs:\n" + entry.format("en") + entry.format("de") + "---\n")
    with pytest.raises(DataError, match=f"its card has the configs en, de; name one: {tmp_path.name}/en"):
        load(tmp_path)
    assert len(load(tmp_path / "de")[0]) == 20
    write(
        tmp_path / "README.md",
        "---\nconfigs:\n" + entry.format("en") + "  default: true\n" + entry.format("de") + "---\n",
    )
    assert load(tmp_path)[0] == sorted(ROWS)


@pytest.mark.parametrize("names", [("train-v2.0.csv", "dev-v2.0.csv"), ("my_train.csv", "my_val.csv"), ("eng.train.csv",
                                   "eng.testa.csv"), ("train/0.csv", "validation/0.csv"), ("a.csv",)])  # fmt: skip
def test_names_that_speak_of_a_split(names, tmp_path):
    parts = [TABLE[:30], TABLE[30:]] if len(names) == 2 else [TABLE]
    for name, part in zip(names, parts, strict=True):
        write(tmp_path / name, part.to_csv(index=False))
    write(tmp_path / "requirements.txt", "pandas")
    assert load(tmp_path)[0] == sorted(ROWS)
    if len(names) == 2:
        assert len(TASKS["classification"].load(tmp_path)["validation"]) == 10


def test_two_files_for_one_split_stop(tmp_path):
    for name, rows in {"train-v1.1.csv": TABLE[:30], "train-v2.0.csv": TABLE}.items():
        rows.to_csv(tmp_path / name, index=False)
    with pytest.raises(DataError, match=r"both train-v1.1.csv and train-v2.0.csv hold the train split"):
        load(tmp_path)


def test_archives(tmp_path):
    text = TABLE.to_csv(index=False)
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(text)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("SMSSpamCollection", "".join(f"{label}\t{t}\n" for t, label in ROWS))
        file.writestr("readme", "one file")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("top/train.csv", TABLE[:30].to_csv(index=False))
        file.writestr("top/test.csv", TABLE[30:].to_csv(index=False))
        file.writestr("__MACOSX/top/._train.csv", "x")
        file.writestr("../outside.csv", text)
    for name in ("a.csv.gz", "a.zip", "b.zip"):
        assert load(tmp_path / name)[0] == sorted(ROWS), name
    assert not (tmp_path.parent / "outside.csv").exists()
    write(tmp_path / "c.zip", b"PK\x03\x04 damaged")
    with pytest.raises(DataError, match="cannot be unpacked"):
        load(tmp_path / "c.zip")


def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("bert_helpers.readers.folders.UNPACKED", 10_000)
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write(b"text,label\n" + b"x,a\n" * 1_000_000)
    with pytest.raises(DataError, match="unpacks to far more than it is"):
        load(tmp_path / "a.csv.gz")


# --- numbers ------------------------------------------------------------------------------------------------


def test_scores_on_another_scale_are_named_with_the_options(tmp_path):
    write(tmp_path / "a.csv", "text,text_pair,label\n" + "".join(f"a{i},b{i},{i}\n" for i in range(101)))
    with pytest.raises(DataError, match="scores go from 0 to 100; give the lowest and highest by LOW and HIGH") as bad:
        TASKS["regression"].load(tmp_path / "a.csv")
    assert bad.value.rows == list(range(7, 102))
    assert len(TASKS["regression"].load(tmp_path / "a.csv", high=100.0)["train"]) == 81
