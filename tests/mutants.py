"""Break the package on purpose, one place at a time, and see whether the tests notice: `make mutants`.

The breaks were chosen by reading the package, before looking at its tests (2026-11-29, commit 22765f5); those whose
code was rewritten since break what it became. Each is a text that occurs once in the package, and what takes its
place. A break that no test notices is a hole in the tests. Tools that make breaks by rule (mutmut, cosmic-ray) run a
suite for each of thousands: days, with this one. Here the suite runs once, with `coverage` noting which tests execute
which line (six minutes); of each break only those tests run, and the whole suite where they notice nothing.

    python tests/mutants.py                      # all; needs pip install pytest-cov
    python tests/mutants.py column_types         # those whose text holds these words
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "results/mutants/coverage"
CONFIG = "[run]\nsource = bert_helpers\nparallel = true\npatch = subprocess\n"
BREAKS = [
    ("return (0, int(name), name) if", "return (0, 0, name) if"),
    ("not low <= score <= high", "not low < score <= high"),
    ("np.flatnonzero(np.bincount(labels)[labels] > 1)", "np.flatnonzero(np.bincount(labels)[labels] > 0)"),
    ('yield row + [""] * (len(names) - len(row))', "yield row + [row[0]] * (len(names) - len(row))"),
    ("if len(row) > len(names):", "if len(row) > len(names) + 1:"),
    ('"head+tail": lambda size: size // 4', '"head+tail": lambda size: size // 2'),
    ("start + stride // 2 for start", "start + stride for start"),
    ("if labels is not None and classes != list(labels)", "if labels is not None and len(classes) != len(labels)"),
    ("mask.mul_(256 / (256 - dropped))", "mask.mul_(1.0)"),
    ("accepts_loss_kwargs = False", "accepts_loss_kwargs = True"),
    ("hash((self.seed, self.epoch))", "hash((self.seed, 0))"),
    ("labels.numel() if num_items_in_batch is None else num_items_in_batch", "labels.numel()"),
    ("if not is_unchanged(checkpoint / name, digest):", "if False:"),
    (
        '{"input_ids", "labels", "start_positions", "end_positions"}',
        '{"input_ids", "start_positions", "end_positions"}',
    ),
    ("(self.size + 1) // 2, list(self.done)", "(self.size + 1) // 2, [inputs]"),
    ("f1[..., 1] if self.classes == 2", "f1[..., 0] if self.classes == 2"),
    (r'r"\b(a|an|the)\b"', r'r"\b(a|an)\b"'),
    ("stdtrit(max(units - 1, 1), (1 + LEVEL) / 2)", "stdtrit(max(units - 1, 1), LEVEL)"),
    ("((1 - LEVEL) / 2) ** (1 / agree)", "(1 - LEVEL) ** (1 / agree)"),
    ("incorrect - kind - boundary", "incorrect - kind"),
    ('begins = [tag[0] == "I" and before[2:] != tag[2:]', 'begins = [tag[0] == "I" and before == "O"'),
    ("if log_scores[i] > scores.get(span, -np.inf):", "if True:"),
    ("mul_(deviation).add_(mean)", "mul_(deviation)"),
    ("rows @ np.abs(gap) / rows.sum()", "np.abs(gap).mean()"),
    ("> 0) != (row.name in", "> 0) == (row.name in"),
    ("LEAKED, REPEATED, CONTRADICTING = 0.01, 0.05, 0.01", "LEAKED, REPEATED, CONTRADICTING = 0.01, 0.5, 0.01"),
    ("UNKNOWN = 0.01", "UNKNOWN = 0.1"),
    ("if min(last - lowest, last - train) > 2 * error:", "if max(last - lowest, last - train) > 2 * error:"),
    ("if draw >= share]", "if draw < share]"),
    ("isinstance(value, kind) and (kind is bool or not isinstance(value, bool))", "isinstance(value, kind)"),
    ("if path.is_relative_to(base) else path.name", "if path.is_relative_to(base) else value"),
    ('"STRIDE": limit // 4', '"STRIDE": limit // 2'),
]


Lines = dict[Path, set[int]]


def executed_by() -> CoverageData:
    """Run the unit tests once and note which of them execute which line; the notes of an earlier run are taken."""
    if not DATA.exists():
        DATA.parent.mkdir(parents=True, exist_ok=True)
        (DATA.parent / "config").write_text(CONFIG + f"data_file = {DATA}\n")
        options = ["--cov", f"--cov-config={DATA.parent / 'config'}", "--cov-context=test", "--cov-report="]
        if run(ROOT, *options).returncode:
            sys.exit("the tests have to pass before the package is broken")
    data = CoverageData(str(DATA))
    data.read()
    return data


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run pytest on the package in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def lines_of(old: str) -> Lines:
    """The place of a text in the package; of a constant, the lines that use it, since tests do not execute its own."""
    found = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("bert_helpers/**/*.py")}
    places = {path: text for path, text in found.items() if old in text}
    if len(places) != 1 or next(iter(places.values())).count(old) != 1:
        sys.exit(f"{old!r} is in {len(places)} files of the package, or more than once; it has to occur once.")
    ((path, text),) = places.items()
    line = text[: text.index(old)].count("\n") + 1
    inside = next((node for node in ast.parse(text).body if node.lineno <= line <= node.end_lineno), None)
    if not isinstance(inside, ast.Assign):
        return {path: set(range(line - 3, line + 4))}  # coverage notes a statement by its first line
    names = "|".join(name.id for name in ast.walk(inside) if isinstance(name, ast.Name) and name.id.isupper())
    use = re.compile(rf"\b({names})\b")
    return {
        path: {number for number, words in enumerate(text.splitlines(), 1) if use.search(words)}
        for path, text in found.items()
        if use.search(text)
    }


def first_failure(old: str, new: str, data: CoverageData) -> str:
    """Break a copy of the project and test it: the first test that fails, or ""."""
    lines = lines_of(old)
    tests = sorted(
        {
            context.rpartition("|")[0]  # what follows is the phase; an id may hold the character too
            for path, numbers in lines.items()
            for number, contexts in data.contexts_by_lineno(str(path)).items()
            for context in contexts
            if number in numbers and context
        }
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns(".venv", ".git", "results", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
        (path,) = (path for path in folder.glob("bert_helpers/**/*.py") if old in path.read_text(encoding="utf-8"))
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        (folder / "chosen").write_text("\n".join(tests))
        for words in ([f"@{folder / 'chosen'}"] if tests else [], []):
            done = run(folder, "-x", *words)
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            if failed:
                return failed[0].split(" - ")[0]
            if done.returncode:  # pytest itself failed: that is no test that noticed
                sys.exit(f"{old!r}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return ""


def main(wanted: str) -> int:
    """Print one line per break; the exit status is the number of those that no test noticed."""
    missed, data = 0, executed_by()
    for old, new in BREAKS:
        if wanted in old:
            started = time.monotonic()
            failure = first_failure(old, new, data)
            missed += not failure
            print(f"{old} -> {new}: {failure or 'NOT NOTICED'} ({time.monotonic() - started:.0f} s)", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
