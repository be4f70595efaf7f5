"""Words and tags in columns, one word per line: CoNLL's format and its relatives.

They are recognised by ENDINGS: tables of texts share some of these, but are not lists of words. Which column is which
is decided from the whole file, so that no number and no document name is learned in place of a word.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset

from bert_helpers.errors import DataError, ParameterError, parameter
from bert_helpers.readers import parallel, schemes, spans, tables, webanno
from bert_helpers.readers.source import Format, Reading, text_of, to_dataset

LINES = "lines"  # column with the line number of each word
NAME = "bert_helpers.conll"  # `info.builder_name` of rows with that column; other rows may have a column of that name
SEPARATORS = ("\t", " ", ",", ";", "|")
HEAD = 1_000  # lines that decide how columns are separated
# Names of the columns in headers
WORDS = re.compile("words?|tokens?|form|text")
TAGS = re.compile("(ner_?|word_)?(tags?|labels?)|ner?|entity|iob|bio")
SENTENCES = {"sentence #", "sentence", "sentence_id", "sent_id", "sent", "doc_id"}
# Types of phrases: CoNLL-2000 and 2003 have a column of these besides the entities
CHUNKS = {"NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"}
LOOKS = re.compile(r"O|[BIMELSUW][-_:](\S.*)")
NUMBER = re.compile(r"\d+")
NO_WORD = re.compile(r"\d+[-.]\d+")  # in CoNLL-U, 2-3 is the written form of two words; 8.1 is not written
ENTITIES = 10  # CoNLL-2012's column of entities; after it, the number of columns varies


class NoTags(DataError):
    """No column holds tags."""


class Rows(NamedTuple):
    """The words of a file: their line numbers, the number of sentence ends above each, and the columns."""

    numbers: Sequence[int]
    ends: Sequence[int]
    columns: Sequence[Sequence[str]]

    def select(self, kept: Sequence[int]) -> "Rows":
        """Return the rows at these positions."""
        numbers, ends, *columns = ([values[i] for i in kept] for values in (self.numbers, self.ends, *self.columns))
        return Rows(numbers, ends, columns)


def read_conll(path: Path, reading: Reading) -> Dataset:
    """Read columns `tokens`, `ner_tags` (as written) and LINES, one row per sentence.

    Separators are tabs, blanks, commas (quoted as in CSV), semicolons or bars. A sentence ends at a blank line, where
    the numbers of words start again, and where a column changes that is constant within a sentence. A header,
    `-DOCSTART-` and comments (# without a tag) are skipped. Tags are found by their form; of several levels, the first,
    outer one is taken. Rows may be whole sentences, with blanks between words and blanks or commas between tags. A
    column can be named by its name in the header, or by its number from 1. Raises DataError with all lines that have
    the same kind of fault as the first.
    """
    text = text_of(path, reading).decode()
    try:
        return _read(text, path.name, reading)
    except NoTags:
        if not reading.labels:
            raise
        return to_dataset(pa.table({"tokens": [[text]]}), builder_name=NAME)  # a split that is left out later


def _read(text: str, source: str, reading: Reading) -> Dataset:
    tokens, tags = [*reading.wanted, "tokens", "ner_tags"][:2]
    separator, rows = _separated(text, source, {"tab": "\t", r"\t": "\t"}.get(reading.delimiter, reading.delimiter))
    names = _header([column[0] for column in rows.columns], tokens, tags, reading.header)
    rows = rows.select(range(1, len(rows.numbers))) if names else rows
    firsts = rows.columns[0]
    if not firsts:
        raise DataError("the file holds no words", source=source)
    counts = [bool(NUMBER.fullmatch(first)) for first in firsts]
    if any(counts) and all(count or NO_WORD.fullmatch(first) for count, first in zip(counts, firsts, strict=True)):
        rows = rows.select(np.flatnonzero(counts))
    index, labels, how = _find_tags(rows, names, tags, source)
    word_index, begins = _find_words(rows, index, names, tokens, source)
    words, prefix = _without_prefix(rows.columns[word_index])
    if "" in words:
        bad = [number for number, word in zip(rows.numbers, words, strict=True) if not word]
        raise DataError("the word is empty", source=source, row=bad, unit="line", fix="fill it or delete the line")
    borders, numbers = [*(i for i, begin in enumerate(begins) if begin), len(words)], rows.numbers
    parts = {tag: tag.replace(",", " ").split() for tag in {*labels}}
    if any(len(tags) > 1 and all(map(LOOKS.fullmatch, tags)) for tags in parts.values()):
        sentences, tags = [word.split() for word in words], [parts[tag] for tag in labels]
        counts = {number: (len(s), len(t)) for number, s, t in zip(numbers, sentences, tags, strict=True)}
        if bad := [number for number, (one, other) in counts.items() if one != other]:
            problem = "{} words but {} tags".format(*counts[bad[0]])
            raise DataError(problem, source=source, row=bad, unit="line", fix="correct the row")
        borders = [0, *accumulate(map(len, sentences))]
        numbers = np.repeat(numbers, np.diff(borders))
        words, labels = list(chain(*sentences)), list(chain(*tags))
        reading.assume("rows", "sentences, with a tag for each word between blanks")
    if how == "brackets":
        labels = [tag for a, b in pairwise(borders) for tag in schemes.read_brackets(labels[a:b])]
    titles = names or [str(i + 1) for i in range(len(rows.columns))]
    assumed = {"header": ", ".join(names), "words": f"in column {titles[word_index]}", "prefix": prefix}
    assumed["tags"] = f"in column {titles[index]}" + (f", {how}" if how else "")
    if separator not in "\t ":
        assumed["delimiter"] = repr(separator)
    if len(rows.columns) == 2 and not (names or index == 0 or how):  # a word and its tag
        del assumed["words"], assumed["tags"]
    for what, value in assumed.items():
        if value:
            reading.assume(what, value)
    columns = {"tokens": pa.array(words), "ner_tags": pa.array(labels), LINES: pa.array(numbers, pa.int32())}
    lists = {name: pa.ListArray.from_arrays(pa.array(borders, pa.int32()), flat) for name, flat in columns.items()}
    return to_dataset(pa.table(lists), builder_name=NAME)


# --- lines -------------------------------------------------------------------------------------------------


def _separated(text: str, source: str, delimiter: str) -> tuple[str, Rows]:
    """Find the separator under which most lines have the same number of columns, including a tag; split all lines."""
    lines = [line.rstrip("\r") for line in text.split("\n" if "\n" in text else "\r")]
    if text.startswith("#begin document"):
        lines = [_without_varying(line) for line in lines]
    lines = ["" if line.startswith("-DOCSTART-") else line for line in lines]
    head = list(islice(((n, line) for n, line in enumerate(lines, 1) if line.strip()), HEAD))
    if not head:
        raise DataError("the file holds no words", source=source)
    layouts: Counter[tuple[str, int]] = Counter()
    for separator in delimiter or SEPARATORS:
        for fields in _split([line for _, line in head], separator):
            if len(fields) > 1:
                # A line with a tag outweighs all lines without one
                layouts[separator, len(fields)] += 1 + len(head) * any(map(LOOKS.fullmatch, fields))
    (separator, width), votes = layouts.most_common(1)[0] if layouts else (("", 0), 0)
    if 2 * votes < len(head):
        raise _no_tags(head[0][1], source, head[0][0])
    return separator, _read_quickly(text, lines, separator, width) or _read_lines(lines, separator, width, source)


def _without_varying(line: str) -> str:
    """Return the word and entity columns of a line of CoNLL-2012: after these, the number of columns varies."""
    fields = [] if line.startswith("#") else line.split()
    return f"{fields[3]} {fields[ENTITIES]}" if len(fields) > ENTITIES else " ".join(fields)


def _read_quickly(text: str, lines: Sequence[str], separator: str, width: int) -> Rows | None:
    """Split all lines at once, which is three times as fast; return None if any line needs `_read_lines`."""
    special = (f" {separator}", f"{separator} ", "\n ", " \n", " \r", "\n#", f"\n{separator * (width - 1)}\n")
    if separator not in "\t " or text.startswith(("#", " ")) or any(sign in text for sign in special):
        return None
    words = [(number, line) for number, line in enumerate(lines, 1) if line]
    if any(line.count(separator) != width - 1 for _, line in words) or (separator == " " and "\t" in text):
        return None
    fields = separator.join([line for _, line in words]).split(separator)
    numbers = [number for number, _ in words]
    ends = [number - i for i, number in enumerate(numbers)]  # all other lines
    return Rows(numbers, ends, [fields[i::width] for i in range(width)])


def _read_lines(lines: Sequence[str], separator: str, width: int, source: str) -> Rows:
    numbers, ends, rows, count = [], [], [], 0
    for number, fields in enumerate(_split(lines, separator), 1):
        if _is_comment(fields, width):
            continue
        if any(field.strip() for field in fields):
            numbers.append(number)
            ends.append(count)
            rows.append(fields)
        else:  # blank, or ",,," as written by spreadsheets
            count += 1
    if bad := {number: len(fields) for number, fields in zip(numbers, rows, strict=True) if len(fields) != width}:
        problem = f"{next(iter(bad.values()))} columns, where the file has {width}"
        fix = "separate the columns of all lines in one way, and write O where a word has no tag"
        raise DataError(problem, source=source, row=list(bad), unit="line", fix=fix)
    return Rows(numbers, ends, list(zip(*rows, strict=True)))


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return [[field for field in line.replace("\t", " ").split(" ") if field] for line in lines]
    if separator in ",;" and any('"' in line for line in lines):
        with suppress(csv.Error):  # quotation marks that do not quote are words
            rows = list(csv.reader(lines, delimiter=separator, strict=True))
            if len(rows) == len(lines):
                return rows
    return [[field.strip(" ") for field in line.split(separator)] for line in lines]


def _is_comment(fields: Sequence[str], width: int) -> bool:
    if not fields or not fields[0].startswith("#"):
        return False
    return len(fields) != width or (fields[0] == "#" and not any(map(LOOKS.fullmatch, fields[1:])))


def _header(fields: list[str], tokens: str, tags: str, header: str) -> list[str]:
    """Return the first line's fields if they name a column of words and one of tags, or if `header` says so."""
    is_named = all(
        any(field == name or usual.fullmatch(field.lower()) for field in fields)
        for name, usual in ((tokens, re.compile(f"{WORDS.pattern}|sentence")), (tags, TAGS))
    )
    return fields if header == "yes" or (header != "no" and is_named) else []


# --- columns -----------------------------------------------------------------------------------------------


def _no_tags(line: str, source: str, number: int) -> NoTags:
    return NoTags(
        f"{line[:40]!r} does not end in a tag",
        source=source,
        row=number,
        unit="line",
        fix="write on each line a word and, in the last of at least two columns, O or prefix and type as B-PER",
    )


def _named(name: str, default: str, header: Sequence[str], width: int, source: str) -> int | None:
    """Return the column that the user named, by the header or by number from 1; None if none was named."""
    if name in header:
        return list(header).index(name)
    if name.isdecimal() and 1 <= int(name) <= width:
        return int(name) - 1
    if name in ("", default):
        return None
    found = ", ".join(header) or f"{width} columns without names"
    named_by = "TOKENS_COLUMN" if default == "tokens" else "TAGS_COLUMN"
    fix = f"give its number, from 1, by {parameter(named_by)}"
    raise DataError(f"no column {name!r}; it has {found}", source=source, column=name, fix=fix, parameter=named_by)


def _find_tags(rows: Rows, header: Sequence[str], name: str, source: str) -> tuple[int, Sequence[str], str]:
    """Return the column of tags, its values, and how it was found if that was not obvious."""
    columns = rows.columns
    last = len(columns) - 1
    given = _named(name, "ner_tags", header, len(columns), source)
    named = [i for i, title in enumerate(header) if TAGS.fullmatch(title.lower())]
    given = named[0] if given is None and len(named) == 1 else given
    if given is not None:
        return given, columns[given], "brackets" if _is_bracketed(columns[given]) else ""
    counts = [Counter(column) for column in columns]
    types = [{m[1] for value in count if (m := LOOKS.fullmatch(value)) and m[1]} for count in counts]
    # Nearly all values are tags: the others are errors, which are reported later
    tagged = [i for i, count in enumerate(counts) if _share(count, LOOKS) >= 0.8]
    entities = [i for i in tagged if types[i] and not types[i] <= CHUNKS] or [i for i in tagged if not types[i]][-1:]
    entities = entities or tagged[-1:]
    if len(entities) > 1:
        if not all(types[i] & types[entities[0]] for i in entities):
            numbers = " and ".join(str(i + 1) for i in entities)
            fix = f"say which by {parameter('TAGS_COLUMN')}, as a number"
            raise DataError(f"columns {numbers} hold tags", source=source, fix=fix, parameter="TAGS_COLUMN")
        others = ", ".join(str(i + 1) for i in entities[1:])
        return entities[0], columns[entities[0]], f"the outer level; column {others} has another"
    if entities:
        return entities[0], columns[entities[0]], ""
    if _is_bracketed(columns[last]):
        return last, columns[last], "brackets"
    pairs = [dict(part.split("=", 1) for part in value.split("|") if "=" in part) for value in columns[last]]
    for key in dict.fromkeys(key for pair in pairs for key in pair):
        values = [pair.get(key, "O") for pair in pairs]
        if _share(Counter(values), LOOKS) == 1 and any(pair.get(key, "O") != "O" for pair in pairs):
            return last, values, f"{key}="
    likely = max(range(len(columns)), key=lambda i: (_share(counts[i], LOOKS), i))
    if _share(counts[likely], LOOKS) >= 0.25:
        return likely, columns[likely], ""
    plain = [i for i in (last, 0) if "o" in counts[i] or _share(counts[i], NUMBER) == 1]
    if not plain:
        raise _no_tags(" ".join(column[0] for column in columns), source, rows.numbers[0])
    return plain[0], columns[plain[0]], ""


def _share(count: Counter, form: re.Pattern) -> float:
    return sum(n for value, n in count.items() if form.fullmatch(value)) / count.total()


def _is_bracketed(column: Sequence[str]) -> bool:
    values = set(column)
    return "*" in values and all(map(schemes.BRACKETS.fullmatch, values))


def _find_words(rows: Rows, tags: int, header: Sequence[str], name: str, source: str) -> tuple[int, list[bool]]:
    """Return the column of words, and where sentences begin according to the columns before it."""
    columns, begins = rows.columns, [True, *(one != other for one, other in pairwise(rows.ends))]
    given = _named(name, "tokens", header, len(columns), source)
    named = [i for i, title in enumerate(header) if WORDS.fullmatch(title.lower())]
    given = named[0] if given is None and len(named) == 1 else given
    others = [i for i in range(len(columns)) if i != tags]
    for i in others:
        column, changes = columns[i], _changes(columns[i])
        if i == given or (given is None and i == others[-1]):  # the last one left must be the words
            return i, begins
        if (header and header[i].lower() in SENTENCES) or _is_constant(column, begins, changes):
            begins = [a or b for a, b in zip(begins, changes, strict=True)]
        elif _is_count(column):
            restarts = [value in ("0", "1") and before != "0" for before, value in pairwise(("", *column))]
            begins = [a or b for a, b in zip(begins, restarts, strict=True)]
        elif given is None and all(map(NUMBER.fullmatch, column)):
            problem = "the first column holds numbers, which are neither the words nor their numbers"
            raise DataError(problem, source=source, row=rows.numbers[0], unit="line", fix="delete the column")
        elif given is None:
            return i, begins
    return given, begins


def _changes(column: Sequence[str]) -> list[bool]:
    """Return where a column's value changes; empty fields do not count."""
    filled = [value for value in column if value]
    before = iter(["", *filled])
    return [bool(value) and value != next(before) for value in column]


def _is_constant(column: Sequence[str], begins: Sequence[bool], changes: Sequence[bool]) -> bool:
    """Whether a column describes sentences or documents: it is filled once in each, or constant within each.

    To rule out chance, this takes three words besides the first ones of their sentences, or ten words where no blank
    line separates sentences.
    """
    if sum(not value for value in column) > len(column) / 2:
        return True
    if sum(begins) > 1:
        return len(begins) - sum(begins) >= 3 and all(b or not c for b, c in zip(begins, changes, strict=True))
    return len(column) >= max(10, 3 * sum(changes)) and sum(changes) == len({*column} - {""})


def _is_count(column: Sequence[str]) -> bool:
    if not all(map(NUMBER.fullmatch, column)):
        return False
    pairs = pairwise([-1, *map(int, column)])
    return all(number == before + 1 or number in (0, 1) for before, number in pairs)


def _without_prefix(words: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return words without a prefix that all of them have, such as WikiANN's "en:", and a note on it."""
    prefix = match[0] if (match := re.match(r"[a-z][\w-]*:", words[0])) else ""
    if not prefix or len({*words}) == 1 or not all(word.startswith(prefix) for word in words):
        return words, ""
    return [word[len(prefix) :] for word in words], f"{prefix!r} before every word taken off"


def read_types(text: str) -> dict[str, str] | None:
    """Parse the parameter TRANSFER_TYPES, which maps the types of another source to ours; None if empty (same types).

    Raises ParameterError for text in another form.

    >>> read_types("person:PER, location:LOC")
    {'person': 'PER', 'location': 'LOC'}
    """
    pairs = [[part.strip() for part in pair.split(":")] for pair in text.split(",") if pair.strip()]
    if bad := next((pair for pair in pairs if len(pair) != 2 or not all(pair)), None):
        fix = "write their type, a colon and ours: person:PER"
        raise ParameterError(f"has {':'.join(bad)!r}", parameter="TRANSFER_TYPES", fix=fix)
    return dict(pairs) or None


ENDINGS = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt", ".tsv", ".csv", ".train", ".testa", ".testb", ".dev",
           ".test", ".gold_conll", ".v4_gold_conll", "")  # fmt: skip
# The formats of tagged sentences: texts with spans, columns, or rows with lists of words and tags
FORMATS = (*spans.FORMATS, parallel.SLOTS, webanno.WEBANNO, Format(ENDINGS, read_conll), tables.JSON, tables.PARQUET)
