"""WebAnno TSV 3, as exported by INCEpTION and recognised by its first line (inception-project.github.io, user guide,
"WebAnno TSV 3.3 File format").
"""

import re
from itertools import groupby, pairwise
from pathlib import Path

from datasets import Dataset

from bert_helpers.errors import DataError, parameter
from bert_helpers.readers.source import Format, Reading, lines_of, tagged_words

TOKEN = re.compile(r"\d+-\d+\t")  # the numbers of sentence and word; 1-2.1 is a part of word 1-2
NUMBER = re.compile(r"\[\d+\]$")  # the number of an entity of several words
FIRST = 3  # the columns of annotations follow those of number, offsets and word
NONE = ("_", "*")  # no annotation; an annotation without a value


def read_webanno(path: Path, reading: Reading) -> Dataset:
    """Read words and, as tags, the only feature of spans that has values, or the one that TAGS_COLUMN names.

    Raises DataError for several features with values, and for words with several values.
    """
    lines = lines_of(path, reading)
    layers = [line.removeprefix("#T_SP=").strip().split("|")[1:] for line in lines if line.startswith("#T_SP=")]
    names = [name for layer in layers for name in layer]
    rows = {number: line.split("\t") for number, line in enumerate(lines, 1) if TOKEN.match(line)}
    used = [i for i, _ in enumerate(names) if not all(_is_none(row[FIRST + i]) for row in rows.values())]
    chosen = [i for i in used if names[i] in reading.wanted] or used
    if len(chosen) != 1:
        shown = ", ".join(names[i] for i in used) or "none"
        fix = f"name one by {parameter('TAGS_COLUMN')}"
        raise DataError(f"features with values: {shown}", source=path.name, fix=fix, parameter="TAGS_COLUMN")
    column = FIRST + chosen[0]
    if bad := [number for number, row in rows.items() if "|" in row[column].replace(r"\|", "")]:
        fix = "export spans that do not overlap"
        raise DataError("a word has several values", source=path.name, row=bad, unit="line", fix=fix)
    reading.assume("tags", f"the feature {names[chosen[0]]}")
    sentences = [[*group] for _, group in groupby(rows.values(), key=lambda row: row[0].partition("-")[0])]
    words = [[row[2] for row in sentence] for sentence in sentences]
    return tagged_words(reading, words, [_tags([row[column] for row in sentence]) for sentence in sentences])


def _is_none(value: str) -> bool:
    return NUMBER.sub("", value) in NONE


def _tags(values: list[str]) -> list[str]:
    """Return values as IOB2 tags; neighbours with the same number, PER[1], are one entity. Backslashes escape."""
    tags = []
    for before, value in pairwise(["_", *values]):
        prefix = "I" if value == before and NUMBER.search(value) else "B"
        kind = re.sub(r"\\(.)", r"\1", NUMBER.sub("", value))
        tags.append("O" if _is_none(value) else f"{prefix}-{kind}")
    return tags


WEBANNO = Format((".tsv", ".txt"), read_webanno, looks=lambda head: head.startswith("#FORMAT=WebAnno TSV 3"))
