"""Texts with character spans, as written by annotation tools."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_helpers import DataError
from bert_helpers.readers import spans
from bert_helpers.readers.source import assumed
from bert_helpers.readers.spans import Annotated, Span
from bert_helpers.tasks.registry import TASKS

TEXTS = ["Anna Lee sings in Brask.", "It rains.", "Brask, Øst: 🙂 Anna."] * 10
GOLD = [[(0, 8, "PER"), (18, 23, "LOC")], [], [(0, 5, "LOC"), (7, 10, "LOC"), (14, 18, "PER")]] * 10
ROWS = list(zip(TEXTS, GOLD, strict=True))
TOKENS = [["Anna", "Lee", "sings", "in", "Brask", "."], ["It", "rains", "."],
          ["Brask", ",", "Øst", ":", "🙂", "Anna", "."]]  # fmt: skip
TAGS = [["B-PER", "I-PER", "O", "O", "B-LOC", "O"], ["O", "O", "O"], ["B-LOC", "O", "B-LOC", "O", "O", "B-PER", "O"]]


def lines(make):
    return "".join(json.dumps(make(text, found)) + "\n" for text, found in ROWS)


def array(make):
    return json.dumps([make(text, found) for text, found in ROWS])


def dicts(found, start="start", end="end", label="label"):
    return [{start: s, end: e, label: t} for s, e, t in found]


def studio(text, found, units=lambda text, n: n):
    values = [{"start": units(text, s), "end": units(text, e), "text": text[s:e], "labels": [t]} for s, e, t in found]
    result = [{"id": "x", "from_name": "label", "to_name": "text", "type": "labels", "value": v} for v in values]
    result += [{"type": "relation", "from_id": "x", "to_id": "y", "direction": "right"}]
    result += [{"type": "choices", "value": {"choices": ["good"]}}]
    return {"data": {"text": text}, "annotations": [{"result": [], "was_cancelled": True}, {"result": result}]}


def utf16(text, n):
    return len(text[:n].encode("utf-16-le")) // 2


def table(column, delimiter=","):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([["Text", "Entities"], *((t, column(f)) for t, f in ROWS)])
    return file.getvalue()


def passages(text):
    """Return the two passages of a document with their starts; separated by a blank, they are one text."""
    first = text.index(" ")
    return [(0, text[:first]), (first + 1, text[first + 1 :])]


def bigbio(text, found):
    parts = [{"type": "x", "text": [part], "offsets": [[at, at + len(part)]]} for at, part in passages(text)]
    entities = [{"type": k, "text": [text[s:e]], "offsets": [[s, e]], "normalized": []} for s, e, k in found]
    return {"id": "1", "document_id": "2", "passages": parts, "entities": entities, "relations": []}


def bioc(text, found):
    notes = [{"infons": {"type": k}, "text": text[s:e], "locations": [{"offset": s, "length": e - s}]}
             for s, e, k in found]  # fmt: skip
    parts = [{"infons": {}, "offset": at, "text": part, "annotations": []} for at, part in passages(text)]
    return {"id": "1", "passages": [parts[0], {**parts[1], "annotations": notes}]}


def snips(text, found):
    ends = [0, *(place for span in found for place in span[:2]), len(text)]
    types = [{}, *(more for *_, kind in found for more in ({"entity": kind}, {}))]
    pieces = [{"text": text[s:e], **more} for s, e, more in zip(ends, ends[1:], types, strict=False)]
    return {"data": [piece for piece in pieces if piece["text"]]}


# From the tools' manuals (doccano.github.io, labelstud.io/guide/export, prodi.gy/docs, spacy.io/api) and data's pages:
# github.com/bigscience-workshop/biomedical task_schemas.md, its bigbiohub.py for BioC, snipsco/nlu-benchmark
FILES = {
    "doccano.jsonl": lines(lambda t, f: {"id": 1, "text": t, "label": [list(x) for x in f]}),
    "doccano 1.0.jsonl": lines(lambda t, f: {"id": 1, "data": t, "label": [list(x) for x in f], "meta": {}}),
    "doccano labels.jsonl": lines(lambda t, f: {"text": t, "labels": [list(x) for x in f]}),
    "doccano relations.jsonl": lines(
        lambda t, f: {"text": t, "entities": dicts(f, "start_offset", "end_offset"), "relations": []}
    ),
    "doccano annotations.json": array(lambda t, f: {"text": t, "annotations": dicts(f, "start_offset", "end_offset")}),
    "label studio.json": array(studio),
    "label studio in UTF-16 units.json": array(lambda t, f: studio(t, f, utf16)),
    "label studio min.json": array(
        lambda t, f: {
            "text": t,
            "id": 1,
            "label": [{"start": s, "end": e, "text": t[s:e], "labels": [k]} for s, e, k in f],
        }
    ),
    "prodigy.jsonl": lines(
        lambda t, f: {"text": t, "spans": dicts(f), "answer": "accept", "tokens": [{"text": w} for w in t.split()]}
    )
    + "".join(json.dumps({"text": "no", "spans": [], "answer": answer}) + "\n" for answer in ("reject", "ignore")),
    "spacy.json": array(lambda t, f: [t, {"entities": [list(x) for x in f]}]),
    "spacy doc.jsonl": lines(lambda t, f: {"text": t, "ents": dicts(f), "tokens": [{"id": 0}]}),
    "annotator.json": json.dumps(
        {"classes": ["PER"], "annotations": [None, *([t, {"entities": [list(x) for x in f]}] for t, f in ROWS)]}
    ),
    "dataturks.json": lines(
        lambda t, f: {
            "content": t,
            "annotation": [{"label": [k], "points": [{"start": s, "end": e - 1, "text": t[s:e]}]} for s, e, k in f],
        }
    ),
    "examples.json": json.dumps(
        {
            "examples": [
                {"content": t, "annotations": [{"start": s, "end": e, "tag_name": k, "value": t[s:e]} for s, e, k in f]}
                for t, f in ROWS
            ]
        }
    ),
    "bigbio.json": array(bigbio),
    "bigbio.jsonl": lines(bigbio),
    "bioc.json": json.dumps({"source": "PubTator", "documents": [bioc(t, f) for t, f in ROWS]}),
    "snips.json": json.dumps({"PlayMusic": [snips(t, f) for t, f in ROWS]}),
    "python.csv": table(lambda f: str(dicts(f, label="entity"))),
    "tuples.csv": table(str),
    "json.csv": table(lambda f: json.dumps(dicts(f))),
    "semicolons.csv": table(str, ";"),
    "a.tsv": table(str, "\t"),
}


def loaded(path, **options):
    splits = TASKS["ner"].load(path, **options)
    names = splits["train"].features["ner_tags"].feature.names
    rows = [
        (row["text"], row["tokens"], [names[i] for i in row["ner_tags"]], row["spans"])
        for split in splits.values()
        for row in split
    ]
    return sorted(rows, key=lambda row: row[0]), assumed(splits)


EXPECTED = sorted(
    (text, TOKENS[i % 3], TAGS[i % 3], dicts(found)) for i, (text, found) in enumerate(ROWS)
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_tool_gives_the_same_words_and_tags(name, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    rows, notes = loaded(tmp_path / name)
    assert rows == sorted(EXPECTED, key=lambda row: row[0])
    assert notes[name]["words"] == "as the tokenizer splits texts"
    rejected = '1 rows with the answer "reject", 1 rows with the answer "ignore"'
    assert notes[name].get("left out") == (rejected if "prodigy" in name else None)
    assert notes[name].get("offsets") == ("counted in UTF-16 units" if "UTF-16" in name else None)


LISTS = {
    "kaggle.csv": (["Sentence #", "Sentence", "Tag"], lambda w, t: [1, " ".join(w), str(t)], ","),
    "python.csv": (["tokens", "ner_tags"], lambda w, t: [str(w), str(t)], ","),
    "numpy.csv": (["tokens", "tags"], lambda w, t: [str(np.array(w)), str(np.array(t))], ","),
    "blanks.csv": (["text", "labels"], lambda w, t: [" ".join(w), " ".join(t)], ","),
    "commas.csv": (["id", "sentence", "word_labels"], lambda w, t: [7, " ".join(w), ",".join(t)], ","),
    "blanks.tsv": (["Sentence", "Tags"], lambda w, t: [" ".join(w), " ".join(t)], "\t"),
    "json.tsv": (["words", "labels"], lambda w, t: [json.dumps(w), json.dumps(t)], "\t"),
}


@pytest.mark.parametrize("name", LISTS)
def test_cells_that_are_lists_of_words_and_tags_are_read(name, tmp_path):
    header, cells, delimiter = LISTS[name]
    with (tmp_path / name).open("w", newline="") as file:
        rows = [cells(words, tags) for words, tags in zip(TOKENS, TAGS, strict=True)]
        csv.writer(file, delimiter=delimiter).writerows([header, *rows * 10])
    check_sentences(tmp_path / name)


def check_sentences(path):
    splits = TASKS["ner"].load(path)
    names = splits["train"].features["ner_tags"].feature.names
    rows = sorted((r["tokens"], [names[i] for i in r["ner_tags"]]) for split in splits.values() for r in split)
    assert rows == sorted(list(zip(TOKENS, TAGS, strict=True)) * 10)


def test_what_spacy_2_trained_on_is_read(tmp_path):
    units = [["B-PER", "L-PER", "O", "O", "U-LOC", "O"], ["O"] * 3, ["U-LOC", "O", "U-LOC", "O", "O", "U-PER", "O"]]
    sentences = [
        {"tokens": [{"id": i, "orth": w, "ner": t} for i, (w, t) in enumerate(zip(words, tags, strict=True))]}
        for words, tags in zip(TOKENS, units, strict=True)
    ]
    (tmp_path / "a.json").write_text(json.dumps([{"id": 0, "paragraphs": [{"raw": "", "sentences": sentences}]}] * 10))
    check_sentences(tmp_path / "a.json")


def test_spans_in_a_column_of_parquet_are_read(tmp_path):
    import pandas as pd

    pd.DataFrame([{"text": t, "entities": dicts(f)} for t, f in ROWS]).to_parquet(tmp_path / "a.parquet")
    assert loaded(tmp_path / "a.parquet")[0] == sorted(EXPECTED, key=lambda row: row[0])


def write_brat(folder, rows=ROWS):
    folder.mkdir(exist_ok=True)
    for i, (text, found) in enumerate(rows):
        (folder / f"{i:02}.txt").write_text(text)
        notes = [f"T{n}\t{k} {s} {e}\t{text[s:e]}" for n, (s, e, k) in enumerate(found, 1)]
        notes += ["#1\tAnnotatorNotes T1\tsure", "R1\tIn Arg1:T1 Arg2:T2", "*\tEquiv T1 T2", "A1\tNegation T1"]
        (folder / f"{i:02}.ann").write_text("".join(note + "\n" for note in notes))


def test_brats_folder_is_read_and_entities_in_pieces_are_named(tmp_path):
    write_brat(tmp_path / "notes")
    assert loaded(tmp_path / "notes")[0] == sorted(EXPECTED, key=lambda row: row[0])
    (tmp_path / "notes" / "00.ann").write_text("T1\tPER 0 4;9 14\tAnna sings\n")
    rows, notes = loaded(tmp_path / "notes")
    assert notes["notes"]["1 entities in pieces"] == "taken whole (00.ann T1)"
    assert ["B-PER", "I-PER", "I-PER", "O", "O", "O"] in [tags for _, _, tags, _ in rows]
    (tmp_path / "notes" / "01.ann").write_text("T1 PER 0 4 Anna\n")
    with pytest.raises(DataError, match="not a line of brat's") as caught:
        TASKS["ner"].load(tmp_path / "notes")
    assert caught.value.rows == ["01.ann"]


def test_brats_folder_may_have_a_folder_for_each_split(tmp_path):
    for name in ("train", "dev", "test"):
        write_brat(tmp_path / name)
    assert {name: len(split) for name, split in TASKS["ner"].load(tmp_path).items()} == {
        "train": 30, "validation": 30, "test": 30,
    }  # fmt: skip


def test_pubtators_documents_are_title_and_abstract(tmp_path):
    title, abstract = "Ann Lee has melanoma.", "The melanoma was found by Otto Kern."
    text = f"{title} {abstract}"
    found = [(text.index("Ann"), "Ann Lee", "Person"), (text.rindex("melanoma"), "melanoma", "Disease")]
    spans = "".join(f"7\t{start}\t{start + len(word)}\t{word}\t{kind}\tD1\n" for start, word, kind in found)
    document = f"7|t|{title}\n7|a|{abstract}\n{spans}7\tCID\tD1\tD2\n\n"
    (tmp_path / "NCBItrainset_corpus.txt").write_text(document + document.replace("7", "8").replace("Lee", "Lau"))
    splits = TASKS["ner"].load(tmp_path / "NCBItrainset_corpus.txt", train_size=None)
    assert splits["train"]["text"][:] == [text, text.replace("Lee", "Lau")]
    assert [(s["start"], s["label"]) for s in splits["train"]["spans"][1]] == [(s, kind) for s, _, kind in found]
    (tmp_path / "a.txt").write_text(document.replace("\t0\t7\t", "\t1\t8\t"))
    with pytest.raises(DataError, match="the text at 1 to 8 is 'nn Lee ', not 'Ann Lee'"):
        TASKS["ner"].load(tmp_path / "a.txt")


def test_words_are_split_as_the_option_says(tmp_path):
    (tmp_path / "a.jsonl").write_text(FILES["doccano.jsonl"])
    rows, notes = loaded(tmp_path / "a.jsonl", words="blanks")
    assert rows[0][1] == ["Anna", "Lee", "sings", "in", "Brask."]
    assert notes["a.jsonl"]["words"] == "between blanks"
    said = {what: value for what, value in notes["a.jsonl"].items() if "spans" in what}
    assert list(said) == ["40 of 50 spans end inside a word, which is taken whole"]
    assert next(iter(said.values())).startswith("(rows 1, 3, 4, 6, ")
    assert loaded(tmp_path / "a.jsonl", words="punctuation")[0][0][1] == TOKENS[0]


# --- faults ------------------------------------------------------------------------------------------------

TEXT = "Anna Lee sings in Brask."
WORDS = [(0, 4), (5, 8), (9, 14), (15, 17), (18, 23), (23, 24)]


def tagged(*found, text=TEXT):
    return spans.to_tags(Annotated(text, [Span(*span) for span in found]), WORDS)


@pytest.mark.parametrize(
    ("found", "tags", "done"),
    [
        ([(0, 9, "PER")], ["B-PER", "I-PER", "O", "O", "O", "O"], ["blanks at the ends cut off"]),
        ([(0, 7, "PER")], ["B-PER", "I-PER", "O", "O", "O", "O"], [spans.CUT]),
        ([(1, 8, "PER")], ["B-PER", "I-PER", "O", "O", "O", "O"], [spans.AMID]),
        ([(0, 8, "PER"), (5, 8, "NAME")], ["B-PER", "I-PER", "O", "O", "O", "O"],
         ["within or beside another, in the same words: left out"]),
        ([(0, 8, "PER"), (0, 8, "PER")], ["B-PER", "I-PER", "O", "O", "O", "O"], []),
        ([(0, 4, "PER"), (5, 8, "PER")], ["B-PER", "B-PER", "O", "O", "O", "O"], []),
    ],
)  # fmt: skip
def test_what_can_be_read_in_one_way_is_read_and_said(found, tags, done):
    assert tagged(*found)[0] == tags
    assert tagged(*found)[2:] == (done, [])


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([(0, 30, "PER")], "characters 0 to 30 contain no words of the text"),
        ([(-1, 4, "PER")], "characters -1 to 4 contain no words of the text"),
        ([(4, 4, "PER")], "characters 4 to 4 contain no words of the text"),
        ([(4, 5, "PER")], "characters 4 to 5 contain no words of the text"),
        ([(0, 4, "PER", "Lee")], "the text at 0 to 4 is 'Anna', not 'Lee'"),
        ([(0, 8, "PER"), (0, 8, "ORG")], "'Anna Lee' is PER and ORG"),
        ([(0, 8, "PER"), (5, 14, "ORG")], "characters 0 to 8 and 5 to 14 overlap"),
    ],
)
def test_what_can_mean_two_things_is_refused(found, problem, tmp_path):
    assert problem in [wrong.replace("ORG and PER", "PER and ORG") for wrong in tagged(*found)[3]]
    good = {"text": TEXT, "spans": [[0, 8, "PER"]]}
    names = ("start", "end", "label", "text")
    bad = {"text": TEXT, "spans": [dict(zip(names, span, strict=False)) for span in found]}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, bad, *[good] * 15, bad]))
    with pytest.raises(DataError) as caught:
        TASKS["ner"].load(tmp_path / "a.jsonl")
    assert caught.value.rows == [2, 18]


@pytest.mark.parametrize(("before", "shift"), [("", 1), ("\n", 0)])
def test_offsets_of_another_text_are_refused_though_each_could_be_a_span(before, shift, tmp_path):
    """Offsets are those of a text that was one character longer or shorter than the one in the file."""
    shifted = "".join(
        json.dumps({"text": before + text, "label": [[s + shift, e + shift, t] for s, e, t in found]}) + "\n"
        for text, found in ROWS
    )
    (tmp_path / "a.jsonl").write_text(shifted)
    with pytest.raises(DataError, match="most spans begin inside a word"):
        TASKS["ner"].load(tmp_path / "a.jsonl")


@pytest.mark.parametrize("shown", [True, False])
def test_ends_may_be_the_last_characters(shown, tmp_path):
    rows = [
        {"text": text, "spans": [{"start": s, "end": e - 1, "label": t} | ({"text": text[s:e]} if shown else {})
                                 for s, e, t in found]}
        for text, found in ROWS
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text(FILES["doccano.jsonl"])
    (rows, notes), (plain, _) = loaded(tmp_path / "a.jsonl"), loaded(tmp_path / "b.jsonl")
    assert (rows, notes["a.jsonl"]["offsets"]) == (plain, spans.INCLUSIVE)


def test_annotators_who_differ_are_named(tmp_path):
    rows = [studio(text, found) for text, found in ROWS]
    for i, row in enumerate(rows):  # a second annotator, who leaves out a span of every third text
        row["annotations"] += studio(ROWS[i][0], ROWS[i][1][: 1 if i % 3 == 0 else None])["annotations"]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=spans.DIFFER) as caught:
        TASKS["ner"].load(tmp_path / "a.json")
    assert caught.value.rows == list(range(1, 31, 3))


def test_a_text_without_words_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(FILES["doccano.jsonl"] + '{"text": " ", "label": []}\n')
    with pytest.raises(DataError, match="the text has no words") as caught:
        TASKS["ner"].load(tmp_path / "a.jsonl")
    assert caught.value.rows == [31]


def test_rows_of_another_shape_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(FILES["doccano.jsonl"] + '{"text": "Anna", "label": ["PER"]}\n{"text": 7}\n')
    with pytest.raises(DataError, match="not a text with spans") as caught:
        TASKS["ner"].load(tmp_path / "a.jsonl")
    assert caught.value.rows == [31, 32]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(FILES["doccano.jsonl"] + '{"text": "Bob", "label": [[0, 3, "PER"]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 31: not valid JSON"):
        TASKS["ner"].load(tmp_path / "a.jsonl")


WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(WORD, st.sampled_from(["O", "O", "PER", "LOC"])), min_size=1, max_size=12), st.data())
def test_any_spans_of_whole_words_come_back_from_their_tags(words, data):
    """Entities written as spans and read as tags are those of a plain parse, in any script."""
    text, places, found = "", [], []
    for word, kind in words:
        text += data.draw(st.sampled_from([" ", "  ", "\n", "\t "])) if text else ""
        places.append((len(text), len(text) + len(word)))
        text += word
        if kind != "O":
            found.append(Span(*places[-1], kind))
    tags, kept, done, wrong = spans.to_tags(Annotated(text, found), places)
    assert tags == ["O" if kind == "O" else f"B-{kind}" for _, kind in words]
    assert (kept, done, wrong) == (sorted(found), [], [])
    assert spans.find_words(text, [text[s:e] for s, e in places]) == places
