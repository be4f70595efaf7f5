import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from conftest import ROOT
from interrupted import make
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from bert_helpers import ParameterError, TrainingError, files, training
from bert_helpers.machine import checkpoints
from bert_helpers.tasks.classification import weighted_loss


class At(TrainerCallback):
    """Do something at the end of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def raise_(error):
    raise error


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def undisturbed(tiny_bert, tmp_path_factory):
    trainer = make(tiny_bert, tmp_path_factory.mktemp("undisturbed"))
    trainer.train()
    return weights(trainer), training.history(trainer)


@pytest.fixture(scope="module")
def interrupted(tiny_bert, tmp_path_factory):
    """Return a folder with the checkpoints of steps 10 and 11 of 69."""
    folder = tmp_path_factory.mktemp("interrupted")
    trainer = make(tiny_bert, folder, minutes=0)
    trainer.add_callback(At(12, lambda: raise_(KeyError("as if killed"))))
    with pytest.raises(KeyError):
        trainer.train()
    assert names(folder) == ["checkpoint-10", "checkpoint-11"]
    return folder


def own(folder):
    """Return the folder of the only run."""
    (found,) = folder.glob("[0-9a-f]" * checkpoints.NAME_LENGTH)
    return found


def names(folder):
    return sorted(path.name for path in own(folder).iterdir())


def test_an_undisturbed_run_is_that_of_the_trainer_alone_and_leaves_no_checkpoint(undisturbed, tiny_bert, tmp_path):
    trainer = make(tiny_bert, tmp_path)
    transformers.Trainer.train(trainer)
    assert equal(weights(trainer), undisturbed[0])
    trainer = make(tiny_bert, tmp_path, minutes=0)
    trainer.train()
    assert equal(weights(trainer), undisturbed[0])
    assert names(tmp_path) == ["finished"]
    checkpoints.discard(trainer)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".owner"}


def test_a_training_that_ended_and_was_not_saved_is_not_lost(undisturbed, tiny_bert, tmp_path):
    trainer = make(tiny_bert, tmp_path)
    trainer.train()
    again = make(tiny_bert, tmp_path)
    again.training_step = None  # it is not trained again
    with pytest.warns(UserWarning, match="has been trained before and was not saved"):
        output = again.train()
    assert output.global_step == 69
    assert equal(weights(again), undisturbed[0])
    assert training.history(again)[undisturbed[1].columns].equals(undisturbed[1])
    again.save_model(str(tmp_path / "model"))
    assert not list(tmp_path.glob("*/finished"))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tiny_bert, tmp_path):
    command = [sys.executable, "tests/interrupted.py", str(tiny_bert), str(tmp_path), "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted["killed"] >= 10
    assert counted["same"] == counted["runs"] > 0, done.stderr[-3000:]


def test_the_order_of_the_rows_depends_on_seed_and_epoch_alone():
    sampler = training.SeededLengthGroups(4, list(range(50)), seed=3)
    first = list(sampler)
    torch.rand(7)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert sorted(sampler) == list(range(50))
    assert list(training.SeededLengthGroups(4, list(range(50)), seed=4)) != first


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 9, 399, 400])
def test_the_batches_are_those_of_transformers_in_random_order_with_the_longest_first(rows):
    lengths = np.random.default_rng(0).integers(2, 500, rows).tolist()

    def batches(order):
        return [order[start : start + 4] for start in range(0, len(order), 4)]

    sampler = training.SeededLengthGroups(4, lengths, seed=3)
    generator = torch.Generator().manual_seed(hash((3, 0)))
    theirs = batches(list(LengthGroupedSampler(4, lengths=lengths, generator=generator)))
    ours = batches(list(sampler))
    assert sorted(ours) == sorted(theirs)
    assert len(sampler) == rows
    assert lengths[ours[0][0]] == max(lengths)
    assert len(ours[-1]) == (rows % 4 or 4)
    if rows > 300:
        longest = np.array([max(lengths[row] for row in batch) for batch in ours])
        assert abs(np.corrcoef(longest[1:-1], longest[2:])[0, 1]) < 0.25
        sampler.set_epoch(1)
        other = [max(lengths[row] for row in batch) for batch in batches(list(sampler))]
        assert np.argsort(other).tolist() != np.argsort(longest).tolist()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("step", [7, 23, 69])  # within an epoch; its last; the very last
def test_a_signal_saves_and_says_how_to_go_on(number, step, undisturbed, tiny_bert, tmp_path):
    before = signal.getsignal(number)
    trainer = make(tiny_bert, tmp_path)
    trainer.add_callback(At(step, lambda: os.kill(os.getpid(), number)))
    with pytest.raises(TrainingError, match=f"stopped by {number.name} at step {step} of 69, and saved; the same comm"):
        trainer.train()
    assert signal.getsignal(number) == before
    again, spent = make(tiny_bert, tmp_path), 0.0
    if step < 69:  # at the last step the training is finished, and its model is kept
        place = own(tmp_path) / f"checkpoint-{step}" / checkpoints.SEAL
        known = json.loads(place.read_text())
        assert 0 < known["seconds"] < 60
        place.write_text(json.dumps({**known, "seconds": known["seconds"] + 1000}))
        spent = 1000 + known["seconds"]
    metrics = again.train().metrics
    assert spent < metrics["train_runtime"] == again.state.log_history[-1]["train_runtime"] < spent + 60
    assert equal(weights(again), undisturbed[0])
    assert training.history(again)[undisturbed[1].columns].equals(undisturbed[1])


def change(path, start, new):
    content = path.read_bytes()
    path.write_bytes(content[:start] + new + content[start + len(new) :])


def edit_tensors(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


DAMAGE = {
    "empty folder": lambda f: [path.unlink() for path in f.iterdir()],
    "no seal": lambda f: (f / checkpoints.SEAL).unlink(),
    "seal cut off": lambda f: (f / checkpoints.SEAL).write_text("{"),
    "seal of another file": lambda f: (f / checkpoints.SEAL).write_text("[1]"),
    "weights cut off": lambda f: os.truncate(f / "model.safetensors", 100_000),
    "weights empty": lambda f: os.truncate(f / "model.safetensors", 0),
    "weights missing": lambda f: (f / "model.safetensors").unlink(),
    "a bit of the header": lambda f: change(f / "model.safetensors", 20, b"\x00"),
    "a bit of a weight": lambda f: change(f / "model.safetensors", 200_000, b"\x01\x02\x03"),
    "a tensor missing": lambda f: edit_tensors(f / "model.safetensors", lambda t: t.pop("classifier.bias")),
    "another shape": lambda f: edit_tensors(
        f / "model.safetensors", lambda t: t.update({"classifier.bias": torch.zeros(3)})
    ),
    "optimizer missing": lambda f: (f / "optimizer.pt").unlink(),
    "optimizer cut off": lambda f: os.truncate(f / "optimizer.pt", 1000),
    "schedule missing": lambda f: (f / "scheduler.pt").unlink(),
    "random numbers missing": lambda f: (f / "rng_state.pth").unlink(),
    "state no JSON": lambda f: (f / "trainer_state.json").write_text('{"global_step": 11'),
    "state of another step": lambda f: (f / "trainer_state.json").write_text(
        (f / "trainer_state.json").read_text().replace('"global_step": 11', '"global_step": 40')
    ),
    "a folder for a file": lambda f: ((f / "optimizer.pt").unlink(), (f / "optimizer.pt").mkdir()),
    "a file without seal": lambda f: (f / checkpoints.SEAL).write_text(
        json.dumps({**json.loads((f / checkpoints.SEAL).read_text()), "files": {}})
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(case, interrupted, tiny_bert, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    identity, folder = checkpoints.run_identity(make(tiny_bert, folder)), own(folder)
    assert checkpoints.newest_valid(folder, identity) == (folder / "checkpoint-11", {})
    DAMAGE[case](folder / "checkpoint-11")
    newest, skipped = checkpoints.newest_valid(folder, identity)
    assert newest == folder / "checkpoint-10"
    assert list(skipped) == ["checkpoint-11"]


def test_what_was_passed_over_is_said_and_the_weights_are_right(interrupted, undisturbed, tiny_bert, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    os.truncate(own(folder) / "checkpoint-11" / "model.safetensors", 9)
    trainer = make(tiny_bert, folder)
    with pytest.warns(UserWarning, match=r"checkpoint-11 is passed over: model\.safetensors is not what was written"):
        trainer.train()
    assert equal(weights(trainer), undisturbed[0])


def test_checkpoints_of_another_run_are_not_gone_on_from_and_stay(interrupted, tiny_bert, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    for name in ("checkpoint-9000", "checkpoint-12-backup", "checkpoint-²"):
        shutil.copytree(own(interrupted) / "checkpoint-11", folder / name)
        shutil.copytree(own(interrupted) / "checkpoint-11", own(folder) / name)
    (own(folder) / "checkpoint-20").symlink_to(own(interrupted) / "checkpoint-10")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    trainer = make(tiny_bert, folder, epochs=1)
    with pytest.warns(UserWarning, match="holds checkpoints of another run, which stay"):
        trainer.train()
    checkpoints.discard(trainer)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    assert after == before


def test_checkpoints_dated_in_the_future_change_nothing(interrupted, undisturbed, tiny_bert, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    for path in own(folder).iterdir():
        os.utime(path, (2e10, 2e10))
    trainer = make(tiny_bert, folder, minutes=0)
    trainer.train()
    assert equal(weights(trainer), undisturbed[0])


@pytest.mark.parametrize(
    "other", [{"learning_rate": 2e-3}, {"seed": 1}, {"epochs": 4}, {"batch_size": 2}, {"max_grad_norm": 0.5}]
)
def test_other_arguments_are_another_run(other, tiny_bert, tmp_path):
    one, same = checkpoints.run_identity(make(tiny_bert, tmp_path)), make(tiny_bert, tmp_path / "elsewhere")
    assert checkpoints.run_identity(same) == one
    assert checkpoints.run_identity(make(tiny_bert, tmp_path, **other)) != one


def test_another_loss_or_library_and_the_validation_rows_that_choose_are_another_run(tiny_bert, tmp_path, monkeypatch):
    def identity(loss=None, validation=8, **arguments):
        trainer = make(tiny_bert, tmp_path, **arguments)
        trainer.compute_loss_func = loss
        trainer.eval_dataset["validation"] = trainer.eval_dataset["validation"].select(range(validation))
        return checkpoints.run_identity(trainer)

    even, odd = (weighted_loss(weights) for weights in ([1.0, 1.0], [1.0, 2.0]))
    assert identity(even) == identity(weighted_loss([1.0, 1.0]))
    assert len({identity(), identity(even), identity(odd)}) == 3
    assert identity(validation=7) == identity()  # they are only evaluated
    stop = {"early_stopping": 1}
    assert identity(validation=7, **stop) != identity(**stop)
    before = identity()
    monkeypatch.setattr(checkpoints, "version", lambda name: "9")
    assert identity() != before


def test_other_weights_rows_or_labels_are_another_run(tiny_bert, tmp_path):
    one, same, other = (make(tiny_bert, tmp_path) for _ in range(3))
    assert checkpoints.run_identity(one) == checkpoints.run_identity(same)
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 1
    assert checkpoints.run_identity(one) != checkpoints.run_identity(other)
    rows = same.train_dataset
    same.train_dataset = rows.select(range(89))
    assert checkpoints.run_identity(one) != checkpoints.run_identity(same)
    same.train_dataset = rows.remove_columns("labels").add_column("labels", [1 - label for label in rows["labels"]])
    assert checkpoints.run_identity(one) != checkpoints.run_identity(same)


FULL = """
import resource, signal, sys
from pathlib import Path
from interrupted import make
from bert_helpers import ParameterError
bert, folder, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
trainer = make(bert, folder, minutes=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
try:
    trainer.train()
except ParameterError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [100, 3_000_000, 6_000_000])  # too little for config, model, optimizer state
def test_no_room_for_a_checkpoint_is_one_error_and_the_ones_before_stay(
    room, interrupted, undisturbed, tiny_bert, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    command = [sys.executable, "-c", FULL, str(tiny_bert), str(folder), str(room)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "checkpoint-12: cannot be written" in done.stdout, done.stderr[-2000:]
    assert names(folder) == ["checkpoint-10", "checkpoint-11"]
    trainer = make(tiny_bert, folder)
    trainer.train()
    assert equal(weights(trainer), undisturbed[0])


HOLD = """
import sys, time
from pathlib import Path
from bert_helpers.machine import checkpoints
with checkpoints._alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_of_two_runs_in_one_folder_the_second_is_refused_until_the_first_is_gone(tiny_bert, undisturbed, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    trainer = make(tiny_bert, tmp_path)
    with pytest.raises(TrainingError, match=f"process {child.pid} on .* is training here; wait for it"):
        trainer.train()
    child.kill()  # a crash does not leave the lock behind
    child.wait()
    trainer.train()
    assert equal(weights(trainer), undisturbed[0])


def test_a_lock_or_an_owner_that_is_a_link_is_not_written_through(tiny_bert, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in (".lock", ".owner"):
        folder = tmp_path / name[1:]
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "mine")
        with pytest.raises(ParameterError):
            make(tiny_bert, folder).train()
        assert (tmp_path / "mine").read_text() == "mine"


def test_a_disk_that_is_too_small_is_named_before_training(tiny_bert, tmp_path, monkeypatch):
    trainer = make(tiny_bert, tmp_path)
    trainer.add_callback(At(1, lambda: pytest.fail("it trains")))
    size = 8 * trainer.model.num_parameters()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=size - 1))
    with pytest.raises(ParameterError, match="MB free where"):
        trainer.train()


RUNS = """
import json, os, sys, traceback
from pathlib import Path
from interrupted import life

children = []
for number, folder in enumerate(sys.argv[2:]):
    if (child := os.fork()) == 0:
        sys.stderr, status = open(f"{number}.err", "w"), 1
        try:
            life(Path(sys.argv[1]), Path(folder))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    children.append(child)
print(json.dumps({child: os.waitpid(child, 0)[1] for child in children}))
"""


@pytest.mark.slow
def test_ten_runs_at_once_end_well_and_of_two_in_one_folder_one_is_refused(undisturbed, tiny_bert, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path])}
    folders = [tmp_path / f"run{i}" for i in range(10)] + [tmp_path / "run0"]
    words = [sys.executable, "-c", RUNS, tiny_bert, *folders]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)
    statuses = json.loads(done.stdout)
    errors = [(tmp_path / f"{i}.err").read_text() for i in range(11)]
    refused = [error for error in errors if "is training here; wait for it" in error]
    assert [status == 0 for status in statuses.values()].count(True) == 10, errors
    assert len(refused) == 1
    (first, status), *_, (last, _) = statuses.items()
    assert f"process {first if status == 0 else last} on" in refused[0]
    for i in range(10):
        assert equal(load_file(tmp_path / f"run{i}" / "final.safetensors"), undisturbed[0])
