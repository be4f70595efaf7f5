"""Make tables and figures from the results of the benchmarks, for the docs.

python benchmarks/figures.py                  # from benchmarks/measured
python benchmarks/figures.py results          # from your own runs
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from over_time import accuracy

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent / "measured"
NAMES = {"lesson": "the lesson's recipe", "stock": "Trainer", "switches": "Trainer, bf16 and group_by_length",
         "pipeline": "pipeline", "ours": "bert_helpers",
         "compiled": "bert_helpers, torch.compile", "tfidf": "TF-IDF + logistic regression",
         "frozen": "embeddings + logistic regression", "setfit": "SetFit"}  # fmt: skip
COLOURS = {"lesson": "#999999", "stock": "#56B4E9", "switches": "#E69F00", "pipeline": "#56B4E9", "ours": "#0072B2",
           "compiled": "#CC79A7",
           "tfidf": "#999999", "frozen": "#E69F00", "setfit": "#D55E00"}  # fmt: skip  # Okabe and Ito (2008)
DATA = {"imdb": "IMDb", "conll2003": "CoNLL-2003", "squad": "SQuAD", "sample": "sample"}


def lines(path):
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


def speed(rows):
    """Return medians over rounds, one row per job and contender."""
    rows = rows.assign(job=[job(row) for row in rows.to_dict("records")])
    table = rows.groupby(["job", "contender"], sort=False).median(numeric_only=True)
    base = table.examples_per_s.groupby("job").transform(lambda rates: rates.xs("ours", level="contender").item())
    return table.assign(ours_is_faster=base / table.examples_per_s)


def job(row):
    length = f", {row['max_length']} tokens" if row["data"] == "imdb" else ""
    return f"{row['what']}, {DATA[row['data']]}{length}"


def draw_speed(table):
    jobs = list(table.index.get_level_values("job").unique())
    figure, axes = plt.subplots(1, len(jobs), figsize=(2.1 * len(jobs), 2.8), layout="constrained")
    for axis, name in zip(np.atleast_1d(axes), jobs, strict=True):
        rates = table.loc[name].examples_per_s
        axis.bar(range(len(rates)), rates, color=[COLOURS[contender] for contender in rates.index])
        axis.set_title(name.replace(", ", "\n"), fontsize=9)
        axis.set_xticks([])
        axis.set_ylabel("examples per second" if axis is np.atleast_1d(axes)[0] else "")
        axis.spines[["top", "right"]].set_visible(False)
        for place, rate in enumerate(rates):
            axis.text(place, rate, f"{rate:.3g}", ha="center", va="bottom", fontsize=8)
    shown = [name for name in COLOURS if name in table.index.get_level_values("contender") and name != "pipeline"]
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in shown]
    labels = [NAMES[name] if name != "stock" else "Trainer (or pipeline)" for name in shown]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), fontsize=8, frameon=False)
    return figure


def over_time(rows):
    table = []
    for (contender, step), group in rows.groupby(["contender", "step"], sort=False):
        right = np.array(group["right"].tolist())
        table.append({"contender": contender, "step": step, "seconds": group["seconds"].median(), **accuracy(right)})
    return pd.DataFrame(table)


def draw_over_time(table):
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for contender, points in table.groupby("contender", sort=False):
        spread = (points["value"] - points["low"], points["high"] - points["value"])
        axis.errorbar(points["seconds"], points["value"], yerr=spread, marker="o", capsize=3, color=COLOURS[contender],
                      label=NAMES[contender])  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlabel("seconds of training (logarithmic)")
    axis.set_ylabel("accuracy on 240 test reviews")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def draw_growth(rows, lengths):
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), layout="constrained")
    axes[0].plot(rows.index, rows.load_s, marker="o", color=COLOURS["switches"], label="load and check")
    axes[0].plot(rows.index, rows.encode_s, marker="o", color=COLOURS["ours"], label="tokenize")
    axes[0].set(xscale="log", yscale="log", xlabel="rows", ylabel="seconds")
    axes[0].legend(fontsize=8, frameon=False)
    axes[1].plot(rows.index, rows.peak_gb, marker="o", color=COLOURS["ours"], label="peak memory")
    axes[1].plot(rows.index, rows.file_gb, marker="o", color=COLOURS["lesson"], label="the CSV")
    axes[1].set(xscale="log", xlabel="rows", ylabel="GB")
    axes[1].legend(fontsize=8, frameon=False)
    axes[2].plot(lengths.index, lengths.train_us_per_token, marker="o", color=COLOURS["ours"], label="train")
    axes[2].plot(lengths.index, lengths.predict_us_per_token, marker="o", color=COLOURS["switches"], label="predict")
    axes[2].set(xscale="log", xlabel="tokens per text", ylabel="microseconds per token", ylim=(0, None))
    axes[2].set_xticks(lengths.index, [f"{length:g}" for length in lengths.index])
    axes[2].minorticks_off()
    axes[2].legend(fontsize=8, frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=HERE)
    folder = parser.parse_args().folder
    drawn = {}
    if (folder / "speed.jsonl").exists():
        table = speed(lines(folder / "speed.jsonl"))
        print(table.drop(columns=["round", "max_length"]).round(3).to_string(), end="\n\n")
        drawn["speed"] = draw_speed(table)
    if (folder / "over_time.jsonl").exists():
        table = over_time(lines(folder / "over_time.jsonl"))
        print(table.round(3).to_string(index=False), end="\n\n")
        drawn["over_time"] = draw_over_time(table)
    if (folder / "growth.jsonl").exists():
        rows = lines(folder / "growth.jsonl")
        by = [
            rows.dropna(subset=key).groupby(key).median(numeric_only=True).dropna(axis=1) for key in ("rows", "length")
        ]
        print(by[0].round(3).to_string(), by[1].round(3).to_string(), sep="\n\n")
        drawn["growth"] = draw_growth(*by)
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
