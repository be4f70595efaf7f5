"""Words and tags in columns, a word a line (CoNLL), and the schemes in which tags are written.

Recognised by the endings of COLUMNS: tables of texts have some of these endings too, but no list of words.

IOB2 begins every entity with B-; IOB1 only one that follows another of its type; BIOES marks last (E-) and single
(S-) words too; IO has no beginnings at all (Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import pyarrow as pa
from datasets import Dataset

from bert_helpers.errors import DataError, ParameterError
from bert_helpers.readers import tables
from bert_helpers.readers.source import Format, Reading, not_utf8, to_dataset, to_table

TAG = re.compile(r"O|[BIES]-\S+")
WRITE_TAGS = "write O, or prefix and type as B-PER"
SEPARATORS = ("\t", " ", ";", ",", "|")
LINE = "line"  # column with the number of the line of each sentence's first word
NAME = "bert_helpers.conll"  # `info.builder_name` of what has that column; rows of other kinds may have one like it


def read_conll(path: Path, reading: Reading) -> Dataset:
    """Read columns `tokens`, `ner_tags` and LINE, a row a sentence; a blank line ends a sentence.

    The tag stands in the last column, the word in the first, or in the second if the first counts the words of each
    sentence from 1. Columns are separated by tabs, blanks, semicolons, commas or bars. `-DOCSTART-` lines and comments
    (# and no tag) are passed over. Raises DataError with the lines.
    """
    schema = pa.schema({"tokens": pa.list_(pa.string()), "ner_tags": pa.list_(pa.string()), LINE: pa.int64()})
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            return to_dataset(to_table(_sentences(path, file), schema), builder_name=NAME)
    except UnicodeDecodeError as error:
        raise not_utf8(path.name, path.read_bytes()) from error


def _sentences(path: Path, file: TextIO) -> Iterator[tuple[list[str], list[str], int]]:
    """Words, tags and the number of the first word's line of each sentence."""
    separator, width, numbered = _layout(
        path, list(islice(((n, line) for n, line in _lines(file) if line.strip()), 200))
    )
    file.seek(0)
    words, tags, first = [], [], 0
    faults: dict[tuple[str, str], list[int]] = {}  # lines by what is wrong with them, and the fix
    for number, line in _lines(file):
        if line.strip():
            fields = _split(line, separator)
            if fault := _fault(fields, width, len(words) + 1 if numbered else None):
                faults.setdefault(fault, []).append(number)
            first = first if words else number
            words.append(fields[numbered * (len(fields) > 1)])
            tags.append(fields[-1])
        elif words:
            yield words, tags, first
            words, tags = [], []
    if faults:
        (problem, fix), lines = next(iter(faults.items()))
        raise DataError(problem, source=path.name, row=lines, unit="line", fix=fix)
    if words:
        yield words, tags, first


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    lines = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, 1))
    return ((number, line) for number, line in lines if not _is_skipped(line))


def _fault(fields: Sequence[str], width: int, position: int | None) -> tuple[str, str] | None:
    if len(fields) != width:
        return f"{len(fields)} columns, where the file has {width}", "separate the columns of all lines in one way"
    if not TAG.fullmatch(fields[-1]):
        return f"{fields[-1]!r} is not a tag", WRITE_TAGS
    if position and fields[0] != str(position):
        return "the first column holds numbers, which neither are the words nor count them", "delete the column"
    return None


def _is_skipped(line: str) -> bool:
    if line.startswith("-DOCSTART-"):
        return True
    return line.startswith("#") and not TAG.fullmatch(re.split(r"[\t ;,|]", line.rstrip())[-1])


def _split(line: str, separator: str) -> list[str]:
    return re.split(" +", line.strip(" ")) if separator == " " else [f.strip(" ") for f in line.split(separator)]


def _layout(path: Path, words: Sequence[tuple[int, str]]) -> tuple[str, int, bool]:
    """Find the separator and number of columns under which most of the first lines end in a tag.

    And whether the first column numbers the words, as in GermEval's files and CoNLL-U; learned in their place, numbers
    would be the words.
    """
    if not words:
        raise DataError("the file holds no words", source=path.name)
    layouts = Counter()
    for _, line in words:
        for separator in SEPARATORS:
            fields = _split(line, separator)
            if len(fields) > 1 and TAG.fullmatch(fields[-1]):
                layouts[separator, len(fields)] += 1
    if not layouts:
        number, line = words[0]
        raise DataError(
            f"{line[:40]!r} does not end in a tag",
            source=path.name,
            row=number,
            unit="line",
            fix="write on each line a word and, in the last of at least two columns, O or prefix and type as B-PER",
        )
    separator, width = layouts.most_common(1)[0][0]
    numbers = [re.fullmatch(r"\d+([-.]\d+)?", _split(line, separator)[0]) for _, line in words]
    return separator, width, width > 2 and all(numbers)


def find_scheme(sequences: Sequence[Sequence[str]]) -> str:
    """Find the scheme that all tag sequences obey: "BIOES", "IOB2", "IOB1" or "IO".

    Raises SequenceError with the violations of the scheme that fits best.
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
        raise SequenceError(best, sequences, found[best])
    return best


class SequenceError(DataError):
    """Tags that are illegal where they are; `places` has the sequence and position of each, from 0."""

    def __init__(self, scheme: str, sequences: Sequence[Sequence[str]], places: list[tuple[int, int]]) -> None:
        self.places = places
        sequence, position = places[0]
        before = sequences[sequence][position - 1] if position else "the beginning"
        problem = f"{sequences[sequence][position]} after {before} is illegal in {scheme}, the scheme of the other tags"
        super().__init__(problem, fix="correct it")


def _violations(sequences: Sequence[Sequence[str]], scheme: str) -> Iterator[tuple[int, int]]:
    legal = LEGAL[scheme]
    for number, tags in enumerate(sequences):
        for position, (before, tag) in enumerate(zip(["O", *tags], [*tags, "O"], strict=True)):
            if not legal(before, tag):
                yield number, min(position, len(tags) - 1)


def _legal_bioes(before: str, tag: str) -> bool:
    inside = before[0] in "BI"
    return (tag[0] in "IE") == inside and (not inside or before[2:] == tag[2:])


LEGAL: Mapping[str, Callable[[str, str], bool]] = {  # of the tag before and a tag
    "IOB2": lambda before, tag: tag[0] != "I" or before[2:] == tag[2:],
    "IOB1": lambda before, tag: tag[0] != "B" or before[2:] == tag[2:],
    "BIOES": _legal_bioes,
}


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Write the same entities in IOB2. `tags` must obey `scheme` (see `find_scheme`).

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
    """List O, then B- and I- of every type that occurs, types sorted."""
    types = sorted({tag[2:] for tags in sequences for tag in tags if tag != "O"})
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]


def read_types(text: str) -> dict[str, str] | None:
    """Read the parameter TRANSFER_TYPES: a table from others' types to ours; None where it is empty (the same types).

    Raises ParameterError for text of another form.

    >>> read_types("person:PER, location:LOC")
    {'person': 'PER', 'location': 'LOC'}
    """
    pairs = [[part.strip() for part in pair.split(":")] for pair in text.split(",") if pair.strip()]
    if bad := next((pair for pair in pairs if len(pair) != 2 or not all(pair)), None):
        raise ParameterError(f"TRANSFER_TYPES has {':'.join(bad)!r}; write their type, a colon and ours: person:PER.")
    return dict(pairs) or None


COLUMNS = Format(
    (".conll", ".iob", ".iob2", ".bio", ".txt", ".tsv", ".csv", ".train", ".testa", ".testb", ".dev", ".test"),
    read_conll,
)
# What tagged sentences are read from: columns, or rows with lists of words and tags
FORMATS = (COLUMNS, tables.JSON, tables.PARQUET)
