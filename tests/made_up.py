"""Made-up rows, histories and trainers that the tests of the checks share."""

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from bert_helpers.tasks.registry import TASKS

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "larch",
         "marsh", "north", "ocean", "pearl")  # fmt: skip


def names(findings):
    return [finding.name for finding in findings]


def examples(dataset, task="classification"):
    """What the checks of rows read."""
    return {name: TASKS[task].examples(split) for name, split in dataset.items()}


def splits(train, validation, test=None):
    return DatasetDict(train=train, validation=validation, test=test if test is not None else validation)


def sentence(rng, words=12, of=WORDS):
    return " ".join(rng.choice(of, words))


def labelled(texts, labels, classes=2):
    return Dataset.from_dict(
        {"text": texts, "label": labels},
        features=Features({"text": Value("string"), "label": ClassLabel(names=[f"c{i}" for i in range(classes)])}),
    )


def reviews(rng, rows=200, *, noise=0.0, words=12, of=WORDS):
    """Texts whose label depends on one word; a share `noise` of the labels is wrong."""
    labels = rng.permutation(np.arange(rows) % 2)
    texts = [f"{sentence(rng, words, of)} {('bad', 'good')[label]} {sentence(rng, words, of)}" for label in labels]
    wrong = rng.permutation(rows) < round(noise * rows)
    return labelled(texts, np.where(wrong, 1 - labels, labels).tolist())


def tagged(rows, types=("PER", "LOC")):
    tags = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=tags))})
    words, labels = zip(*rows, strict=True)
    return Dataset.from_dict(
        {"tokens": list(words), "ner_tags": [[tags.index(t) for t in row] for row in labels]}, features=features
    )


def people(rng, rows=60):
    made = []
    for _ in range(rows):
        words, place = list(rng.choice(WORDS, 6)), rng.integers(0, 6)
        words[place] = rng.choice(["Ann", "Bob", "Eve"])
        made.append((words, ["B-PER" if i == place else "O" for i in range(6)]))
    return tagged(made, types=("PER",))


def questions(answer_words):
    context = " ".join(f"w{i}" for i in range(60))
    answer = " ".join(f"w{i}" for i in range(20, 20 + answer_words))
    row = {"id": "1", "question": "Which?", "context": context,
           "answers": {"text": [answer], "answer_start": [context.index(answer)]}}  # fmt: skip
    split = Dataset.from_list([row])
    return splits(split, split)


def log(train_loss, *, rate=1e-4, steps=100, **last):
    steps_logged = [{"step": step, "loss": 0.5, "learning_rate": rate} for step in (1, steps)]
    return [*steps_logged, {"step": steps, "epoch": 1.0, "eval_train_loss": train_loss, **last}]


def history(validation, train=0.01):
    return pd.DataFrame(
        {"train_loss": [train] * len(validation), "validation_loss": validation}, index=range(1, len(validation) + 1)
    )


def multilabelled(texts, labels, names=("a", "b")):
    """Texts with the numbers of their labels."""
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=list(names)))})
    return Dataset.from_dict({"text": texts, "labels": labels}, features=features)


def asked(rng, rows=60, *, swapped=False):
    """Pairs of a question and a sentence, or the other way round."""
    questions = [f"where is {sentence(rng, 4)} ?" for _ in range(rows)]
    sides = {"text": questions, "text_pair": [f"{sentence(rng, 6)} ." for _ in range(rows)]}
    if swapped:
        sides = dict(zip(sides, reversed(sides.values()), strict=True))
    labels = labelled(questions, [0, 1] * (rows // 2))
    return Dataset.from_dict({**sides, "label": labels["label"]}).cast_column("label", labels.features["label"])
