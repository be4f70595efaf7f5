"""Findings from the rows alone, before anything is tokenized: labels, repeated texts, and splits that differ in kind.

The checks read the `tasks.base.Examples` of each split, whatever the task is. Every test has a false alarm rate of
`FALSE_ALARM` on random rows.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
from datasets import DatasetDict
from scipy.sparse import csr_matrix
from scipy.stats import chi2_contingency, norm, ttest_1samp, ttest_ind
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB

from bert_helpers.diagnosis.findings import FALSE_ALARM, Evidence, Finding, sort_by_priority
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tasks.registry import TASKS

with warnings.catch_warnings():  # importing cleanlab silences all warnings of the process
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

EVALUATION = ("validation", "test")
EVEN_SHARE = 1 / 5  # of what a class would have if all were equally frequent
SIMILAR = 0.7  # Jaccard similarity of word triples; two texts of 60 words that differ in three of them still reach it
SIMILAR_WORDS = 8  # shorter texts recur by chance: datelines, headings, "Thank you!"
LEAKED, REPEATED, CONTRADICTING = 0.01, 0.05, 0.01
SEPARABLE = 0.64  # ROC AUC of a medium effect (Cohen 1988, d = 0.5): texts of other films alone reach 0.60 on IMDb
SAMPLE = 2000  # rows per side for the classifiers of this module: seconds, and power enough

Splits = Mapping[str, Examples]


def check_dataset(
    dataset: DatasetDict, *, task: str | Task, difference: float | None = None, seed: int = 0
) -> list[Finding]:
    """Return all findings of this module, most fundamental first.

    `dataset` is what the task's `load` returned; `task` is a key of `tasks.registry.TASKS`, or one of its values.
    `difference`: the difference of accuracy that the test split should be able to detect; None for none in particular.
    """
    splits = {name: as_task(task).examples(split) for name, split in dataset.items()}
    return sort_by_priority(
        [
            *check_labels(splits),
            *check_duplicates(splits),
            *check_evaluation_size(dataset, difference=difference),
            *check_same_distribution(splits, seed=seed),
            *check_label_noise(splits, seed=seed),
            *check_tags(splits["train"]),
        ]
    )


def as_task(task: str | Task) -> Task:
    """Return the task of that name; a task as it is."""
    return TASKS[task] if isinstance(task, str) else task


# --- labels ------------------------------------------------------------------------------------------------


def check_labels(splits: Splits) -> Iterator[Finding]:
    """Find `constant_labels` and `class_imbalance`."""
    constant = [name for name, rows in splits.items() if len(set(rows.counted)) < (1 if rows.words else 2)]
    if constant:
        yield Finding(
            "constant_labels",
            f"all rows of {', '.join(constant)} have the same label",
            Evidence(1, 2, "two different labels are the least that can be learned or compared"),
            "the label column was filled by default, or sorted rows were cut into splits without shuffling",
            {} if "train" in constant else {"redraw_splits": True},
            "read the labels from another column" if "train" in constant else "",
        )
    elif splits["train"].classes:
        yield from _imbalance(splits["train"])


def _imbalance(train: Examples) -> Iterator[Finding]:
    counts, names = Counter(train.counted), train.classes
    rarest = min(names, key=counts.__getitem__)
    share, threshold = counts[rarest] / counts.total(), EVEN_SHARE / len(names)
    if share < threshold:
        yield Finding(
            "class_imbalance",
            f"{rarest!r} has {counts[rarest]} of {counts.total()} training labels",
            Evidence(
                share,
                threshold,
                f"a fifth of an even share: a model that never predicts {rarest!r} loses hardly any loss",
            ),
            "the classes occur that often, or rows of one were lost",
            # Copies are soon memorised: the best epoch is kept.
            {"oversample": True, "EARLY_STOPPING": 1},
        )


# --- repeated texts ----------------------------------------------------------------------------------------


def check_duplicates(splits: Splits) -> Iterator[Finding]:
    """Find `leakage`, `duplicates` and, with one class per row, `contradicting_labels`.

    `leakage`: evaluation rows whose passage repeats that of a training row. `duplicates`: training rows that repeat an
    earlier one. `contradicting_labels`: training rows with equal texts and different labels. To repeat is to have the
    same words, or 0.7 of the word triples in common (Jaccard similarity, Broder 1997); rows that may share a passage
    are duplicates only with the same words.
    """
    train = splits["train"]
    known, leaks = Texts(train.passages), {}
    for name in EVALUATION:
        copies = known.similar(splits[name].passages)
        if len(copies) > 1 and len(copies) / len(splits[name].texts) > LEAKED:
            leaks[name] = (len(splits[name].texts), copies)
    if leaks:
        yield _leakage(leaks)
    if train.classes and not train.words:
        yield from _contradictions(train)
    shared = train.passages != train.texts
    repeated = Texts(train.texts).repeated(exact=True) if shared else known.repeated()
    share = len(repeated) / len(train.texts)
    if share > REPEATED:
        yield Finding(
            "duplicates",
            f"{len(repeated)} of {len(train.texts)} training rows repeat an earlier one",
            Evidence(share, REPEATED, "1 row in 20 counted twice: there is less to learn from than it seems"),
            "the data was put together from sources that overlap, or joined so that rows multiplied",
            {"remove_rows": repeated},
        )


def _contradictions(train: Examples) -> Iterator[Finding]:
    rows = pd.DataFrame({"text": train.texts, "label": train.labels})
    odd = np.flatnonzero(rows.groupby("text").label.transform("nunique") > 1)
    share = len(odd) / len(rows)
    if share > CONTRADICTING:
        yield Finding(
            "contradicting_labels",
            f"{len(odd)} of {len(rows)} training rows have the text of another one, and another label",
            Evidence(share, CONTRADICTING, "of two such rows one at least is wrong: 1 row in 200"),
            "texts were labelled twice, by people or lists that do not agree, or belong to several classes",
            {"remove_rows": odd.tolist()},
        )


def _leakage(leaks: dict[str, tuple[int, dict[int, int]]]) -> Finding:
    counts = " and ".join(f"{len(copies)} of {rows} {name} rows" for name, (rows, copies) in leaks.items())
    return Finding(
        "leakage",
        f"{counts} are among the training rows too",
        Evidence(
            max(len(copies) / rows for rows, copies in leaks.values()),
            LEAKED,
            "memorised, so many rows raise a score by up to a hundredth",
        ),
        "duplicates were not removed before the data was split, or the split was made by row and not by text",
        {"remove_rows": sorted({row for _, copies in leaks.values() for row in copies.values()})},
    )


class Texts:
    """Texts, prepared once to find others that repeat them. Case, punctuation and blanks do not count.

    Texts of fewer than 8 words repeat nothing.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
        self.first: dict[str, int] = {}
        for i, text in enumerate(self.texts):
            self.first.setdefault(text, i)
        self.long = [i for i, text in enumerate(self.texts) if text.count(" ") >= SIMILAR_WORDS - 1]
        self.distinct = [i for i in self.long if self.first[self.texts[i]] == i]

    def similar(self, texts: Sequence[str]) -> dict[int, int]:
        """Return the numbers of those of the `texts` that repeat one of these, and of the one they repeat."""
        others = Texts(texts)
        copies = {i: self.first[others.texts[i]] for i in others.long if others.texts[i] in self.first}
        left = [i for i in others.long if i not in copies]
        if left and self.distinct:
            rare, _ = self._triples
            for i, j in self._pairs(_word_triples([others.texts[i] for i in left])[:, rare]):
                copies.setdefault(left[i], self.distinct[j])
        return dict(sorted(copies.items()))

    def repeated(self, *, exact: bool = False) -> list[int]:
        """Return the numbers of the texts that repeat an earlier one; `exact`: that have the same words."""
        copies = {i for i in self.long if self.first[self.texts[i]] < i}
        if self.distinct and not exact:
            copies |= {self.distinct[i] for i, j in self._pairs(self._triples[1]) if j < i}
        return sorted(copies)

    def _pairs(self, rows: csr_matrix) -> list[tuple[int, int]]:
        """Find pairs of a row and a distinct text that have enough triples in common."""
        _, own = self._triples
        (size, own_size), pairs = (np.asarray(side.sum(axis=1)).ravel() for side in (rows, own)), []
        for start in range(0, rows.shape[0], 1000):
            common = (rows[start : start + 1000] @ own.T).tocoo()
            i, j = common.row + start, common.col
            similar = common.data >= SIMILAR * (size[i] + own_size[j] - common.data)
            pairs += sorted(zip(i[similar].tolist(), j[similar].tolist(), strict=True))
        return pairs

    @cached_property
    def _triples(self) -> tuple[np.ndarray, csr_matrix]:
        """Word triples of the distinct texts, and which triples are counted: those of over 50 texts are phrases."""
        triples = _word_triples([self.texts[i] for i in self.distinct])
        rare = np.asarray(triples.sum(axis=0)).ravel() <= 50
        return rare, triples[:, rare]


def _word_triples(texts: list[str]) -> csr_matrix:
    vectorizer = HashingVectorizer(
        analyzer="word", ngram_range=(3, 3), token_pattern=r"\S+", binary=True, norm=None, alternate_sign=False
    )
    return vectorizer.transform(texts).astype(np.int32)


# --- splits ------------------------------------------------------------------------------------------------


def check_evaluation_size(dataset: DatasetDict, *, difference: float | None, split: str = "test") -> Iterator[Finding]:
    """Find `small_evaluation`: a difference of `difference` between two runs would often not be detected here."""
    rows = len(dataset[split])
    if difference is None or smallest_difference(rows) <= difference:
        return
    needed = next(n for n in range(rows, 10**8, max(1, rows // 10)) if smallest_difference(n) <= difference)
    yield Finding(
        "small_evaluation",
        f"{rows} {split} rows detect differences of {smallest_difference(rows):.2f} and more",
        Evidence(
            smallest_difference(rows),
            difference,
            "McNemar's test at 5% finds the difference 4 times in 5 if the runs differ on a fifth of the rows",
        ),
        f"too few rows were set aside; about {needed} are needed",
        {f"{split.upper()}_SIZE": needed},
    )


def smallest_difference(rows: int, *, discordant: float = 0.2) -> float:
    """Return the difference of accuracy that McNemar's test (5%, two-sided) finds with a power of 80% (Connor 1987).

    `discordant`: share of the rows that only one of the two runs gets right.

    >>> round(smallest_difference(240), 2)
    0.08
    """
    differences = np.linspace(1e-4, discordant, 2000)
    spread = norm.isf(0.025) * np.sqrt(discordant) + norm.isf(0.2) * np.sqrt(discordant - differences**2)
    enough = spread**2 / differences**2 <= rows
    return float(differences[enough][0]) if enough.any() else 1.0


def check_same_distribution(splits: Splits, *, seed: int = 0) -> Iterator[Finding]:
    """Find `different_evaluation`: word counts separate training from evaluation rows, or labels have other shares.

    The classifier of word counts is a two-sample test (Lopez-Paz and Oquab 2017): cross-validated, and its ROC AUC
    compared with what it would reach by chance. Passages of one group stay in one fold: it cannot memorise groups.
    """
    train = splits["train"]
    for name in EVALUATION:
        auc, chance = _separability(train, splits[name], seed)
        if auc > max(chance, SEPARABLE):
            symptom = f"word counts separate {name} from training rows: ROC AUC {auc:.2f}"
            reason = "chance reaches the threshold once in a thousand; under 0.64 the difference is small"
            yield _different(symptom, Evidence(auc, max(chance, SEPARABLE), reason))
            return
        one_class = train.classes and not train.words
        if one_class and (distance := _label_distance(train.labels, splits[name].labels)) is not None:
            symptom = f"labels have other shares in {name} than in training rows"
            yield _different(symptom, Evidence(distance, 0.1, "chi-squared test; 1 label in 10 would have to move"))
            return


def _different(symptom: str, evidence: Evidence) -> Finding:
    cause = "training and evaluation rows differ in source, time or preparation, or a sorted file was cut in order"
    return Finding("different_evaluation", symptom, evidence, cause, {"redraw_splits": True})


def _separability(train: Examples, other: Examples, seed: int) -> tuple[float, float]:
    """Return the ROC AUC of separating the two splits, and the AUC that chance exceeds once in a thousand."""
    rng = np.random.default_rng(seed)
    sides = [_passages(rows) for rows in (train, other)]
    sides = [side.iloc[rng.permutation(len(side))[:SAMPLE]] for side in sides]
    rows, is_other = pd.concat(sides), np.repeat([0, 1], [len(side) for side in sides])
    folds = min(5, *(side.group.nunique() for side in sides))
    if folds < 2:
        return 0.5, 1.0
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]", lowercase=False).fit_transform(rows.text)
    model = LogisticRegression(class_weight="balanced", max_iter=300)
    group = [f"{side}{name}" for side, name in zip(is_other, rows.group, strict=True)]
    scores = cross_val_predict(model, words, is_other, groups=group, cv=GroupKFold(folds), method="decision_function")
    units = [side.group.nunique() for side in sides]
    deviation = np.sqrt((sum(units) + 1) / (12 * units[0] * units[1]))  # of the Mann-Whitney statistic
    return float(roc_auc_score(is_other, scores)), 0.5 + norm.isf(FALSE_ALARM) * deviation


def _passages(rows: Examples) -> pd.DataFrame:
    """Return each passage once, and the number of its group."""
    table = pd.DataFrame({"text": rows.passages, "group": rows.groups}).drop_duplicates("text")
    return table.assign(group=pd.factorize(table.group)[0])


def _label_distance(train: Sequence[str], other: Sequence[str]) -> float | None:
    """Return the total variation distance of the label shares, if over 0.1 and no chance (chi-squared test)."""
    counts = pd.DataFrame([Counter(train), Counter(other)]).fillna(0).to_numpy()
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return distance if distance > 0.1 and chi2_contingency(counts).pvalue < FALSE_ALARM else None


# --- label noise -------------------------------------------------------------------------------------------


def check_label_noise(splits: Splits, *, seed: int = 0) -> Iterator[Finding]:
    """Find `label_noise`: a classifier finds training labels less likely than evaluation labels, all unseen.

    Hard texts make labels unlikely too, so the evaluation rows say how likely to expect them. Noise that is the same in
    all splits cannot be distinguished from difficulty: for that read the rows of `suspicious_rows`. The rows to remove
    are those of confident learning (Northcutt et al. 2021).
    """
    if not splits["train"].classes:
        return
    rows = suspicious_rows(splits, seed=seed)
    train = rows.split == "train"
    sides = rows.trust[train].dropna(), rows.trust[~train].dropna()
    test = ttest_ind(*sides, equal_var=False, alternative="less")
    if not test.pvalue < FALSE_ALARM:
        return
    found = rows[train & rows.suspicious].sort_values("trust").row.tolist()
    if splits["train"].words:  # one doubtful word makes a sentence suspicious, and there are many: take the worst
        types = len(splits["train"].classes)
        found = found[: round(_noise_share(*sides, types=types) * int(train.sum()))]
    yield Finding(
        "label_noise",
        f"the other rows contradict labels of {len(found)} of the {int(train.sum())} training rows",
        Evidence(
            float(rows.trust[train].mean()),
            float(rows.trust[~train].mean()),
            f"mean probability of validation and test labels, by the same classifier; t-test p {test.pvalue:.1g}",
        ),
        "training labels were set by a rule, in haste or by several people; evaluation labels with more care",
        {"remove_rows": found},
    )


def _noise_share(trained: pd.Series, held_out: pd.Series, *, types: int) -> float:
    """Estimate the share of wrong training labels, if evaluation labels are right and all types have equal errors.

    Then the trust in training labels is a mixture: of evaluation rows' trust, and of what that leaves for the others.
    """
    right = held_out.mean()
    return float(np.clip((right - trained.mean()) / (right - (1 - right) / max(types - 1, 1)), 0, 1))


def suspicious_rows(splits: Splits, *, seed: int = 0) -> pd.DataFrame:
    """Evaluate the label of every row of every split by a linear classifier that has not seen it (5 folds).

    Columns: `split`, `row`, `label`, `suggested` (the classifier's label), `trust` (probability of the given label; of
    a sentence the mean over its entities' words, of their types given that they are entities), `suspicious` (by
    cleanlab's confident learning). `label` and `suggested` of a sentence are those of its worst word. Takes up to 2,000
    rows of a split.
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
    if tagged:  # most words are O, and easy; and whether a word is an entity hides doubts about which
        table["trust"] /= np.maximum(1 - chances[:, kinds == "O"].sum(axis=1), 1e-9)
        table = table[table.label != "O"]
    return rows.join(worst.set_index("unit")).assign(trust=table.groupby("unit").trust.mean())


def _sample(rows: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:SAMPLE])


def _word_features(
    sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], *, shift: int = 0, context: bool = True
) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Return every word's features (with its neighbours), the entity type of the tag `shift` before, its sentence."""
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
    # Words are many: counting them takes 0.3 s on the sample, a regression 27 s, and finds less of the planted noise.
    # With the default alpha of 1 a word that was seen once counts too little; at 0.3 types are recognised best.
    model = MultinomialNB(alpha=0.3) if groups < len(group) else LogisticRegression(C=10, max_iter=300)
    chances = np.zeros((len(labels), labels.max() + 1))
    for fit, unseen in folds.split(features, labels, group):
        if len(np.unique(labels[fit])) > 1:
            model.fit(features[fit], labels[fit])
            chances[np.ix_(unseen, model.classes_)] = model.predict_proba(features[unseen])
    return chances


# --- tags --------------------------------------------------------------------------------------------------


def check_tags(train: Examples) -> Iterator[Finding]:
    """Find `shifted_tags`: the tags fit the words before or after theirs better than their own.

    For each shift a linear classifier predicts from a word whether it is part of an entity, over sentences it has not
    seen; the mean gain of log likelihood per sentence over no shift is tested (one-sided t-test).
    """
    if not train.words:
        return
    chosen = _sample(len(train.texts), 0)[:500]
    fits = {shift: _fit_of_shift(train, chosen, shift) for shift in (0, -1, 1)}
    for shift in (-1, 1):
        both = pd.concat([fits[shift], fits[0]], axis=1).dropna()
        gain = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy()
        test = ttest_1samp(gain, 0, alternative="greater") if len(gain) > 1 and gain.std() > 0 else None
        if test is not None and test.pvalue < FALSE_ALARM:
            where = "before" if shift < 0 else "after"
            yield Finding(
                "shifted_tags",
                f"tags fit the word {where} theirs better than their own",
                Evidence(float(gain.mean()), 0, f"log likelihood gained per sentence; t-test, p = {test.pvalue:.1g}"),
                "words and tags were read from different columns or lines, or pieces were counted as words",
                {"shift_tags": shift},
            )
            return


def _fit_of_shift(train: Examples, rows: np.ndarray, shift: int) -> pd.Series:
    """Return each sentence's mean log likelihood of "in an entity or not", if tags belonged `shift` words further."""
    sides = ([side[i] for i in rows] for side in (train.words, train.labels))
    features, labels, sentence = _word_features(*sides, shift=shift, context=False)
    inside = (labels != "O").astype(int)
    if len(np.unique(inside)) < 2:
        return pd.Series(dtype=float)
    chances = np.clip(_out_of_sample(features, inside, sentence)[np.arange(len(inside)), inside], 1e-6, 1)
    return pd.Series(np.log(chances)).groupby(sentence).mean()
