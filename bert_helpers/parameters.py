"""The one table of parameters, from which notebooks, the command line, its help and the records of runs are derived.

It imports no slow library, so that `--help` and refusals are quick.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from bert_helpers.errors import ParameterError

TRACKERS = ("tensorboard", "mlflow", "trackio", "wandb")  # a selection of those that Transformers supports


@dataclass(frozen=True)
class Parameter:
    """A row of the table; the default determines the type."""

    default: object  # {task} in it stands for the name of the task
    help: str
    range: tuple[float, float] | None = None  # lowest and highest
    choices: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None  # the tasks whose training takes it; None: all; (): notebooks only
    defaults: Mapping[str, object] = field(default_factory=dict)  # of tasks with another default
    required: bool = False  # may not be empty
    predicts: bool = False  # `predict` also takes it
    reads: bool = False  # determines how files are read: a field of `readers.source.Reading`
    check: Callable[[str], object] | None = None  # raises ParameterError for a value that cannot be used

    @property
    def type(self) -> type:
        """The type of its values: str, int, float or bool."""
        return type(self.default)

    def of_task(self, task: str) -> object:
        """Return the default for training the task."""
        value = self.defaults.get(task, self.default)
        return value.replace("{task}", task) if isinstance(value, str) else value


def trackers(names: str) -> list[str]:
    """Return the experiment trackers in REPORT_TO, which is "none" or a list separated by commas.

    Raises ParameterError for an unknown tracker, and for one whose package is not installed.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    for name in chosen:
        if name not in TRACKERS:
            raise _error("REPORT_TO", f"is {names!r}", f"it must be none, or some of {', '.join(TRACKERS)}")
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # no origin: a folder of logs with the package's name
            raise _error("REPORT_TO", f"is {names!r}, and {name} is not installed", f"pip install {name}")
    return chosen


def _check_encoding(name: str) -> None:
    try:
        b"".decode(name or "utf-8")
    except (LookupError, ValueError) as error:
        fix = "name one that Python knows, such as utf-8, cp1252, gb18030"
        raise _error("ENCODING", f"is {name!r}", fix) from error


def _check_delimiter(sign: str) -> None:
    if len(sign) > 1 and sign not in ("tab", r"\t"):
        raise _error("DELIMITER", f"is {sign!r}", "it must be one character, or tab")


KINDS = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}
TEXTS = ("classification", "multilabel", "regression")  # tasks whose rows are texts
ONE_LABEL = ("classification", "regression")  # tasks whose rows have one label
CLASSES = ("classification", "ner")  # tasks whose logits are those of classes
ROWS = (0, 10**9)

# In a notebook of several tasks, names that differ have a prefix: QA_EPOCHS is EPOCHS of question answering.
PARAMETERS: dict[str, Parameter] = {
    "MODEL": Parameter(
        "sentence-transformers/all-MiniLM-L6-v2", "packaged model, a folder, or a Hub id", required=True
    ),
    "DATA": Parameter("sample", "sample, a file, a folder with a file per split, or a Hub id", required=True),
    "TEXT_COLUMN": Parameter("text", "column of the text", tasks=TEXTS, predicts=True),
    "PAIR_COLUMN": Parameter(
        "", "column of a second text, if any", tasks=TEXTS, defaults={"regression": "text_pair"}, predicts=True
    ),
    "LABEL_COLUMN": Parameter(
        "label",
        "column of the class, the labels or the score; for labels also columns of 0 and 1, separated by commas",
        tasks=TEXTS,
        defaults={"multilabel": "labels"},
    ),
    "LABEL_DELIMITER": Parameter(
        "", "character between the labels of a row; empty: the one that occurs", tasks=("multilabel",)
    ),
    "TOKENS_COLUMN": Parameter("tokens", "column of the words", tasks=("ner",), predicts=True),
    "TAGS_COLUMN": Parameter("ner_tags", "column of their tags", tasks=("ner",)),
    "TAG_NAMES": Parameter("", "names of tags that are numbers, in order: O,B-PER,I-PER", tasks=("ner",)),
    "WORDS": Parameter(
        "tokenizer",
        "how texts are split into words: as the tokenizer does, at blanks and punctuation, or at blanks",
        choices=("tokenizer", "punctuation", "blanks"),
        tasks=("ner",),
    ),
    "NEAREST_ANSWER": Parameter(
        False, "if the context contains an answer several times, take the one nearest to answer_start", tasks=("qa",)
    ),
    "ENCODING": Parameter(
        "", "of text files, if not UTF-8 (cp1252 is tried anyway)", predicts=True, reads=True, check=_check_encoding
    ),
    "DELIMITER": Parameter(
        "", "character between the columns of a text file, or tab", predicts=True, reads=True, check=_check_delimiter
    ),
    "HEADER": Parameter(
        "",
        "whether the first line names the columns; without names they are numbered: 1, 2",
        choices=("", "yes", "no"),
        predicts=True,
        reads=True,
    ),
    "SHEET": Parameter("", "of an Excel file: its name, or number from 1", predicts=True, reads=True),
    "DROP_EMPTY": Parameter(False, "leave out rows without a text, or without a label", reads=True),
    "DROP_LABELS": Parameter(
        "", "labels whose rows are left out, separated by commas, such as -", tasks=ONE_LABEL, reads=True
    ),
    "KEEP_LABELS": Parameter("", "classes that are really named -, -1, nan, None or NA", tasks=ONE_LABEL, reads=True),
    "KEEP_COLUMNS": Parameter(False, "also write the other columns of the file", tasks=(), predicts=True),
    "LOW": Parameter(0.0, "lowest possible score", tasks=("regression",)),
    "HIGH": Parameter(5.0, "highest possible score", tasks=("regression",)),
    "TRAIN_SIZE": Parameter(0, "rows to train on, 0 for all", ROWS),
    "VALIDATION_SIZE": Parameter(0, "rows to validate on; 0: the whole split, or a tenth of the training rows", ROWS),
    "TEST_SIZE": Parameter(0, "rows to test on; 0: the whole split, or a tenth of the training rows", ROWS),
    "EPOCHS": Parameter(
        3,
        "passes over the training rows",
        (1, 1000),
        defaults={"classification": 6, "multilabel": 6, "regression": 8, "ner": 10},
    ),
    "BATCH_SIZE": Parameter(16, "rows per forward pass", (1, 4096), predicts=True),
    "GRADIENT_ACCUMULATION": Parameter(1, "batches per optimizer step", (1, 4096)),
    "LEARNING_RATE": Parameter(
        1e-4,
        "highest learning rate; for bert-base use 2e-5",
        (1e-8, 1.0),
        defaults={"regression": 2e-4, "ner": 3e-4, "qa": 3e-4},
    ),
    "MAX_LENGTH": Parameter(
        256, "tokens of a text, or window, that the model sees", (3, 10**5), defaults={"regression": 128, "ner": 128}
    ),
    "STRIDE": Parameter(
        64, "tokens shared by neighbouring windows", (0, 10**5), tasks=("ner", "qa"), defaults={"ner": 32}
    ),
    "TRUNCATION": Parameter("head", "what to keep of a long text", choices=("head", "tail", "head+tail"), tasks=TEXTS),
    "EARLY_STOPPING": Parameter(
        0, "stop after this many epochs without a lower validation loss and keep the best; 0: never", (0, 1000)
    ),
    "WEIGHT_DECAY": Parameter(0.01, "of AdamW", (0.0, 1.0)),
    "LABEL_SMOOTHING": Parameter(0.0, "share of each label spread over all classes", (0.0, 0.9), tasks=CLASSES),
    "CLASS_WEIGHTS": Parameter(
        "none",
        "how much a row counts in the loss: none, balanced (rare classes more), or class: weight, separated by commas",
        tasks=("classification",),
    ),
    "POSITIVE_WEIGHTS": Parameter(
        "none",
        "balanced: rows with a label weigh as much as those without",
        choices=("none", "balanced"),
        tasks=("multilabel",),
    ),
    "THRESHOLDS": Parameter(
        "each",
        "fitted on validation rows: one for each label, one for all, or none (a half)",
        choices=("each", "one", "none"),
        tasks=("multilabel",),
    ),
    "DROPOUT": Parameter(0.1, "share of hidden units dropped", (0.0, 0.9)),
    "PRECISION": Parameter("auto", "numbers to compute in", choices=("auto", "bf16", "fp16", "fp32"), predicts=True),
    "DATALOADER_WORKERS": Parameter(0, "processes that prepare batches", (0, 256)),
    "SEED": Parameter(0, "of all randomness", (0, 2**31 - 1)),
    "REPORT_TO": Parameter(
        "none", f"experiment trackers, separated by commas: {', '.join(TRACKERS)}; or none", check=trackers
    ),
    "OUTPUT_DIR": Parameter("results/{task}", "folder for model, history, predictions and record", required=True),
    "READING": Parameter("", "how files are read: options and values, separated by commas", tasks=()),
    "OPTIONS": Parameter("", "of a training in a notebook of several: names and values, separated by commas", tasks=()),
    "TRAINED": Parameter("", "folder of a fine-tuned model, instead of training one", tasks=()),
    "SLICE_COLUMN": Parameter("", "column to break the numbers down by", tasks=()),
    "TRANSFER_DATA": Parameter("", "rows of another domain, for a second test", tasks=()),
    "TRANSFER_TYPES": Parameter("", "their entity types in terms of the model's", tasks=()),
    "IMBALANCE": Parameter(6, "keep one in this many rows of the rarest class; 0: skip", (0, 10**6), tasks=()),
    "DIFFERENCE": Parameter(0.1, "of accuracy, that the test rows should be able to show", (0.001, 1.0), tasks=()),
    "RUN": Parameter("", "folder of a run to diagnose", tasks=()),
    "RUN_DATA": Parameter("", "where its data is now", tasks=()),
    "RUN_MODEL": Parameter("", "where the model that it started from is now", tasks=()),
}


def task_names() -> list[str]:
    """Return the tasks that the table names, which are all that can be trained."""
    return list(dict.fromkeys(task for row in PARAMETERS.values() for task in (*(row.tasks or ()), *row.defaults)))


def of_training(task: str) -> dict[str, object]:
    """Return the parameters for training the task, with their defaults."""
    return {name: row.of_task(task) for name, row in PARAMETERS.items() if row.tasks is None or task in row.tasks}


def of_reading() -> dict[str, object]:
    """Return the parameters that determine how files are read, with their defaults."""
    return {name: row.default for name, row in PARAMETERS.items() if row.reads}


def reading_options(text: str) -> dict[str, object]:
    """Return keywords of `Task.load` from the parameter READING, which lists options. Raises ParameterError.

    >>> reading_options("encoding cp1252, header no")
    {'encoding': 'cp1252', 'header': 'no'}
    """
    given = _options(text)
    values = complete(of_reading(), given)
    return {name.lower(): values[name] for name in given}


def of_info() -> dict[str, object]:
    """Return the parameters that determine what `info` reads of a source, with their defaults."""
    columns = {name: row.default for name, row in PARAMETERS.items() if name.endswith("_COLUMN") and row.tasks}
    others = ("LABEL_DELIMITER", "TAG_NAMES", "WORDS", "NEAREST_ANSWER", "LOW", "HIGH")
    return {**columns, **of_reading(), **{name: PARAMETERS[name].default for name in others}}


def column_parameter(field: str) -> str:
    """Return the parameter that names the column of a task's field, one of its defaults; "" if there is none."""
    columns = {name: (row.default, *row.defaults.values()) for name, row in PARAMETERS.items()}
    names = (name for name, defaults in columns.items() if name.endswith("_COLUMN") and field in defaults)
    return next(names, "")


def option_of(name: str) -> str:
    """Return the command line's option for a parameter: --text-column for TEXT_COLUMN."""
    return "--" + name.lower().replace("_", "-")


def row_of(name: str) -> Parameter | None:
    """Return the row of a notebook's parameter, whose name may have a prefix; None if the table has no such row."""
    return PARAMETERS.get(name) or PARAMETERS.get(name.partition("_")[2])


def check_parameters(namespace: Mapping[str, object]) -> dict[str, object]:
    """Return the declared parameters of a notebook and their values, in order; call it with `globals()`.

    Declared are the names that the parameters cell annotates (`EPOCHS: int = 3`). Any other upper-case name was
    injected by papermill and is not used in the notebook. READING, if declared, is replaced by the options it lists.

    Raises ParameterError for an unknown name, a wrong type, or a number out of range.
    """
    annotate = namespace.get("__annotate__")  # in Python 3.14, which evaluates annotations on demand
    declared = namespace.get("__annotations__") or (annotate(1) if annotate else {})
    check_names([name for name in namespace if name.isupper() and not name.startswith("_")], declared)
    values = {name: check(name, namespace[name], kind) for name, kind in declared.items()}
    return values | {name.upper(): value for name, value in reading_options(values.pop("READING", "")).items()}


def training_parameters(task: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return all parameters for training the task: `complete` of their defaults."""
    return complete(of_training(task), given)


def training_options(task: str, text: str) -> dict[str, object]:
    """Return all parameters for training the task from a list of options, as in a notebook of several tasks.

    Raises ParameterError, as `complete` does.

    >>> training_options("qa", "epochs 2, stride 16")["STRIDE"]
    16
    """
    return training_parameters(task, _options(text))


def _options(text: str) -> dict[str, str]:
    pairs = [pair.strip().partition(" ") for pair in text.split(",") if pair.strip()]
    return {name.upper(): value.strip() for name, _, value in pairs}


def of_predicting() -> dict[str, object]:
    """Return the parameters of `predict`, with their defaults; a column of "" is the one used in training."""
    rows = {name: row for name, row in PARAMETERS.items() if row.predicts}
    return {name: "" if name.endswith("_COLUMN") else row.default for name, row in rows.items()}


def complete(defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters with `given` values in place of `defaults`, converted from text if needed, and checked.

    Raises ParameterError for a name without default, and as `check` does.
    """
    check_names(given, defaults)
    values = {**defaults, **{name: read(value, type(defaults[name])) for name, value in given.items()}}
    return {name: check(name, value, type(defaults[name])) for name, value in values.items()}


def read(value: object, kind: type) -> object:
    """Convert text of the command line to a number or a boolean; what is neither is left for `check` to refuse."""
    if kind is bool:
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    try:
        return kind(value) if isinstance(value, str) and kind in (int, float) else value
    except ValueError:
        return value


def check_names(given: Iterable[str], declared: Collection[str]) -> None:
    """Raise ParameterError for the first name that is not declared."""
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name.upper(), declared, n=1)
            fix = f"did you mean {near[0]}?" if near else f"there are {', '.join(declared)}"
            raise _error(name, "is no parameter of this notebook", fix)


def check(name: str, value: object, kind: type | None = None) -> object:
    """Return the value of a parameter if it is valid, a whole number as float if that is the type.

    `kind` is the type of a notebook's own parameter, which is not in the table. Raises ParameterError.
    """
    row = row_of(name)
    value = _typed(name, value, kind or row.type)
    if isinstance(value, str) and "\0" in value:
        raise _error(name, f"is {value!r}, which holds a NUL character", "write it anew")
    if row is None:
        return value
    if row.choices and value not in row.choices:
        raise _error(name, f"is {value!r}", f"it must be one of {', '.join(filter(None, row.choices))}")
    if row.required and not value.strip():
        raise _error(name, "is empty", "leave it out for the default")
    if row.range and not row.range[0] <= value <= row.range[1]:  # NaN lies nowhere
        raise _error(name, f"is {value}", f"it must lie between {row.range[0]} and {row.range[1]}")
    if row.check:
        row.check(value)
    return value


def _typed(name: str, value: object, kind: type) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    written = kind is float and re.fullmatch(r"[-+\d.]+e[-+\d]+", str(value))
    hint = "; in YAML write 5.0e-5, not 5e-5" if written else ""
    raise _error(name, f"is {value!r}", f"it must be {KINDS[kind]}{hint}")


def _error(name: str, problem: str, fix: str) -> ParameterError:
    return ParameterError(problem, fix=fix, parameter=name)
