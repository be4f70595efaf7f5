"""A run that is killed at any of its changes to the disk, and restarted, ends like an undisturbed one."""

import json
import subprocess
import sys

import pytest


def sweep(tiny_bert, folder, every):
    command = [sys.executable, "tests/sweep.py", str(tiny_bert), str(folder), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["points"] > 30
    assert found["failed"] == [], done.stderr[-3000:]
    return found["tried"]


def test_a_run_killed_at_some_of_its_changes_of_the_disk(tiny_bert, tmp_path):
    assert sweep(tiny_bert, tmp_path, 29) > 1


@pytest.mark.slow
def test_a_run_killed_at_a_quarter_of_its_changes_of_the_disk(tiny_bert, tmp_path):
    """All take six minutes: `python tests/sweep.py BERT FOLDER 1`, after a change to files, records or runs."""
    assert sweep(tiny_bert, tmp_path, 4) > 8
