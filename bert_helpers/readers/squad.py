"""Questions in SQuAD's JSON: an object with data > paragraphs > context and qas. Recognised by its ending .json."""

import json
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, Features, List, Value

from bert_helpers.errors import DataError
from bert_helpers.readers import tables
from bert_helpers.readers.hub import innermost_reason
from bert_helpers.readers.source import Format, Reading, not_utf8

QUESTIONS = Features(
    {
        **{name: Value("string") for name in ("id", "title", "question", "context")},
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
SHAPE = "data > paragraphs > context and qas > id, question, answers > text, answer_start"


def read_squad(path: Path, reading: Reading) -> Dataset:
    """Read a row a question (columns: QUESTIONS) from SQuAD's articles, paragraphs and questions. Raises DataError."""
    rows: list[dict[str, object]] = []
    nested = True
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, list):
            raise DataError(
                "a JSON array, where SQuAD's format is an object",
                source=path.name,
                fix=f"write its rows as JSON Lines (.jsonl, one object a line), or as {SHAPE}",
            )
        rows.extend(_rows(content))
        nested = False
        return Dataset.from_dict({name: [row[name] for row in rows] for name in QUESTIONS}, features=QUESTIONS)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise not_utf8(path.name, path.read_bytes()) from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else innermost_reason(error)
        raise DataError(
            f"not a file in SQuAD's format ({reason})",
            source=path.name,
            row=len(rows) + 1 if rows and nested else None,
            unit="question",
            fix=f"SQuAD's holds {SHAPE}; name a file of JSON Lines .jsonl",
        ) from error


def _rows(content: dict) -> Iterator[dict[str, object]]:
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                if not all(
                    isinstance(text, str) for text in (question["id"], question["question"], paragraph["context"])
                ):
                    raise TypeError("an id, question or context is not a string")
                answers = question.get("answers") or []
                yield {
                    "id": question["id"],
                    "title": article.get("title"),
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {name: [answer[name] for answer in answers] for name in ("text", "answer_start")},
                }


def _refuse_table(path: Path, reading: Reading) -> Dataset:
    raise DataError(
        "questions are not read from a table",
        source=path.name,
        fix="give them as SQuAD's JSON (.json), JSON Lines or Parquet",
    )


# What questions are read from
FORMATS = (
    Format((".json",), read_squad),
    Format(tables.DELIMITED.suffixes, _refuse_table),
    tables.JSON,
    tables.PARQUET,
)
