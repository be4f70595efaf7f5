"""The subcommands: they call the notebooks' functions, print results to standard output and all else to standard error.

Imported only after the arguments have been checked (`cli.inputs`): the libraries take seconds.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import datasets
import pandas as pd
from tqdm import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.utils import logging

from bert_helpers import data, files, models, parameters, prediction, records, runs, training
from bert_helpers.cli import unlabelled
from bert_helpers.cli.inputs import say, show
from bert_helpers.diagnosis import checks_run
from bert_helpers.diagnosis import diagnose as checks
from bert_helpers.diagnosis import findings as diagnosis
from bert_helpers.diagnosis.fixes import ACTIONS
from bert_helpers.errors import ParameterError, TrainingError, counted
from bert_helpers.metrics import format_interval
from bert_helpers.report import cards, gallery
from bert_helpers.tasks.registry import TASKS

CHUNK = 1 << 15  # characters per write; a single long unbuffered write would not notice that the reader has gone


def prepare() -> None:
    """Hide the progress bars of Transformers, as `inputs.prepare` hides those of Datasets."""
    logging.disable_progress_bar()


# --- train -------------------------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> int:
    """Print the findings, train, and leave the same folder as the notebooks."""
    p, dataset = options.parameters, options.dataset
    folder = files.base_folder() / p["OUTPUT_DIR"]
    run = runs.prepare(dataset, p, task=options.task)
    # If torchrun started several processes, only the first one prints and writes; RANK alone does not identify it.
    first = run.trainer.is_world_process_zero()
    say_first = say if first else lambda line: None
    say_first(", ".join(f"{len(split)} {name}" for name, split in dataset.items()) + f" rows; {records.device_name()}")
    rows = checks.diagnose_rows(run)
    before = checks.diagnose(run, rows=rows)
    _say_findings(before, run, say_first)
    if (folder / "metrics.json").exists():
        say_first(f"{p['OUTPUT_DIR']} already holds a run; this one replaces it when it is done")
    run.trainer.add_callback(Progress())
    try:
        done = runs.finish(run, saved_later=True)
        found = checks.diagnose(done, rows=rows)
        if not first:
            return 0
        table = runs.save(done, folder, findings=diagnosis.summary(found), publish=cards.publish)
    except (MemoryError, RuntimeError, TrainingError) as error:
        for finding in checks_run.check_failure(error, parameters=p):
            raise TrainingError(finding.symptom, fix=f"fix: {_fix(finding, run)}") from error
        raise
    said = {finding.name for finding in before}
    _say_findings((finding for finding in found if finding.name not in said), run, say)
    print(_scores(table))
    print(f"\n{p['OUTPUT_DIR']}: " + " ".join(sorted(set(os.listdir(folder)) - {"checkpoints"})))
    _refresh_gallery(folder)
    return 0


def _refresh_gallery(run: Path) -> None:
    """Write the page of all runs in results/, a second for 200 of them. If that fails, the run is still complete."""
    results = files.base_folder() / "results"
    if results.resolve() not in run.resolve().parents:
        return say(f"not in results/, so not on its page; for a page of its own: gallery {os.path.relpath(run.parent)}")
    try:
        say(f"gallery: {os.path.relpath(gallery.write_gallery(results))}")
    except (OSError, ParameterError) as error:  # OSError: another process removes folders
        say(f"no gallery: {error}")


def _say_findings(findings: Iterable[diagnosis.Finding], run: runs.Run, say: Callable[[str], None]) -> None:
    for finding in findings:
        say(f"{finding.name}: {finding.symptom}; fix: {_fix(finding, run) or finding.cause}")


def _fix(finding: diagnosis.Finding, run: runs.Run) -> str:
    """Write a fix as options of `train` and their values, with data actions and advice as they are."""
    options, values = parameters.of_training(run.task), diagnosis.with_fix(run.parameters, finding.fix)
    given, rest = [], {}
    for name, value in finding.fix.items():
        known = name.removesuffix("_FACTOR")
        if known not in options:
            rest[name] = value
        elif (new := diagnosis.value_text(values[known])) != diagnosis.value_text(run.parameters.get(known)):
            given.append(f"{parameters.option_of(known)} {new}")
    text = ", ".join(part for part in (" ".join(given), diagnosis.fix_text(rest)) if part)
    if rest.keys() & ACTIONS.keys():
        text += f" (notebook 2 tries that: -p RUN {run.parameters.get('OUTPUT_DIR', 'and its folder')})"
    return "; ".join(part for part in (text, finding.advice) if part)


class Progress(TrainerCallback):
    """Shows a bar of steps on standard error if that is a terminal, and prints one line per epoch."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *more: object, **kwargs: object) -> None:
        hidden = None if state.is_world_process_zero else True  # None: hidden if this is not a terminal
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=hidden, leave=False)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *more: object, **kwargs: object) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, *more: object, metrics: dict[str, float], **kwargs: object
    ) -> None:
        # Of the two evaluations, the one on the validation rows comes last.
        if args.metric_for_best_model in metrics and state.is_world_process_zero:
            row = records.history_table(state.log_history).iloc[-1]
            row = row[~row.index.str.endswith("_log_loss")]  # equal to the loss, unless labels are smoothed
            scores = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in row.items())
            self.bar.clear()
            say(f"epoch {state.epoch:g} of {args.num_train_epochs:g}: {scores}")

    def on_train_end(self, *state: object, **kwargs: object) -> None:
        self.bar.close()


# --- evaluate, diagnose, compare ---------------------------------------------------------------------------


def evaluate(options: argparse.Namespace) -> int:
    """Compute the metrics of a run's test rows again and print them."""
    run = runs.read(options.runs[0], source=options.data)
    say(f"{run.task}: {counted(len(run.dataset['test']), 'test row')}")
    table = runs.scores(run)
    described = {"folder": options.folder, "task": run.task, "rows": len(run.dataset["test"])}
    return show(options, {**described, "metrics": table.to_dict(orient="index")}, _scores(table))


def diagnose(options: argparse.Namespace) -> int:
    """Print the findings of a run, with evidence and fix, and add them to its record."""
    folder = options.runs[0]
    run = runs.read(folder, source=options.data)
    found = checks.diagnose(run)
    summary = diagnosis.summary(found)
    content = [
        {**row, "cause": f.cause, "fix": f.fix, "advice": f.advice} for row, f in zip(summary, found, strict=True)
    ]
    status = show(options, content, "\n\n".join(_finding(f, run) for f in found) or "no finding")
    try:
        cards.publish_findings(folder, run.task, summary)
    except ParameterError as error:  # they have been printed all the same
        say(f"not recorded: {error}")
    return status


def _finding(finding: diagnosis.Finding, run: runs.Run) -> str:
    value, threshold, reason = finding.evidence
    rows = {
        "symptom": finding.symptom,
        "evidence": f"{value:.4g}, threshold {threshold:.4g}: {reason}",
        "cause": finding.cause,
        "fix": _fix(finding, run) or "none",
    }
    return "\n".join([finding.name, *(f"  {name:<9} {text}" for name, text in rows.items())])


def compare(options: argparse.Namespace) -> int:
    """Print whether two runs differ by more than chance on the test rows that both have."""
    first, second = (runs.read(folder, source=options.data) for folder in options.runs)
    compared = runs.compare(first, second, names=(options.first, options.second))
    table = compared.table
    content = {"sentence": compared.sentence, "p_value": compared.p_value, "metrics": table.to_dict(orient="index")}
    return show(options, content, f"{compared.sentence}\n\n{table.round(3).to_string()}")


def _scores(table: pd.DataFrame) -> str:
    width = max(map(len, table.index))
    return "\n".join(f"{name:<{width}}  {format_interval(row)}" for name, row in table.iterrows())


# --- predict -----------------------------------------------------------------------------------------------


def predict(options: argparse.Namespace) -> int:
    """Print predictions for texts from the arguments, a file or standard input."""
    p = options.parameters
    predictor = prediction.load(Path(files.resolve(options.folder)))
    columns = _columns(options, predictor)
    rows, others = _unlabelled(options, columns)
    tokens = f"at most {predictor.parameters['MAX_LENGTH']} tokens"
    say(f"{predictor.task}: {counted(len(rows), 'row')}, {tokens}, {training.resolve_precision(p['PRECISION'])}")
    found = unlabelled.filled(rows)
    table = prediction.predict(
        predictor,
        rows.select(found),
        precision=p["PRECISION"],
        batch_size=p["BATCH_SIZE"],
        show_progress=sys.stderr.isatty(),
    )
    if len(found) < len(rows):
        say(f"rows without a text, left blank: {len(rows) - len(found)}")
        whole = dict.fromkeys(table.select_dtypes("integer"), object)  # beside a blank, NumPy has no whole numbers
        table = table.astype(whole).set_index(found).reindex(range(len(rows)))
        table[rows.column_names] = rows.to_pandas()
    kept = others.column_names if p["KEEP_COLUMNS"] else []
    text = _written({name: data.values_of(others, name) for name in kept}, table, options.format)
    if options.out:
        files.write_text(Path(options.out), text)
    else:
        for start in range(0, len(text), CHUNK):
            sys.stdout.write(text[start : start + CHUNK])
    return 0


def _columns(options: argparse.Namespace, predictor: prediction.Predictor) -> dict[str, str]:
    """Return the column of each field: the one given as an option, else the run's own."""
    columns, fields = predictor.columns, TASKS[predictor.task].fields
    by_parameter = {name or parameters.column_parameter(field): field for field, name in fields.items()}
    for name, column in options.parameters.items():
        if name.endswith("_COLUMN") and column:
            if name not in by_parameter:
                problem, fix = f"is not for a {predictor.task} model", f"it reads {', '.join(fields)}"
                raise ParameterError(problem, parameter=name, fix=fix)
            columns[by_parameter[name]] = column
            if by_parameter[name] == "text":
                columns.pop("tokens", None)  # instead of which an entity tagger reads texts
    return columns


def _unlabelled(options: argparse.Namespace, columns: Mapping[str, str]) -> tuple[datasets.Dataset, datasets.Dataset]:
    if options.text:
        return unlabelled.from_arguments(options.text, columns)
    p = options.parameters
    how = {name.lower(): p[name] for name in parameters.of_reading() if name in p}
    how["named"] = any(p[name] for name in p if name.endswith("_COLUMN"))
    if options.file and options.file != "-":
        return unlabelled.from_file(Path(files.resolve(options.file)), columns, **how)
    if sys.stdin.isatty():
        say("one text per line; Ctrl-D ends")
    return unlabelled.from_stream(sys.stdin.buffer.read(), columns, **how)


def _written(given: Mapping[str, list], table: pd.DataFrame, form: str | None) -> str:
    """Write the file's own columns and the prediction's; names that both have are those of the prediction."""
    lists = [name for name in table if table[name].map(lambda value: isinstance(value, list)).any()]
    form = form or ("jsonl" if lists else "csv")
    ours = {*table, "row"} if lists and form == "csv" else {*table}
    taken, columns = {*ours, *given}, {}
    for name, values in given.items():
        new = name
        while new in ours or (new != name and new in taken):
            new += "_given"
        taken.add(new)
        columns[new] = pd.Series([_cell(value) for value in values] if form == "csv" else values, dtype=object)
    whole = pd.DataFrame(columns, index=table.index)
    if form == "jsonl":
        return "".join(files.to_json(row, indent=None) for row in whole.join(table).to_dict(orient="records"))
    if lists:  # one line per word; entities are longer
        table = table.drop(columns="entities", errors="ignore")
        table = table.explode([name for name in lists if name in table])
    return whole.join(table).to_csv(index=bool(lists), index_label="row")


def _cell(value: object) -> object:
    return files.to_json(value, indent=None).rstrip() if isinstance(value, (list, dict)) else files.plain(value)


# --- info --------------------------------------------------------------------------------------------------


def info(options: argparse.Namespace) -> int:
    """Print versions, device, precision, the packaged models and the samples."""
    samples = {task: {name: len(split) for name, split in spec.load("sample").items()} for task, spec in TASKS.items()}
    content = {
        **records.environment(training.resolve_precision()),
        "model": {
            name: f"SHA-256 {models.PACKAGED[name][2]['model.safetensors']}"
            for name in models.PACKAGED
            if models.locate(name)
        },
        "samples": samples,
    }
    lines = [f"{name:<14} {value}" for name, value in content.items() if isinstance(value, str)]
    lines += [f"{'model':<14} {name}, {digest}" for name, digest in content["model"].items()]
    lines += [
        f"{'sample':<14} {task}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
        for task, counts in samples.items()
    ]
    return show(options, content, "\n".join(lines))
