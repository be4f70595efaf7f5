"""More training rows from those there are. For training rows only: an evaluation row must stay what it is.

Every function takes one split, `dataset["train"]`, and returns it with rows added at the end; seeded.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import BertForMaskedLM, BertTokenizerFast, DataCollatorWithPadding

from bert_helpers.errors import DataError


def oversample(train: Dataset, *, seed: int = 0) -> Dataset:
    """Rows of the rarer classes again, drawn at random, until every class has as many as the commonest.

    Of tagged sentences, those that hold an entity type are its rows: they are repeated until every type has as many
    entities as the commonest, as far as drawing one type at a time can. Raises DataError without a class column.
    """
    rng = np.random.default_rng(seed)
    if "ner_tags" in train.column_names:
        extra = _rows_with_rare_types(train, rng)
    elif hasattr(train.features.get("label"), "names"):
        labels = np.asarray(train["label"])
        counts = np.bincount(labels)
        rows = {label: np.flatnonzero(labels == label) for label in np.flatnonzero(counts)}
        extra = np.concatenate([rng.choice(rows[label], counts.max() - counts[label]) for label in rows])
    else:
        raise DataError("oversampling needs a column of classes: label, or ner_tags.")
    return concatenate_datasets([train, train.select(extra.astype(int))])


def _rows_with_rare_types(train: Dataset, rng: np.random.Generator) -> np.ndarray:
    names = train.features["ner_tags"].feature.names
    begins = [i for i, name in enumerate(names) if name.startswith("B-")]
    entities = np.array([[row.count(tag) for tag in begins] for row in train["ner_tags"]])  # (sentences, types)
    totals, extra = entities.sum(axis=0), []
    for kind in np.argsort(totals):
        holding = np.flatnonzero(entities[:, kind])
        while len(holding) and totals[kind] < totals.max():
            row = rng.choice(holding)
            extra.append(row)
            totals = totals + entities[row]
            if len(extra) > 20 * len(train):  # types that only occur together can never be evened out
                return np.array(extra)
    return np.array(extra)


def augment(
    train: Dataset,
    *,
    share: float = 0.1,
    copies: int = 1,
    change: Callable[..., list[str]] | None = None,
    seed: int = 0,
) -> Dataset:
    """`copies` altered versions of every row's `text` (of `text_pair` too, where there is one); the label stays.

    Half of the versions lose each word with probability `share` (at least one stays), half have `share` of their words
    swapped in pairs: random deletion and random swap of Wei and Zou (2019). `change`, such as `delete_words`, does
    all versions instead.
    Raises DataError for rows without a text: in questions and tagged words each position has a meaning.
    """
    columns = [name for name in ("text", "text_pair") if name in train.column_names]
    if not columns:
        raise DataError("augmentation needs a column of texts; in questions and tagged words every position counts.")
    rng, versions = np.random.default_rng(seed), [train]
    for copy in range(copies):
        texts = {name: [] for name in columns}
        for row in range(len(train)):
            alter = change or (delete_words if (row + copy) % 2 else swap_words)
            for name in columns:
                texts[name].append(" ".join(alter(train[row][name].split(), rng, share=share)))
        version = train
        for name in columns:
            feature = train.features[name]
            version = version.remove_columns(name).add_column(name, texts[name], feature=feature)
        versions.append(version.select_columns(train.column_names))
    return concatenate_datasets(versions)


def delete_words(words: list[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """The words without some, each left out with probability `share`; one stays in any case."""
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= share]
    return kept or [words[rng.integers(len(words))]]


def swap_words(words: list[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """The words with `share` of them, at least two, exchanged in pairs."""
    words = list(words)
    if len(words) > 1:
        for _ in range(max(1, round(share * len(words) / 2))):
            i, j = rng.choice(len(words), 2, replace=False)
            words[i], words[j] = words[j], words[i]
    return words


@torch.inference_mode()
def replace_words(
    train: Dataset,
    model: BertForMaskedLM,
    tokenizer: BertTokenizerFast,
    *,
    share: float = 0.15,
    batch_size: int = 32,
    seed: int = 0,
) -> Dataset:
    """Every row's `text` a second time, `share` of its word pieces replaced by what the masked language model says.

    Pieces are drawn from the model's probabilities, special tokens left out (Kumar et al. 2020, without the label in
    the text). The text comes back from its pieces: in lower case if the model is uncased, cut to what it takes.
    `model`: `models.load_model(name, BertForMaskedLM)`, which raises ModelError where the pretrained head is missing,
    as it is from the packaged model.
    """
    generator, texts = torch.Generator().manual_seed(seed), []
    for batch in _batches(list(train["text"]), tokenizer, batch_size):
        ids = batch["input_ids"]
        special = torch.tensor(
            [tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in ids.tolist()]
        ).bool()
        masked = (torch.rand(ids.shape, generator=generator) < share) & ~special
        asked = {**batch, "input_ids": ids.masked_fill(masked, tokenizer.mask_token_id)}
        logits = model.eval()(**{name: value.to(model.device) for name, value in asked.items()}).logits.float().cpu()
        logits[..., tokenizer.all_special_ids] = -torch.inf
        ids[masked] = torch.multinomial(logits[masked].softmax(dim=-1), 1, generator=generator).flatten()
        texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
    version = train.remove_columns("text").add_column("text", texts, feature=train.features["text"])
    return concatenate_datasets([train, version.select_columns(train.column_names)])


def _batches(texts: list[str], tokenizer: BertTokenizerFast, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
    collate = DataCollatorWithPadding(tokenizer)
    encoded = tokenizer(texts, truncation=True, return_token_type_ids=False)
    for start in range(0, len(texts), batch_size):
        rows = slice(start, start + batch_size)
        yield dict(collate({name: values[rows] for name, values in encoded.items()}))
