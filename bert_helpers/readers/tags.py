"""Entity tags: files in columns, the schemes they come in, and their one form here, IOB2.

IOB2 begins every entity with B-; IOB1 only one that follows another of its type; BIOES marks last (E-) and single
(S-) words too; IO has no beginnings at all (Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bert_helpers.errors import DataError, ParameterError

TAG = re.compile(r"O|[BIES]-\S+")
SEPARATORS = ("\t", " ", ";", ",", "|")
Sentence = tuple[list[str], list[str], int]  # words, tags, number of the first word's line


def read_columns(path: Path) -> list[Sentence]:
    """Sentences of a CoNLL-style file: a word a line, its tag in the last column, a blank line between sentences.

    The word stands in the first column, or in the second if the first counts the words of each sentence from 1.
    Columns are separated by tabs, blanks, semicolons, commas or bars. `-DOCSTART-` lines and comments (# and no tag)
    are passed over. Raises DataError, naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}, line {line}: not UTF-8; save the file as UTF-8.") from error
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    rows = [(number, line) for number, line in lines if not _is_skipped(line)]
    words = [(number, line) for number, line in rows if line.strip()]
    if not words:
        raise DataError(f"{path.name}: the file holds no words.")
    separator, width = _layout(path, words)
    sentences: list[tuple[int, list[list[str]]]] = []
    open_sentence = False
    for number, line in rows:
        if not line.strip():
            open_sentence = False
            continue
        fields = _split(line, separator)
        _check_fields(path, number, fields, width)
        if not open_sentence:
            sentences.append((number, []))
            open_sentence = True
        sentences[-1][1].append(fields)
    word = _word_column(path, [fields for _, fields in sentences], width)
    return [([row[word] for row in fields], [row[-1] for row in fields], number) for number, fields in sentences]


def _word_column(path: Path, sentences: Sequence[list[list[str]]], width: int) -> int:
    """0, or 1 where the first column numbers each sentence's words, as in GermEval's files and CoNLL-U.

    Raises DataError for any other column of numbers alone: those would be learned in place of the words.
    """
    if width < 3 or not all(re.fullmatch(r"\d+([-.]\d+)?", row[0]) for fields in sentences for row in fields):
        return 0
    if all([row[0] for row in fields] == [str(i + 1) for i in range(len(fields))] for fields in sentences):
        return 1
    raise DataError(f"{path.name}: the first column holds numbers only; it has to hold the words. Delete it.")


def _is_skipped(line: str) -> bool:
    if line.startswith("-DOCSTART-"):
        return True
    return line.startswith("#") and not TAG.fullmatch(re.split(r"[\t ;,|]", line.rstrip())[-1])


def _split(line: str, separator: str) -> list[str]:
    return re.split(" +", line.strip(" ")) if separator == " " else [f.strip(" ") for f in line.split(separator)]


def _layout(path: Path, words: Sequence[tuple[int, str]]) -> tuple[str, int]:
    """Separator and number of columns: those under which most of the first lines end in a tag."""
    layouts = Counter()
    for _, line in words[:200]:
        for separator in SEPARATORS:
            fields = _split(line, separator)
            if len(fields) > 1 and TAG.fullmatch(fields[-1]):
                layouts[separator, len(fields)] += 1
    if not layouts:
        number, line = words[0]
        raise DataError(
            f"{path.name}, line {number}: {line[:40]!r} does not end in a tag. Each line holds a word and, in the last "
            "of at least two columns, O or a tag with prefix and type, as B-PER."
        )
    return layouts.most_common(1)[0][0]


def _check_fields(path: Path, number: int, fields: list[str], width: int) -> None:
    if len(fields) != width:
        raise DataError(
            f"{path.name}, line {number}: {len(fields)} columns, where the file has {width}; "
            "separate the columns of all lines in one way."
        )
    if not TAG.fullmatch(fields[-1]):
        raise DataError(f"{path.name}, line {number}: {fields[-1]!r} is no tag; write O, or prefix and type as B-PER.")


def find_scheme(sequences: Sequence[Sequence[str]]) -> str:
    """The scheme all tag sequences obey: "BIOES", "IOB2", "IOB1" or "IO".

    Raises DataError with `sequence` and `position` (attributes, both from 0) of the first violation of the scheme that
    fits best.
    """
    prefixes = {tag[0] for tags in sequences for tag in tags}
    if prefixes & {"E", "S"}:
        candidates = ["BIOES"]
    elif "B" in prefixes:
        candidates = ["IOB2", "IOB1"]
    else:
        return "IO"
    found = {scheme: list(_violations(sequences, scheme)) for scheme in candidates}
    best = min(candidates, key=lambda scheme: len(found[scheme]))
    if found[best]:
        sequence, position = found[best][0]
        raise SequenceError(best, sequences[sequence], sequence, position)
    return best


class SequenceError(DataError):
    """A tag that may not stand where it stands; `sequence` and `position` say where."""

    def __init__(self, scheme: str, tags: Sequence[str], sequence: int, position: int) -> None:
        self.sequence, self.position = sequence, position
        before = tags[position - 1] if position else "the beginning"
        super().__init__(
            f"{tags[position]} after {before} is illegal in {scheme}, the scheme of the other tags; mend it."
        )


def _violations(sequences: Sequence[Sequence[str]], scheme: str) -> Iterator[tuple[int, int]]:
    legal = {"IOB2": _legal_iob2, "IOB1": _legal_iob1, "BIOES": _legal_bioes}[scheme]
    for number, tags in enumerate(sequences):
        for position, (before, tag) in enumerate(zip(["O", *tags], [*tags, "O"], strict=True)):
            if not legal(before, tag):
                yield number, min(position, len(tags) - 1)


def _legal_iob2(before: str, tag: str) -> bool:
    return tag[0] != "I" or before[2:] == tag[2:]


def _legal_iob1(before: str, tag: str) -> bool:
    return tag[0] != "B" or before[2:] == tag[2:]


def _legal_bioes(before: str, tag: str) -> bool:
    inside = before[0] in "BI"
    return (tag[0] in "IE") == inside and (not inside or before[2:] == tag[2:])


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """The same entities in IOB2. `tags` must obey `scheme` (see `find_scheme`).

    >>> to_iob2(["I-PER", "I-PER", "B-PER", "O"], "IOB1")
    ['B-PER', 'I-PER', 'B-PER', 'O']
    >>> to_iob2(["S-LOC", "B-PER", "E-PER"], "BIOES")
    ['B-LOC', 'B-PER', 'I-PER']
    """
    if scheme == "IOB2":
        return list(tags)
    if scheme == "BIOES":
        return [{"S": "B", "E": "I"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    begins = [tag[0] == "I" and before[2:] != tag[2:] for before, tag in zip(["O", *tags], tags, strict=False)]
    return [f"B{tag[1:]}" if begin else tag for begin, tag in zip(begins, tags, strict=True)]


def tag_names(sequences: Sequence[Sequence[str]]) -> list[str]:
    """O, then B- and I- of every type that occurs, types sorted."""
    types = sorted({tag[2:] for tags in sequences for tag in tags if tag != "O"})
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]


def read_types(text: str) -> dict[str, str] | None:
    """The parameter TRANSFER_TYPES as a table from others' types to ours; None where it is empty: types are the same.

    Raises ParameterError for text of another form.

    >>> read_types("person:PER, location:LOC")
    {'person': 'PER', 'location': 'LOC'}
    """
    pairs = [[part.strip() for part in pair.split(":")] for pair in text.split(",") if pair.strip()]
    if bad := next((pair for pair in pairs if len(pair) != 2 or not all(pair)), None):
        raise ParameterError(f"TRANSFER_TYPES has {':'.join(bad)!r}; write their type, a colon and ours: person:PER.")
    return dict(pairs) or None
