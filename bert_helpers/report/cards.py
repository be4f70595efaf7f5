"""Model cards: what a saved model is, how good it measured and where not, as README.md beside its weights."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import BertConfig

from bert_helpers import metrics, parameters, results, runs, tasks
from bert_helpers.errors import ModelError
from bert_helpers.evaluation import calibration, comparison

NOT_MEASURED = "not measured"
LONGEST, MOST = 300, 20  # characters of a text, classes that are named
TRAINING = ("MODEL", "TRAIN_SIZE", "EPOCHS", "GRADIENT_ACCUMULATION", "LEARNING_RATE")  # not of a model trained before
PIPELINES = {"classification": "text-classification", "regression": "text-classification",
             "ner": "token-classification", "qa": "question-answering"}  # fmt: skip
ON_THE_HUB = r"\w[\w.-]*/\w[\w.-]*|bert-(base|large)-[\w-]+"  # of a folder a record may hold the last part only
# With the model's folder, and the tokens that a text is cut at.
USES = {
    "classification": """\
from transformers import pipeline

classify = pipeline("text-classification", "{folder}")
print(classify("A text.", truncation=True, max_length={length}))""",
    "regression": """\
from transformers import pipeline

score = pipeline("text-classification", "{folder}", function_to_apply="none")
print(score({{"text": "A text.", "text_pair": "Another."}}, truncation=True, max_length={length}))""",
    "ner": """\
from transformers import pipeline

tag = pipeline("token-classification", "{folder}", aggregation_strategy="first")
print(tag("A text with names."))""",
    "qa": """\
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
inputs = tokenizer("A question?", "A text with the answer.", truncation="only_second", max_length={length},
                   return_tensors="pt")
output = model(**inputs)
start, end = output.start_logits.argmax(), output.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))""",
}
TEXTS = {"classification": '"A text."', "regression": '"A text." "Another."', "ner": '"A text with names."',
         "qa": '"A question?" "A text with the answer."'}  # fmt: skip
# Whatever comes from a run stands in code, where Markdown and HTML are text.
TEMPLATE = """\
---
{{ card_data }}
---

# {{ name }}

A BERT for {{ task }}, fine-tuned with `bert_helpers`. Its run wrote this card; what the run did not look at is "not
measured".
{% for title, told in facts.items() %}
- {{ title }}: {{ told }}
{%- endfor %}

## Metrics

Of the test rows. The intervals (95%) say what other test rows would change, not what another training seed would.
{% if rows %}
| metric | value (95% interval) |
| --- | --- |
{%- for name, told in rows.items() %}
| {{ name }} | {{ told }} |
{%- endfor %}
{% else %}
Not measured.
{% endif %}
## Limits
{% for title, told in limits.items() %}
- {{ title }}: {{ told }}
{%- endfor %}

## Use

```python
{{ use }}
```

Or encoded as in training, whatever the length:

```
python -m bert_helpers predict {{ folder }} {{ text }}
```

## Parameters

```json
{{ parameters }}
```
"""


def write_cards(folder: Path, record: Mapping[str, object]) -> list[Path]:
    """A README.md in the run's `model/`, or in that of each task of a run of several; returns those written.

    `record` is what metrics.json will hold, or a part of it. None is written for a model of no task or without a
    readable config, or where the record's metrics are of other models, as those of notebook 2. Raises ParameterError
    when it cannot be written.
    """
    several = [task for task in tasks.TASKS if task in (record.get("data") or {})]
    written = []
    for run in [folder / task for task in several] or [folder]:
        try:
            named = run.resolve().relative_to(folder.resolve().parent).as_posix()
            card = model_card(run, record, name=named) if (run / "model" / "config.json").is_file() else None
        except (ModelError, OSError):  # OSError: a config that cannot be read
            continue
        if card:
            written.append(results.write_text(run / "model" / "README.md", f"{card}\n"))
    return written


def model_card(run: Path, record: Mapping[str, object], *, name: str) -> ModelCard | None:
    """The card of the model in a run's folder, called `name`; None where the record is of other models.

    Raises ModelError for a model of no task.
    """
    task = runs.task_of(run / "model")
    p, data = runs.of_task(record, task)
    measured = _of_task(record.get("metrics") or {}, task)
    own = {key: row for key, row in measured.items() if re.fullmatch(r"\w+", key)}
    if measured and not own:
        return None
    place = "/".join([f"{p.get('OUTPUT_DIR', '')}", *name.split("/")[1:]])
    place = place if re.fullmatch(r"\w[\w./-]*", place) else "FOLDER"
    findings = record.get("findings")
    findings = findings.get(task) if isinstance(findings, dict) else findings
    given = {
        key: p[key] for key in parameters.of_training(task) if key in p and not (p.get("TRAINED") and key in TRAINING)
    }
    return ModelCard.from_template(
        _metadata(task, p, data, own, name),
        template_str=TEMPLATE,
        name=_code(name),
        task=task,
        facts=_facts(run, record, task, p, data),
        rows={key: metrics.format_interval(pd.Series(row, dtype=float)) for key, row in own.items()},
        limits=_limits(run, measured, task, p, place, findings),
        use=USES[task].format(folder=f"{place}/model", length=int(p.get("MAX_LENGTH") or 512)),
        folder=place,
        text=TEXTS[task],
        parameters=json.dumps({key: _plain(value) for key, value in given.items()}, indent=2, ensure_ascii=False),
    )


def _of_task(measured: Mapping[str, dict], task: str) -> dict[str, dict]:
    """The task's part of a record of several; else all."""
    prefix = f"{task}/"
    part = {key.removeprefix(prefix): row for key, row in measured.items() if key.startswith(prefix)}
    return part or dict(measured)


def _metadata(
    task: str, p: Mapping[str, object], data: Mapping[str, object], own: Mapping[str, dict], name: str
) -> ModelCardData:
    """What the Hub reads. No licence and no language: a run does not know them."""
    source = _clean(data.get("source") or "") or "unknown"
    found = {key: row["value"] for key, row in own.items() if row.get("value") is not None}
    evaluated = [
        EvalResult(
            task_type=PIPELINES[task],
            dataset_name=source,
            dataset_type=re.sub(r"[^\w./-]+", "-", source).strip("-./") or "unknown",
            dataset_split="test",
            metric_type=key,
            metric_value=round(value, 6),
        )
        for key, value in found.items()
    ]
    base = _clean(p.get("TRAINED") or p.get("MODEL", ""))
    known = re.fullmatch(ON_THE_HUB, base) and not (results.base_folder() / base).exists()
    return ModelCardData(
        base_model=base if known else None,
        library_name="transformers",
        pipeline_tag=PIPELINES[task],
        tags=["bert"],
        metrics=list(found) or None,
        model_name=_clean(name) if evaluated else None,
        eval_results=evaluated or None,
    )


def _facts(
    run: Path, record: Mapping[str, object], task: str, p: Mapping[str, object], data: Mapping[str, object]
) -> dict[str, str]:
    def told(value: object) -> str:
        return _code(value) if value is not None and _clean(value) else "not recorded"

    rows = ", ".join(f"{count} {_code(split)}" for split, count in (data.get("rows") or {}).items())
    versions = ", ".join(_code(f"{name} {value}") for name, value in (record.get("versions") or {}).items())
    seconds = (record.get("seconds") or {}).get("train")
    facts = {
        "Base model": told(p.get("TRAINED") or p.get("MODEL") or record.get("model"))
        + ("; not trained by this run: what it was fine-tuned on says its own card" if p.get("TRAINED") else ""),
        "Data": told(data.get("source")) + (f": {rows} rows" if rows else ""),
        "Fingerprint of the data": told(data.get("fingerprint")),
        "Seed": told(record.get("seed")),
        "Device and precision": f"{told(record.get('device'))}, {told(record.get('precision'))}"
        + (f"; trained for {seconds:.0f} s" if seconds is not None else ""),
        "Versions": versions or "not recorded",
    }
    if task in ("classification", "ner"):
        names = list(BertConfig.from_pretrained(run / "model").id2label.values())
        more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
        facts["Classes" if task == "classification" else "Tags"] = ", ".join(map(_code, names[:MOST])) + more
    return facts


# --- limits ------------------------------------------------------------------------------------------------


def _limits(
    run: Path, measured: Mapping[str, dict], task: str, p: Mapping[str, object], place: str, findings: object
) -> dict[str, str]:
    logits, seed = _logits(run / "predictions.csv") if task == "classification" else {}, p.get("SEED") or 0
    # Entities by type: "PER/f1".
    parts = {key: row for key, row in measured.items() if key.endswith("/f1") and not key.startswith("transfer/")}
    away = [
        f"{name} {metrics.format_interval(pd.Series(measured[f'transfer/{name}'], dtype=float))}"
        for name in ("accuracy", "f1")
        if f"transfer/{name}" in measured
    ]
    return {
        "Calibration": _calibration(logits, seed=seed),
        "Worst slice": _worst_class(logits, seed=seed) if task == "classification" else _worst_type(parts, task),
        "Another domain": f"{_code(p.get('TRANSFER_DATA') or 'unknown')}: {', '.join(away)}" if away else NOT_MEASURED,
        "Diagnosis": _diagnosis(findings)
        or f"not recorded; `python -m bert_helpers diagnose {place}` looks for what is wrong",
    }


def _diagnosis(findings: object) -> str:
    """Name and symptom of each finding; "" where a record has no list of them."""
    if not isinstance(findings, list):
        return ""
    rows = [row for row in findings if isinstance(row, dict)]
    return "; ".join(f"{_code(f.get('finding', ''))}, {_code(f.get('symptom', ''))}" for f in rows) or "no finding"


def _logits(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    """Logits, labels and class names by split from a classifier's predictions; empty where they cannot be read."""
    try:
        table = pd.read_csv(path, dtype={"label": str}, keep_default_na=False, encoding="utf-8")
        columns = [name for name in table if name.startswith("logit_")]
        names = [name.removeprefix("logit_") for name in columns]
        return {
            split: (rows[columns].to_numpy(dtype=float), np.array([names.index(x) for x in rows["label"]]), names)
            for split, rows in table.groupby("split")
        }
    except (OSError, ValueError, KeyError):
        return {}


def _calibration(logits: Mapping[str, tuple], *, seed: int) -> str:
    if not {"validation", "test"} <= logits.keys():
        return NOT_MEASURED
    (values, labels, _), (fitted, fitted_labels, _) = logits["test"], logits["validation"]
    with warnings.catch_warnings():  # of rows that are all right; then the temperature is 1
        warnings.simplefilter("ignore")
        temperature = calibration.fit_temperature(fitted, fitted_labels)
    before, after = (
        calibration.calibration_error(scaled, labels, seed=seed).T for scaled in (values, values / temperature)
    )
    # The interval is the true error's (see `calibration_error`); without this it looks like a mistake
    above = " (above its interval: on few rows chance adds to it)" * bool(
        before["ece"]["value"] > before["ece"]["high"]
    )
    by_chance, helps = before["ece_by_chance"]["value"], after["ece"]["value"] < before["ece"]["value"]
    return (
        f"expected calibration error {metrics.format_interval(before['ece'])}{above}, {by_chance:.3f} by chance alone; "
        f"{metrics.format_interval(after['ece'])} when logits are divided by the temperature {temperature:.2f}, fitted "
        f"on {len(fitted)} validation rows{'' if helps else ', which does not help here'}"
    )


def _worst_class(logits: Mapping[str, tuple], *, seed: int) -> str:
    if "test" not in logits:
        return NOT_MEASURED
    values, labels, names = logits["test"]
    table = comparison.by_slice(
        [names[i] for i in labels],
        lambda rows: metrics.ClassificationMeasure(values[rows], labels[rows]).intervals(["accuracy"], seed=seed),
    ).xs("accuracy", level="metric")
    if len(table) < 2:  # classes of so few rows that they came together
        return NOT_MEASURED
    row = table.loc[table["value"].idxmin()]
    name = "classes with fewer than 10, taken together" if row.name == "(rare)" else _code(row.name)
    return f"of the {row['rows']:.0f} rows of {name}, a share of {metrics.format_interval(row)} is found"


def _worst_type(parts: Mapping[str, dict], task: str) -> str:
    known = {key: row for key, row in parts.items() if row.get("value") is not None}
    if task != "ner" or not known:
        return NOT_MEASURED
    key = min(known, key=lambda key: known[key]["value"])
    return f"{_code(key.removesuffix('/f1'))}, f1 {metrics.format_interval(pd.Series(known[key], dtype=float))}"


# --- texts of somebody else --------------------------------------------------------------------------------


def _clean(value: object) -> str:
    """One line of characters that can be seen."""
    text = " ".join("".join(c if c.isprintable() else " " for c in f"{value}").split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, float)) or value is None else _clean(value)


def _code(value: object) -> str:
    """As code between more backticks than it holds in a row, so that nothing in it is Markdown or HTML.

    >>> print(_code("a `b` <c>"))
    `` a `b` <c> ``
    """
    text = _clean(value) or "(empty)"
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"
