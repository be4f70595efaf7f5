"""A run that is interrupted goes on: sealed checkpoints, the newest valid one found, nothing else believed."""

import hashlib
import json
import os
import platform
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from filelock import FileLock, Timeout
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from bert_helpers.errors import Interrupted, ParameterError, TrainingError
from bert_helpers.files import check_writable, write_json, writing

SEAL = "seal.json"
# Without these a run would go on, but not as it would have gone on.
NEEDED = ("config.json", "model.safetensors", "scheduler.pt", "trainer_state.json")
OPTIMIZERS = ("optimizer.pt", "optimizer.bin")  # one of them; the second under FSDP
# Arguments that change nothing of what is computed
IRRELEVANT = ("output_dir", "logging_dir", "run_name", "disable_tqdm", "report_to", "save_total_limit", "log_level")


def resume(trainer: Trainer, start: Callable[[str | None], TrainOutput], *, minutes: float = 10.0) -> TrainOutput:
    """Train, going on from the newest valid checkpoint of the same run, if it was interrupted before.

    `start` is Transformers' own `Trainer.train`, which takes the checkpoint's folder, or None. A checkpoint is written
    at least every `minutes`, besides those that the arguments ask for, and sealed with the digest of each file and of
    the run (its arguments, model and rows). One whose seal does not match is passed over with a warning that says why;
    so the weights at the end are those of an undisturbed run, to the bit. Ctrl-C and SIGTERM end the step, save, and
    raise Interrupted with how to go on. At a good end the checkpoints are removed.

    Raises TrainingError at once when another process trains in the same folder, ParameterError when there is no room
    for a checkpoint; the ones before it stay.

    Of several processes (torchrun) the first holds the folder, chooses the checkpoint for all, seals and removes; all
    save when one of them has to.
    """
    folder, first = check_writable(Path(trainer.args.output_dir)), trainer.is_world_process_zero()
    with _alone_in(folder) if first else nullcontext():
        identity = run_identity(trainer)
        found = [newest_valid(folder, identity, processes=trainer.args.world_size)] if first else [None]
        ((newest, skipped),) = broadcast_object_list(found)
        for name, reason in skipped.items() if first else ():
            warnings.warn(f"{name} is passed over: {reason}.", stacklevel=3)
        callback = CheckpointCallback(identity, minutes)
        trainer.add_callback(callback)
        try:
            with callback.listening():
                output = start(None if newest is None else str(newest))
        finally:
            trainer.remove_callback(callback)
        trainer.accelerator.wait_for_everyone()
        for checkpoint in _checkpoints(folder) if first else ():
            shutil.rmtree(checkpoint)
    return output


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back from a process that dies."""
    owner = folder / ".owner"
    try:
        with FileLock(folder / ".lock", timeout=0):
            owner.write_text(f"process {os.getpid()} on {platform.node()}")
            yield
    except Timeout as error:
        raise TrainingError(
            f"{folder}: {owner.read_text()} is training here; wait for it, or choose another OUTPUT_DIR."
        ) from error


@contextmanager
def whole_or_removed(checkpoint: Path) -> Iterator[None]:
    """Remove a checkpoint for which there is no room while it is written, and name it in a ParameterError."""
    try:
        with writing(checkpoint):
            yield
    except ParameterError:
        shutil.rmtree(checkpoint, ignore_errors=True)
        raise


def run_identity(trainer: Trainer) -> str:
    """SHA-256 of all that decides what a run computes: arguments, model's config and first weights, training rows."""
    digest = hashlib.sha256()
    arguments = {name: value for name, value in trainer.args.to_dict().items() if name not in IRRELEVANT}
    digest.update(json.dumps(arguments, sort_keys=True, default=str).encode())
    config = {**trainer.model.config.to_dict(), "initial_weight_size": None}  # which a training sets from the weights
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in trainer.model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    rows = trainer.train_dataset
    for name in sorted(set(rows.column_names) & {"input_ids", "labels", "start_positions", "end_positions"}):
        for row in rows[name]:
            digest.update(np.asarray(row).tobytes() + b"|")
    return digest.hexdigest()


def newest_valid(folder: Path, identity: str, *, processes: int = 1) -> tuple[Path | None, dict[str, str]]:
    """The newest checkpoint in `folder` that is whole and of this run; and of newer ones, by name, what is wrong."""
    skipped: dict[str, str] = {}
    for checkpoint in _checkpoints(folder):
        problem = what_is_wrong(checkpoint, identity, processes=processes)
        if problem is None:
            return checkpoint, skipped
        skipped[checkpoint.name] = problem
    return None, skipped


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first, by step."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.split("-")[1].isdigit()]
    return sorted(found, key=lambda path: -int(path.name.split("-")[1]))


def what_is_wrong(checkpoint: Path, identity: str, *, processes: int = 1) -> str | None:
    """Why a checkpoint cannot be gone on from by so many processes; None if it can."""
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    try:
        seal = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        files = dict(seal["files"])
    except FileNotFoundError:
        return "it has no seal: the run ended while it was being written"
    except (OSError, ValueError, KeyError, TypeError):
        return "its seal cannot be read"
    if seal.get("run") != identity:
        return "it is of another run: other parameters, model or rows"
    lacking = [name for name in (*NEEDED, *states) if name not in files]
    if not files.keys() & set(OPTIMIZERS):
        lacking.append(OPTIMIZERS[0])
    if lacking:
        return f"its seal does not name {lacking[0]}"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if _digest(path) != digest:
            return f"{name} is not what was written"
    return None


def seal(checkpoint: Path, identity: str) -> Path:
    """Write down the digest of every file, last of all: a checkpoint without seal is not believed."""
    files = {path.name: _digest(path) for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != SEAL}
    return write_json(checkpoint / SEAL, {"run": identity, "files": files})


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class CheckpointCallback(TrainerCallback):
    """Save by the clock and on a signal, and seal what was saved."""

    def __init__(self, identity: str, minutes: float) -> None:
        self.identity, self.seconds, self.saved, self.stopped_by = identity, 60 * minutes, time.monotonic(), ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have Ctrl-C and SIGTERM end the step under way; a second one ends the process as ever."""
        if threading.current_thread() is not threading.main_thread():  # signals come to the main thread only
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: object) -> None:
            self.stopped_by = signal.Signals(number).name
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _save_if_due(self, args: TrainingArguments, control: TrainerControl) -> None:
        due = bool(self.stopped_by) or time.monotonic() - self.saved >= self.seconds
        if args.world_size > 1:  # or one process would wait for the others in a checkpoint that they do not write
            due = bool(reduce(torch.tensor(float(due), device=args.device), reduction="sum"))
        control.should_save |= due

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save amid an epoch.

        At its end the evaluation comes first: a run that goes on from here would not make up for it.
        """
        if state.global_step % max(1, round(state.max_steps / args.num_train_epochs)):
            self._save_if_due(args, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save at the end of an epoch, after its evaluation."""
        self._save_if_due(args, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **kwargs: object) -> None:
        """Seal the checkpoint, and raise Interrupted if a signal asked for it."""
        PartialState().wait_for_everyone()  # each process has written its random numbers
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.identity)
        self.saved = time.monotonic()
        if self.stopped_by:
            raise Interrupted(
                f"stopped by {self.stopped_by} at step {state.global_step} of {state.max_steps}, and saved; the same "
                "command goes on from there.",
                signal.Signals[self.stopped_by],
            )
