# %% md
# # 2 Debug a training run, and prove the fix
#
# The run is through and the number is bad. Why? Guessing costs a training a guess. This notebook reads the run instead: **detect** (what does a sick run look like?), **diagnose** (symptom, evidence, cause), **fix** (changed parameters), **prove** (before and after, with an interval and a test). The last section does it to a run of your own:
#
# ```
# papermill notebooks/02_debug.ipynb results/notebooks/mine.ipynb -p RUN results/01_fine_tune
# ```
# %% parameters
MODEL: str = "sentence-transformers/all-MiniLM-L6-v2"
DATA: str = "sample"  # the data of the lesson; as in notebook 1
TEXT_COLUMN: str = "text"
LABEL_COLUMN: str = "label"
TRAIN_SIZE: int = 240  # small on purpose: nine runs in four minutes
VALIDATION_SIZE: int = 80
TEST_SIZE: int = 240
EPOCHS: int = 4
BATCH_SIZE: int = 16
GRADIENT_ACCUMULATION: int = 1
LEARNING_RATE: float = 2.0e-4  # for few rows and a small model
MAX_LENGTH: int = 96
DIFFERENCE: float = 0.1  # of accuracy, that the comparisons should be able to tell
RUN: str = ""  # folder of a run of your own, with history.json, predictions.csv and metrics.json; empty: the lesson's
SEED: int = 0
PRECISION: str = "auto"
OUTPUT_DIR: str = "results/02_debug"
# %%
from bert_helpers.parameters import check_parameters

parameters = check_parameters(globals())
print(f"{len(parameters)} parameters, all known, well typed and in range")
# %% nbval-ignore-output
import time

import numpy as np
import pandas as pd
import torch
from datasets import DatasetDict, disable_progress_bars

from bert_helpers import (
    augmentation,
    checks_data,
    checks_model,
    checks_run,
    comparison,
    data,
    diagnosis,
    learning_rates,
    metrics,
    out_of_memory,
    plots,
    repairs,
    results,
    runs,
    training,
)

disable_progress_bars()
started = time.perf_counter()
precision = training.resolve_precision(PRECISION)
pd.Series(results.environment(precision), name="this run").to_frame()
# %% md
# ## 1 Detecting
#
# **Before training.** Most faults lie in the data, and need no training to be seen. `check_dataset` looks at rows and labels. An empty table says: nothing found.
# %%
dataset = data.load_classification(
    results.resolve(DATA),
    text_column=TEXT_COLUMN,
    label_column=LABEL_COLUMN,
    train_size=TRAIN_SIZE,
    validation_size=VALIDATION_SIZE,
    test_size=TEST_SIZE,
    seed=SEED,
)
found = checks_data.check_dataset(dataset, task="classification", difference=DIFFERENCE, seed=SEED)
print(f"{len(found)} findings in the data")
# %% md
# `runs.prepare` and `runs.finish` are the steps of notebook 1 in two calls: tokenize and load the model; train and predict. Their arguments are the notebook's parameters, so that a fix can be merged into them. The checks of tokens, model and memory take the `Trainer` it made, before it has trained.
# %%
names = dataset["train"].features["label"].names
healthy = runs.prepare(dataset, parameters)
found = checks_model.check_tokens(dataset, healthy.encoded, healthy.tokenizer, task="classification")
found += checks_model.check_model(healthy.trainer, task="classification", seed=SEED)
print(f"{len(found)} findings in tokens, model and memory")
# %% md
# **During training.** First a healthy run, to know what health looks like: both losses fall, the validation loss stays above.
# %% nbval-ignore-output
healthy = runs.finish(healthy)
healthy.history[["train_loss", "validation_loss", "validation_accuracy"]].round(3)
# %% md
# Now illnesses, planted one at a time: a learning rate a hundred times too high, one a thousand times too low, far too many passes over few rows, and a quarter of the training labels wrong.
# %%
train = dataset["train"]
few = DatasetDict({**dataset, "train": data.subsample(train, 64, seed=SEED)})
wrong = np.random.default_rng(SEED).permutation(len(train))[: len(train) // 4]
flipped = {int(row): (train[int(row)]["label"] + 1) % len(names) for row in wrong}
noisy = repairs.mend(dataset, {"relabel_rows": flipped})
# %%
planted = {
    "learning rate x 100": (dataset, {"LEARNING_RATE": 100 * LEARNING_RATE}),
    "learning rate / 1000": (dataset, {"LEARNING_RATE": LEARNING_RATE / 1000}),
    "16 passes over 64 rows": (few, {"EPOCHS": 16}),
    "a quarter of the labels wrong": (noisy, {}),
}
# %% nbval-ignore-output
sick = {
    name: runs.finish(runs.prepare(rows, {**parameters, **changes}), test=dataset["test"])
    for name, (rows, changes) in planted.items()
}
plots.small_multiples({"healthy": healthy.history, **{name: run.history for name, run in sick.items()}})
# %% md
# The shapes are worth remembering, but two of the sick runs look alike, and the noisy one hardly looks sick. Evidence decides.
#
# ## 2 One illness at a time
#
# **Learning rate.** *Symptom*: the training loss does not fall.
# %% nbval-ignore-output
high, low = sick["learning rate x 100"], sick["learning rate / 1000"]
pd.DataFrame({"x 100": high.history.train_loss, "/ 1000": low.history.train_loss}).round(3)
# %% md
# *Diagnosis*: the same symptom, two causes. Adam moves each weight by about the learning rate a step, so its size against the weights' tells which.
# %%
diagnoses = {name: runs.diagnose(run) for name, run in sick.items()}
for run in (diagnoses["learning rate x 100"], diagnoses["learning rate / 1000"]):
    print(f"{run[0].name}: {run[0].cause}")
# %% nbval-ignore-output
diagnosis.table([run[0] for run in list(diagnoses.values())[:2]]).T
# %% md
# *Fix*: the finding's, or look for yourself. The range test (Smith 2017) trains a copy while the rate rises: take a tenth of where the loss is lowest.
# %% nbval-ignore-output
fresh = runs.prepare(dataset, parameters)
swept = learning_rates.learning_rate_range(fresh.trainer, lowest=1e-6, highest=1e-1, steps=40)
plots.learning_rate_range(swept, chosen=learning_rates.suggested_learning_rate(swept))
# %% md
# *Proof*: train with the finding's fix, and compare on the test rows.
# %% nbval-ignore-output
mended = {}
fix = diagnoses["learning rate x 100"][0].fix
mended["learning rate x 100"] = runs.finish(runs.prepare(dataset, diagnosis.changed(high.parameters, fix)))
print(diagnosis.fix_text(fix))
# %%
labels = np.array(dataset["test"]["label"])
verdict = comparison.compare(high.logits, mended["learning rate x 100"].logits, labels, names=("sick", "mended"))
print(f"mended is better: {verdict.table.low['accuracy'] > 0}, McNemar p under 0.05: {verdict.p_value < 0.05}")
# %% md
# **Out of memory.** *Symptom*: the run dies with an error. Here a limit stands in for a small GPU: more than 4 texts at a time do not fit.
# %%
crowded = runs.prepare(dataset, {**parameters, "EPOCHS": 1})
with out_of_memory.room_for(crowded.trainer, rows=4):
    try:
        crowded.trainer.train()
    except torch.OutOfMemoryError as error:
        found = checks_run.check_failure(error, parameters=parameters)
print(diagnosis.fix_text(found[0].fix))
# %% md
# *Fix*, without starting over: `halve_batch_when_out_of_memory` halves the batch as often as needed and accumulates as many more, from the optimizer step it was in. *Proof*: a run of one epoch with and without the limit ends with the same loss, since every step saw the same rows.
# %%
one_epoch = {**parameters, "EPOCHS": 1, "DROPOUT": 0.0, "PRECISION": "fp32"}  # nothing random, nothing rounded
ample = runs.finish(runs.prepare(dataset, one_epoch))
crowded = runs.prepare(dataset, one_epoch)
with out_of_memory.room_for(crowded.trainer, rows=4):
    out_of_memory.halve_batch_when_out_of_memory(crowded.trainer)
    crowded = runs.finish(crowded)
difference = (ample.history.train_loss - crowded.history.train_loss).abs().max()
print("halved at", [entry["micro_batch_size"] for entry in crowded.log_history if "micro_batch_size" in entry])
print(f"same loss within 0.01: {difference < 0.01}")
# %% md
# **Overfitting.** *Symptom*: the training loss is near nothing, the validation loss climbs.
# %% nbval-ignore-output
overfitted = sick["16 passes over 64 rows"]
plots.learning_curves(overfitted.history)
# %% nbval-ignore-output
diagnosis.table(diagnoses["16 passes over 64 rows"]).T
# %% md
# *Fix*: stop at the best epoch, and decay the weights more. Augmentation (Wei and Zou 2019) adds altered copies of the training rows, only of those. *Proof*: the log loss is what overfitting costs first.
# %% nbval-ignore-output
fix = {"EARLY_STOPPING": 1, "WEIGHT_DECAY": 0.1}
more = DatasetDict({**few, "train": augmentation.augment(few["train"], seed=SEED)})
cured = runs.prepare(more, {**overfitted.parameters, **fix})
mended["16 passes over 64 rows"] = runs.finish(cured, test=dataset["test"])
# %% nbval-ignore-output
verdict = comparison.compare(overfitted.logits, mended["16 passes over 64 rows"].logits, labels, names=("sick", "mended"))
verdict.table.loc[["accuracy", "log_loss"]].round(3)
# %% md
# **Imbalance.** *Symptom*: accuracy is fine, one class is never found. A twentieth of the training rows is left of it.
# %%
rare = [i for i, label in enumerate(train["label"]) if label == 1]
uneven = repairs.mend(dataset, {"remove_rows": rare[len(train) // 40 :]})
found = checks_data.check_dataset(uneven, task="classification", seed=SEED)
print(f"{found[0].name}: {found[0].symptom}; fix: {diagnosis.fix_text(found[0].fix)}")
# %% md
# *Fix*: rows of the rare class again, until there are as many. *Proof*: its recall on the test rows, which stay as they are.
# %% nbval-ignore-output
sick["imbalance"] = runs.finish(runs.prepare(uneven, parameters))
mended["imbalance"] = runs.finish(runs.prepare(repairs.mend(uneven, found[0].fix), parameters))
tables = {
    name: metrics.class_metrics(run["imbalance"].logits, labels, names=names, seed=SEED).loc[(names[1], "recall")]
    for name, run in (("sick", sick), ("mended", mended))
}
pd.DataFrame(tables).T.round(3)
# %% md
# **Label noise.** *Symptom*: none that a curve would show. *Diagnosis*: training labels are less likely than evaluation labels to a classifier that has not seen them; cleanlab lists which.
# %%
found = checks_data.check_dataset(noisy, task="classification", seed=SEED)
listed = found[0].fix.get("remove_rows", []) if found else []
print(f"first finding: {found[0].name if found else 'none'}")
# %% nbval-ignore-output
print(f"{len(listed)} rows listed; {len(set(listed) & set(flipped))} of the {len(flipped)} wrong ones among them")
for row in listed[:2]:
    print(f"{names[noisy['train'][row]['label']]}? {noisy['train'][row]['text'][:150]}")
# %% md
# *Fix*: leave them out (`remove_rows`), or have them labelled again (`relabel_rows`). *Proof*: on the clean test rows.
# %% nbval-ignore-output
mended["a quarter of the labels wrong"] = runs.finish(
    runs.prepare(repairs.mend(noisy, {"remove_rows": listed}), parameters), test=dataset["test"]
)
# %% md
# ## 3 Verification
#
# Every illness before and after its fix, on the same test rows: accuracy, the difference with its 95% interval, and what McNemar's test says of it. A fix that moved nothing is named as such.
# %% nbval-ignore-output
rows = {}
for name, after in mended.items():
    verdict = comparison.compare(sick[name].logits, after.logits, labels, names=("sick", "mended"), seed=SEED)
    rows[name] = verdict.table.loc["accuracy"].round(3).to_dict() | {"p": verdict.p_value}
table = pd.DataFrame.from_dict(rows, orient="index")
table["verdict"] = np.where(table.low > 0, "better", np.where(table.high < 0, "worse", "not told apart"))
table
# %%
print(f"{len(table)} fixes tried; any worse: {(table.verdict == 'worse').any()}")
# %% md
# ## 4 Your own run
#
# `RUN` names a folder that notebook 1 wrote (or a script of yours, with the same three files): its history, predictions and parameters are read, its data loaded again, and everything that needs no new training is checked.
# %% nbval-ignore-output
if RUN:
    found = runs.diagnose_folder(results.base_folder() / RUN, rate=checks_run.matrix_product_rate(precision=precision))
else:
    found = runs.diagnose(healthy)
diagnosis.table(found).T
# %% md
# **Record.** All that was measured above, as in every notebook.
# %%
summary = pd.concat({name: metrics.classification_metrics(run.logits, labels, seed=SEED) for name, run in mended.items()})
summary.index = [f"{name}/{metric}" for name, metric in summary.index]
record = results.write_record(
    results.base_folder() / OUTPUT_DIR,
    metrics=summary,
    parameters=parameters,
    source=DATA,
    dataset=dataset,
    model=MODEL,
    precision=precision,
    seed=SEED,
    seconds={"train": time.perf_counter() - started},
)
print(record.name)
# %% md
# ## Go on
#
# * [Notebook 1](01_fine_tune.ipynb): the healthy run, step by step.
# * [Notebook 3](03_evaluate.ipynb): how far can these numbers be trusted?
# * `benchmarks/faults.py`: how often does the diagnosis name a planted fault first, and how much does its fix win back?
