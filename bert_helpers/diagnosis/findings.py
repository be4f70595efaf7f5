"""What is wrong with a run: findings with evidence and a fix, the most fundamental first.

The measuring is in `checks_data` (rows), `checks_model` (tokens, one batch, memory) and `checks_run` (history,
predictions, time). Each check returns a list of findings; none found is an empty list.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

# A fault higher up explains those below it, never the reverse: wrong labels make a model overfit, overfitting does not
# make labels wrong. First what keeps a run from existing, then data, then model and loss, training, and speed.
ORDER = (
    "out_of_memory",
    "memory_short",
    "constant_labels",
    "unknown_tokens",
    "shifted_tags",
    "target_scale",
    "lost_answers",
    "truncation",
    "leakage",
    "contradicting_labels",
    "duplicates",
    "class_imbalance",
    "label_noise",
    "different_evaluation",
    "sorted_labels",
    "small_evaluation",
    "frozen_parameters",
    "initial_loss",
    "cannot_overfit_batch",
    "not_finite_loss",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "underfitting",
    "unstable_seeds",
    "overfitting",
    "overconfidence",
    "padding_waste",
    "slow",
)
FALSE_ALARM = 1e-3  # of each statistical test: about 20 tests a run then raise a false alarm in 2% of healthy runs


class Evidence(NamedTuple):
    """A measured value, what it was held against, and why that is the threshold."""

    value: float
    threshold: float
    reason: str


class Finding(NamedTuple):
    """One illness. `fix` maps notebook parameters (upper case) to new values, or data actions (lower case) to options.

    Data actions are those of `repairs.mend`.
    """

    name: str  # one of ORDER
    symptom: str
    evidence: Evidence
    cause: str
    fix: dict[str, object]

    @property
    def priority(self) -> int:
        """Place in `ORDER`, 0 the most fundamental."""
        return ORDER.index(self.name)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, most fundamental first; of several with one name the first."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.name, finding)
    return sorted(first.values(), key=lambda finding: finding.priority)


def summary(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """What a run's record holds of its findings: `finding`, `symptom` and `evidence`, most fundamental first."""
    return [{"finding": f.name, "symptom": f.symptom, "evidence": f.evidence._asdict()} for f in ranked(findings)]


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """A row a finding, named so, most fundamental first: `symptom`, `value`, `threshold`, `why`, `cause`, `fix`."""
    rows = [
        (f.name, f.symptom, f.evidence.value, f.evidence.threshold, f.evidence.reason, f.cause, fix_text(f.fix))
        for f in ranked(findings)
    ]
    return pd.DataFrame(rows, columns=["finding", "symptom", "value", "threshold", "why", "cause", "fix"]).set_index(
        "finding"
    )


def fix_text(fix: Mapping[str, object]) -> str:
    """A fix as a line: "LEARNING_RATE = 1e-05, remove_rows (31)"."""
    parts = []
    for name, value in fix.items():
        many = isinstance(value, (list, tuple, dict)) and len(value) > 3
        number = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{name} ({len(value)})" if many else name if value is True else f"{name} = {number}")
    return ", ".join(parts)


def changed(parameters: Mapping[str, object], fix: Mapping[str, object]) -> dict[str, object]:
    """Notebook parameters with those of the fix; a name that ends in _FACTOR multiplies (EPOCHS_FACTOR).

    Data actions are left to `repairs.mend`.
    """
    new = dict(parameters)
    for name, value in fix.items():
        known = name.removesuffix("_FACTOR")
        if name.isupper():
            new[known] = value if known == name else type(parameters[known])(parameters[known] * value)
    return new
