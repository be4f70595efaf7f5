"""The command line: run the notebooks, or train, evaluate, predict, diagnose and compare without them."""

import argparse
import difflib
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn, TextIO

from bert_helpers import parameters
from bert_helpers.errors import BertHelpersError, DataError, Interrupted, visible

PROGRAM = "python -m bert_helpers"
FORMATS = "what a file must hold: docs/your_data.md"
RESULTS = Path("results")
COMMANDS = {
    "run": "execute notebooks headless and print a table of their metrics",
    "train": "train on one task and leave the same folder as the notebooks",
    "evaluate": "print the metrics of a run's test rows, with 95% intervals",
    "predict": "predict for new texts with a trained model, in the order given",
    "diagnose": "print what is wrong with a run: findings with evidence and fix",
    "compare": "print whether two runs differ by more than chance on the same test rows",
    "info": "print what a source is, how it would be read and what is wrong with it; for the folder of a run, what it "
    "measured; without SOURCE, the versions, device, precision, packaged model and samples",
    "gallery": "write index.html, a page of all recorded runs",
}
EXAMPLES = {
    "run": """
  {p} notebooks/01_fine_tune.ipynb notebooks/04_ner.ipynb
  {p} notebooks/01_fine_tune.ipynb -p EPOCHS 3 -p DATA tickets.csv""",
    "train": """
  {p} classification --data tickets.csv --text-column message --label-column team --output-dir results/tickets
  {p} regression --data pairs.csv --low 0 --high 1 --output-dir results/pairs
  {p} ner --data sentences.conll --epochs 3 --output-dir results/names
  {p} qa --data squad.json --max-length 384 --stride 128 --output-dir results/answers
  {p} ner --help""",
    "evaluate": """
  {p} results/01_fine_tune
  {p} results/tickets --data elsewhere/tickets.csv --json""",
    "predict": """
  {p} results/tickets "The invoice is wrong." "Where is my parcel?"
  {p} results/tickets --file new.csv --text-column message --out labelled.csv
  {p} results/answers "Which pier?" "The ferry leaves pier 4 at noon."
  {p} results/names < sentences.txt | head""",
    "diagnose": """
  {p} results/01_fine_tune
  {p} results/tickets --data elsewhere/tickets.csv --json""",
    "compare": """
  {p} results/tickets results/tickets-512""",
    "info": """
  {p} tickets.csv
  {p} tickets.csv --task classification --text-column message --label-column team --json
  {p} results/tickets
  {p}""",
    "gallery": """
  {p}
  {p} elsewhere/results""",
}
EXAMPLE = """
  {p} --data mine.csv --output-dir results/mine
  {p} --data owner/name --epochs 3 --learning-rate 2e-5"""  # of one task


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, as errors in the data are."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"usage: {self.prog} (--help says more): {message}\n")


class Harmless:
    """A terminal stream on which no foreign name, text or error can move the cursor or hide anything.

    It also covers what libraries write. A bare carriage return is passed through: progress bars need it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text through `errors.visible`."""
        return self._stream.write("\r".join(map(visible, text.split("\r"))))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0; 1 if a notebook failed; 2 for bad input; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP; 141 if the reader
    of the output has gone.
    """
    options = _parse(argv)
    exact = options.command == "predict" and not sys.stdout.isatty()  # a program reads the rows
    with redirect_stdout(sys.stdout if exact else Harmless(sys.stdout)), redirect_stderr(Harmless(sys.stderr)):
        try:
            status = {"run": _run, "gallery": _gallery}.get(options.command, _command)(options)
            sys.stdout.flush()
            return status
        except BertHelpersError as error:
            if options.debug:
                raise
            reads_data = isinstance(error, DataError) and options.command in ("train", "predict")
            message = error.sentence(_spelling(options.parser)) + f" ({FORMATS})" * reads_data
            print(f"{type(error).__name__}: {message}", file=sys.stderr)
            return 128 + error.signal if isinstance(error, Interrupted) else 2
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would fail again
            return 141  # 128 + SIGPIPE, as for any program in a shell


def _spelling(parser: argparse.ArgumentParser) -> Callable[[str], str]:
    """Return the function that spells a parameter as the command's option, if it has one: --data also for RUN_DATA."""

    def spell(name: str) -> str:
        row = parameters.PARAMETERS.get(name)
        known = name.partition("_")[2] if row is None or row.tasks == () else name  # a notebook's own has a prefix
        options = map(parameters.option_of, (name, known))
        return next((option for option in options if option in parser._option_string_actions), name)

    return spell


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options, rest = _parser().parse_known_args(argv)
    if options.command == "predict":  # argparse regards texts after options as unknown arguments
        end = rest.index("--") if "--" in rest else len(rest)
        options.text += [word for word in rest[:end] if not word.startswith("-")] + rest[end + 1 :]
        rest = [word for word in rest[:end] if word.startswith("-")]
        if options.text and options.file:
            options.parser.error("give either texts or --file, not both")
    if rest:
        near = difflib.get_close_matches(rest[0].split("=")[0], options.parser._option_string_actions, n=1)
        options.parser.error(f"unknown argument {rest[0]}" + (f"; did you mean {near[0]}?" if near else ""))
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bert_helpers", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")
    added = {name: _add(commands, name, text) for name, text in COMMANDS.items()}
    added["run"].add_argument("notebooks", nargs="+", type=Path)
    pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    added["run"].add_argument("-p", "--parameter", help="set a parameter of the notebooks", **pair)
    added["run"].add_argument("-f", "--file", type=Path, help="YAML file of parameters; -p overrides it")
    tasks = added["train"].add_subparsers(dest="task", required=True, parser_class=_Parser, metavar="TASK")
    for task in parameters.task_names():
        own = _add(tasks, task, f"train a model for {task}", parent="train")
        for name, default in parameters.of_training(task).items():
            _add_parameter(own, name, default)
    _add_predict(added["predict"])
    for name, folders in {"evaluate": ["folder"], "diagnose": ["folder"], "compare": ["first", "second"]}.items():
        for folder in folders:
            added[name].add_argument(folder, metavar="FOLDER", help="a run, with model, history and metrics.json")
        added[name].add_argument("--data", metavar="SOURCE", default="", help="its data, if they have moved")
    _add_info(added["info"])
    for name in ("evaluate", "diagnose", "compare", "info"):
        added[name].add_argument("--json", action="store_true", help="print JSON")
    help_ = "folder of the runs (results)"
    added["gallery"].add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=RESULTS, help=help_)
    return parser


def _add(commands: argparse._SubParsersAction, name: str, text: str, parent: str = "") -> argparse.ArgumentParser:
    full = f"{parent} {name}".strip()
    parser = commands.add_parser(
        name,
        help=text.replace("%", "%%"),
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="examples:" + EXAMPLES.get(full, EXAMPLE).format(p=f"{PROGRAM} {full}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    parser.set_defaults(parser=parser)
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a run, or a fine-tuned model")
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="*",
        default=[],  # or argparse calls it required
        help="a text; pairs, or question and context, one after the other. Without any: standard input, one text per "
        "line (two with a tab between), JSON, or a table if an option names a column or the delimiter",
    )
    parser.add_argument("--file", metavar="FILE", help="CSV, TSV, JSON Lines, Parquet or .txt; - for standard input")
    parser.add_argument("--out", metavar="FILE", help="write to this file, all or nothing (standard output)")
    help_ = "output format (by the ending of --out; else csv, or jsonl for entities)"
    parser.add_argument("--format", choices=("csv", "jsonl"), help=help_)
    for name, default in parameters.of_predicting().items():
        if name.endswith("_COLUMN"):
            default = ", else ".join(filter(None, ("as in the run", parameters.PARAMETERS[name].default)))
        _add_parameter(parser, name, default)


def _add_info(parser: argparse.ArgumentParser) -> None:
    help_ = "sample, a file, a folder or a Hub id; or the folder of a run"
    parser.add_argument("source", metavar="SOURCE", nargs="?", help=help_)
    parser.add_argument("--task", choices=parameters.task_names(), help="read it for this task; without it, try all")
    for name, default in parameters.of_info().items():
        _add_parameter(parser, name, default)


def _add_parameter(parser: argparse.ArgumentParser, name: str, default: object) -> None:
    """Add the option of a parameter, with its help from the table and its default, as a value or in words."""
    row = parameters.PARAMETERS[name]
    text = f"{row.help}: {', '.join(filter(None, row.choices))}" if row.choices else row.help
    if row.type is bool:
        kind = {"action": "store_true", "help": text}
    else:
        kind = {"metavar": row.type.__name__.upper(), "help": f"{text} ({default})" if default != "" else text}
    parser.add_argument(parameters.option_of(name), dest=name, default=argparse.SUPPRESS, **kind)


def _run(options: argparse.Namespace) -> int:
    from bert_helpers.cli.notebooks import read_parameters, run_notebooks, summary  # papermill takes a second to import

    given = read_parameters(options.file) if options.file else {}
    rows = run_notebooks(options.notebooks, {**given, **dict(options.parameter)})
    print("\n" + summary(rows) + "\n")
    try:
        _gallery(argparse.Namespace(folder=RESULTS))
    except BertHelpersError as error:  # the notebooks have run: they alone decide the status
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    errors = [row["error"] for row in rows if row["error"]]
    refused = [error for error in errors if error.startswith(("DataError:", "ModelError:", "ParameterError:"))]
    if any(error.startswith("DataError:") for error in errors):
        print(f"\n{FORMATS}", file=sys.stderr)
    return 0 if not errors else 2 if refused == errors else 1


def _gallery(options: argparse.Namespace) -> int:
    from bert_helpers.report.gallery import write_gallery

    if not options.folder.exists():
        fix = "run this in the folder above it, or name the folder of the runs"
        raise DataError("no such folder", source=str(options.folder), fix=fix)
    print(write_gallery(options.folder))
    return 0


def _command(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name.isupper()}
    if options.command == "train":
        options.parameters = parameters.training_parameters(options.task, given)
    elif options.command == "predict":
        options.parameters = parameters.complete(parameters.of_predicting(), given)
    elif options.command == "info":
        known = parameters.of_training(options.task) if options.task else parameters.of_info()
        values = parameters.complete(known, given)
        options.parameters = {name: values[name] for name in given}
    from bert_helpers.cli import inputs  # its libraries take a second,

    inputs.prepare()
    options.spell = _spelling(options.parser)
    if options.command == "info" and options.source:
        from bert_helpers.cli import info

        return info.info(options)
    inputs.look(options)
    gc.disable()  # modules stay in memory: looking for garbage among them takes a quarter of the time
    from bert_helpers.cli import commands  # PyTorch and Transformers another five

    gc.freeze()
    gc.enable()
    commands.prepare()
    return getattr(commands, options.command)(options)
