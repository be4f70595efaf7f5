"""Questions as users have them: SQuAD's relatives, tables, and answers with wrong positions."""

import csv
import io
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_helpers import DataError
from bert_helpers.cli import unlabelled
from bert_helpers.readers import squad
from bert_helpers.readers.source import assumed
from bert_helpers.tasks.registry import TASKS

CONTEXTS = [f"Ada built engine {i} in Brask; nobody else saw it before May {i}." for i in range(10)]
ROWS = [
    {
        "id": f"q{i}-{name}",
        "title": "t",
        "question": f"{name} {i}?",
        "context": context,
        "answers": {"text": [answer], "answer_start": [context.index(answer)]},
    }
    for i, context in enumerate(CONTEXTS)
    for name, answer in (("Who", "Ada"), ("Where", "Brask"))
]


def objects(row):
    return [{"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]


def nested(rows, **changes):
    """Return SQuAD's JSON with one paragraph per context; `changes` are functions of a question, None removes it."""

    def question(row):
        made = {"id": row["id"], "question": row["question"], "answers": objects(row)}
        made |= {name: change(row) for name, change in changes.items() if change}
        return {name: value for name, value in made.items() if name not in changes or changes[name]}

    paragraphs = [
        {"context": context, "qas": [question(row) for row in rows if row["context"] == context]}
        for context in dict.fromkeys(row["context"] for row in rows)
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})


def table(rows, columns, **options):
    file = io.StringIO()
    writer = csv.writer(file, **options)
    writer.writerow(columns)
    writer.writerows([[column(row) for column in columns.values()] for row in rows])
    return file.getvalue()


PLAIN = {"context": lambda r: r["context"], "question": lambda r: r["question"]}
NUMPY = "{{'text': array(['{0}'], dtype=object), 'answer_start': array([{1}], dtype=int32)}}"
FILES = {
    "squad.json": nested(ROWS),
    "lines.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "lines.json": "".join(json.dumps(row) + "\n" for row in ROWS),
    "array.json": json.dumps(ROWS),
    "flat.json": json.dumps({"data": ROWS}),
    "numbers.json": nested(ROWS, id=lambda row: ROWS.index(row)),
    "no ids.json": nested(ROWS, id=None),
    "empty ids.json": nested(ROWS, id=lambda row: ""),
    "ids twice.json": nested(ROWS, id=lambda row: row["id"][:2]),
    "objects.jsonl": "".join(json.dumps({**row, "answers": objects(row)}) + "\n" for row in ROWS),
    "strings.jsonl": "".join(json.dumps({**row, "answers": row["answers"]["text"][0]}) + "\n" for row in ROWS),
    "lists.jsonl": "".join(json.dumps({**row, "answers": row["answers"]["text"]}) + "\n" for row in ROWS),
    "blanks.json": nested(ROWS, answers=lambda r: [{**a, "text": a["text"] + " "} for a in objects(r)]),
    "blanks before.json": nested(
        ROWS, answers=lambda r: [{"text": " " + a["text"], "answer_start": a["answer_start"] - 1} for a in objects(r)]
    ),
    "offsets.json": nested(ROWS, answers=lambda r: [{**a, "answer_start": a["answer_start"] + 1} for a in objects(r)]),
    "minus one.json": nested(ROWS, answers=lambda r: [{**a, "answer_start": -1} for a in objects(r)]),
    "no offsets.json": nested(ROWS, answers=lambda r: [{"text": a["text"]} for a in objects(r)]),
    "plain.csv": table(ROWS, {**PLAIN, "answer": lambda r: r["answers"]["text"][0]}),
    "offsets.csv": table(ROWS, {**PLAIN, "answer_text": lambda r: r["answers"]["text"][0],
                                "answer_start": lambda r: r["answers"]["answer_start"][0]}),
    "semicolons.csv": table(ROWS, {**PLAIN, "answer": lambda r: r["answers"]["text"][0]}, delimiter=";"),
    "hub.csv": table(ROWS, {**PLAIN, "id": lambda r: r["id"], "answers": lambda r: str(r["answers"])}),
    "pandas.csv": table(ROWS, {**PLAIN, "answers": lambda r: NUMPY.format(r["answers"]["text"][0],
                                                                          r["answers"]["answer_start"][0])}),
    "plain.tsv": table(ROWS, {**PLAIN, "answer": lambda r: r["answers"]["text"][0]}, delimiter="\t"),
}  # fmt: skip


def loaded(path, **options):
    splits = TASKS["qa"].load(path, **options)
    rows = {(row["context"], row["question"]): row for split in splits.values() for row in split}
    return [rows[row["context"], row["question"]] for row in ROWS], assumed(splits).get(path.name, {}), splits


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_questions(name, tmp_path):
    path = tmp_path / name
    path.write_text(FILES[name])
    rows, _, splits = loaded(path)
    assert [row["answers"] for row in rows] == [row["answers"] for row in ROWS]
    ids = [row["id"] for row in rows]
    assert len({*ids}) == sum(map(len, splits.values())) == len(ROWS)
    if name in ("squad.json", "lines.jsonl", "array.json", "flat.json", "objects.jsonl", "hub.csv"):
        assert ids == [row["id"] for row in ROWS]


def test_parquet_gives_them_too(tmp_path):
    pd.DataFrame(ROWS).to_parquet(tmp_path / "a.parquet")
    assert loaded(tmp_path / "a.parquet")[0] == ROWS


@pytest.mark.parametrize(
    ("name", "what", "count"),
    [
        ("squad.json", None, None),
        ("no ids.json", "ids made", 20),
        ("ids twice.json", "repeated ids, numbered", 10),
        ("blanks.json", "answers without the blanks around them", 20),
        ("offsets.json", "answers moved to where they occur", 20),
        ("plain.csv", "answers placed", 20),
    ],
)
def test_what_was_done_is_said_with_its_count(name, what, count, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    notes = loaded(tmp_path / name)[1]
    assert notes.get(what) == (what and str(count))
    assert what or not notes


def test_an_answer_that_stands_several_times_is_a_question(tmp_path):
    rows = [{**row, "context": "Ada and Ada. " + row["context"]} for row in ROWS]
    path = tmp_path / "a.csv"
    path.write_text(table(rows, {**PLAIN, "answer": lambda r: r["answers"]["text"][0]}))
    with pytest.raises(DataError, match="'Ada' has no answer_start, and the context holds it 3 times") as caught:
        TASKS["qa"].load(path)
    assert caught.value.rows == [f"question-{number}" for number in range(1, 20, 2)]
    splits = TASKS["qa"].load(path, nearest_answer=True)
    starts = {
        row["answers"]["answer_start"][0] for split in splits.values() for row in split if "Who" in row["question"]
    }
    assert starts == {0}


def test_an_answer_is_a_whole_word_before_it_is_a_part_of_one(tmp_path):
    rows = [
        {"question": f"When {i}?", "context": f"In 1921, {i} of them were 21.", "answer": "21"} for i in range(100, 130)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    split = TASKS["qa"].load(tmp_path / "a.json")["train"]
    assert all(row["context"].index(" 21.") + 1 == row["answers"]["answer_start"][0] for row in split)


@pytest.mark.parametrize("given", [[], [{"text": "", "answer_start": -1}], {"text": [""], "answer_start": [-1]}, None])
def test_questions_without_an_answer_are_kept_and_plausible_answers_are_none(given, tmp_path):
    impossible = json.loads(nested(ROWS))
    for paragraph in impossible["data"][0]["paragraphs"]:
        question = paragraph["qas"][0]
        question |= {"plausible_answers": question["answers"], "is_impossible": True}
        question["answers"] = question["answers"] if given is None else given  # None: as in some tools, in `answers`
    (tmp_path / "train-v2.0.json").write_text(json.dumps(impossible))
    splits = TASKS["qa"].load(tmp_path / "train-v2.0.json")
    left = {"answers of questions with is_impossible, left out": "10"}
    assert assumed(splits) == ({"train-v2.0.json": left} if given is None else {})
    answers = [row["answers"] for split in splits.values() for row in split]
    assert len(answers) == len(ROWS)
    assert sum(row == {"text": [], "answer_start": []} for row in answers) == 10


def test_a_split_without_answers_is_left_out_and_a_file_without_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text(FILES["plain.csv"])
    (tmp_path / "test.csv").write_text(table(ROWS, PLAIN))
    splits = TASKS["qa"].load(tmp_path)
    assert assumed(splits)["test.csv"] == {"left out": "no labels; use it with predict"}
    with pytest.raises(DataError, match="no column 'answers'"):
        TASKS["qa"].load(tmp_path / "test.csv")


BAD = {
    "": "the file is empty",
    "{": "line 1: not valid JSON",
    json.dumps(ROWS, indent=1).replace('"answers":', '"answers"', 1): "line 7: not valid JSON",
    nested(ROWS)[:-9]: "line 1: not valid JSON",
    json.dumps(ROWS, indent=1)[:-30]: "line 277: not valid JSON",
    "{'question': 1}\n{'question': 2}\n": r"line 1 \(also line 2\): not valid JSON",
    "[]": "holds no rows",
    '{"data": []}': "no rows",
    '{"rows": []}': "'data' is missing",
    '{"data": [{"paragraphs": [{"qas": [{"id": "a", "question": "b"}]}]}]}': "no column 'context'",
    json.dumps({"data": [{"title": "t"}]}): "'context' is missing",
    nested(ROWS, answers=lambda r: [{"text": "Ada", "answer_start": "first"}]): "row 1 .*: the answers are neither",
    nested(ROWS, question=lambda r: ["Who?"]): "row 1 .*: a question, context or answer is not text",
    nested(ROWS).replace("Ada", r"Ada \ud800"): "row 1 .*: half a character",
    json.dumps([{**ROWS[0], "answers": 2}, {**ROWS[1], "answers": 3}]): r"row 1 \(also row 2\): the answers are nei",
    json.dumps([{**ROWS[0], "answers": {"text": ["Ada"], "answer_start": [0, 1]}}]): "row 1: the answers are neither",
    json.dumps([{"id": "a", "question": "b", "text": "c"}]): "no column 'context'; it has 'id', 'question', 'text'",
}


@pytest.mark.parametrize("content", BAD)
def test_what_cannot_be_read_is_named(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError, match=rf"^bad\.json.*{BAD[content]}"):
        TASKS["qa"].load(tmp_path / "bad.json")


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(before=TEXT, answer=TEXT, after=TEXT, off=st.integers(-3, 3), blanks=st.sampled_from(["", " ", "  "]))
def test_an_answer_is_never_moved_to_where_it_is_not(before, answer, after, off, blanks):
    context = f"{before} {answer} {after}"
    row = {
        "question": "q",
        "context": context,
        "answers": [{"text": blanks + answer + blanks, "answer_start": len(before) + 1 + off}],
    }
    fixed = squad.placed(squad.to_questions([row], "a"))[0]["answers"]
    (text,), (start,) = fixed["text"], fixed["answer_start"]
    assert text == answer.strip()
    stands = context.startswith(text, start) if start >= 0 else False
    assert stands or context.count(text) != 1


def test_predict_reads_squads_json_and_its_questions_without_answers(tmp_path):
    for name in ("squad.json", "no answers.json"):
        (tmp_path / name).write_text(nested(ROWS, **({"answers": None} if name == "no answers.json" else {})))
        rows, _ = unlabelled.from_file(tmp_path / name, {"question": "question", "context": "context"})
        assert [(row["question"], row["context"]) for row in rows] == [(r["question"], r["context"]) for r in ROWS]
