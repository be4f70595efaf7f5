"""Measure time and memory of reading a million rows: ours, `datasets.load_dataset` and pandas, each in its own process.

    python benchmarks/reading.py

Rows are made up: a text of about 100 bytes and a label; for CoNLL a row is a line with a word and its tag, 20 per
sentence. Every contender ends with all rows in memory (`datasets` with its Arrow file mapped and a new cache each
time). They take turns; printed are medians over rounds of wall seconds, CPU seconds and peak memory beyond the imports.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import datasets
import numpy as np
import pandas as pd
from speed import in_child

from bert_helpers.readers import conll, tables
from bert_helpers.readers.source import Reading, read_source

FILES = {"csv": "rows.csv", "json": "rows.jsonl", "parquet": "rows.parquet", "conll": "rows.conll"}
CONTENDERS = ("ours", "datasets", "pandas")


def write(folder, rows):
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghij"), rng.integers(2, 11))) for _ in range(5_000)])
    texts = [" ".join(row) for row in words[rng.integers(0, len(words), (rows, 14))]]
    frame = pd.DataFrame({"text": texts, "label": rng.choice(["no", "yes"], rows)})
    frame.to_csv(folder / FILES["csv"], index=False)
    frame.to_json(folder / FILES["json"], orient="records", lines=True)
    frame.to_parquet(folder / FILES["parquet"])
    tokens, tags = words[rng.integers(0, len(words), rows)], rng.choice(["O", "B-PER", "I-PER"], rows)
    with (folder / FILES["conll"]).open("w") as file:
        for i, (token, tag) in enumerate(zip(tokens, tags, strict=True), 1):
            file.write(f"{token} {tag}\n" + "\n" * (i % 20 == 0))


def read_ours(path, kind):
    if kind == "conll":
        return read_source(path, sample="", formats=conll.FORMATS)["train"].num_rows
    how = Reading({"text": "TEXT_COLUMN", "label": "LABEL_COLUMN"})
    return read_source(path, sample="", formats=tables.FORMATS, reading=how)["train"].num_rows


def read_datasets(path, kind):
    options = {"column_names": ["tokens", "ner_tags"]} if kind == "conll" else {}
    with tempfile.TemporaryDirectory() as cache:
        return datasets.load_dataset(kind, data_files=str(path), cache_dir=cache, **options)["train"].num_rows


def read_pandas(path, kind):
    if kind == "conll":
        options = {"sep": " ", "header": None, "skip_blank_lines": False, "quoting": 3, "na_filter": False}
        frame = pd.read_csv(path, names=["token", "tag"], dtype=str, **options)
        sentence = (frame["token"].fillna("") == "").cumsum()
        words = frame[frame["token"].fillna("") != ""]
        return len(words.groupby(sentence, sort=False).agg(list))
    return len(
        {"csv": pd.read_csv, "json": lambda of: pd.read_json(of, lines=True), "parquet": pd.read_parquet}[kind](path)
    )


def peak_gb():
    """Return the peak memory of this process alone: `ru_maxrss` includes that of the parent process at its start."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def child(contender, kind, path):
    before, wall, processor = peak_gb(), time.perf_counter(), time.process_time()
    rows = globals()[f"read_{contender}"](path, kind)
    row = {"rows": rows, "wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    print(json.dumps({**row, "gb": peak_gb() - before}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, metavar=("CONTENDER", "KIND", "PATH"))
    options = parser.parse_args()
    if options.child:
        contender, kind, path = options.child
        return child(contender, kind, Path(path))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows)
        found = []
        for _, (kind, file), contender in product(range(options.rounds), FILES.items(), CONTENDERS):
            printed = in_child(__file__, ["--child", contender, kind, f"{folder}/{file}"])
            found.append({"kind": kind, "contender": contender, **json.loads(printed)})
    for kind in FILES:
        for contender in CONTENDERS:
            of = [row for row in found if (row["kind"], row["contender"]) == (kind, contender)]
            medians = {
                name: round(statistics.median(row[name] for row in of), 2) for name in ("wall_s", "processor_s", "gb")
            }
            print(json.dumps({"kind": kind, "contender": contender, "rows": of[0]["rows"], **medians}), flush=True)


if __name__ == "__main__":
    main()
