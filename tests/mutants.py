"""Break the package on purpose, one place at a time, and see whether the tests notice: `make mutants`.

The breaks were chosen by reading the package, before looking at its tests (2026-11-29, commit 22765f5). Each is a
text that occurs once in the package, and what takes its place. A break that no test notices is a hole in the tests.
Tools that draw breaks at random (mutmut, cosmic-ray) run the whole suite for each of thousands, which here would take
weeks; these thirty take about an hour.

    python tests/mutants.py                      # all
    python tests/mutants.py keep_default_na      # those whose text holds these words
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BREAKS = [
    ("return (0, int(name), name) if", "return (0, 0, name) if"),
    ("not low <= score <= high", "not low < score <= high"),
    ("np.flatnonzero(np.bincount(labels)[labels] > 1)", "np.flatnonzero(np.bincount(labels)[labels] > 0)"),
    ('"keep_default_na": False', '"keep_default_na": True'),
    ("if len(fields) > width:", "if len(fields) > width + 1:"),
    ('"head+tail": room // 4', '"head+tail": room // 2'),
    ("start + stride // 2 for start", "start + stride for start"),
    ("if labels is not None and classes != list(labels)", "if labels is not None and len(classes) != len(labels)"),
    ("mask.mul_(256 / (256 - dropped))", "mask.mul_(1.0)"),
    ("accepts_loss_kwargs = False", "accepts_loss_kwargs = True"),
    ("hash((self.seed, self.epoch))", "hash((self.seed, 0))"),
    ("(len(labels) if num_items_in_batch is None else num_items_in_batch)", "len(labels)"),
    ("if _digest(path) != digest:", "if False:"),
    (
        '{"input_ids", "labels", "start_positions", "end_positions"}',
        '{"input_ids", "start_positions", "end_positions"}',
    ),
    ("(size + 1) // 2, list(done)", "(size + 1) // 2, [inputs]"),
    ("f1[..., 1] if classes == 2", "f1[..., 0] if classes == 2"),
    (r'r"\b(a|an|the)\b"', r'r"\b(a|an)\b"'),
    ("stdtrit(max(units - 1, 1), (1 + level) / 2)", "stdtrit(max(units - 1, 1), level)"),
    ("((1 - level) / 2) ** (1 / agree)", "(1 - level) ** (1 / agree)"),
    ("incorrect - kind - boundary", "incorrect - kind"),
    ('tag[0] == "I" and before[2:] != tag[2:]', 'tag[0] == "I" and before == "O"'),
    ("max(log_scores[i], scores.get(span, -np.inf))", "log_scores[i]"),
    ("mul_(deviation).add_(mean)", "mul_(deviation)"),
    ("rows @ np.abs(gap) / rows.sum()", "np.abs(gap).mean()"),
    ("> 0) != (metric in", "> 0) == (metric in"),
    ("LEAKED, REPEATED, CONTRADICTING = 0.01, 0.05, 0.01", "LEAKED, REPEATED, CONTRADICTING = 0.01, 0.5, 0.01"),
    ("UNKNOWN = 0.01", "UNKNOWN = 0.1"),
    ("rise > 2 * error and gap > 2 * error", "rise > 2 * error or gap > 2 * error"),
    ("if draw >= share]", "if draw < share]"),
    ("isinstance(value, kind) and (kind is bool or not isinstance(value, bool))", "isinstance(value, kind)"),
    ("return Path(value).name if isinstance(value, str)", "return value if isinstance(value, str)"),
    ('"STRIDE": limit // 4', '"STRIDE": limit // 2'),
]


def broken(old: str, new: str, folder: Path) -> Path:
    """Copy the project to `folder` with one text of the package replaced; returns the file that was changed."""
    ignored = shutil.ignore_patterns(".venv", ".git", "results", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    found = [path for path in folder.glob("bert_helpers/**/*.py") if old in path.read_text(encoding="utf-8")]
    if len(found) != 1 or found[0].read_text(encoding="utf-8").count(old) != 1:
        sys.exit(f"{old!r} is in {len(found)} files of the package, or more than once; it has to occur once.")
    found[0].write_text(found[0].read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return found[0].relative_to(folder)


def first_failure(folder: Path) -> str:
    """Run the quick and the unit tests until one fails; its name, or "" when all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else "" if done.returncode == 0 else done.stdout[-200:]


def main(wanted: str) -> int:
    """Print one line per break; the exit status is the number of those that no test noticed."""
    missed = 0
    for old, new in BREAKS:
        if wanted not in old:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            file = broken(old, new, Path(folder))
            failure = first_failure(Path(folder))
        missed += not failure
        print(f"{file}: {old} -> {new}: {failure or 'NOT NOTICED'} ({time.monotonic() - started:.0f} s)", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
