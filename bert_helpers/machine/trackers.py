"""Experiment trackers: where they store their files, and the names of runs."""

import os
from pathlib import Path

from bert_helpers.files import base_folder

# One store for the runs of all folders, since a tracker is there to compare them. TensorBoard's files go to
# `output_dir`/runs, one folder per training.
STORES = {
    "mlflow": ("MLFLOW_TRACKING_URI", "sqlite:///{}/mlflow.db"),
    "trackio": ("TRACKIO_DIR", "{}/trackio"),
    "wandb": ("WANDB_DIR", "{}"),
}


def keep_below_results(names: list[str]) -> list[str]:
    """Let trackers store their files below results/, unless their own environment variables are set; return `names`."""
    for variable, place in (STORES[name] for name in names if name in STORES):
        os.environ.setdefault(variable, place.format((base_folder() / "results").as_posix()))
    return names


def run_name(output_dir: Path) -> str:
    """Return the run's name in the gallery: "mine" for results/mine/checkpoints."""
    folder = output_dir.parent if output_dir.name == "checkpoints" else output_dir
    below = Path(os.path.relpath(folder, base_folder() / "results"))
    return folder.name if ".." in below.parts else below.as_posix()
