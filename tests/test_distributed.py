"""`train` on two processes that torchrun starts: the same run as on one, and an end with an error if one dies."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow
# 80 rows: five full batches; of an incomplete one each process would get equally many rows, some of them twice
WORDS = ["--data", "sample", "--train-size", "80", "--validation-size", "16", "--test-size", "15", "--max-length", "32",
         "--epochs", "6", "--dropout", "0", "--precision", "fp32", "--learning-rate", "1e-3"]  # fmt: skip

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
FSDP = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
        "--fsdp_transformer_layer_cls_to_wrap", "BertLayer", "--fsdp_state_dict_type", "FULL_STATE_DICT",
        "--num_processes", "2"]  # fmt: skip


def command(task, bert, out, *, processes, batch):
    words = [sys.executable, "-m"]
    if processes > 1:
        words += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    return [*words, "bert_helpers", "train", task, *WORDS, "--model", str(bert), "--batch-size", str(batch),
            "--output-dir", f"results/{out}"]  # fmt: skip


def started(words, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(words, folder):
    process = started(words, folder)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out, error


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_two_processes_train_as_one_does_at_the_same_effective_batch(task, tiny_bert, tmp_path):
    out, told = {}, {}
    for processes, batch in ((1, 16), (2, 8)):
        words = command(task, tiny_bert, processes, processes=processes, batch=batch)
        out[processes], told[processes] = finished(words, tmp_path)
    curves = [json.loads((tmp_path / f"results/{n}/history.json").read_text()) for n in (1, 2)]
    for name in ("loss", "grad_norm", "eval_train_loss", "eval_validation_loss"):
        one, two = ([entry[name] for entry in log if name in entry] for log in curves)
        assert len(one) > 0
        np.testing.assert_allclose(two, one, atol=1e-3, err_msg=name)
    records = [json.loads((tmp_path / f"results/{n}/metrics.json").read_text())["metrics"] for n in (1, 2)]
    assert records[0].keys() == records[1].keys()
    for name, metric in records[0].items():
        np.testing.assert_allclose(records[1][name]["value"], metric["value"], atol=2e-3, err_msg=name)
    files = [sorted(p.name for p in (tmp_path / f"results/{n}").iterdir()) for n in (1, 2)]
    assert files[0] == files[1]
    assert out[2].count("metrics.json") == 1  # printed once, not by each process
    assert told[2].count("epoch 6 of 6") == 1


def test_fsdp_trains_as_one_process_does(tiny_bert, tmp_path):
    """Sharded by PyTorch's FSDP2 over gloo, which accelerate by itself would use for GPUs only."""
    curves, scores = [], []
    for processes, batch in ((1, 16), (2, 8)):
        words = command("classification", tiny_bert, processes, processes=processes, batch=batch)
        if processes > 1:
            words = [*LAUNCH, *FSDP, str(ROOT / "tests/fsdp_on_cpu.py"), *words[words.index("bert_helpers") + 1 :]]
        finished([*words, "--early-stopping", "6"], tmp_path)  # checkpoints, the best of which is loaded at the end
        curves.append(json.loads((tmp_path / f"results/{processes}/history.json").read_text()))
        scores.append(json.loads((tmp_path / f"results/{processes}/metrics.json").read_text())["metrics"])
    for name in ("loss", "eval_train_loss", "eval_validation_loss"):
        one, two = ([entry[name] for entry in log if name in entry] for log in curves)
        assert len(one) > 0
        np.testing.assert_allclose(two, one, atol=1e-3, err_msg=name)
    for name, metric in scores[0].items():
        np.testing.assert_allclose(scores[1][name]["value"], metric["value"], atol=2e-3, err_msg=name)
    out, _ = finished([sys.executable, "-m", "bert_helpers", "evaluate", "results/2", "--json"], tmp_path)
    for name, metric in json.loads(out)["metrics"].items():  # of the saved model, which is complete
        np.testing.assert_allclose(metric["value"], scores[1][name]["value"], atol=1e-5, err_msg=name)


def test_accelerate_launch_trains_as_one_process_does(tiny_bert, tmp_path):
    # As for two GPUs: for CPUs accelerate starts one process, and leaves others to mpirun.
    (tmp_path / "two.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_processes: 2\nnum_machines: 1\n"
        "machine_rank: 0\nmixed_precision: 'no'\n"
    )
    finished(command("classification", tiny_bert, 1, processes=1, batch=16), tmp_path)
    words = command("classification", tiny_bert, 2, processes=1, batch=8)
    finished([*LAUNCH, "--config_file", "two.yaml", *words[1:]], tmp_path)
    one, two = (json.loads((tmp_path / f"results/{n}/history.json").read_text()) for n in (1, 2))
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-3)


def workers(process):
    """The processes that torchrun started, by rank."""
    children = psutil.Process(process.pid).children(recursive=True)
    ranks = {}
    for child in children:
        try:
            rank = child.environ().get("RANK")
        except psutil.Error:
            continue
        if rank is not None:
            ranks.setdefault(int(rank), child)
    return ranks


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def test_a_killed_process_ends_the_job_and_the_same_command_goes_on(tiny_bert, tmp_path):
    words = command("classification", tiny_bert, "killed", processes=2, batch=8)
    words[words.index("--epochs") + 1] = "40"
    checkpoints = tmp_path / "results/killed/checkpoints"
    process = started([*words, "--early-stopping", "40"], tmp_path)  # one checkpoint per epoch
    wait_until(lambda: len(list(checkpoints.glob("*/checkpoint-*/seal.json"))) >= 1)
    workers(process)[1].send_signal(signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert "SIGKILL" in error
    assert not (tmp_path / "results/killed/metrics.json").exists()
    left = json.loads(max(checkpoints.glob("*/checkpoint-*/seal.json")).read_text())["files"]
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= left.keys()
    finished([*words, "--early-stopping", "40"], tmp_path)
    log = json.loads((tmp_path / "results/killed/history.json").read_text())
    assert max(entry["epoch"] for entry in log) == 40
    assert list(checkpoints.glob("*/*")) == []
