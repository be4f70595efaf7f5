"""Findings from the rows alone, before tokenization: labels, repeated texts, and splits that differ in kind.

The checks read the `tasks.base.Examples` of each split, whatever the task is. Each statistical test has a false alarm
rate of `FALSE_ALARM` on random rows.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd
from datasets import DatasetDict
from scipy.sparse import csr_matrix
from scipy.stats import binomtest, chi2_contingency, norm, rankdata, ttest_1samp, ttest_ind
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from bert_helpers.diagnosis.findings import FALSE_ALARM, Evidence, Finding, check
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tasks.registry import TASKS

with warnings.catch_warnings():  # importing cleanlab silences all warnings of the process
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

EVALUATION = ("validation", "test")
EVEN_SHARE = 1 / 5  # of the share that a class would have if all were equally frequent
SIMILAR = 0.7  # Jaccard similarity of word triples; two texts of 60 words that differ in three of them still reach it
SIMILAR_WORDS = 8  # shorter texts recur by chance: datelines, headings, "Thank you!"
LEAKED, REPEATED, CONTRADICTING = 0.01, 0.05, 0.01
CUT_SPANS = 0.05
DISCORDANT = 0.2  # share of the rows that only one of two runs gets right
LEVEL, POWER = map(float, norm.isf([0.025, 0.2]))  # of McNemar's test: 5%, two-sided, and 80%
SEPARABLE = 0.64  # ROC AUC of a medium effect (Cohen 1988, d = 0.5); reviews of other films alone reach 0.60 on IMDb
SHUFFLES = 999  # random divisions; another division of the same kind beats them all once in a thousand times
SAMPLE = 2000  # rows per side for the classifiers of this module: enough power, in seconds

Splits = Mapping[str, Examples]


@check
def check_dataset(
    dataset: DatasetDict, *, task: str | Task, difference: float | None = None, seed: int = 0
) -> Iterator[Finding]:
    """Run all checks of this module on what the task's `load` returned; `task` is a task or its name in `TASKS`.

    `difference` is the difference in accuracy that the test split should be able to detect; None: not checked.
    """
    splits = {name: as_task(task).examples(split) for name, split in dataset.items()}
    yield from check_labels(splits)
    yield from check_label_names(splits["train"])
    yield from check_duplicates(splits)
    yield from check_pairs(splits)
    yield from check_evaluation_size(dataset, difference=difference)
    yield from check_same_distribution(splits, seed=seed)
    yield from check_label_noise(splits, seed=seed)
    yield from check_spans(splits)
    yield from check_tags(splits["train"])


def as_task(task: str | Task) -> Task:
    """Return the task with this name; return a task unchanged."""
    return TASKS[task] if isinstance(task, str) else task


# --- labels ------------------------------------------------------------------------------------------------


@check
def check_labels(splits: Splits) -> Iterator[Finding]:
    """Find `constant_labels`, or else `label_without_rows`, or else `class_imbalance`."""
    train = splits["train"]
    labels = {name: set(rows.labels if rows.several else rows.counted) for name, rows in splits.items()}
    constant = [name for name, kinds in labels.items() if len(kinds) < (1 if train.words else 2)]
    constant = [name for name in constant if name == "train" or len(splits[name].texts) > 1]
    counts = {name: Counter(rows.counted) for name, rows in splits.items()}
    if constant:
        yield Finding(
            "constant_labels",
            f"all rows of {', '.join(constant)} have the same label",
            Evidence(1, 2, "two different labels are the least that can be learned or compared"),
            "the label column was filled by default, or sorted rows were cut into splits without shuffling",
            {} if "train" in constant else {"redraw_splits": True},
            "read the labels from another column, or add rows that differ" if "train" in constant else "",
        )
    elif train.several and (lacking := [(label, name) for label in train.classes for name in splits
                                        if not counts[name][label]]):  # fmt: skip
        label, name = lacking[0]
        total = sum(count[label] for count in counts.values())
        few = len(splits[name].texts) < len(train.classes)  # rows of a split that could hold each
        redrawn = {f"{name.upper()}_SIZE": len(train.classes)} if few else {"redraw_splits": True}
        enough = total >= len(splits)
        yield Finding(
            "label_without_rows",
            f"no {name} row has the label {label!r}; {total} of all rows have it"
            + (f" ({len(lacking)} labels are missing somewhere)" if len(lacking) > 1 else ""),
            Evidence(0, 1, "a label without rows cannot be learned, measured or given a threshold"),
            "the label is rare, or was left out of a split",
            redrawn if enough else {},
            "" if enough else f"add rows with {label!r}, or drop this label",
        )
    elif train.classes:
        counts = counts["train"]
        rarest = min(train.classes, key=counts.__getitem__)
        share, threshold = counts[rarest] / counts.total(), EVEN_SHARE / len(train.classes)
        reason = f"a fifth of an even share: never predicting {rarest!r} hardly raises the loss"
        if share < threshold:
            yield Finding(
                "class_imbalance",
                f"{rarest!r} has {counts[rarest]} of {counts.total()} training labels",
                Evidence(share, threshold, reason),
                "the classes really are that uneven, or rows of one were lost",
                # Copies are soon memorised, so the best epoch is kept.
                {"POSITIVE_WEIGHTS": "balanced"} if train.several else {"oversample": True, "EARLY_STOPPING": 1},
            )


@check
def check_label_names(train: Examples) -> Iterator[Finding]:
    """Find `label_variants`: one class spelled in several ways, which the model has to tell apart."""
    spellings: dict[str, list[str]] = {}
    for name in train.classes or ():
        spellings.setdefault(" ".join(name.casefold().split()), []).append(name)
    counts, several = Counter(train.counted), [names for names in spellings.values() if len(names) > 1]
    if several:
        several.sort(key=lambda names: -sum(counts[name] for name in names))
        shown = "; ".join(" and ".join(f"{name!r} ({counts[name]})" for name in names) for names in several[:5])
        yield Finding(
            "label_variants",
            f"labels differ only in case or spaces: {shown}",
            Evidence(len(train.classes) - len(spellings), 1, "no text can tell two spellings of one class apart"),
            "labels were written by several people or programs",
            {},
            "spell each class in one way",
        )


# --- repeated texts ----------------------------------------------------------------------------------------


@check
def check_duplicates(splits: Splits) -> Iterator[Finding]:
    """Find `leakage`, `duplicates` and, with one class per row, `contradicting_labels`.

    A text repeats another if it has the same words, or 0.7 of the word triples in common (Jaccard similarity, Broder
    1997). For leaks, the passages of evaluation rows are compared. Training rows that may share a passage are
    duplicates only if all their words are the same.
    """
    train = splits["train"]
    known, leaks, removed = Texts(train.passages), {}, set()
    for name in EVALUATION:
        copies, rows = known.similar(splits[name].passages), len(splits[name].texts)
        if len(copies) > 1 and len(copies) / rows > LEAKED:
            leaks[f"{len(copies)} of {rows} {name} rows"] = len(copies) / rows
            removed.update(*copies.values())
    if leaks:
        yield Finding(
            "leakage",
            f"{' and '.join(leaks)} are among the training rows too",
            Evidence(max(leaks.values()), LEAKED, "once memorised, so many rows raise a score by up to a hundredth"),
            "duplicates were not removed before the data was split, or the split was made by row and not by text",
            {"remove_rows": sorted(removed)},
        )
    if train.classes and not train.words:
        labels = pd.Series(train.labels).groupby(train.texts).transform("nunique")
        odd = np.flatnonzero(labels > 1)
        if (share := len(odd) / len(labels)) > CONTRADICTING:
            yield Finding(
                "contradicting_labels",
                f"{len(odd)} of {len(labels)} training rows have the same text as another row but a different label",
                Evidence(share, CONTRADICTING, "at least one of two such rows is wrong: 1 row in 200"),
                "texts were labelled twice, by people or lists that disagree, or belong to several classes",
                {"remove_rows": odd.tolist()},
            )
    shared = train.passages != train.texts
    repeated = Texts(train.texts).repeated(exact=True) if shared else known.repeated()
    if (share := len(repeated) / len(train.texts)) > REPEATED:
        yield Finding(
            "duplicates",
            f"{len(repeated)} of {len(train.texts)} training rows repeat an earlier one",
            Evidence(share, REPEATED, "1 row in 20 counted twice: there is less to learn from than it seems"),
            "the data was put together from overlapping sources, or by a join that multiplied rows",
            {"remove_rows": repeated},
        )


class Texts:
    """Texts, prepared once to find others that repeat them. Case, punctuation and spaces are ignored.

    Texts of fewer than 8 words repeat nothing.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.rows: dict[str, list[int]] = {}  # of each distinct text
        for i, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())
            if len(words) >= SIMILAR_WORDS:
                self.rows.setdefault(" ".join(words), []).append(i)

    def similar(self, texts: Sequence[str]) -> dict[int, set[int]]:
        """Return the index of each of `texts` that repeats some of these, with the indices of all that it repeats."""
        others = Texts(texts)
        found = {text: set(self.rows[text]) for text in others.rows.keys() & self.rows.keys()}
        for other, text in self._pairs(others):
            found.setdefault(other, set()).update(self.rows[text])
        return {i: found[text] for text in found for i in others.rows[text]}

    def repeated(self, *, exact: bool = False) -> list[int]:
        """Return the indices of the texts that repeat an earlier one; with `exact`, those that have the same words."""
        copies = {i for rows in self.rows.values() for i in rows[1:]}
        if not exact:
            pairs = ((self.rows[text][0], self.rows[earlier][0]) for text, earlier in self._pairs(self))
            copies |= {i for i, j in pairs if j < i}
        return sorted(copies)

    def _pairs(self, others: "Texts") -> Iterator[tuple[str, str]]:
        """Yield the pairs of one of the other texts and one of these that have enough triples in common."""
        rare = self._triples.sum(axis=0).A1 <= 50  # triples of more texts are phrases
        rows, own = others._triples[:, rare], self._triples[:, rare]
        size, own_size, names, own_names = rows.sum(axis=1).A1, own.sum(axis=1).A1, [*others.rows], [*self.rows]
        for start in range(0, rows.shape[0], 1000):
            common = (rows[start : start + 1000] @ own.T).tocoo()
            i, j = common.row + start, common.col
            similar = common.data >= SIMILAR * (size[i] + own_size[j] - common.data)
            yield from ((names[k], own_names[m]) for k, m in zip(i[similar], j[similar], strict=True))

    @cached_property
    def _triples(self) -> csr_matrix:
        options = {"ngram_range": (3, 3), "token_pattern": r"\S+", "binary": True, "norm": None}
        words = HashingVectorizer(**options, alternate_sign=False)
        return words.transform([*self.rows] or [""]).astype(np.int32)


# --- pairs -------------------------------------------------------------------------------------------------


@check
def check_pairs(splits: Splits) -> Iterator[Finding]:
    """Find `constant_text`: one of the two texts is the same in all rows; or `swapped_pairs`: they changed places.

    If the two differ in kind, as a question and a passage do, a linear classifier of word counts learns which one comes
    first. Held-out training rows show whether it does; in a split where it is mostly wrong, the texts are in the
    opposite order (binomial tests).
    """
    train = splits["train"]
    if not train.pairs:
        return
    for name, rows in splits.items():
        for place, side in zip(("first", "second"), zip(*rows.pairs, strict=True), strict=True):
            if len(rows.pairs) > 1 and len(set(side)) == 1:
                yield Finding(
                    "constant_text",
                    f"the {place} text of all {len(side)} {name} rows is {side[0][:40]!r}",
                    Evidence(1, 2, "what all rows share cannot tell one from another"),
                    "the column was filled by default, or another one was meant",
                    {},
                    "name the right column (TEXT_COLUMN, PAIR_COLUMN); leave PAIR_COLUMN empty if rows have one text",
                )
                return
    chosen = [train.pairs[i] for i in _sample(len(train.pairs), 0)]
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"), LogisticRegression(C=10))
    texts, sides = list(chain(*chosen)), np.tile([0, 1], len(chosen))
    folds, groups = GroupKFold(min(5, len(chosen))), np.repeat(range(len(chosen)), 2)
    held_out = cross_val_predict(model, texts, sides, groups=groups, cv=folds, method="decision_function")
    if _share_in_order(held_out) <= 0.5:
        return  # the two texts are of one kind: their order means nothing
    model.fit(texts, sides)
    shares = {name: _share_in_order(model.decision_function(list(chain(*splits[name].pairs)))) for name in EVALUATION}
    other = [name for name, share in shares.items() if share < 0.5]
    if other:
        both = len(other) == len(EVALUATION)
        yield Finding(
            "swapped_pairs",
            f"the two texts of {' and '.join(other)} rows are in the opposite order to those of training rows",
            Evidence(shares[other[0]], 0.5, "share of pairs in the order of the training rows; binomial test"),
            "the columns were named the other way round in one of the files",
            {"swap_pairs": True} if both else {},
            "" if both else f"exchange the two columns of the {other[0]} rows",
        )


def _share_in_order(scores: np.ndarray) -> float:
    """Return the share of pairs whose second text looks more like a second text than the first; 0.5 if by chance."""
    first, second = scores.reshape(-1, 2).T
    right, total = int(np.sum(second > first)), int(np.sum(second != first))
    return right / total if total and binomtest(right, total).pvalue < FALSE_ALARM else 0.5


# --- spans -------------------------------------------------------------------------------------------------


@check
def check_spans(splits: Splits) -> Iterator[Finding]:
    """Find `cut_spans`: many annotated spans of a split begin or end within words."""
    shares = {name: np.mean(rows.cut) for name, rows in splits.items() if rows.cut}
    worst = max(shares, key=shares.__getitem__, default="")
    if shares.get(worst, 0) > CUT_SPANS and (cut := sum(splits[worst].cut)) > 2:
        yield Finding(
            "cut_spans",
            f"{cut} of {len(splits[worst].cut)} spans of the {worst} rows begin or end within a word; whole words are "
            "taken",
            Evidence(float(shares[worst]), CUT_SPANS, "people mark whole words, except for parts of a few long ones"),
            "spaces, line ends or other characters of the texts were changed after annotation",
            {},
            "export texts and spans together; if spans end at a punctuation mark, split words there (WORDS)",
        )


# --- splits ------------------------------------------------------------------------------------------------


@check
def check_evaluation_size(dataset: DatasetDict, *, difference: float | None) -> Iterator[Finding]:
    """Find `small_evaluation`: the test rows would often not show a `difference` in accuracy between two runs."""
    rows = len(dataset["test"])
    found = smallest_difference(rows)
    if difference is None or found <= difference:
        return
    d = min(difference, DISCORDANT)
    needed = math.ceil((LEVEL * math.sqrt(DISCORDANT) + POWER * math.sqrt(DISCORDANT - d**2)) ** 2 / d**2)
    reason = "McNemar's test at 5% finds the difference 4 times in 5 if the runs differ on a fifth of the rows"
    yield Finding(
        "small_evaluation",
        f"{rows} test rows detect only differences of {found:.2f} or more",
        Evidence(found, difference, reason),
        f"too few rows were set aside; about {needed} are needed",
        {"TEST_SIZE": needed},
    )


def smallest_difference(rows: int) -> float:
    """Return the difference in accuracy that McNemar's test (5%, two-sided) finds with a power of 80% (Connor 1987).

    >>> round(smallest_difference(240), 2)
    0.08
    """
    root = math.sqrt(max(0, rows + POWER**2 - LEVEL**2))
    found = math.sqrt(DISCORDANT) * (LEVEL * math.sqrt(rows) + POWER * root) / (rows + POWER**2)
    return found if found <= DISCORDANT else 1.0


@check
def check_same_distribution(splits: Splits, *, seed: int = 0) -> Iterator[Finding]:
    """Find `different_evaluation`: word counts separate training from evaluation rows, or labels have other shares.

    The classifier of word counts is a two-sample test (Lopez-Paz and Oquab 2017): its cross-validated ROC AUC is
    compared with that of random divisions of the rows. Passages of one group stay in one fold, so that it cannot
    memorise groups.
    """
    train, evidence = splits["train"], None
    for name in EVALUATION:
        other = splits[name]
        auc, chance = _separability(train, other, seed)
        if auc > max(chance, SEPARABLE):
            symptom = f"word counts separate {name} from training rows: ROC AUC {auc:.2f}"
            reason = f"none of {SHUFFLES} random divisions reaches as much; below 0.64 the difference is small"
            evidence = Evidence(auc, max(chance, SEPARABLE), reason)
        elif train.classes and not train.words:
            counts = pd.DataFrame([Counter(train.counted), Counter(other.counted)]).fillna(0).to_numpy()
            shares = counts / counts.sum(axis=1, keepdims=True)
            distance = float(np.abs(shares[0] - shares[1]).sum() / 2)  # total variation
            if distance > 0.1 and chi2_contingency(counts).pvalue < FALSE_ALARM:
                symptom = f"labels have different shares in {name} and in training rows"
                evidence = Evidence(distance, 0.1, "chi-squared test; 1 label in 10 would have to move")
        if evidence:
            cause = "training and evaluation rows differ in source, time or preparation, or a sorted file was cut"
            yield Finding("different_evaluation", symptom, evidence, cause, {"redraw_splits": True})
            return


def _separability(train: Examples, other: Examples, seed: int) -> tuple[float, float]:
    """Return the ROC AUC of separating the two splits, and the highest of `SHUFFLES` random divisions of their groups.

    The classifier is linear regression on the sides (kernel ridge), which solves all divisions at once. There is no
    formula for what chance can reach, since folds share their rows: 40 and 40 rows reached 0.74.
    """
    rng, parts = np.random.default_rng(seed), []
    for side, rows in enumerate((train, other)):  # each passage once
        table = pd.DataFrame({"text": rows.passages, "group": rows.groups}).drop_duplicates("text")
        table = table.assign(group=pd.factorize(table.group)[0], side=side)
        parts.append(table.iloc[rng.permutation(len(table))[: SAMPLE // 2]])  # seconds for all divisions
    rows = pd.concat(parts)
    group = rows.groupby(["side", "group"], sort=False).ngroup().to_numpy()
    sides = rows.side.groupby(group).first().to_numpy()  # of each group
    folds = min(5, *np.bincount(sides, minlength=2))
    if folds < 2:
        return 0.5, 1.0
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]", lowercase=False).fit_transform(rows.text)

    def areas(sides: np.ndarray) -> np.ndarray:
        """Return the ROC AUC of each column, a division of the groups in two."""
        labels = sides[group].astype(float)
        scores = cross_val_predict(
            KernelRidge(), words, labels - labels.mean(axis=0), groups=group, cv=GroupKFold(folds)
        )
        positive = labels.sum(axis=0)
        ranks = (rankdata(scores, axis=0) * labels).sum(axis=0)
        return (ranks - positive * (positive + 1) / 2) / (positive * (len(labels) - positive))

    found = float(areas(sides[:, None])[0])
    if found <= SEPARABLE:
        return found, SEPARABLE  # a small difference, whatever chance can reach
    return found, float(areas(rng.permuted(np.repeat(sides[:, None], SHUFFLES, axis=1), axis=0)).max())


# --- label noise -------------------------------------------------------------------------------------------


@check
def check_label_noise(splits: Splits, *, seed: int = 0) -> Iterator[Finding]:
    """Find `label_noise`: a classifier finds held-out training labels less likely than evaluation labels.

    Hard texts make labels unlikely too, so the evaluation rows show how likely labels should be. Noise that is the same
    in all splits cannot be distinguished from difficulty: for that, read the rows of `suspicious_rows`. The rows to
    remove are chosen by confident learning (Northcutt et al. 2021).
    """
    if not splits["train"].classes or splits["train"].several:
        return
    rows = suspicious_rows(splits, seed=seed)
    train = rows.split == "train"
    trained, held_out = rows.trust[train].dropna(), rows.trust[~train].dropna()
    test = ttest_ind(trained, held_out, equal_var=False, alternative="less")
    if not test.pvalue < FALSE_ALARM:
        return
    found = rows[train & rows.suspicious].sort_values("trust").row.tolist()
    if splits["train"].words:  # one doubtful word makes a sentence suspicious, and there are many: take the worst,
        # as many as are wrong if evaluation labels are right and errors are spread evenly over the types. The trust in
        # training labels is then a mixture: that of evaluation rows, and what it leaves for each other type.
        right, others = held_out.mean(), max(len(splits["train"].classes) - 1, 1)
        wrong = (right - trained.mean()) / (right - (1 - right) / others)
        found = found[: round(float(np.clip(wrong, 0, 1)) * int(train.sum()))]
    reason = f"mean probability of validation and test labels, by the same classifier; t-test, p = {test.pvalue:.1g}"
    yield Finding(
        "label_noise",
        f"the other rows contradict the labels of {len(found)} of the {int(train.sum())} training rows",
        Evidence(float(rows.trust[train].mean()), float(rows.trust[~train].mean()), reason),
        "training labels were set by a rule, in haste or by several people, evaluation labels with more care",
        {"remove_rows": found},
    )


def suspicious_rows(splits: Splits, *, seed: int = 0) -> pd.DataFrame:
    """Evaluate the label of every row of every split by a linear classifier that has not seen it (5 folds).

    Columns: `split`, `row`, `label`, `suggested` (the classifier's label), `trust` (probability of the given label; for
    a sentence, the mean probability of its entity words' types, given that they are entities), `suspicious` (by
    cleanlab's confident learning). For a sentence, `label` and `suggested` are those of its worst word. At most 2,000
    rows per split are evaluated.
    """
    chosen = {name: _sample(len(rows.texts), seed) for name, rows in splits.items()}
    rows = pd.DataFrame([(name, int(i)) for name in splits for i in chosen[name]], columns=["split", "row"])
    tagged = splits["train"].words is not None
    texts, labels = (
        [getattr(splits[name], field)[i] for name in splits for i in chosen[name]]
        for field in ("words" if tagged else "texts", "labels")
    )
    if tagged:
        features, labels, unit = _word_features(texts, labels)
    else:
        features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
        unit = np.arange(len(texts))
    kinds, labels = np.unique(labels, return_inverse=True)
    chances = _out_of_sample(features, labels, unit)
    table = pd.DataFrame(
        {
            "unit": unit,
            "label": kinds[labels],
            "suggested": kinds[chances.argmax(axis=1)],
            "trust": get_label_quality_scores(labels, chances),
            "suspicious": find_label_issues(labels, chances, n_jobs=1),
        }
    )
    worst = table.sort_values(["suspicious", "trust"], ascending=[False, True]).drop_duplicates("unit")
    if tagged:  # most words are O, and easy; and doubts about being an entity would hide those about its type
        table["trust"] /= np.maximum(1 - chances[:, kinds == "O"].sum(axis=1), 1e-9)
        table = table[table.label != "O"]
    return rows.join(worst.set_index("unit")).assign(trust=table.groupby("unit").trust.mean())


def _sample(rows: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:SAMPLE])


def _word_features(
    sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], *, shift: int = 0, context: bool = True
) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Return each word's features (with its neighbours'), the entity type `shift` words before it, and its sentence."""
    features, labels, numbers = [], [], []
    for number, (words, row) in enumerate(zip(sentences, tags, strict=True)):
        padded = ["", *words, ""]
        for i in range(max(0, shift), len(words) + min(0, shift)):
            before, word, after = padded[i : i + 3]
            shape = re.sub(r"(.)\1+", r"\1", re.sub(r"\d", "0", re.sub(r"[^\W\d_]", "x", re.sub("[A-Z]", "X", word))))
            around = {"w": word.lower(), "s": shape}
            around |= {"b": before.lower(), "a": after.lower()} if context else {}
            features.append({f"{place}={text}": 1 for place, text in around.items()})
            labels.append(row[i - shift][2:] or "O")
            numbers.append(number)
    return DictVectorizer().fit_transform(features), np.array(labels), np.array(numbers)


def _out_of_sample(features: csr_matrix, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Predict class probabilities of every row from the other folds; 0 for classes that these do not have."""
    groups = len(np.unique(group))
    folds = GroupKFold(min(5, groups), shuffle=True, random_state=0)
    # There are many words: on the sample, naive Bayes takes 0.3 s, a regression 27 s and finds less of the planted
    # noise. With the default alpha of 1 a word seen once counts too little; at 0.3 types are recognised best.
    model = MultinomialNB(alpha=0.3) if groups < len(group) else LogisticRegression(C=10, max_iter=300)
    chances = np.zeros((len(labels), labels.max() + 1))
    for fit, unseen in folds.split(features, labels, group):
        if len(np.unique(labels[fit])) > 1:
            model.fit(features[fit], labels[fit])
            chances[np.ix_(unseen, model.classes_)] = model.predict_proba(features[unseen])
    return chances


# --- tags --------------------------------------------------------------------------------------------------


@check
def check_tags(train: Examples) -> Iterator[Finding]:
    """Find `shifted_tags`: the tags fit the words before or after theirs better than their own.

    For each shift, a classifier predicts from a word whether it is part of an entity, in sentences it has not seen. The
    mean gain in log likelihood per sentence over no shift is tested (one-sided t-test).
    """
    if not train.words:
        return
    chosen = _sample(len(train.texts), 0)[:500]
    fits = {shift: _fit_of_shift(train, chosen, shift) for shift in (0, -1, 1)}
    for shift in (-1, 1):
        gain = (fits[shift] - fits[0]).dropna()
        test = ttest_1samp(gain, 0, alternative="greater") if len(gain) > 1 and gain.std() > 0 else None
        if test is not None and test.pvalue < FALSE_ALARM:
            where = "before" if shift < 0 else "after"
            yield Finding(
                "shifted_tags",
                f"tags fit the word {where} theirs better than their own",
                Evidence(float(gain.mean()), 0, f"log likelihood gained per sentence; t-test, p = {test.pvalue:.1g}"),
                "words and tags were read from different columns or lines, or subwords were counted as words",
                {"shift_tags": shift},
            )
            return


def _fit_of_shift(train: Examples, rows: np.ndarray, shift: int) -> pd.Series:
    """Return each sentence's mean log likelihood of "in an entity or not", with the tags moved by `shift` words."""
    sides = ([side[i] for i in rows] for side in (train.words, train.labels))
    features, labels, sentence = _word_features(*sides, shift=shift, context=False)
    inside = (labels != "O").astype(int)
    if len(np.unique(inside)) < 2:
        return pd.Series(dtype=float)
    chances = np.clip(_out_of_sample(features, inside, sentence)[np.arange(len(inside)), inside], 1e-6, 1)
    return pd.Series(np.log(chances)).groupby(sentence).mean()
