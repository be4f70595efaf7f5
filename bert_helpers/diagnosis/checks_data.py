"""Findings from the rows alone, before anything is tokenized: labels, twins, noise, and splits that do not belong.

`dataset` is what `data.load_…` returned. Every test has a false alarm rate of `FALSE_ALARM` on rows drawn at random.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from datasets import Dataset, DatasetDict, concatenate_datasets
from scipy.sparse import csr_matrix
from scipy.stats import chi2_contingency, norm, ttest_1samp, ttest_ind
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB

from bert_helpers.diagnosis.findings import FALSE_ALARM, Evidence, Finding, ranked

EVALUATION = ("validation", "test")
EVEN_SHARE = 1 / 5  # of what a class would have if all were equally common
TWINS = 0.7  # Jaccard similarity of word triples; two texts of 60 words that differ in three of them still reach it
TWIN_WORDS = 8  # shorter texts recur by chance: datelines, headings, "Thank you!"
LEAKED, REPEATED, CONTRADICTING = 0.01, 0.05, 0.01
TOLD_APART = 0.64  # ROC AUC of a medium effect (Cohen 1988, d = 0.5): texts of other films alone reach 0.60 on IMDb
SAMPLE = 2000  # rows a side for the classifiers of this module: seconds, and power enough


def check_dataset(
    dataset: DatasetDict, *, task: str, difference: float | None = None, shuffled: bool = True, seed: int = 0
) -> list[Finding]:
    """All findings of this module, most fundamental first. `task` is a key of `tasks.TASKS`.

    `difference`: the difference of accuracy that the test split is to tell; None for none in particular. `shuffled`:
    whether training draws the rows in random order, as `training.training_arguments` has it.
    """
    findings = check_labels(dataset, task=task, shuffled=shuffled)
    findings += check_duplicates(dataset, task=task)
    findings += check_evaluation_size(dataset, difference=difference)
    findings += check_same_distribution(dataset, task=task, seed=seed)
    findings += check_label_noise(dataset, task=task, seed=seed)
    return ranked(findings + (check_tags(dataset) if task == "ner" else []))


def texts(split: Dataset, task: str) -> list[str]:
    """What the model reads of each row, as one string."""
    if task == "ner":
        return [" ".join(words) for words in split["tokens"]]
    columns = {"classification": ["text"], "regression": ["text", "text_pair"], "qa": ["question", "context"]}[task]
    return [" ".join(parts) for parts in zip(*(split[name] for name in columns), strict=True)]


def classes(split: Dataset, task: str) -> list[str | float]:
    """Each row's label; for tagged words every entity's type, for questions where the answer begins."""
    if task == "ner":
        names = split.features["ner_tags"].feature.names
        return [names[tag][2:] for tags in split["ner_tags"] for tag in tags if names[tag].startswith("B-")]
    if task == "qa":
        return [answers["answer_start"][0] for answers in split["answers"]]
    names = getattr(split.features["label"], "names", None)
    return [names[label] for label in split["label"]] if names else list(split["label"])


# --- labels ------------------------------------------------------------------------------------------------


def check_labels(dataset: DatasetDict, *, task: str, shuffled: bool = True) -> list[Finding]:
    """`constant_labels`, `class_imbalance` and, where rows are not shuffled, `sorted_labels`."""
    constant = [name for name, split in dataset.items() if len(set(classes(split, task))) < (1 if task == "ner" else 2)]
    if constant:
        return [
            Finding(
                "constant_labels",
                f"every row of {', '.join(constant)} has one and the same label",
                Evidence(1, 2, "two different labels are the least that can be learned or told apart"),
                "the label column was filled by default, or sorted rows were cut into splits without shuffling",
                {} if "train" in constant else {"redraw_splits": True},
            )
        ]
    findings = []
    if task in ("classification", "ner"):
        findings += _imbalance(dataset["train"], task)
    if not shuffled and task in ("classification", "regression"):
        findings += _sortedness(np.asarray(dataset["train"]["label"], dtype=float))
    return findings


def _imbalance(train: Dataset, task: str) -> list[Finding]:
    names = train.features["label"].names if task == "classification" else sorted(set(classes(train, task)))
    counts = Counter(classes(train, task))
    rarest = min(names, key=counts.__getitem__)
    share, threshold = counts[rarest] / counts.total(), EVEN_SHARE / len(names)
    if share >= threshold:
        return []
    return [
        Finding(
            "class_imbalance",
            f"{rarest!r} has {counts[rarest]} of {counts.total()} training labels",
            Evidence(
                share, threshold, f"a fifth of an even share: a model that never says {rarest!r} loses hardly any loss"
            ),
            "the classes are drawn as they occur, or rows of one were lost",
            # Copies are soon learned by heart: of the epochs the best one is kept.
            {"oversample": True, "EARLY_STOPPING": 1},
        )
    ]


def _sortedness(labels: np.ndarray) -> list[Finding]:
    """Wald and Wolfowitz (1940): fewer runs above and below the median label than random order makes."""
    above = labels > np.median(labels)
    above = above if above.any() else labels < np.median(labels)
    n, p = len(above), above.mean()
    runs = 1 + int(np.sum(above[1:] != above[:-1]))
    expected = 1 + 2 * n * p * (1 - p)
    deviation = np.sqrt(max((expected - 1) * (expected - 2) / max(n - 1, 1), 1e-9))
    threshold = expected + norm.ppf(FALSE_ALARM) * deviation
    if runs >= threshold:
        return []
    return [
        Finding(
            "sorted_labels",
            f"training goes through the rows in order, and equal labels stand together: {runs} runs of labels",
            Evidence(runs, threshold, "Wald-Wolfowitz runs test; random order has fewer once in a thousand"),
            "the file is sorted by label; each batch then teaches one label and unteaches the last",
            {"shuffle": True},
        )
    ]


# --- twins -------------------------------------------------------------------------------------------------


def check_duplicates(dataset: DatasetDict, *, task: str) -> list[Finding]:
    """`leakage`: evaluation rows with a twin among the training rows; `duplicates`: training rows with one there.

    `contradicting_labels`: training rows of a classifier with equal texts and different labels.

    Twins share their words, or 0.7 of their word triples (Jaccard similarity, Broder 1997). For questions, contexts
    leak; duplicates are equal questions on equal contexts.
    """
    train = dataset["train"]["context"] if task == "qa" else texts(dataset["train"], task)
    leaks = {}
    for name in EVALUATION:
        rows = dataset[name]["context"] if task == "qa" else texts(dataset[name], task)
        twins = near_duplicates(rows, train)
        if len(twins) > 1 and len(twins) / len(rows) > LEAKED:
            leaks[name] = (len(rows), twins)
    findings = [_leakage(leaks)] if leaks else []
    findings += _contradictions(dataset["train"]) if task == "classification" else []
    repeated = list(near_duplicates(texts(dataset["train"], task), exact=task == "qa"))
    share = len(repeated) / len(dataset["train"])
    if share > REPEATED:
        findings.append(
            Finding(
                "duplicates",
                f"{len(repeated)} of {len(dataset['train'])} training rows repeat an earlier one",
                Evidence(share, REPEATED, "1 row in 20 counted twice: there is less to learn from than it seems"),
                "the data was put together from sources that overlap, or joined so that rows multiplied",
                {"remove_rows": repeated},
            )
        )
    return findings


def _contradictions(train: Dataset) -> list[Finding]:
    rows = pd.DataFrame({"text": train["text"], "label": train["label"]})
    odd = np.flatnonzero(rows.groupby("text").label.transform("nunique") > 1)
    share = len(odd) / len(rows)
    if share <= CONTRADICTING:
        return []
    return [
        Finding(
            "contradicting_labels",
            f"{len(odd)} of {len(rows)} training rows have the text of another one, and another label",
            Evidence(share, CONTRADICTING, "of two such rows one at least is wrong: 1 row in 200"),
            "texts were labelled twice, by people or lists that do not agree, or belong to several classes",
            {"remove_rows": odd.tolist()},
        )
    ]


def _leakage(leaks: dict[str, tuple[int, dict[int, int]]]) -> Finding:
    told = " and ".join(f"{len(twins)} of {rows} {name} rows" for name, (rows, twins) in leaks.items())
    return Finding(
        "leakage",
        f"{told} stand among the training rows too",
        Evidence(
            max(len(twins) / rows for rows, twins in leaks.values()),
            LEAKED,
            "learned by heart, so many rows raise a score by up to a hundredth",
        ),
        "duplicates were not removed before the data was split, or the split was made by row and not by text",
        {"remove_rows": sorted({row for _, twins in leaks.values() for row in twins.values()})},
    )


def near_duplicates(rows: Sequence[str], others: Sequence[str] | None = None, *, exact: bool = False) -> dict[int, int]:
    """Row numbers that have a twin among `others`, and the twin's; without `others`, an earlier one of `rows`.

    Case, punctuation and blanks do not count. Texts of fewer than 8 words have no twins. `exact`: all words alike.
    """
    texts = [" ".join(re.findall(r"\w+", text.lower())) for text in rows]
    pool = texts if others is None else [" ".join(re.findall(r"\w+", text.lower())) for text in others]
    long = [i for i, text in enumerate(texts) if text.count(" ") >= TWIN_WORDS - 1]
    first: dict[str, int] = {}
    for j, text in enumerate(pool):
        first.setdefault(text, j)
    twins = {i: first[texts[i]] for i in long if texts[i] in first and (others is not None or first[texts[i]] < i)}
    if exact:
        return twins
    left = [i for i in long if i not in twins]
    kept = [j for j in first.values() if pool[j].count(" ") >= TWIN_WORDS - 1]
    for i, j in _similar([texts[i] for i in left], [pool[j] for j in kept]):
        if others is not None or kept[j] < left[i]:
            twins.setdefault(left[i], kept[j])
    return dict(sorted(twins.items()))


def _similar(rows: list[str], others: list[str]) -> list[tuple[int, int]]:
    """Pairs of texts with enough word triples in common. Triples of over 50 texts are turns of phrase: left out."""
    if not rows or not others:
        return []
    triples = HashingVectorizer(
        analyzer="word", ngram_range=(3, 3), token_pattern=r"\S+", binary=True, norm=None, alternate_sign=False
    )
    sides = [triples.transform(side).astype(np.int32) for side in (rows, others)]
    rare = np.asarray(sides[1].sum(axis=0)).ravel() <= 50
    first, second = (csr_matrix(side[:, rare]) for side in sides)
    sizes = [np.asarray(side.sum(axis=1)).ravel() for side in (first, second)]
    pairs = []
    for start in range(0, len(rows), 1000):
        shared = (first[start : start + 1000] @ second.T).tocoo()
        i, j = shared.row + start, shared.col
        similar = shared.data >= TWINS * (sizes[0][i] + sizes[1][j] - shared.data)
        pairs += sorted(zip(i[similar].tolist(), j[similar].tolist(), strict=True))
    return pairs


# --- splits ------------------------------------------------------------------------------------------------


def check_evaluation_size(dataset: DatasetDict, *, difference: float | None, split: str = "test") -> list[Finding]:
    """`small_evaluation`: two runs that differ by `difference` would often not be told apart on this split."""
    rows = len(dataset[split])
    if difference is None or smallest_difference(rows) <= difference:
        return []
    needed = next(n for n in range(rows, 10**8, max(1, rows // 10)) if smallest_difference(n) <= difference)
    return [
        Finding(
            "small_evaluation",
            f"{rows} {split} rows tell differences of {smallest_difference(rows):.2f} and more",
            Evidence(
                smallest_difference(rows),
                difference,
                "McNemar's test at 5% finds the difference 4 times in 5 when a fifth of the rows come out differently",
            ),
            f"too few rows were held out; about {needed} are needed",
            {f"{split.upper()}_SIZE": needed},
        )
    ]


def smallest_difference(rows: int, *, discordant: float = 0.2) -> float:
    """The difference of accuracy that McNemar's test (5%, two-sided) finds with a power of 80% (Connor 1987).

    `discordant`: share of the rows that only one of the two runs gets right.

    >>> round(smallest_difference(240), 2)
    0.08
    """
    differences = np.linspace(1e-4, discordant, 2000)
    spread = norm.isf(0.025) * np.sqrt(discordant) + norm.isf(0.2) * np.sqrt(discordant - differences**2)
    enough = spread**2 / differences**2 <= rows
    return float(differences[enough][0]) if enough.any() else 1.0


def check_same_distribution(dataset: DatasetDict, *, task: str, seed: int = 0) -> list[Finding]:
    """`different_evaluation`: a classifier of word counts tells training from evaluation rows, or labels differ.

    The classifier is a two-sample test (Lopez-Paz and Oquab 2017): cross-validated, and its ROC AUC held against what
    chance would reach. Questions are grouped by title or context, so that it cannot learn those by heart.
    """
    for name in EVALUATION:
        auc, chance = _told_apart(dataset["train"], dataset[name], task, seed)
        if auc > max(chance, TOLD_APART):
            symptom = f"word counts tell {name} from training rows: ROC AUC {auc:.2f}"
            reason = "chance reaches the threshold once in a thousand; under 0.64 the difference is small"
            return [_different(symptom, Evidence(auc, max(chance, TOLD_APART), reason))]
        if task == "classification" and (distance := _label_distance(dataset["train"], dataset[name])) is not None:
            symptom = f"labels are distributed otherwise in {name} than in training rows"
            return [_different(symptom, Evidence(distance, 0.1, "chi-squared test; 1 label in 10 would have to move"))]
    return []


def _different(symptom: str, evidence: Evidence) -> Finding:
    cause = "training and evaluation rows differ in source, time or preparation, or a sorted file was cut in order"
    return Finding("different_evaluation", symptom, evidence, cause, {"redraw_splits": True})


def _told_apart(train: Dataset, other: Dataset, task: str, seed: int) -> tuple[float, float]:
    """ROC AUC of telling the two splits apart, and the AUC that chance exceeds once in a thousand."""
    rng = np.random.default_rng(seed)
    sides = [_sources(split, task) for split in (train, other)]
    sides = [side.iloc[rng.permutation(len(side))[:SAMPLE]] for side in sides]
    rows, held_out = pd.concat(sides), np.repeat([0, 1], [len(side) for side in sides])
    folds = min(5, *(side.group.nunique() for side in sides))
    if folds < 2:
        return 0.5, 1.0
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]", lowercase=False).fit_transform(rows.text)
    model = LogisticRegression(class_weight="balanced", max_iter=300)
    group = [f"{side}{name}" for side, name in zip(held_out, rows.group, strict=True)]
    scores = cross_val_predict(model, words, held_out, groups=group, cv=GroupKFold(folds), method="decision_function")
    units = [side.group.nunique() for side in sides]
    deviation = np.sqrt((sum(units) + 1) / (12 * units[0] * units[1]))  # of the Mann-Whitney statistic
    return float(roc_auc_score(held_out, scores)), 0.5 + norm.isf(FALSE_ALARM) * deviation


def _sources(split: Dataset, task: str) -> pd.DataFrame:
    """Texts, each once, and the source that texts may share: a context, or the article it is from."""
    if task != "qa":
        rows = pd.DataFrame({"text": texts(split, task)}).drop_duplicates()
        return rows.assign(group=np.arange(len(rows)))
    title = split["title"] if "title" in split.column_names else split["context"]
    rows = pd.DataFrame({"text": split["context"], "group": title}).drop_duplicates("text")
    return rows.assign(group=rows.group.fillna(rows.text))


def _label_distance(train: Dataset, other: Dataset) -> float | None:
    """Total variation distance of the label shares, where it is over 0.1 and no chance (chi-squared test)."""
    size = train.features["label"].num_classes
    counts = np.array([np.bincount(split["label"], minlength=size) for split in (train, other)])
    counts = counts[:, counts.sum(axis=0) > 0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return distance if distance > 0.1 and chi2_contingency(counts).pvalue < FALSE_ALARM else None


# --- label noise -------------------------------------------------------------------------------------------


def check_label_noise(dataset: DatasetDict, *, task: str, seed: int = 0) -> list[Finding]:
    """`label_noise`: training labels are less likely than evaluation labels, to a classifier that has not seen them.

    Hard texts make labels unlikely too, so the evaluation rows say how likely to expect them. Noise that is the same in
    all splits cannot be told from difficulty: for that read the rows of `suspicious_rows`. The rows to remove are those
    of confident learning (Northcutt et al. 2021). Classification and entity tags only.
    """
    if task not in ("classification", "ner"):
        return []
    rows = suspicious_rows(dataset, task=task, seed=seed)
    train = rows.split == "train"
    sides = rows.trust[train].dropna(), rows.trust[~train].dropna()
    test = ttest_ind(*sides, equal_var=False, alternative="less")
    if not test.pvalue < FALSE_ALARM:
        return []
    found = rows[train & rows.suspicious].sort_values("trust").row.tolist()
    if task == "ner":  # one doubtful word makes a sentence suspicious, and there are many: keep the worst
        found = found[: round(_noise_share(*sides, types=len(set(classes(dataset["train"], task)))) * int(train.sum()))]
    return [
        Finding(
            "label_noise",
            f"the other rows speak against labels of {len(found)} of the {int(train.sum())} training rows",
            Evidence(
                float(rows.trust[train].mean()),
                float(rows.trust[~train].mean()),
                f"mean probability of validation and test labels, by the same classifier; t-test p {test.pvalue:.1g}",
            ),
            "training labels were set by a rule, in haste or by several people; evaluation labels with more care",
            {"remove_rows": found},
        )
    ]


def _noise_share(trained: pd.Series, held_out: pd.Series, *, types: int) -> float:
    """How many training labels are wrong if evaluation labels are right, and errors fall on all types alike.

    Then the trust in training labels is a mixture: of evaluation rows' trust, and of what that leaves for the others.
    """
    right = held_out.mean()
    return float(np.clip((right - trained.mean()) / (right - (1 - right) / max(types - 1, 1)), 0, 1))


def suspicious_rows(dataset: DatasetDict, *, task: str = "classification", seed: int = 0) -> pd.DataFrame:
    """Every row of every split, judged by a linear classifier that has not seen it (5 folds).

    Columns: `split`, `row`, `label`, `suggested` (the classifier's label), `trust` (probability of the given label; of
    a sentence the mean over its entities' words, of their types given that they are entities), `suspicious` (by
    cleanlab's confident learning). `label` and `suggested` of a sentence are those of its worst word. Judges up to
    2,000 rows of a split.
    """
    parts = {name: split.select(_some(len(split), seed)) for name, split in dataset.items()}
    rows = pd.DataFrame(
        [(name, int(row)) for name, split in dataset.items() for row in _some(len(split), seed)],
        columns=["split", "row"],
    )
    pooled = concatenate_datasets([part.select_columns(_columns(part, task)) for part in parts.values()])
    features, labels, unit = _word_features(pooled) if task == "ner" else _text_features(pooled)
    kinds, labels = np.unique(labels, return_inverse=True)
    chances = _out_of_sample(features, labels, unit)
    judged = pd.DataFrame(
        {
            "unit": unit,
            "label": kinds[labels],
            "suggested": kinds[chances.argmax(axis=1)],
            "trust": get_label_quality_scores(labels, chances),
            "suspicious": find_label_issues(labels, chances, n_jobs=1),
        }
    )
    worst = judged.sort_values(["suspicious", "trust"], ascending=[False, True]).drop_duplicates("unit")
    if task == "ner":  # most words are O, and easy; and whether a word is an entity hides doubts about which
        judged["trust"] /= np.maximum(1 - chances[:, kinds == "O"].sum(axis=1), 1e-9)
        judged = judged[judged.label != "O"]
    return rows.join(worst.set_index("unit")).assign(trust=judged.groupby("unit").trust.mean())


def _some(rows: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:SAMPLE])


def _columns(split: Dataset, task: str) -> list[str]:
    return ["tokens", "ner_tags"] if task == "ner" else ["text", "label"]


def _text_features(rows: Dataset) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(rows["text"])
    return words, np.array(classes(rows, "classification")), np.arange(len(rows))


def _word_features(rows: Dataset, *, shift: int = 0, context: bool = True) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Features of every word (with its neighbours), the entity type of the tag `shift` places before, its sentence."""
    names = rows.features["ner_tags"].feature.names
    features, labels, sentences = [], [], []
    for sentence, (words, tags) in enumerate(zip(rows["tokens"], rows["ner_tags"], strict=True)):
        padded = ["", *words, ""]
        for i in range(max(0, shift), len(words) + min(0, shift)):
            before, word, after = padded[i : i + 3]
            shape = re.sub(r"(.)\1+", r"\1", re.sub(r"\d", "0", re.sub(r"[^\W\d_]", "x", re.sub("[A-Z]", "X", word))))
            around = {"w": word.lower(), "s": shape}
            around |= {"b": before.lower(), "a": after.lower()} if context else {}
            features.append({f"{place}={text}": 1 for place, text in around.items()})
            labels.append(names[tags[i - shift]][2:] or "O")
            sentences.append(sentence)
    return DictVectorizer().fit_transform(features), np.array(labels), np.array(sentences)


def _out_of_sample(features: csr_matrix, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Class probabilities of every row by a classifier of the other folds; classes too rare for a fold get none."""
    folds = GroupKFold(min(5, len(np.unique(group))), shuffle=True, random_state=0)
    # Words are many: counting them takes 0.3 s on the sample, a regression 27 s, and finds less of the planted noise.
    # With the default alpha of 1 a word that was seen once says too little; at 0.3 types are told best.
    words = len(np.unique(group)) < len(group)
    model = MultinomialNB(alpha=0.3) if words else LogisticRegression(C=10, max_iter=300)
    chances = np.zeros((len(labels), labels.max() + 1))
    for fit, held_out in folds.split(features, labels, group):
        if len(np.unique(labels[fit])) > 1:
            model.fit(features[fit], labels[fit])
            chances[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return chances


# --- tags --------------------------------------------------------------------------------------------------


def check_tags(dataset: DatasetDict) -> list[Finding]:
    """`shifted_tags`: the tags fit the words before or after theirs better than their own.

    For each shift a linear classifier predicts from a word whether it is part of an entity, over sentences it has not
    seen; the mean gain of log likelihood a sentence over no shift is tested (one-sided t-test).
    """
    train = dataset["train"].select(_some(len(dataset["train"]), 0)[:500])
    fits = {shift: _fit_of_shift(train, shift) for shift in (0, -1, 1)}
    for shift in (-1, 1):
        both = pd.concat([fits[shift], fits[0]], axis=1).dropna()
        gain = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy()
        test = ttest_1samp(gain, 0, alternative="greater") if len(gain) > 1 and gain.std() > 0 else None
        if test is not None and test.pvalue < FALSE_ALARM:
            where = "before" if shift < 0 else "after"
            return [
                Finding(
                    "shifted_tags",
                    f"tags fit the word {where} theirs better than their own",
                    Evidence(float(gain.mean()), 0, f"log likelihood gained a sentence; t-test, p = {test.pvalue:.1g}"),
                    "words and tags were read from different columns or lines, or pieces were counted as words",
                    {"shift_tags": shift},
                )
            ]
    return []


def _fit_of_shift(rows: Dataset, shift: int) -> pd.Series:
    """Mean log likelihood of "part of an entity or not" in each sentence, were the tags meant for `shift` words on."""
    features, labels, sentence = _word_features(rows, shift=shift, context=False)
    inside = (labels != "O").astype(int)
    if len(np.unique(inside)) < 2:
        return pd.Series(dtype=float)
    chances = np.clip(_out_of_sample(features, inside, sentence)[np.arange(len(inside)), inside], 1e-6, 1)
    return pd.Series(np.log(chances)).groupby(sentence).mean()
