"""Child processes of test_sweep: train and save a run, be killed at the n-th change to the disk, continue.

python tests/sweep.py BERT FOLDER EVERY prints one line of JSON. One in EVERY of the points is tried.
"""

import json
import os
import shutil
import signal
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path

import torch

from bert_helpers import files, records, runs
from bert_helpers.report import cards
from bert_helpers.tasks.registry import TASKS

CHANGES = ("replace", "rename", "fsync", "unlink", "remove", "rmdir", "mkdir")
PARAMETERS = {"EPOCHS": 1, "BATCH_SIZE": 16, "MAX_LENGTH": 16, "PRECISION": "fp32", "OUTPUT_DIR": "run"}
MINE = ("notes.txt", "model/LICENSE", "checkpoints/notes.txt", "checkpoints/checkpoint-9000/model.safetensors")


def train(bert, seed):
    task = TASKS["classification"]
    dataset = task.load("sample", train_size=48, validation_size=8, test_size=8)
    run = runs.prepare(dataset, {**PARAMETERS, "MODEL": str(bert), "SEED": seed})
    run.trainer.checkpoint_minutes = 0  # at every step
    runs.save(runs.finish(run, saved_later=True), files.base_folder() / "run", publish=cards.publish)


def kill_at(point, count):
    """End the process before the change of that number; if it survives, write down how many there were."""

    def change(real, *args, **kwargs):
        count[0] += 1
        if count[0] == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    for name in CHANGES:
        setattr(os, name, partial(change, getattr(os, name)))


def life(bert, folder, point):
    """Train in a separate process, which is killed at a point; return the number of points, 0 if it was killed."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            warnings.simplefilter("ignore")
            torch.set_num_threads(1)
            os.chdir(folder)
            kill_at(point, count := [0])
            train(bert, seed=1)
            os.write(write, str(count[0]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        counted = int(pipe.read() or 0)
    os.waitpid(child, 0)
    return counted


def hold(run):
    """Return whether all files of the run are those that its record names."""
    files.finish_replacing(run)
    known = records.read(run).files
    return all(files.is_unchanged(run / name, digest) for name, digest in known.items())


def numbers(run):
    record = records.read(run)
    weights = files.digest(run / "model/model.safetensors")
    return weights, record.metrics, record.training


def main(bert, folder, every):
    start = folder / "start"
    (start / "run").mkdir(parents=True)
    if (child := os.fork()) == 0:  # an earlier run, of another seed
        torch.set_num_threads(1)
        os.chdir(start)
        train(bert, seed=0)
        os._exit(0)
    os.waitpid(child, 0)
    for name in MINE:
        (start / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (start / "run" / name).write_text("mine")
    reference = shutil.copytree(start, folder / "reference")
    points = life(bert, reference, 0)
    failed = []
    for point in range(1, points + 1, every):
        place = shutil.copytree(start, folder / str(point))
        killed = life(bert, place, point) == 0
        whole = hold(place / "run")
        ended = life(bert, place, 0) > 0
        same = numbers(place / "run") == numbers(reference / "run")
        mine = all((place / "run" / name).read_text() == "mine" for name in MINE)
        left = {path.name for path in (place / "run").iterdir()} - {path.name for path in (reference / "run").iterdir()}
        if not (killed and whole and ended and same and mine and hold(place / "run") and not left):
            failed.append([point, killed, whole, ended, same, mine, sorted(left)])
        else:
            shutil.rmtree(place)
    print(json.dumps({"points": points, "tried": len(range(1, points + 1, every)), "failed": failed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3]))
