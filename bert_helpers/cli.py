"""The command line: `python -m bert_helpers run notebooks/01_fine_tune.ipynb -p EPOCHS 3`, then `… gallery`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bert_helpers.errors import BertHelpersError

RESULTS = Path("results")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for a notebook that failed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="bert_helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks headless, end with a table of their metrics")
    run.add_argument("notebooks", nargs="+", type=Path)
    run.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks",
    )
    run.add_argument("-f", "--file", type=Path, help="parameters from a YAML file; those of -p come after it")
    gallery = commands.add_parser("gallery", help="write index.html, a page over all recorded runs")
    gallery.add_argument("folder", nargs="?", type=Path, default=RESULTS, help="where the runs are: results")
    for command, function in ((run, _run), (gallery, _gallery)):
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        command.set_defaults(function=function)
    arguments = parser.parse_args(argv)
    try:
        return arguments.function(arguments)
    except BertHelpersError as error:
        if arguments.debug:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from bert_helpers.notebooks import read_parameters, run_notebooks, summary  # papermill takes a second to import

    parameters = read_parameters(arguments.file) if arguments.file else {}
    rows = run_notebooks(arguments.notebooks, {**parameters, **dict(arguments.parameter)})
    print("\n" + summary(rows) + "\n")
    _gallery(argparse.Namespace(folder=RESULTS))
    errors = [row["error"] for row in rows if row["error"]]
    refused = [error for error in errors if error.startswith(("DataError:", "ModelError:", "ParameterError:"))]
    return 0 if not errors else 2 if refused == errors else 1


def _gallery(arguments: argparse.Namespace) -> int:
    from bert_helpers.gallery import write_gallery

    print(write_gallery(arguments.folder))
    return 0
