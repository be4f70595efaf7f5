"""Classes of texts in the JSON that annotation tools export: Label Studio, Prodigy, doccano.

A file is recognised by the fields in the tools' manuals (labelstud.io/guide/export, prodi.gy/docs/api-interfaces,
doccano.github.io/doccano): `annotations` with `result` and `choices`, `answer`, or `annotations` with `label`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from bert_helpers.errors import DataError
from bert_helpers.readers.json_rows import read_json, read_rows
from bert_helpers.readers.source import Format, Reading, head, labelled_texts, name_of, no_column

LABEL_STUDIO = re.compile(r'"(annotations|completions)"\s*:.*"result"\s*:', re.DOTALL)
PRODIGY = re.compile(r'"answer"\s*:\s*"(accept|reject|ignore)"')
DOCCANO = re.compile(r'"annotations"\s*:\s*\[\s*\{[^}]*"label"')


def read_annotations(path: Path, reading: Reading) -> Dataset:
    """Read texts and the labels chosen for them: one label per row, or lists where a row has several.

    Rows rejected or ignored in Prodigy are left out. Raises DataError with the rows on which annotators disagree.
    """
    if "answer" in reading.wanted and PRODIGY.search(head(path)):  # a column of that name, and not Prodigy's
        return read_json(path, reading)
    unit, numbered = read_rows(path, reading)
    texts, labels, differ, rejected = [], [], [], 0
    for number, row in numbered:
        if row.get("answer") in ("reject", "ignore"):
            rejected += 1
            continue
        answers = _answers(row)
        if any({*answer} != {*answers[0]} for answer in answers):
            differ.append(number)
        texts.append(_text(row, reading, path.name))
        labels.append(answers[0] if answers else [])
    if differ:
        fix = "settle them in the tool, or delete the rows"
        raise DataError("annotators chose different classes", source=path.name, row=differ, unit=unit, fix=fix)
    if rejected:
        reading.assume("left out", f"{rejected:,} rows that were not accepted")
    if all(len(chosen) < 2 for chosen in labels):
        labels = [chosen[0] if chosen else None for chosen in labels]
    return labelled_texts(reading, texts, labels)


def _answers(row: Mapping) -> list[list[str]]:
    """Return the labels that each annotator chose."""
    if "answer" in row:
        label = row.get("accept", row.get("label"))
        return [list(map(str, label)) if isinstance(label, list) else [str(label)] if label is not None else []]
    annotations = row.get("annotations", row.get("completions")) or []
    if any("result" in annotation for annotation in annotations):
        done = [annotation["result"] for annotation in annotations if not annotation.get("was_cancelled")]
        return [[choice for part in result for choice in part.get("value", {}).get("choices", [])] for result in done]
    by_user: dict[object, list[str]] = {}
    for annotation in annotations:
        by_user.setdefault(annotation.get("user"), []).append(str(annotation["label"]))
    return list(by_user.values())


def _text(row: Mapping, reading: Reading, source: str) -> object:
    data = row.get("data", row)
    name = name_of(reading, "TEXT_COLUMN", "text")
    texts = [value for value in data.values() if isinstance(value, str)]
    if name not in data and len(texts) != 1:
        raise no_column(source, {name: "TEXT_COLUMN"}, list(data))
    return data.get(name, *texts[:1])


ANNOTATIONS = Format(
    (".json", ".jsonl"),
    read_annotations,
    looks=lambda start: any(kind.search(start) for kind in (LABEL_STUDIO, PRODIGY, DOCCANO)),
)
