"""Model cards: what a saved model is, how well it did, and what its limits are, as README.md next to its weights."""

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from bert_helpers import files, parameters, records
from bert_helpers.records import Record
from bert_helpers.report.templates import one_line, render
from bert_helpers.tasks.registry import TASKS

MOST = 20  # classes to name
# Parameters without meaning for a model that was trained before the run
TRAINING = ("MODEL", "TRAIN_SIZE", "EPOCHS", "GRADIENT_ACCUMULATION", "LEARNING_RATE")
ON_THE_HUB = r"\w[\w.-]*/\w[\w.-]*|bert-(base|large)-[\w-]+"  # a record may name a folder by its last part only
CONFIG = {"id2label": ({...: str}, None)}


def publish(folder: Path, record: Record) -> Path:
    """Write the cards of the models in a `records.new_run`, then its record, which marks the run as complete.

    Returns the record's path. Raises ParameterError if something cannot be written.
    """
    for name, text in cards(folder, record).items():
        files.write_text(folder / name, text)
    return records.write(folder, record)


def publish_findings(folder: Path, task: str, findings: Sequence[Mapping[str, object]]) -> None:
    """Put the findings of a run, as `findings.summary` returns them, into its card and record, whose date stays.

    Raises DataError if there is no record, ParameterError if something cannot be written.
    """
    record = records.read(folder).with_findings(task, findings)
    path = records.find(folder)
    folder, times, ours = path.parent, path.stat(), records.written_by_run(path.parent)
    texts = {}
    for name, text in cards(folder, record).items():
        if (folder / name).exists() and not files.is_unchanged(folder / name, ours.get(name)):
            warnings.warn(f"{folder.name}/{name} was changed by hand, and stays as it is", stacklevel=2)
        else:
            texts[name] = text
    with records.new_run(folder, replaced={*texts, records.NAME}) as new:
        for name, text in texts.items():
            files.write_text(new / name, text)
        os.utime(records.write(new, record), ns=(times.st_atime_ns, times.st_mtime_ns))


def cards(folder: Path, record: Record) -> dict[str, str]:
    """Return the text of README.md by its path: one in `model/`, or one per task if the run has several.

    A model has no card if it was not saved, or if the record's metrics are those of other models, as in notebook 2.
    """
    texts = {}
    for task in (task for task in TASKS if task in record.tasks):
        run = folder / task if record.has_several_tasks else folder
        name = run.resolve().relative_to(folder.resolve().parent).as_posix()
        part = record.of_task(task, TASKS[task].prefix)
        own = re.compile(rf"((?:{'|'.join(TASKS[task].subsets)})/)?\w+")
        measured = {metric: score for metric, score in part.metrics.items() if own.fullmatch(metric)}
        if (run / "model").is_dir() and (measured or not part.metrics):
            path = (run / "model" / "README.md").relative_to(folder).as_posix()
            texts[path] = model_card(part, measured, name=name, config=run / "model" / "config.json")
    return texts


def model_card(record: Record, metrics: Mapping[str, records.Score], *, name: str, config: Path) -> str:
    """Return the card of the model called `name` from the record of one task and the `metrics` on its own test rows.

    `config` is the path of the model's config.json, which has the names of its classes.
    """
    p, task = record.parameters, TASKS[record.tasks[0]]
    limits = (record.limits or {}).get(task.name, {})
    # Without other data, "transfer/f1" is the score of an entity type of that name.
    metrics_of = ("accuracy", "f1") if p.get("TRANSFER_DATA") else ()
    transfer = {metric: record.metrics.get(f"transfer/{metric}") for metric in metrics_of}
    read = task.columns(p)
    texts = {field: text for field, text in zip(task.fields, task.sample_texts, strict=False) if field in read}
    folder = "/".join([f"{p.get('OUTPUT_DIR', '')}", *name.split("/")[1:]])
    folder = folder if re.fullmatch(r"\w[\w./-]*", folder) else "FOLDER"
    length = p.get("MAX_LENGTH")
    unknown = TRAINING if p.get("TRAINED") else ()
    given = {key: p[key] for key in parameters.of_training(task.name) if key in p and key not in unknown}
    plain = {key: v if isinstance(v, (bool, int, float, type(None))) else one_line(v) for key, v in given.items()}
    return render(
        "card.md",
        metadata=_metadata(record, metrics, name),
        name=name,
        task=task.name,
        record=record,
        p={"TRAINED": "", "MODEL": "", "TRANSFER_DATA": "", **p},
        data={"source": "", "fingerprint": "", "rows": {}, **record.data},
        versions=[f"{library} {version}" for library, version in record.versions.items()],
        classes=list((files.read_json(config, CONFIG).get("id2label") or {}).values()) if task.has_classes else [],
        most=MOST,
        metrics=metrics,
        calibration=limits.get("calibration"),
        worst=limits.get("worst") and {**dict.fromkeys(("rows", *records.SCORE)), **limits["worst"]},
        transfer={metric: score for metric, score in transfer.items() if score},
        usage=task.usage.format(
            folder=f"{folder}/model",
            length=length if isinstance(length, int) else 512,
            example=json.dumps(next(iter(texts.values())) if len(texts) == 1 else texts),
        ),
        folder=folder,
        texts=" ".join(f'"{text}"' for text in texts.values()),
        parameters=json.dumps(plain, indent=2, ensure_ascii=False),
    )


def _metadata(record: Record, metrics: Mapping[str, records.Score], name: str) -> str:
    """Return the metadata for the Hub as YAML, without licence and language, which a run does not know."""
    source = one_line(record.data.get("source") or "") or "unknown"
    pipeline = TASKS[record.tasks[0]].pipeline
    kind = re.sub(r"[^\w./-]+", "-", source).strip("-./") or "unknown"
    measured = {metric: score["value"] for metric, score in metrics.items() if score["value"] is not None}
    facts = {"task_type": pipeline, "dataset_name": source, "dataset_type": kind, "dataset_split": "test"}
    evaluated = [
        EvalResult(**facts, metric_type=metric, metric_value=round(value, 6)) for metric, value in measured.items()
    ]
    base = one_line(record.parameters.get("TRAINED") or record.parameters.get("MODEL", ""))
    known = re.fullmatch(ON_THE_HUB, base) and not (files.base_folder() / base).exists()
    return ModelCardData(
        base_model=base if known else None,
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=["bert"],
        metrics=list(measured) or None,
        model_name=one_line(name) if evaluated else None,
        eval_results=evaluated or None,
    ).to_yaml()
