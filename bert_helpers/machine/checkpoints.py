"""Continue interrupted runs from the newest of their sealed checkpoints; no other file is trusted."""

import hashlib
import inspect
import json
import os
import platform
import re
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from datasets.fingerprint import Hasher
from filelock import FileLock, Timeout
from safetensors.torch import load_model, save_model
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from bert_helpers.errors import DataError, Interrupted, ParameterError, TrainingError, parameter
from bert_helpers.files import (
    check_room,
    check_writable,
    is_unchanged,
    read_json,
    read_text,
    write_json,
    write_text,
    writing,
    written_files,
)

SEAL = "seal.json"
KEPT = 2  # checkpoints that are kept, besides the best
FINISHED = "finished"  # the trained model, until it is saved
NAME_LENGTH = 16  # characters of the identity that are the name of a run's folder
OTHER = "it has other parameters, rows, loss, first weights or versions"
PLAIN = (bool, int, float, str, type(None))
# Without these a run would continue, but with another result.
NEEDED = ("model.safetensors", "trainer_state.json")
OPTIMIZERS = ("optimizer.pt", "optimizer.bin")  # one of these; the second under FSDP
# Arguments that do not affect what is computed
IRRELEVANT = ("output_dir", "logging_dir", "run_name", "disable_tqdm", "report_to", "save_total_limit", "log_level")


def resume(trainer: Trainer, start: Callable[[str | None], TrainOutput], *, minutes: float = 10.0) -> TrainOutput:
    """Train, continuing from the newest valid checkpoint of the same run if it was interrupted.

    `start` is Transformers' own `Trainer.train`, which takes the checkpoint's folder, or None. Checkpoints are in a
    folder of `output_dir` that is named after the run's identity, so that those of other runs are neither used nor
    replaced nor removed. One is written at least every `minutes`, besides those that the arguments ask for, and sealed
    with the digest of each file. One that does not match its seal is skipped, with a warning that gives the reason; so
    the weights at the end are those of an undisturbed run, to the bit. Ctrl-C, SIGTERM and SIGHUP end the step, save,
    and raise Interrupted, which says how to continue. At the end the trained model replaces the checkpoints until
    `discard`; starting the same training again before that returns it.

    Raises TrainingError at once if another process trains in the same folder, and ParameterError if there is no room
    for a checkpoint; earlier ones stay.

    Of several processes (torchrun), the first locks the folder, chooses the checkpoint, seals and removes; all of them
    save when one has to.
    """
    folder, first = check_writable(Path(trainer.args.output_dir)), trainer.is_world_process_zero()
    with _alone_in(folder) if first else nullcontext():
        identity, newest = broadcast_object_list([*_choose(trainer, folder)] if first else [None, None])
        trainer.identity, trainer.checkpoint_folder = identity, folder / identity[:NAME_LENGTH]
        if newest is not None and newest.name == FINISHED:
            warnings.warn(f"this run has been trained before and was not saved: {newest} is used", stacklevel=3)
            return _restore(trainer, newest)
        spent = 0.0 if newest is None else read_json(newest / SEAL).get("seconds", 0.0)
        callback = CheckpointCallback(trainer, minutes, spent)
        trainer.add_callback(callback)
        limit, trainer.args.save_total_limit = trainer.args.save_total_limit, None  # it would remove by date
        try:
            with callback.listening():
                output = start(None if newest is None else str(newest))
                for metrics in (output.metrics, trainer.state.log_history[-1]):
                    metrics["train_runtime"] += spent  # like `total_flos`, of the whole training
                if not trainer.is_fsdp_enabled:  # whose parts only a training can put together
                    _keep(trainer, output)
        finally:
            trainer.args.save_total_limit = limit
            trainer.remove_callback(callback)
        trainer.accelerator.wait_for_everyone()
        for checkpoint in _checkpoints(trainer.checkpoint_folder) if first else ():
            shutil.rmtree(checkpoint)
        if callback.stopped_by:
            callback.interrupt("after the last step")
    return output


def _choose(trainer: Trainer, folder: Path) -> tuple[str, Path | None]:
    """Return the run's identity and the checkpoint to continue from; warn of skipped ones and of other runs."""
    identity = run_identity(trainer)
    own = folder / identity[:NAME_LENGTH]
    newest, skipped = newest_valid(own, identity, processes=trainer.args.world_size)
    for name, reason in skipped.items():
        warnings.warn(f"{name} is passed over: {reason}", stacklevel=4)
        shutil.rmtree(own / name)  # before any process writes there again
    weights = 4 * sum(parameter.numel() for parameter in trainer.model.parameters())
    # The model is written twice, and a checkpoint, if one is asked for, with two numbers per weight of AdamW.
    check_room(folder, weights * (2 if trainer.args.save_strategy == "no" else 5))
    for other in _other_runs(folder, own):
        warnings.warn(f"{other} holds checkpoints of another run, which stay: {OTHER}", stacklevel=4)
    return identity, newest


def discard(trainer: Trainer) -> None:
    """Remove the files that a finished training left for a restart; its model is saved, or not needed."""
    if trainer.checkpoint_folder is not None and trainer.is_world_process_zero():
        for path in (*_checkpoints(trainer.checkpoint_folder), trainer.checkpoint_folder / FINISHED):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # it contains a file of the user
            trainer.checkpoint_folder.rmdir()


def _keep(trainer: Trainer, output: TrainOutput) -> None:
    """Save the trained model with state and output of its `Trainer`: a third of a checkpoint."""
    if trainer.is_world_process_zero():
        with whole_or_removed(trainer.checkpoint_folder / FINISHED) as finished:
            finished.mkdir(parents=True)
            save_model(trainer.accelerator.unwrap_model(trainer.model), finished / "model.safetensors")
            trainer.state.save_to_json(str(finished / "trainer_state.json"))
            write_json(finished / "output.json", output._asdict())
            seal(finished, trainer.identity)


def _restore(trainer: Trainer, finished: Path) -> TrainOutput:
    load_model(trainer.model, finished / "model.safetensors")
    trainer.state = TrainerState.load_from_json(str(finished / "trainer_state.json"))
    return TrainOutput(**read_json(finished / "output.json"))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases if the process dies."""
    owner, lock = folder / ".owner", folder / ".lock"
    if lock.is_symlink() or (lock.exists() and not lock.is_file()):
        raise ParameterError("is no file", source=str(lock), fix="remove it")
    try:
        with FileLock(lock, timeout=0):
            write_text(owner, f"process {os.getpid()} on {platform.node()}")
            yield
    except Timeout as error:
        who = "another process"
        with suppress(DataError):
            who = read_text(owner)[:100]
        fix = f"wait for it, or choose another {parameter('OUTPUT_DIR')}"
        raise TrainingError(f"{who} is training here", source=str(folder), fix=fix) from error


@contextmanager
def whole_or_removed(checkpoint: Path) -> Iterator[Path]:
    """Remove a checkpoint that cannot be written completely, and name it in a ParameterError."""
    if checkpoint.is_symlink():
        raise ParameterError("is a link", source=str(checkpoint), fix="remove it")
    try:
        with writing(checkpoint):
            yield checkpoint
    except ParameterError:
        shutil.rmtree(checkpoint, ignore_errors=True)
        raise


def run_identity(trainer: Trainer) -> str:
    """Return the SHA-256 of everything that determines the result of a training.

    That is: arguments, model and initial weights, rows (also those of validation, if they determine which model is
    kept), loss, the source code of model and Trainer, and the versions of the libraries that compute.
    """
    digest = hashlib.sha256()
    args, model = trainer.args.to_dict(), trainer.model
    collate = trainer.data_collator
    plain = {name: value for name, value in vars(collate).items() if isinstance(value, PLAIN)}  # not the tokenizer
    described = {
        "arguments": {name: value for name, value in args.items() if name not in IRRELEVANT},
        "config": {**model.config.to_dict(), "initial_weight_size": None},  # which training derives from the weights
        "loss": Hasher.hash(trainer.compute_loss_func),
        "collator": [getattr(collate, "__qualname__", type(collate).__qualname__), plain],
        "source": [_source(type(model)), _source(type(trainer))],
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
    }
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    splits = [trainer.train_dataset]
    if trainer.args.load_best_model_at_end:
        splits += trainer.eval_dataset.values() if isinstance(trainer.eval_dataset, dict) else [trainer.eval_dataset]
    for rows in splits:
        for name in sorted(set(rows.column_names) & {"input_ids", "labels", "start_positions", "end_positions"}):
            for row in rows[name]:
                digest.update(np.asarray(row).tobytes() + b"|")
    return digest.hexdigest()


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # defined in an interpreter
        return kind.__qualname__


def newest_valid(folder: Path, identity: str, *, processes: int = 1) -> tuple[Path | None, dict[str, str]]:
    """Return the newest complete checkpoint in a run's folder, and the problems of newer ones by name.

    The trained model, if there is one, is the newest.
    """
    skipped: dict[str, str] = {}
    finished = folder / FINISHED
    for checkpoint in ([finished] if finished.is_dir() and not finished.is_symlink() else []) + _checkpoints(folder):
        problem = what_is_wrong(checkpoint, identity, processes=processes)
        if problem is None:
            return checkpoint, skipped
        skipped[checkpoint.name] = problem
    return None, skipped


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints, those of the latest steps first."""
    steps = {path: re.fullmatch(r"checkpoint-([0-9]{1,18})", path.name) for path in folder.glob("checkpoint-*")}
    found = [path for path, step in steps.items() if step and path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: -int(steps[path][1]))


def _other_runs(folder: Path, own: Path) -> list[Path]:
    """Return the folders of other runs, which have identities as names, and a checkpoint of other programs."""
    runs = [path for path in folder.iterdir() if re.fullmatch(f"[0-9a-f]{{{NAME_LENGTH}}}", path.name) and path != own]
    return [path for path in runs if path.is_dir() and any(path.iterdir())] + _checkpoints(folder)[:1]


def what_is_wrong(checkpoint: Path, identity: str, *, processes: int = 1) -> str | None:
    """Return why this number of processes cannot continue from a checkpoint; None if they can."""
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    needed = (*NEEDED, *(["output.json"] if checkpoint.name == FINISHED else ["scheduler.pt", *states]))
    if not (checkpoint / SEAL).exists():
        return "it has no seal: the run ended while it was being written"
    try:
        known = read_json(checkpoint / SEAL, {"run": str, "files": {...: str}})
    except DataError:
        return "its seal cannot be read"
    if known["run"] != identity:
        return "it is of another run"
    files = known["files"]
    lacking = [name for name in needed if name not in files]
    if checkpoint.name != FINISHED and not files.keys() & set(OPTIMIZERS):
        lacking.append(OPTIMIZERS[0])
    if lacking:
        return f"its seal does not name {lacking[0]}"
    for name, digest in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if not is_unchanged(checkpoint / name, digest):
            return f"{name} is not what was written"
    return None


def seal(checkpoint: Path, identity: str, seconds: float = 0.0) -> Path:
    """Write the digests of all files and the seconds of training, last: a checkpoint without a seal is not trusted."""
    files = {name: digest for name, digest in written_files(checkpoint).items() if name != SEAL}
    return write_json(checkpoint / SEAL, {"run": identity, "files": files, "seconds": seconds})


class CheckpointCallback(TrainerCallback):
    """Save at intervals and on signals, and seal what was saved."""

    def __init__(self, trainer: Trainer, minutes: float, spent: float) -> None:
        self.trainer, self.seconds, self.saved, self.stopped_by = trainer, 60 * minutes, time.monotonic(), ""
        self.begun = self.saved - spent

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and SIGHUP stop training after the current step; a second one acts as usual."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # unless under nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}

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
        if args.world_size > 1:  # otherwise one would wait for the others in a checkpoint that they do not write
            due = bool(reduce(torch.tensor(float(due), device=args.device), reduction="sum"))
        control.should_save |= due

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save within an epoch.

        At its end the evaluation comes first, because a run that continues from here would not make up for it.
        """
        if state.global_step % max(1, round(state.max_steps / args.num_train_epochs)):
            self._save_if_due(args, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save at the end of an epoch, after its evaluation."""
        self._save_if_due(args, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **kwargs: object) -> None:
        """Seal the checkpoint, remove older ones, and raise Interrupted if a signal asked for it."""
        PartialState().wait_for_everyone()  # each process has written its random numbers
        if state.is_world_process_zero:
            folder = self.trainer.checkpoint_folder
            seconds = time.monotonic() - self.begun
            seal(folder / f"checkpoint-{state.global_step}", self.trainer.identity, seconds)
            for old in _checkpoints(folder)[KEPT:]:
                if str(old) != state.best_model_checkpoint:
                    shutil.rmtree(old)
        self.saved = time.monotonic()
        if self.stopped_by:
            self.interrupt(f"at step {state.global_step} of {state.max_steps}")

    def interrupt(self, when: str) -> None:
        """Raise Interrupted for the signal that was received."""
        message = f"stopped by {self.stopped_by} {when}, and saved; the same command goes on from there."
        raise Interrupted(message, signal.Signals[self.stopped_by])
