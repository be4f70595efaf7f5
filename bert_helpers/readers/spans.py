"""Texts with entities as character spans, as exported by annotation tools: doccano, Label Studio, Prodigy, spaCy.

A row is recognised by its shape: a text, and a list of spans with start, end and type, whatever a tool calls these.
"""

import csv
import io
import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, Features, List, Value

from bert_helpers.errors import DataError
from bert_helpers.readers.json_rows import parse_lines, parse_whole, parsed_cell
from bert_helpers.readers.source import Format, Reading, lines_of, tagged_words, text_of, to_dataset

TEXT = ("text", "content", "raw", "sentence", "document")
SPANS = ("spans", "entities", "label", "labels", "annotations", "annotation", "ents")
TOKENS, TAGS = ("tokens", "words"), ("tags", "tag", "ner_tags", "labels", "label")  # columns whose cells are lists
START, END = ("start", "start_offset", "start_char", "begin"), ("end", "end_offset", "end_char", "stop")
LABEL = ("label", "labels", "entity", "entity_group", "entity_type", "type", "tag", "tag_name", "category")
NAME = "bert_helpers.spans"  # `info.builder_name` of rows with the columns of FEATURES
NUMBER = "number"  # of the row in its file
ENOUGH = 10  # spans that show how their ends are counted
LOOKED_AT = 20  # rows by which a file is recognised
SPAN = {"start": Value("int64"), "end": Value("int64"), "label": Value("string"), "text": Value("string")}
FEATURES = Features({"text": Value("string"), "spans": List(SPAN), NUMBER: Value("int64")})
PUBTATOR = re.compile(r"(?P<id>\d+)\|(?P<part>[ta])\|(?P<text>.*)")  # ncbi.nlm.nih.gov/research/pubtator3/tutorial
BRAT = re.compile(r"(?P<id>T\d+)\t(?P<label>\S+) (?P<offsets>\d+ \d+(;\d+ \d+)*)\t?(?P<text>.*)")
AMID, CUT = "begin inside a word, which is taken whole", "end inside a word, which is taken whole"
DIFFER = "annotators marked different spans"
INCLUSIVE = "the last character is the entity's own"
EARLY = "begin at the blank before a word and end inside one, which is taken whole"


class Span(NamedTuple):
    """An entity: characters `start` to `end` (exclusive) of the text, its type, and its text if the file has it."""

    start: int
    end: int
    label: str
    text: str | None = None


class Annotated(NamedTuple):
    """A text with its entities; `left_out` is the reason why it is not used, if there is one."""

    text: str
    spans: list[Span]
    left_out: str = ""


# --- read --------------------------------------------------------------------------------------------------


def read_json(path: Path, reading: Reading) -> Dataset:
    """Read a tool's JSON or JSON Lines as FEATURES, one row per text."""
    return to_rows(_items(path, text_of(path, reading)), path.name, reading)


def read_table(path: Path, reading: Reading) -> Dataset:
    """Read a CSV or TSV whose columns are texts and lists of spans."""
    text = text_of(path, reading).decode()
    return to_rows(_cells(text, _delimiter(text)), path.name, reading)


def read_lists(path: Path, reading: Reading) -> Dataset:
    """Read a CSV or TSV whose cells are lists of words, or sentences (words separated by blanks), and lists of tags."""
    text = text_of(path, reading).decode()
    rows = _cells(text, _delimiter(text, (*TEXT, *TOKENS), TAGS))
    columns = []
    for name, usual in zip([*reading.wanted, "tokens", "ner_tags"], ((*TOKENS, *TEXT), TAGS), strict=False):
        column = next((n for n in rows[0] if n == name or n.lower() in usual), "")
        columns.append([parsed_cell(row[column]) for row in rows])
        if column != name:
            reading.assume(name, f"in column {column}")
    words = [words.split() if isinstance(words, str) else words for words in columns[0]]
    return tagged_words(reading, words, columns[1])


def _cells(text: str, delimiter: str) -> list[dict[str, str]]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    finally:
        csv.field_size_limit(before)


def read_spacy(path: Path, reading: Reading) -> Dataset:
    """Read spaCy 2's JSON for training, documents > paragraphs > sentences > tokens: one row per sentence."""
    documents = parse_whole(path, text_of(path, reading))
    sentences = [
        sentence["tokens"]
        for document in (documents if isinstance(documents, list) else [documents])
        for paragraph in document["paragraphs"]
        for sentence in paragraph["sentences"]
    ]
    words = [[token["orth"] for token in sentence] for sentence in sentences]
    return tagged_words(reading, words, [[token.get("ner", "O") for token in sentence] for sentence in sentences])


def read_pubtator(path: Path, reading: Reading) -> Dataset:
    """Read PubTator's documents: title and abstract as one text, with its spans; relations are skipped."""
    rows: dict[str, dict] = {}
    for line in lines_of(path, reading):
        if match := PUBTATOR.fullmatch(line):
            row = rows.setdefault(match["id"], {"text": "", "spans": []})
            row["text"] += " " * (match["part"] == "a") + match["text"]
        elif len(fields := line.split("\t")) > 4 and fields[0] in rows and fields[1].isdigit():
            span = Span(int(fields[1]), int(fields[2]), label=fields[4], text=fields[3])
            rows[fields[0]]["spans"].append(span._asdict())
    return to_rows([*rows.values()], path.name, reading)


def to_rows(items: Sequence[object], source: str, reading: Reading) -> Dataset:
    """Return a tool's rows as FEATURES, and note how many were left out, and why. Raises DataError for other rows."""
    rows = {number: annotated(item) for number, item in enumerate(items, 1)}
    if bad := [number for number, row in rows.items() if row is None]:
        fix = 'write rows as {"text": "Ann sings", "spans": [[0, 3, "PER"]]}'
        raise DataError("not a text with spans of characters", source=source, row=bad, fix=fix)
    if differ := [number for number, row in rows.items() if row.left_out == DIFFER]:
        raise DataError(DIFFER, source=source, row=differ, fix="settle them in the tool, or delete the rows")
    if left := Counter(row.left_out for row in rows.values() if row.left_out):
        reading.assume("left out", ", ".join(f"{count} rows {why}" for why, count in left.items()))
    used = {number: row for number, row in rows.items() if not row.left_out}
    columns = {"text": [row.text for row in used.values()], NUMBER: list(used)}
    columns["spans"] = [[span._asdict() for span in row.spans] for row in used.values()]
    return to_dataset(Dataset.from_dict(columns, features=FEATURES).data.table, builder_name=NAME)


def read_brat(folder: Path, reading: Reading) -> Dataset:
    """Read brat's folder: a text in each .txt, its entities in the .ann next to it. Other annotations are skipped.

    An entity in several pieces is taken from its first to its last character. Raises DataError.
    """
    rows, pieces, bad = [], [], []
    for path in sorted(folder.glob("*.ann")):
        text = text_of(path.with_suffix(".txt"), reading).decode()
        spans = []
        for line in lines_of(path, reading):
            if not (match := BRAT.fullmatch(line)):
                bad += [path.name] * line.startswith("T")
                continue
            numbers = [int(number) for number in re.findall(r"\d+", match["offsets"])]
            pieces += [f"{path.name} {match['id']}"] * (len(numbers) > 2)
            shown = match["text"] if len(numbers) == 2 else None
            spans.append({"start": numbers[0], "end": numbers[-1], "label": match["label"], "text": shown})
        rows.append({"text": text, "spans": spans})
    if bad:
        fix = 'write entities as "T1", tab, type, beginning and end, tab, text'
        raise DataError("not a line of brat's", source=folder.name, row=list(dict.fromkeys(bad)), unit="file", fix=fix)
    if pieces:
        reading.assume(f"{len(pieces)} entities in pieces", f"taken whole ({first_ten(pieces)})")
    return to_rows(rows, folder.name, reading)


def first_ten(names: Sequence[object]) -> str:
    """Return the first ten names for a note."""
    return ", ".join(map(str, names[:10])) + ", …" * (len(names) > 10)


def is_brat(folder: Path) -> bool:
    """Whether a folder has .ann files, each with its text."""
    notes = sorted(folder.glob("*.ann"))
    return bool(notes) and all(path.with_suffix(".txt").is_file() for path in notes)


def _items(path: Path, text: bytes) -> list:
    """Return the rows of JSON or JSON Lines, or those in a list within an object."""
    if (content := parse_whole(path, text)) is None:
        return [row for _, row in parse_lines(path, text)]
    if isinstance(content, Mapping) and annotated(content) is None:
        lists = [value for value in content.values() if isinstance(value, list)]
        content = next((rows for rows in lists if any(map(annotated, rows[:100]))), content)
    return [item for item in content if item is not None] if isinstance(content, list) else [content]


def looks_annotated(head: str) -> bool:
    """Whether JSON begins like texts with lists of spans: in lines, an array, or an array within an object."""
    decoder = json.JSONDecoder()
    for start in [0, *(match.end() for match in re.finditer(r'(^\s*|"\w+":\s*)\[', head))][:5]:
        for _ in range(LOOKED_AT):
            start += len(re.match(r"[\s,]*", head[start:])[0])
            try:
                item, start = decoder.raw_decode(head, start)
            except ValueError:
                break
            names = {*map(str.lower, item)} if isinstance(item, Mapping) else {"spans"}
            if annotated(item) and names & {*SPANS, "data", "passages"} and "ner_tags" not in names:
                return True
    return False


def _delimiter(head: str, texts: Collection[str] = TEXT, labels: Collection[str] = SPANS) -> str:
    """Return the delimiter under which the first line names a column of texts and one of labels."""
    for sign in ",;\t|":
        names = {name.strip().strip('"').lower() for name in head.split("\n", 1)[0].strip().split(sign)}
        if names & {*texts} and names & {*labels}:
            return sign
    return ""


def looks_listed(head: str) -> bool:
    """Whether a delimited file begins like texts with lists of spans."""
    return bool(_delimiter(head) and re.search(r"[,;\t|]\s*\"?\[\s*[\[({\]]", head))


def looks_like_lists(head: str) -> bool:
    """Whether a delimited file begins like sentences with lists of tags."""
    return bool(_delimiter(head, (*TEXT, *TOKENS), TAGS) and re.search(r"[,;\t|]\s*\"?\[\s*[\"']", head))


# --- rows of the tools -------------------------------------------------------------------------------------


def annotated(row: object) -> Annotated | None:
    """Return a tool's row as text and spans; None if it is neither.

    >>> annotated({"text": "Ann sings", "label": [[0, 3, "PER"]]})
    Annotated(text='Ann sings', spans=[Span(start=0, end=3, label='PER', text=None)], left_out='')
    >>> annotated(["Ann sings", {"entities": [[0, 3, "PER"]]}]).spans
    [Span(start=0, end=3, label='PER', text=None)]
    >>> annotated({"text": "Ann sings", "label": ["music"]})
    """
    if isinstance(row, (list, tuple)) and len(row) == 2:  # spaCy's
        row = {"text": row[0], "spans": row[1].get("entities") if isinstance(row[1], Mapping) else row[1]}
    if not isinstance(row, Mapping):
        return None
    fields = {str(name).lower(): value for name, value in row.items()}
    if isinstance(data := fields.get("data"), Mapping):  # a task of Label Studio
        texts = {name: value for name, value in data.items() if isinstance(value, str)}
        text = next((texts[name] for name in TEXT if name in texts), next(iter(texts.values()), None))
        done = [a for a in fields.get("annotations") or fields.get("completions") or [] if not a.get("was_cancelled")]
        if text is None:
            return None
        marked = [_spans(annotation.get("result") or []) for annotation in done] or [[]]
        if None in marked:
            return None
        differ = DIFFER * any({*spans} != {*marked[0]} for spans in marked)
        return Annotated(text, marked[0], differ or "without an annotation" * (not done))
    if isinstance(passages := fields.get("passages"), list):
        return _document(passages, fields.get("entities") or ())
    if fields.keys() == {"data"} and isinstance(data, list) and all({*piece} <= {"text", "entity"} for piece in data):
        ends = [*accumulate(len(piece["text"]) for piece in data)]  # of SNIPS' pieces of a text
        pieces = [(end - len(piece["text"]), end, piece["entity"]) for end, piece in zip(ends, data, strict=True)
                  if "entity" in piece]  # fmt: skip
        return Annotated("".join(piece["text"] for piece in data), [Span(*piece) for piece in pieces])
    text = next((fields[name] for name in (*TEXT, "data") if isinstance(fields.get(name), str)), None)
    found = [_spans(parsed_cell(fields[name])) for name in SPANS if name in fields]
    spans = next((spans for spans in found if spans is not None), [] if not found else None)
    if text is None or spans is None:
        return None
    answer = fields.get("answer", "accept")  # Prodigy's
    return Annotated(text, spans, "" if answer == "accept" else f'with the answer "{answer}"')


def _document(passages: Sequence[Mapping], entities: Sequence[Mapping]) -> Annotated:
    """Join the passages of BioC, with entities in each, or BigBio, with entities next to them (task_schemas.md).

    Offsets are those of the whole text. An entity in pieces is taken whole.
    """
    text, found = "", [(entity["offsets"], entity["type"], entity["text"]) for entity in entities]
    for passage in passages:
        text = text.ljust(passage["offset"] if "offset" in passage else passage["offsets"][0][0])
        text += passage["text"] if isinstance(passage["text"], str) else "".join(passage["text"])
        for note in passage.get("annotations", ()):
            places = [(at["offset"], at["offset"] + at["length"]) for at in note["locations"]]
            found.append((places, note["infons"]["type"], [note["text"]]))
    return Annotated(text, [Span(places[0][0], places[-1][1], label, texts[0] if len(places) == 1 else None)
                            for places, label, texts in found if places])  # fmt: skip


def _spans(value: object) -> list[Span] | None:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        return None
    spans = [_span(item) for item in value]
    return None if None in spans else [span for group in spans for span in group]


def _span(item: object) -> list[Span] | None:
    """Return the spans of one item, which may have several types or places; [] for relations; None for other items."""
    if isinstance(item, (list, tuple)) and len(item) == 3:
        numbers, names = ([x for x in item if isinstance(x, kind)] for kind in (int, str))
        return [Span(*numbers, *names)] if (len(numbers), len(names)) == (2, 1) else None
    if not isinstance(item, Mapping):
        return None
    if isinstance(item.get("value"), Mapping) or "from_id" in item:  # a result of Label Studio, which may be no span
        return _span(item["value"]) if "start" in item.get("value", {}) else []
    if isinstance(points := item.get("points"), list):  # Dataturks', with inclusive ends
        places = [_span({**point, "end": point["end"] + 1, "label": item.get("label")}) for point in points]
        return [span for place in places for span in place or []]
    start, end = (next((item[name] for name in names if name in item), None) for names in (START, END))
    labels = next((item[name] for name in LABEL if item.get(name) not in (None, [])), None)
    if not all(isinstance(n, (int, float)) and n == int(n) for n in (start, end)) or labels is None:
        return None
    text = item.get("text", item.get("value"))
    names = labels if isinstance(labels, (list, tuple)) else [labels]
    return [Span(int(start), int(end), str(name), text if isinstance(text, str) else None) for name in names]


# --- spans to words ----------------------------------------------------------------------------------------


def to_tags(row: Annotated, words: Sequence[tuple[int, int]]) -> tuple[list[str], list[Span], list[str], list[str]]:
    """Return the IOB2 tags of a text's words, the spans they stand for, the changes to spans, and what is wrong.

    `words` are the start and end of each word. Blanks at the ends of a span are cut off. A span that cuts a word takes
    the whole word. Of nested spans, or of several in one word, the longest is kept. Spans are wrong if they are outside
    the text, have no word, have a text other than the file says, overlap, or have two types.
    """
    spans, done, wrong, early = [], [], [], set()
    for span in sorted(set(row.spans)):
        piece = row.text[max(span.start, 0) : max(span.end, 0)]
        if not (0 <= span.start < span.end <= len(row.text) and piece.strip()):
            wrong.append(f"characters {span.start} to {span.end} contain no words of the text")
        elif not _fits(row.text, span):
            wrong.append(f"the text at {span.start} to {span.end} is {piece[:40]!r}, not {span.text[:40]!r}")
        else:
            start = span.start + len(piece) - len(piece.lstrip())
            spans.append(Span(start, start + len(piece.strip()), span.label))
            if start > span.start:
                early.add(spans[-1])
            done += ["blanks at the ends cut off"] * (piece != piece.strip())
    spans = sorted(set(spans), key=lambda span: (span.start, -span.end))
    for i, one in enumerate(spans):
        for other in takewhile(lambda other, end=one.end: other.start < end, spans[i + 1 :]):
            if (one.start, one.end) == (other.start, other.end):
                wrong.append(f"{row.text[one.start : one.end][:40]!r} is {one.label} and {other.label}")
            elif other.end > one.end and other.start > one.start:
                wrong.append(f"characters {one.start} to {one.end} and {other.start} to {other.end} overlap")
    tags, kept = ["O"] * len(words), []
    ends, starts = [end for _, end in words], [start for start, _ in words]
    for span in sorted(spans, key=lambda span: span.start - span.end):
        first, last = bisect_right(ends, span.start), bisect_left(starts, span.end)
        if any(tag != "O" for tag in tags[first:last]):
            done.append("within or beside another, in the same words: left out")
            continue
        tags[first:last] = [f"{'I' if i else 'B'}-{span.label}" for i in range(last - first)]
        done += [AMID] * (starts[first] < span.start)
        done += [EARLY if span in early else CUT] * (ends[last - 1] > span.end)
        kept.append(span)
    return tags, sorted(kept), done, wrong


def _fits(text: str, span: Span) -> bool:
    return span.text is None or text[span.start : span.end].split() == span.text.split()


def with_fitting_offsets(rows: Sequence[Annotated]) -> tuple[Sequence[Annotated], str]:
    """Return rows with converted offsets, if all texts of spans fit then, and how the offsets had been counted.

    JavaScript's offsets count a character beyond Unicode's first plane, such as an emoji, twice.
    """
    if all(_fits(text, span) for text, spans, _ in rows for span in spans):
        return rows, ""
    for way, code, width in (("UTF-16 units", "utf-16-le", 2), ("bytes", "utf-8", 1)):
        contents = [row.text.encode(code) for row in rows]
        counted = [
            row._replace(spans=[span._replace(**_counted(content, span, code, width)) for span in row.spans])
            for row, content in zip(rows, contents, strict=True)
        ]
        if all(_fits(text, span) for text, spans, _ in counted for span in spans):
            return counted, f"counted in {way}"
    longer = with_exclusive_ends(rows)
    return (longer, INCLUSIVE) if all(_fits(text, span) for text, spans, _ in longer for span in spans) else (rows, "")


def ends_inclusive(rows: Sequence[Annotated], places: Sequence[Sequence[tuple[int, int]]]) -> bool:
    """Whether spans' ends are inclusive: each span starts with a word, and cuts the last letter off one.

    `places` are the start and end of each text's words.
    """
    found = []
    for (text, spans, _), words in zip(rows, places, strict=True):
        starts, ends = ({*side} for side in zip(*words, strict=True))
        found += [
            span.start in starts and span.end not in ends and span.end + 1 in ends and text[span.end].isalnum()
            for span in spans
        ]
    return len(found) >= ENOUGH and all(found)


def with_exclusive_ends(rows: Sequence[Annotated]) -> list[Annotated]:
    """Return rows whose spans end one character later."""
    return [row._replace(spans=[span._replace(end=span.end + 1) for span in row.spans]) for row in rows]


def _counted(content: bytes, span: Span, code: str, width: int) -> dict[str, int]:
    before = {name: content[: width * max(0, getattr(span, name))] for name in ("start", "end")}
    return {name: len(part.decode(code, "ignore")) for name, part in before.items()}


# --- character spans of tags -------------------------------------------------------------------------------


def find_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the start and end of each word; the words are slices of the text, in its order."""
    places, position = [], 0
    for word in words:
        start = text.index(word, position)
        position = start + len(word)
        places.append((start, position))
    return places


# The formats of texts with spans, or of words with tags in the tools' own forms
FORMATS = (
    Format((".json", ".jsonl"), read_json, looks=looks_annotated),
    Format((".csv", ".tsv"), read_table, looks=looks_listed),
    Format((".csv", ".tsv"), read_lists, looks=looks_like_lists),
    Format((".json",), read_spacy, looks=lambda head: '"paragraphs"' in head and '"orth"' in head),
    Format((".txt", ".pubtator", ".csv", ""), read_pubtator, looks=lambda head: bool(PUBTATOR.match(head))),
    Format((), read_brat, is_folder=is_brat),
)
