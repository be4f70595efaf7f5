"""The parameters of a notebook: names, types and ranges checked before anything else runs."""

import difflib
import os
from collections.abc import Collection, Iterable, Mapping

from bert_helpers.errors import ParameterError

CHOICES = {"PRECISION": ("auto", "bf16", "fp16", "fp32"), "TRUNCATION": ("head", "tail", "head+tail")}
NEEDED = ("MODEL", "DATA", "OUTPUT_DIR")
# name -> (lowest, highest); a notebook's prefixed names (QA_EPOCHS) have the range of the name they end in
RANGES = {
    "TRAIN_SIZE": (0, 10**9),
    "VALIDATION_SIZE": (0, 10**9),
    "TEST_SIZE": (0, 10**9),
    "EPOCHS": (1, 1000),
    "BATCH_SIZE": (1, 4096),
    "GRADIENT_ACCUMULATION": (1, 4096),
    "LEARNING_RATE": (1e-8, 1.0),
    "MAX_LENGTH": (3, 10**5),
    "SEED": (0, 2**31 - 1),
    "EARLY_STOPPING": (0, 1000),
    "STRIDE": (0, 10**5),
    "DIFFERENCE": (0.001, 1.0),
    "IMBALANCE": (1, 10**6),
}


def check_parameters(namespace: Mapping[str, object]) -> dict[str, object]:
    """The declared parameters of a notebook and their values, in order; call it with `globals()`.

    Declared is what the parameters cell annotates (`EPOCHS: int = 3`). Any other upper-case name was injected
    by papermill and exists nowhere in the notebook.

    Raises ParameterError for an unknown name, a wrong type, or a number out of range.
    """
    declared = dict(namespace.get("__annotations__", {}))
    check_names([name for name in namespace if name.isupper() and not name.startswith("_")], declared)
    parameters = {name: _typed(name, namespace[name], kind) for name, kind in declared.items()}
    for name, value in parameters.items():
        _check_range(name, value)
    return parameters


def check_names(given: Iterable[str], declared: Collection[str]) -> None:
    """Raise ParameterError for the first name that is not declared."""
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name.upper(), declared, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(declared)}."
            raise ParameterError(f"{name}: this notebook has no such parameter; {hint}")


def _typed(name: str, value: object, kind: type) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    hint = "; in YAML write 5.0e-5, not 5e-5" if kind is float else ""
    raise ParameterError(f"{name} is {value!r}, a {type(value).__name__}; it must be {kind.__name__}{hint}.")


def _check_range(name: str, value: object) -> None:
    for known, choices in CHOICES.items():
        if name.endswith(known) and value not in choices:
            raise ParameterError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    if isinstance(value, str) and "\0" in value:
        raise ParameterError(f"{name} is {value!r}, which holds a NUL character; write it anew.")
    if name in NEEDED and not value.strip():
        raise ParameterError(f"{name} is empty; leave it out for the default.")
    if name == "OUTPUT_DIR" and not _below_results(value):
        raise ParameterError(
            f"{name} is {value!r}; it must be a folder below results/, such as results/mine. (For another disk, make "
            "results/ a link to it.)"
        )
    for known, (low, high) in RANGES.items():
        if (name == known or name.endswith("_" + known)) and not low <= value <= high:
            raise ParameterError(f"{name} is {value}; it must lie between {low} and {high}.")


def _below_results(path: str) -> bool:
    """Whether a relative path stays in results/, however many dots it has."""
    path = path.replace("\\", "/")  # Windows takes both
    parts = os.path.normpath(path).replace("\\", "/").split("/")
    return len(parts) > 1 and parts[0] == "results" and ":" not in path
