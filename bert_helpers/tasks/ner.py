"""Sentences of words, with a tag for each word that says which entity it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_helpers import files
from bert_helpers.data import CORRECT, in_splits, rename_columns, sample_rows, without_unlabelled
from bert_helpers.errors import DataError, parameter
from bert_helpers.parameters import PARAMETERS, column_parameter
from bert_helpers.readers import conll, schemes, spans
from bert_helpers.readers.source import SPLITS, Reading, keep_source, note, read_source, source_name, to_dataset
from bert_helpers.tasks import entities
from bert_helpers.tasks.base import Examples, Task, class_fields, class_names
from bert_helpers.tokenization import check_max_length, map_splits, special_ids, stride_error

if TYPE_CHECKING:
    from transformers import BatchEncoding, EvalPrediction, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_utils import PredictionOutput


MODEL = PARAMETERS["MODEL"].default


class EntityRecognition(Task):
    """Sentences of words, with the IOB2 tags of the entities in them."""

    name = "ner"
    auto_class = "AutoModelForTokenClassification"
    reads_words = True
    pipeline = "token-classification"
    fields: ClassVar = {"text": "", "tokens": "TOKENS_COLUMN"}  # one of the two: a text is split into words
    usage = """\
from transformers import pipeline

tag = pipeline("token-classification", "{folder}", aggregation_strategy="first")
print(tag("A text with names."))"""
    sample_texts = ("A text with names.",)
    has_classes = True

    def load(
        self,
        source: str | Path,
        *,
        tokens_column: str = "tokens",
        tags_column: str = "ner_tags",
        tag_names: str = "",
        words: str = "tokenizer",
        model: str = MODEL,
        types: Mapping[str, str] | None = None,
        train_size: int = 0,
        validation_size: int = 0,
        test_size: int = 0,
        seed: int = 0,
        **reading: str | bool,
    ) -> DatasetDict:
        """Read words and entity tags from `source`, as splits train, validation and test.

        `source` is "sample", a file or folder of CoNLL columns, of JSON Lines or Parquet with lists of words and tags,
        or of texts with character spans (`readers.spans`), or a Hub id. `tag_names` are the names of tags that are
        numbers, separated by commas. IOB1, IOB2, BIOES and IO, in any spelling known to `readers.schemes`, are
        recognised from all splits and turned into IOB2; each split's `info.description` says which was found. Texts are
        split into `words` as in `split_words`, with the tokenizer of `model`. `types` renames entity types and drops
        all others. Columns of the result: `tokens` (strings), `ner_tags` (`ClassLabel`: O, then B- and I- of every type
        in the training rows, sorted) and, for texts, `text` and `spans` (start, end, label). Sizes and missing splits
        are as in `Classification.load`, but sampled at random. Raises DataError, naming the file and the line or row.
        """
        read = {"tokens_column": tokens_column, "tags_column": tags_column, "words": words, "model": model}
        splits = _tagged(_read(source, sample="ner", **read, **reading), tag_names, types)
        names = schemes.tag_names(splits["train"]["ner_tags"])
        if len(names) == 1:
            source = source_name(splits["train"])
            if "spans" in splits["train"].column_names:
                raise DataError("no spans in any row", source=source, fix="mark some")
            fix = f"name the column of tags by {parameter('TAGS_COLUMN')}, in a file without a header by its number"
            at = {"source": source, "column": tags_column, "parameter": "TAGS_COLUMN"}
            raise DataError("no entity: every tag is O", fix=fix, **at)
        splits = {name: _tag_classes(split, names) for name, split in splits.items()}
        return in_splits(splits, (train_size, validation_size, test_size), seed=seed, hold_out=sample_rows)

    def encode(
        self, dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 128, stride: int = 32
    ) -> DatasetDict:
        """Encode sentences as windows of subwords, with the label of each word in exactly one window.

        A word's first subword has its label; other subwords and special tokens have −100. A sentence longer than
        `max_length` tokens becomes several windows with an overlap of `stride` subwords. The middle of the overlap
        divides the labels, so that each word is labelled where it has context on both sides. Rows: `input_ids`,
        `attention_mask`, `labels`, `sentence` (row of the split), `length`. `sentences_from_windows` is the inverse.
        Raises ParameterError if `max_length` or `stride` is out of range.
        """
        check_max_length(max_length, tokenizer)
        before, after = special_ids(tokenizer)
        room = max_length - len(before) - len(after)
        if not 0 <= stride < room:
            raise stride_error(stride, max_length, room - 1)

        def encode_rows(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
            encoded = _subwords(rows["tokens"], tokenizer)
            windows: dict[str, list] = {"input_ids": [], "labels": [], "sentence": []}
            for i, sentence in enumerate(indices):
                words = encoded["input_ids"][i], encoded.word_ids(i), rows["ner_tags"][i]
                for ids, labels in word_windows(*words, room, stride):
                    windows["input_ids"].append([*before, *ids, *after])
                    windows["labels"].append([*[-100] * len(before), *labels, *[-100] * len(after)])
                    windows["sentence"].append(sentence)
            windows["length"] = [len(ids) for ids in windows["input_ids"]]
            windows["attention_mask"] = [[1] * length for length in windows["length"]]
            return windows

        return map_splits(dataset, encode_rows, with_indices=True)

    def examples(self, split: Dataset) -> Examples:
        """Return sentences as texts and as words, with their tags."""
        words = split["tokens"][:]
        texts = [" ".join(row) for row in words]
        tags = entities.named(split["ner_tags"][:], split.features["ner_tags"].feature.names)
        types = sorted({tag[2:] for row in tags for tag in row} - {""})
        cut = None
        if "spans" in split.column_names:
            places = [zip(*spans.find_words(*row), strict=True) for row in zip(split["text"][:], words, strict=True)]
            ends = [tuple(map(set, place)) for place in places]  # the starts and the ends of words
            cut = [
                span["start"] not in begin or span["end"] not in end
                for (begin, end), row in zip(ends, split["spans"][:], strict=True)
                for span in row
            ]
        return Examples(texts, tags, texts, texts, classes=types, words=words, cut=cut)

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return the number and names of the tags."""
        return class_fields(train.features["ner_tags"].feature.names)

    def collator(self, tokenizer: PreTrainedTokenizerBase, **options: object) -> Callable[[list], dict]:
        """Return the collator that also pads labels."""
        from transformers import DataCollatorForTokenClassification  # see tasks/base.py

        return DataCollatorForTokenClassification(tokenizer, **options)

    def compute_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return the function for entity F1, precision, recall and token accuracy, of windows instead of sentences."""
        names = list(config.id2label.values())

        def scores(prediction: EvalPrediction) -> dict[str, float]:
            if not np.isfinite(prediction.predictions).all():
                return {}  # as in the base class
            pairs = zip(prediction.predictions, prediction.label_ids, strict=True)
            scored, gold = zip(*((row[labels != -100], labels[labels != -100]) for row, labels in pairs), strict=True)
            measure = entities.EntityMeasure(entities.legal_tags(scored, names), entities.named(gold, names))
            return measure.values(measure.headline)

        return scores

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Return the predicted and the gold tags of every sentence's words."""
        names = rows.features["ner_tags"].feature.names
        return predicted_tags(output, encoded, names), entities.named(rows["ner_tags"], names)

    def measure(self, predictions: entities.Tags, references: entities.Tags, rows: Dataset) -> entities.EntityMeasure:
        """Measure entities and, for texts with spans, also their characters."""
        characters = None
        if rows is not None and "spans" in rows.column_names:
            given = [{(s["start"], s["end"], s["label"]) for s in row} for row in rows["spans"]]
            texts = zip(rows["text"], rows["tokens"], predictions, strict=True)
            characters = [{span[:3] for span in entities.character_spans(*row)} for row in texts], given
        return entities.EntityMeasure(predictions, references, characters=characters)

    def parts(self, predictions: entities.Tags, references: entities.Tags, seed: int) -> pd.DataFrame:
        """Return F1 of every entity type ("PER/f1")."""
        by_type = entities.EntityMeasure(predictions, references).by_type(seed=seed)
        return by_type[["value", "low", "high"]].add_suffix("/f1", axis=0)

    def with_fields(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, *, words: str = "tokenizer") -> Dataset:
        """Return rows with `tokens`; texts are split into `words` like those of the training rows, and kept."""
        if "tokens" in rows.column_names:
            return rows
        texts = list(rows["text"])
        return Dataset.from_dict({"text": texts, "tokens": _slices(texts, split_words(texts, tokenizer, words))})

    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return the first tag for every word."""
        return {"ner_tags": [[0] * len(words) for words in rows["tokens"]]}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return `tags`, one per word, and for texts also `entities`: start, end, type and text of each."""
        names = class_names(config)
        tags = predicted_tags(output, encoded, names, greedy=True)
        # Another program's model may have learned IOB1, in which entities begin with I-: its tags stay as they are.
        if hasattr(config, "tag_scheme") or schemes.slips(tags) <= sum(tag[0] == "B" for row in tags for tag in row):
            tags = predicted_tags(output, encoded, names)
        if "text" not in rows.column_names:
            return {"tags": tags}
        texts = zip(rows["text"], rows["tokens"], tags, strict=True)
        names, found = ("start", "end", "type", "text"), [entities.character_spans(*row) for row in texts]
        return {"tags": tags, "entities": [[dict(zip(names, s, strict=True)) for s in row] for row in found]}

    def finish_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model with the scheme of its tags in its config, for `table`."""
        model.config.tag_scheme = "IOB2"
        return model

    def save_predictions(
        self, folder: Path, predictions: entities.Tags, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write the test rows' words and tags as predictions.json."""
        tagged = [{"tokens": t, "predicted": p} for t, p in zip(rows["test"]["tokens"], predictions, strict=True)]
        return files.write_json(folder / "predictions.json", tagged)


# --- read --------------------------------------------------------------------------------------------------


def load_tagged_rows(
    source: str | Path,
    names: Sequence[str],
    *,
    types: Mapping[str, str] | None = None,
    tag_names: str = "",
    sample: str = "ner_transfer",
    **reading: str | bool,
) -> Dataset:
    """Read the test rows of `source` (or its only split) with the tag names of an existing tagger.

    Options are those of `EntityRecognition.load`. Raises DataError for a tag that is not in `names`: call it before
    training.
    """
    splits = _tagged(_read(source, sample=sample, need_train=False, **reading), tag_names, types)
    fix = f'map its type by {parameter("TRANSFER_TYPES")}, or leave this text out ({parameter("TRANSFER_DATA")} "")'
    return _tag_classes(next(splits[name] for name in reversed(SPLITS) if name in splits), names, fix)


def _read(
    source: str | Path,
    *,
    sample: str,
    tokens_column: str = "tokens",
    tags_column: str = "ner_tags",
    words: str = "tokenizer",
    model: str = MODEL,
    need_train: bool = True,
    **reading: str | bool,
) -> dict[str, Dataset]:
    """Read splits with `tokens` and `ner_tags`, the tags as written, and with other columns of the readers."""
    columns = {"tokens": tokens_column, "ner_tags": tags_column}
    wanted = {name: column_parameter(field) for field, name in columns.items()}
    how = Reading(wanted, labels=frozenset({tags_column}), **reading)
    splits = read_source(source, sample=sample, formats=conll.FORMATS, reading=how, need_train=need_train)
    for name, split in splits.items():
        if split.info.builder_name == conll.NAME:
            continue
        if split.info.builder_name == spans.NAME:
            splits[name] = _from_spans(split, words, model)
        elif tokens_column not in split.column_names and spans.annotated(row := split[0]) and {*row} & {*spans.SPANS}:
            rows = keep_source(spans.to_rows(split.to_list(), source_name(split), how), split)
            splits[name] = _from_spans(rows, words, model)
        else:
            given = columns if name == "train" or tags_column in split.column_names else {"tokens": tokens_column}
            splits[name] = rename_columns(split, given)
    return without_unlabelled(splits, {"ner_tags"})


def _from_spans(dataset: Dataset, words: str, model: str) -> Dataset:
    """Turn texts with spans into words and tags, and note changes to spans. Raises DataError with all bad rows."""
    rows = [spans.Annotated(row["text"], [spans.Span(**span) for span in row["spans"]]) for row in dataset]
    rows, way = spans.with_fitting_offsets(rows)
    tokenizer = None
    if words == "tokenizer":
        from bert_helpers import models  # see tasks/base.py

        tokenizer = models.load_tokenizer(model)
    places = split_words([row.text for row in rows], tokenizer, words)
    if empty := [number for number, place in zip(dataset[spans.NUMBER], places, strict=True) if not place]:
        raise DataError("the text has no words", source=source_name(dataset), row=empty, fix="delete the row")
    if spans.ends_inclusive(rows, places):
        rows, way = spans.with_exclusive_ends(rows), spans.INCLUSIVE
    found = [spans.to_tags(row, place) for row, place in zip(rows, places, strict=True)]
    numbers, total = list(dataset[spans.NUMBER]), sum(len(row.spans) for row in rows)
    if wrong := {number: problems[0] for number, (*_, problems) in zip(numbers, found, strict=True) if problems}:
        problem = next(iter(wrong.values()))
        raise DataError(problem, source=source_name(dataset), row=list(wrong), fix="correct the spans")
    done = [(what, number) for number, (_, _, changes, _) in zip(numbers, found, strict=True) for what in changes]
    misplaced = [number for what, number in done if what in (spans.AMID, spans.EARLY)]
    if len(misplaced) > max(3, total / 2):
        problem = "most spans begin inside a word, or before one and end in it: their offsets are those of another text"
        at = [*dict.fromkeys(misplaced)]
        raise DataError(problem, source=source_name(dataset), row=at, fix="export text and spans together")
    texts = [row.text for row in rows]
    columns = {"tokens": _slices(texts, places), "ner_tags": [tags for tags, *_ in found], "text": texts}
    columns["spans"] = [[{"start": s.start, "end": s.end, "label": s.label} for s in kept] for _, kept, *_ in found]
    tagged = keep_source(Dataset.from_dict(columns), dataset)
    note(tagged, "words", {"tokenizer": "as the tokenizer splits texts", "blanks": "between blanks"}.get(words, words))
    if way:
        note(tagged, "offsets", way)
    for what in dict.fromkeys(what for what, _ in done):
        at = [number for kind, number in done if kind == what]
        note(tagged, f"{len(at)} of {total} spans {what}", f"(rows {spans.first_ten([*dict.fromkeys(at)])})")
    return tagged


def _tagged(splits: dict[str, Dataset], tag_names: str, types: Mapping[str, str] | None) -> dict[str, Dataset]:
    """Check words and tags; return the splits with their tags as IOB2 strings."""
    sequences = {name: _tag_strings(split, tag_names) for name, split in splits.items()}
    sequences, spelling = _spelled(splits, sequences)
    found = sorted({tag[2:] for rows in sequences.values() for row in rows for tag in row if tag != "O"})
    if missing := [kind for kind in types or () if kind not in found]:  # a typo would drop the type's entities
        problem = f"no entity of the type {missing[0]!r}; there are {', '.join(found)}"
        source = ", ".join(map(source_name, splits.values()))
        raise DataError(problem, source=source, fix="name the types of this text", parameter="TRANSFER_TYPES")
    types, scheme = dict(zip(found, found, strict=True)) if types is None else types, _scheme(splits, sequences)
    for name, split in splits.items():
        tags = [
            [f"{tag[:2]}{types[tag[2:]]}" if tag[2:] in types else "O" for tag in schemes.to_iob2(row, scheme)]
            for row in sequences[name]
        ]
        if spelling:
            note(split, "spelling", spelling)
        if scheme == "IOB2" and (slips := schemes.slips(sequences[name])):
            note(split, "entities", f"{slips} begin with I-")
        splits[name] = _with_column(split, "ner_tags", tags)
        if "spans" in split.column_names:
            kept = [[{**s, "label": types[s["label"]]} for s in row if s["label"] in types] for row in split["spans"]]
            splits[name] = _with_column(splits[name], "spans", kept)
        splits[name].info.description = f"{source_name(split)}, tags in {scheme}"
    return splits


def _with_column(dataset: Dataset, name: str, values: list) -> Dataset:
    """Replace the values of a column, which `Dataset.add_column` would pickle for a fingerprint."""
    table = dataset.data.table
    changed = table.set_column(table.column_names.index(name), name, pa.array(values))
    return keep_source(to_dataset(changed, builder_name=dataset.info.builder_name), dataset)


def _spelled(
    splits: dict[str, Dataset], sequences: dict[str, list[list[str]]]
) -> tuple[dict[str, list[list[str]]], str]:
    """Return the tags of all splits in the usual spelling, and a note on other spellings."""
    tags = dict.fromkeys(tag for rows in sequences.values() for row in rows for tag in row)
    try:
        table, spelling = schemes.read_spelling(tags)
    except schemes.TagError as error:
        name = next(name for name, rows in sequences.items() if any(error.tags & {*row} for row in rows))
        rows = sequences[name]
        bad = [(i, j) for i, row in enumerate(rows) for j, tag in enumerate(row) if tag in error.tags]
        raise _bad_words(splits[name], bad, f"{rows[bad[0][0]][bad[0][1]]!r} is not a tag", error.fix) from error
    return {name: [[table[tag] for tag in row] for row in rows] for name, rows in sequences.items()}, spelling


def _bad_words(dataset: Dataset, places: Sequence[tuple[int, int]], problem: str, fix: str) -> DataError:
    """Return the error about words (row and position, from 0): with lines if each word has one, else with rows."""
    source = source_name(dataset)
    if dataset.info.builder_name == conll.NAME:
        numbers = dataset[conll.LINES][:]  # read once, for the whole file may be one sentence
        lines = [numbers[row][position] for row, position in places]
        return DataError(problem, source=source, row=lines, unit="line", fix=fix)
    rows = list(dict.fromkeys(row + 1 for row, _ in places))
    return DataError(f"word {places[0][1] + 1}: {problem}", source=source, row=rows, fix=fix)


def _tag_strings(dataset: Dataset, tag_names: str) -> list[list[str]]:
    """Return every row's tags as strings. Raises DataError with all rows, or words, that share the first fault."""
    sentences, source = list(zip(dataset["tokens"][:], dataset["ner_tags"][:], strict=True)), source_name(dataset)
    if rows := [i for i, pair in enumerate(sentences, 1) if not all(isinstance(part, list) and part for part in pair)]:
        fix = 'write rows as {"tokens": ["Ann", "sings"], "ner_tags": ["B-PER", "O"]}'
        raise DataError("a list of words and a list of tags are needed, not empty", source=source, row=rows, fix=fix)
    if rows := [i for i, (words, labels) in enumerate(sentences, 1) if len(words) != len(labels)]:
        words, labels = sentences[rows[0] - 1]
        problem = f"{len(words)} words but {len(labels)} tags"
        raise DataError(problem, source=source, row=rows, fix="correct the row")
    if isinstance(feature := getattr(dataset.features["ner_tags"], "feature", None), ClassLabel):
        return [feature.int2str(labels) for _, labels in sentences]
    words = ((i, j, word) for i, (row, _) in enumerate(sentences) for j, word in enumerate(row))
    if bad := [(i, j) for i, j, word in words if not isinstance(word, str) or "\0" in word]:
        word = sentences[bad[0][0]][0][bad[0][1]]
        raise _bad_words(dataset, bad, f"the word {word!r} is not text", CORRECT)
    names = [name.strip() for name in tag_names.split(",") if name.strip()]
    named = {key: name for i, name in enumerate(names) for key in (i, str(i))}
    tags = ((i, j, tag) for i, (_, row) in enumerate(sentences) for j, tag in enumerate(row))
    if bad := [(i, j) for i, j, tag in tags if tag not in named and not (isinstance(tag, str) and not tag.isdecimal())]:
        tag = sentences[bad[0][0]][1][bad[0][1]]
        is_number = str(tag).isdecimal()
        fix = f"give their names in order by {parameter('TAG_NAMES')}: O,B-PER,I-PER" if is_number else ""
        raise _bad_words(dataset, bad, f"{tag!r} is not a tag", fix or schemes.WRITE_TAGS)
    return [[named.get(tag, tag) for tag in labels] for _, labels in sentences]


def _scheme(splits: dict[str, Dataset], sequences: dict[str, list[list[str]]]) -> str:
    try:
        return schemes.find_scheme([row for rows in sequences.values() for row in rows])
    except schemes.SequenceError as error:
        origins = [(name, row) for name, rows in sequences.items() for row in range(len(rows))]
        name, _ = origins[error.places[0][0]]
        places = [(origins[row][1], position) for row, position in error.places if origins[row][0] == name]
        raise _bad_words(splits[name], places, error.problem, error.fix) from error


def _tag_classes(dataset: Dataset, names: Sequence[str], fix: str = "correct the tag or delete the word") -> Dataset:
    index, rows = {name: i for i, name in enumerate(names)}, list(dataset["ner_tags"])
    if unknown := [(i, j) for i, labels in enumerate(rows) for j, tag in enumerate(labels) if tag not in index]:
        row, position = unknown[0]
        problem = f"the tag {rows[row][position]!r} is not among those trained on, {', '.join(names)}"
        raise _bad_words(dataset, unknown, problem, fix)
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=list(names)))})
    columns = {"tokens": dataset["tokens"], "ner_tags": [[index[tag] for tag in labels] for labels in rows]}
    for name in ("text", "spans") if "spans" in dataset.column_names else ():
        columns[name], features[name] = dataset[name], dataset.features[name]
    return keep_source(Dataset.from_dict(columns, features=features), dataset)


def predicted_tags(
    output: PredictionOutput, encoded: Dataset, names: Sequence[str], *, greedy: bool = False
) -> list[list[str]]:
    """Return the tags of every sentence's words, from the output of `Trainer.predict` for the windows of `encode`.

    They are the most probable legal sequence (`entities.legal_tags`) or, with `greedy`, each word's most probable tag.
    """
    scores, _ = sentences_from_windows(output.predictions, output.label_ids, encoded["sentence"])
    if greedy:
        return entities.named([row.argmax(axis=-1) for row in scores], names)
    return entities.legal_tags(scores, names)


def split_words(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None, words: str = "tokenizer"
) -> list[list[tuple[int, int]]]:
    """Return the start and end of each text's words, which are split at "blanks", at "punctuation" (each mark is a
    word), or as the "tokenizer" itself splits them.
    """
    if words == "blanks":
        return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]
    if words == "punctuation":
        rule = BertPreTokenizer()
        return [[place for _, place in rule.pre_tokenize_str(text)] for text in texts]
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    return [
        [tuple(encoded.word_to_chars(i, word)) for word in dict.fromkeys(encoded.word_ids(i))]
        for i in range(len(texts))
    ]


def words(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Split texts into words as the tokenizer does, with their letters unchanged; a text without words is one word.

    >>> from bert_helpers import models
    >>> words(["Bo's in Brask."], models.load_tokenizer(models.DEFAULT_MODEL))
    [['Bo', "'", 's', 'in', 'Brask', '.']]
    """
    return _slices(texts, split_words(texts, tokenizer))


def _slices(texts: Sequence[str], places: Sequence[Sequence[tuple[int, int]]]) -> list[list[str]]:
    return [[text[start:end] for start, end in row] or [text] for text, row in zip(texts, places, strict=True)]


# --- windows -----------------------------------------------------------------------------------------------


def _subwords(sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
    """Return the sentences' subwords, [UNK] for words without any: empty ones, blanks, control characters."""
    options = {"is_split_into_words": True, "add_special_tokens": False, "verbose": False}
    encoded = tokenizer(list(sentences), **options)
    seen = [set(encoded.word_ids(i)) for i in range(len(sentences))]
    if all(len(words) == len(sentence) for words, sentence in zip(seen, sentences, strict=True)):
        return encoded
    pairs = zip(sentences, seen, strict=True)
    readable = [[w if i in words else tokenizer.unk_token for i, w in enumerate(sentence)] for sentence, words in pairs]
    return tokenizer(readable, **options)


def word_windows(
    ids: Sequence[int], word_ids: Sequence[int], tags: Sequence[int], room: int, stride: int
) -> list[tuple[list[int], list[int]]]:
    """Return subwords and labels of one sentence's windows of `room` subwords, without special tokens.

    `ids` and `word_ids` are those of the sentence's subwords, `tags` those of its words. Windows without a labelled
    word are left out.
    """
    first = [i == 0 or word != word_ids[i - 1] for i, word in enumerate(word_ids)]
    labels = [tags[word] if begins else -100 for word, begins in zip(word_ids, first, strict=True)]
    starts = list(range(0, max(1, len(ids) - stride), room - stride))
    cuts = [0, *(start + stride // 2 for start in starts[1:]), len(ids)]
    windows = []
    for start, low, high in zip(starts, cuts, cuts[1:], strict=False):
        end = min(start + room, len(ids))
        own = [label if low <= i < high else -100 for i, label in enumerate(labels[start:end], start)]
        if set(own) != {-100}:  # inside one long word there is nothing to learn, and a mean loss of nothing is NaN
            windows.append((list(ids[start:end]), own))
    return windows


def sentences_from_windows(
    predictions: np.ndarray, labels: np.ndarray, sentence: Sequence[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return predictions and labels of each sentence's words, from those of its windows in the encoded order.

    `predictions`: (windows, tokens) or (windows, tokens, classes); `labels`: (windows, tokens), −100 for tokens without
    a label; `sentence`: the encoded column. Both results have one array per sentence: (words,) or (words, classes).
    """
    sentence, labels = np.asarray(sentence), np.asarray(labels)
    keep = labels != -100
    words = np.bincount(sentence, weights=keep.sum(axis=1)).astype(int)
    borders = np.cumsum(words)[:-1]
    return np.split(np.asarray(predictions)[keep], borders), np.split(labels[keep], borders)
