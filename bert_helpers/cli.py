"""The command line: `python -m bert_helpers run notebooks/01_fine_tune.ipynb …`."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bert_helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks headless, end with a table of their metrics")
    run.add_argument("notebooks", nargs="+", type=Path)
    return _run(parser.parse_args(argv).notebooks)


def _run(notebooks: Sequence[Path]) -> int:
    from bert_helpers.notebooks import run_notebooks, summary  # papermill takes a second to import

    rows = run_notebooks(notebooks)
    print("\n" + summary(rows))
    return 1 if any(row["error"] for row in rows) else 0
