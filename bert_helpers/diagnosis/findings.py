"""What can be wrong with a run: every finding is declared here, most fundamental first.

The checks are in `checks_data` (rows), `checks_model` (tokens, the untrained model, memory) and `checks_run` (curves,
predictions, time). Each check returns a list of findings, which is empty if nothing is wrong.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import NamedTuple

import pandas as pd

# Of each test of significance. `overfitting` asks for two standard errors, and what is gained by a fitted threshold
# for a 95% interval above 0; both also ask that the effect is large enough to matter.
FALSE_ALARM = 1e-3


class Kind(NamedTuple):
    """A finding that some check can make, the tasks that can have it, and the module of the check."""

    name: str
    meaning: str
    tasks: str
    module: str


# In order of priority. A fault can explain those below it, never those above: wrong labels make a model overfit, but
# overfitting does not make labels wrong. First comes what prevents a run, then data, model and loss, training, speed.
# `docs/findings.md` is generated from this table.
KINDS = (
    Kind("out_of_memory", "training ran out of memory", "all", "checks_run"),
    Kind("memory_short", "a training step needs more memory than is free", "all", "checks_model"),
    Kind("other_tokenizer", "token ids and embeddings belong to different models", "all", "checks_model"),
    Kind("constant_labels", "all rows of a split have the same label", "all", "checks_data"),
    Kind("label_variants", "two labels differ only in case or spaces", "classes", "checks_data"),
    Kind("label_without_rows", "a label is missing from a split", "several labels", "checks_data"),
    Kind("constant_text", "one of the two texts is the same in all rows of a split", "pairs of texts", "checks_data"),
    Kind("swapped_pairs", "the two texts are in the opposite order to training rows", "pairs of texts", "checks_data"),
    Kind("unknown_tokens", "many words are not in the vocabulary", "all", "checks_model"),
    Kind("many_pieces", "few words of the language are in the vocabulary", "all", "checks_model"),
    Kind("lower_cased_texts", "the texts have no capitals, but the model distinguishes them", "all", "checks_model"),
    Kind("cut_spans", "annotated spans begin or end within words", "spans of characters", "checks_data"),
    Kind("shifted_tags", "tags fit a neighbouring word better than their own", "tagged words", "checks_data"),
    Kind("target_scale", "the numbers to predict are not standardized", "numbers", "checks_model"),
    Kind("lost_answers", "answers are not complete in any window", "questions", "checks_model"),
    Kind("truncation", "MAX_LENGTH cuts off text that matters", "texts that are cut", "checks_model"),
    Kind("leakage", "evaluation rows are among the training rows too", "all", "checks_data"),
    Kind("contradicting_labels", "equal training texts have different labels", "one class per row", "checks_data"),
    Kind("duplicates", "training rows repeat earlier ones", "all", "checks_data"),
    Kind("class_imbalance", "a class has far fewer labels than an even share", "classes", "checks_data"),
    Kind("label_noise", "training labels are less consistent than evaluation labels", "one class each", "checks_data"),
    Kind("different_evaluation", "evaluation rows differ in kind from training rows", "all", "checks_data"),
    Kind("small_evaluation", "too few test rows to detect the difference asked for", "all", "checks_data"),
    Kind("fp16_overflow", "values inside the model are too large for fp16", "all", "checks_model"),
    Kind("frozen_parameters", "some weights get no gradient", "all", "checks_model"),
    Kind("untrained_encoder", "layers of the encoder still have their initial weights", "all", "checks_model"),
    Kind("trained_head", "the head was trained for something else", "all", "checks_model"),
    Kind("initial_loss", "the loss of the untrained model is not that of guessing", "all", "checks_model"),
    Kind("cannot_overfit_batch", "the model cannot memorise eight rows", "all", "checks_model"),
    Kind("not_finite_loss", "a loss is infinite or not a number", "all", "checks_run"),
    Kind("learning_rate_too_high", "steps are too long for this model, or taught it nothing", "all", "checks_run"),
    Kind("learning_rate_too_low", "nothing was learned, in very short steps", "all", "checks_run"),
    Kind("underfitting", "the training rows were not learned", "all", "checks_run"),
    Kind("overfitting", "the validation loss rises while the training loss falls", "classes", "checks_run"),
    Kind("overconfidence", "probabilities are higher than the accuracy", "one class per row", "checks_run"),
    Kind("unfitted_thresholds", "0.5 decides, although fitted thresholds are better", "several labels", "checks_run"),
    Kind("never_answers", "the answers are no better than giving none", "questions", "checks_run"),
    Kind("unfitted_no_answer", "no threshold was fitted to decide for no answer", "questions", "checks_run"),
    Kind("slow", "training uses a small part of the machine's speed", "all", "checks_run"),
)
PRIORITY = {kind.name: place for place, kind in enumerate(KINDS)}


class Evidence(NamedTuple):
    """A measured value, the threshold it is compared with, and the reason for that threshold."""

    value: float
    threshold: float
    reason: str


@dataclass(frozen=True)
class Finding:
    """One fault of a run: what shows it, what may have caused it, and what to do.

    `fix` maps notebook parameters (upper case) to new values, and data actions (lower case, see `fixes.apply_fix`) to
    their options. `advice` is what neither of them can do.
    Raises ValueError for a name that is not declared in `KINDS`.
    """

    name: str
    symptom: str
    evidence: Evidence
    cause: str
    fix: Mapping[str, object]
    advice: str = ""

    def __post_init__(self) -> None:
        if self.name not in PRIORITY:
            raise ValueError(f"{self.name!r} is not a finding; declare it in KINDS or use one of {[*PRIORITY]}")

    @property
    def remedy(self) -> str:
        """Fix and advice as one line, "" if there is neither."""
        return "; ".join(part for part in (fix_text(self.fix), self.advice) if part)


def sort_by_priority(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings, most fundamental first; of several with the same name, keep the first."""
    first = {finding.name: finding for finding in reversed([*findings])}
    return sorted(first.values(), key=lambda finding: PRIORITY[finding.name])


def check(function: Callable[..., Iterable[Finding]]) -> Callable[..., list[Finding]]:
    """Make a function that yields findings return them as a list, most fundamental first.

    An exception in it becomes a warning, and what was found before is kept: no diagnosis ends a training.
    """

    @wraps(function)
    def checked(*args: object, **kwargs: object) -> list[Finding]:
        found: list[Finding] = []
        try:
            found.extend(function(*args, **kwargs))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"{function.__name__} of the diagnosis could not be done ({reason}).", stacklevel=2)
        return sort_by_priority(found)

    return checked


def summary(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """Return what a run's record keeps of its findings: `finding`, `symptom`, `evidence`; most fundamental first."""
    return [
        {"finding": f.name, "symptom": f.symptom, "evidence": f.evidence._asdict()} for f in sort_by_priority(findings)
    ]


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return one row per finding, most fundamental first: `symptom`, `value`, `threshold`, `why`, `cause`, `fix`."""
    columns = ["finding", "symptom", "value", "threshold", "why", "cause", "fix"]
    rows = [(f.name, f.symptom, *f.evidence, f.cause, f.remedy) for f in sort_by_priority(findings)]
    return pd.DataFrame(rows, columns=columns).set_index("finding")


def fix_text(fix: Mapping[str, object]) -> str:
    """Write a fix as one line.

    >>> fix_text({"LEARNING_RATE": 1e-05, "remove_rows": [3, 4, 5, 9]})
    'LEARNING_RATE = 1e-05, remove_rows (4)'
    """
    parts = []
    for name, value in fix.items():
        many = isinstance(value, (list, tuple, dict)) and len(value) > 3
        parts.append(f"{name} ({len(value)})" if many else name if value is True else f"{name} = {value_text(value)}")
    return ", ".join(parts)


def value_text(value: object) -> str:
    """Write a value with three significant digits if it is a float."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def with_fix(parameters: Mapping[str, object], fix: Mapping[str, object]) -> dict[str, object]:
    """Return notebook parameters changed as in the fix; its data actions are left to `fixes.apply_fix`.

    The value of a name that ends in _FACTOR multiplies the parameter.

    >>> with_fix({"EPOCHS": 3, "SEED": 0}, {"EPOCHS_FACTOR": 2, "oversample": True})
    {'EPOCHS': 6, 'SEED': 0}
    """
    new = dict(parameters)
    for name, value in fix.items():
        known = name.removesuffix("_FACTOR")
        if name.isupper():
            new[known] = value if known == name else type(parameters[known])(parameters[known] * value)
    return new
