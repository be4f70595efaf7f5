"""Questions about contexts: SQuAD's JSON (data > paragraphs > context and qas), its relatives, and rows of tables.

Rows become QUESTIONS unchanged; `placed` then finds the answers whose position is missing or wrong.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, Features, Json, List, Value

from bert_helpers.errors import DataError
from bert_helpers.readers import json_rows, tables
from bert_helpers.readers.json_rows import parsed_cell
from bert_helpers.readers.source import SURROGATE, Format, Reading, keep_source, note, text_of

QUESTIONS = Features(
    {
        **{name: Value("string") for name in ("id", "title", "question", "context")},
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
SHAPE = "data > paragraphs > context and qas > id, question, answers > text, answer_start"
WANTED = {"question": "", "context": ""}  # columns that a table must have
ANSWERS = ("answers", "answer", "answer_text")
NULL = "the answers are null"
NO_ANSWER = (("", None), ("", -1))
STARTS = ("answer_start", "answer_starts", "start")


def read_squad(path: Path, reading: Reading) -> Dataset:
    """Read QUESTIONS from SQuAD's articles, paragraphs and questions, or from rows of JSON. Raises DataError."""
    content = text_of(path, reading)
    found = json_rows.parse_whole(path, content)
    if not isinstance(found, Mapping):
        _, rows = json_rows.read_rows(path, reading, content)
        return to_questions((row for _, row in rows), path.name)
    try:
        return to_questions(list(_nested(found)), path.name)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        fix = f"SQuAD's format has {SHAPE}"
        raise DataError(f"not a file in SQuAD's format ({reason})", source=path.name, fix=fix) from error


def _nested(node: Mapping, **above: object) -> Iterator[dict]:
    """Yield the questions below a node of SQuAD's tree, each with its context and title."""
    above |= {name: node[name] for name in ("title", "context") if name in node}
    inner = next((name for name in ("data", "paragraphs", "qas") if isinstance(node.get(name), list)), None)
    if inner is None and "question" not in node:
        raise KeyError("context" if "context" not in above and above else "data" if not above else "qas")
    if inner is None:
        yield {**above, **node}
    for child in node[inner] if inner else ():
        yield from _nested(child, **above)


def _read_table(kind: Format) -> Format:
    """Return a table's format with rows read as questions."""

    def read(path: Path, reading: Reading) -> Dataset:
        how = replace(reading, wanted=WANTED)
        dataset = kind.read(path, how)
        reading.assumed |= how.assumed
        return from_dataset(dataset, path.name)

    return replace(kind, read=read)


def from_dataset(dataset: Dataset, source: str) -> Dataset:
    """Return a data set's rows as QUESTIONS. Raises DataError."""
    if all(dataset.features.get(name) == feature for name, feature in QUESTIONS.items() if name != "title"):
        return dataset.select_columns([name for name in QUESTIONS if name in dataset.column_names])
    rows = dataset.to_list()
    for name in [name for name, feature in dataset.features.items() if isinstance(feature, Json)]:
        rows = [{**row, name: json.loads(row[name]) if isinstance(row[name], str) else row[name]} for row in rows]
    return to_questions(rows, source)


def to_questions(rows: Iterable[Mapping], source: str) -> Dataset:
    """Return rows as QUESTIONS, with answers in any known form; without `answers` if no row has that column.

    Raises DataError with all bad rows.
    """
    columns: dict[str, list] = {name: [] for name in QUESTIONS}
    has_answers = False
    bad: dict[str, list[int]] = {}
    plausible = 0
    for number, row in enumerate(rows, 1):
        fields = {name.strip().lower(): value for name, value in row.items()}
        if number == 1 and (missing := WANTED.keys() - fields.keys()):
            shown = ", ".join(repr(name) for name in list(row)[:12])
            name = min(missing)
            raise DataError(f"no column {name!r}; it has {shown}", source=source, column=name, fix="rename it")
        values = {name: fields.get(name) for name in ("title", *WANTED)}
        name = fields.get("id")
        values["id"] = None if name is None or str(name).strip() == "" else str(name)
        given = next((fields[name] for name in ANSWERS if name in fields), None)
        answers = _answers(parsed_cell(given), fields)
        if answers and str(fields.get("is_impossible")).lower() in ("true", "1", "1.0"):
            answers, plausible = [], plausible + 1
        has_answers |= any(name in fields for name in ANSWERS)
        texts = [values["question"], values["context"], values["title"], *(text for text, _ in answers or [])]
        if not all(isinstance(text, str | None) for text in texts):
            bad.setdefault("a question, context or answer is not text", []).append(number)
        elif answers is None and given is None:
            bad.setdefault(NULL, []).append(number)
        elif answers is None:
            bad.setdefault("the answers are neither texts nor objects with text and answer_start", []).append(number)
        elif any(text and SURROGATE.search(text) for text in texts):
            bad.setdefault("half a character (a lone surrogate)", []).append(number)
        else:
            for column, value in values.items():
                columns[column].append(value)
            columns["answers"].append({"text": [t for t, _ in answers], "answer_start": [s for _, s in answers]})
    if bad:
        problem, numbers = next(iter(bad.items()))
        fix = "give an empty list where the context has no answer" if problem == NULL else "correct the row"
        raise DataError(problem, source=source, row=numbers, fix=fix)
    kept = Features({name: kind for name, kind in QUESTIONS.items() if has_answers or name != "answers"})
    dataset = Dataset.from_dict({name: columns[name] for name in kept}, features=kept)
    if plausible:
        note(dataset, "answers of questions with is_impossible, left out", str(plausible), of=source)
    return dataset


def _answers(value: object, row: Mapping) -> list[tuple[str, int | None]] | None:
    """Return answers' texts and positions; None if their form is unknown."""
    if value is None and any(name in row for name in ANSWERS) and not row.get("is_impossible"):
        return None
    if isinstance(value, Mapping) and "text" in value:
        texts, starts = value["text"], value.get("answer_start")
    elif isinstance(value, (list, tuple)) and all(isinstance(answer, Mapping) for answer in value):
        texts, starts = [answer.get("text") for answer in value], [answer.get("answer_start") for answer in value]
    elif value is None or isinstance(value, (str, list, tuple)):
        texts, starts = value, next((row[name] for name in STARTS if name in row), None)
    else:
        return None
    texts = [] if texts is None else [texts] if isinstance(texts, str) else list(texts)
    starts = [None] * len(texts) if starts in (None, "", []) else starts
    starts = list(starts) if isinstance(starts, (list, tuple)) else [starts]
    if len(texts) != len(starts):
        return None
    try:
        places = [None if start is None or start == "" else int(float(start)) for start in starts]
    except (ValueError, TypeError, OverflowError):
        return None
    found = [pair for pair in zip(texts, places, strict=True) if pair not in NO_ANSWER]
    return found if all(abs(place or 0) < 2**31 for place in places) else None


# --- positions of answers ----------------------------------------------------------------------------------


def placed(dataset: Dataset, *, nearest: bool = False) -> Dataset:
    """Return QUESTIONS with an id for each, and with the positions of answers corrected where that is certain.

    Blanks around an answer are cut off. An answer that is not at its answer_start, or has none, gets the position where
    it occurs in the context, if it occurs once or, with `nearest`, several times. The notes count the changes.
    """
    done: Counter[str] = Counter()
    rows = dataset.to_dict()
    for context, answers in zip(rows["context"], rows["answers"], strict=True):
        for i, (text, start) in enumerate(zip(answers["text"], answers["answer_start"], strict=True)):
            if text and context:
                clean, found, what = _place(context, text, start, nearest)
                answers["text"][i], answers["answer_start"][i] = clean, found
                done.update(what)
    names = [name or f"question-{number}" for number, name in enumerate(rows["id"], 1)]
    done["ids made"] = sum(not name for name in rows["id"])
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}#{seen[name]}"
    done["repeated ids, numbered"] = len(names) - len(seen)
    kept = Features({name: QUESTIONS[name] for name in dataset.column_names})
    fixed = keep_source(Dataset.from_dict({**rows, "id": names}, features=kept), dataset)
    for what, count in done.items():
        if count:
            note(fixed, what, str(count))
    return fixed


def _place(context: str, text: str, start: int | None, nearest: bool) -> tuple[str, int | None, list[str]]:
    """Return the answer without blanks around it, its position, and the changes made."""
    clean = text.strip() or text
    what = ["answers without the blanks around them"] * (clean != text)
    before = len(text) - len(text.lstrip())
    for place in (start, start + before) if start is not None and start >= 0 else ():
        if context.startswith(clean, place):
            return clean, place, what
    whole, any_place = rf"(?<!\w)(?={re.escape(clean)}(?!\w))", f"(?={re.escape(clean)})"
    places = [match.start() for match in re.finditer(whole, context)]
    places = places or [match.start() for match in re.finditer(any_place, context)]
    if len(places) == 1 or (places and nearest):
        found = min(places, key=lambda place: abs(place - (start or 0)))
        return clean, found, [*what, "answers placed" if start is None else "answers moved to where they occur"]
    return clean, start, what


NESTED = Format((".json",), read_squad, looks=lambda head: '"paragraphs"' in head or '"qas"' in head)
# The formats of questions
TABLES = tuple(_read_table(kind) for kind in tables.FORMATS if not kind.is_folder)
FORMATS = (Format((".json", ".jsonl"), read_squad), *TABLES)
