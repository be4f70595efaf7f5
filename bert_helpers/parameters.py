"""The parameters of a notebook or a training: names, types and ranges checked before anything else runs."""

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec

from bert_helpers.errors import ParameterError

CHOICES = {"PRECISION": ("auto", "bf16", "fp16", "fp32"), "TRUNCATION": ("head", "tail", "head+tail")}
TRACKERS = ("tensorboard", "mlflow", "trackio", "wandb")  # of those that Transformers reports to
NEEDED = ("MODEL", "DATA", "OUTPUT_DIR")
# What every training has, where its notebook has no parameter of the name
DEFAULTS = {"GRADIENT_ACCUMULATION": 1, "EARLY_STOPPING": 0, "WEIGHT_DECAY": 0.01, "LABEL_SMOOTHING": 0.0,
            "DROPOUT": 0.1, "TRUNCATION": "head", "PRECISION": "auto", "DATALOADER_WORKERS": 0, "FSDP": False,
            "SEED": 0, "REPORT_TO": "none"}  # fmt: skip
SHARED = {"MODEL": "sentence-transformers/all-MiniLM-L6-v2", "DATA": "sample",
          "TRAIN_SIZE": 0, "VALIDATION_SIZE": 0, "TEST_SIZE": 0, "BATCH_SIZE": 16}  # fmt: skip
# By task, with the defaults of its notebook: 1, 3, 4, 3
OWN = {
    "classification": {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label", "EPOCHS": 6, "LEARNING_RATE": 1e-4,
                       "MAX_LENGTH": 256},
    "regression": {"TEXT_COLUMN": "text", "PAIR_COLUMN": "text_pair", "LABEL_COLUMN": "label", "LOW": 0.0, "HIGH": 5.0,
                   "EPOCHS": 8, "LEARNING_RATE": 2e-4, "MAX_LENGTH": 128},
    "ner": {"TOKENS_COLUMN": "tokens", "TAGS_COLUMN": "ner_tags", "EPOCHS": 10, "LEARNING_RATE": 3e-4,
            "MAX_LENGTH": 128, "STRIDE": 32},
    "qa": {"EPOCHS": 4, "LEARNING_RATE": 3e-4, "MAX_LENGTH": 256, "STRIDE": 64},
}  # fmt: skip
# Only texts are cut at a chosen end; only losses over classes can be smoothed.
ONLY = {"TRUNCATION": ("classification",), "LABEL_SMOOTHING": ("classification", "ner")}
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
    "WEIGHT_DECAY": (0.0, 1.0),
    "LABEL_SMOOTHING": (0.0, 0.9),
    "DROPOUT": (0.0, 0.9),
    "DATALOADER_WORKERS": (0, 256),
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


def of_training(task: str) -> dict[str, object]:
    """The parameters that a training of the task takes, and their defaults."""
    optional = {name: value for name, value in DEFAULTS.items() if task in ONLY.get(name, (task,))}
    return {**SHARED, **OWN[task], **optional, "OUTPUT_DIR": f"results/{task}"}


def training_parameters(task: str, given: Mapping[str, object]) -> dict[str, object]:
    """All parameters of a training, with the values `given` (text is read) in place of defaults, checked.

    Raises ParameterError.
    """
    defaults = of_training(task)
    check_names(given, defaults)
    kinds = {name: type(value) for name, value in defaults.items()}
    values = {**defaults, **{name: read(value, kinds[name]) for name, value in given.items()}}
    return check_parameters({"__annotations__": kinds, **values})


def read(value: object, kind: type) -> object:
    """What stands on a command line is text; a number that is none is left as it is, for the check to name."""
    try:
        return kind(value) if isinstance(value, str) and kind in (int, float) else value
    except ValueError:
        return value


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
    written = kind is float and re.fullmatch(r"[-+\d.]+e[-+\d]+", str(value))
    hint = "; in YAML write 5.0e-5, not 5e-5" if written else ""
    raise ParameterError(f"{name} is {value!r}, a {type(value).__name__}; it must be {kind.__name__}{hint}.")


def _check_range(name: str, value: object) -> None:
    for known, choices in CHOICES.items():
        if name.endswith(known) and value not in choices:
            raise ParameterError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    if isinstance(value, str) and "\0" in value:
        raise ParameterError(f"{name} is {value!r}, which holds a NUL character; write it anew.")
    if name == "REPORT_TO":
        trackers(value)
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


def trackers(names: str) -> list[str]:
    """The experiment trackers of REPORT_TO: "none", or one or several with commas between.

    Raises ParameterError for an unknown one, and for one whose package is not installed.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    for name in chosen:
        if name not in TRACKERS:
            raise ParameterError(f"REPORT_TO is {names!r}; it must be none, or some of {', '.join(TRACKERS)}.")
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # without origin: a folder of logs here that has the package's name
            raise ParameterError(f"REPORT_TO is {names!r}, and {name} is not installed: pip install {name}")
    return chosen


def _below_results(path: str) -> bool:
    """Whether a relative path stays in results/, however many dots it has."""
    path = path.replace("\\", "/")  # Windows takes both
    parts = os.path.normpath(path).replace("\\", "/").split("/")
    return len(parts) > 1 and parts[0] == "results" and ":" not in path
