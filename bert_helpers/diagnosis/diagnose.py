"""Diagnose a run of any task, and train it again with the fix of a finding."""

from collections.abc import Iterable, Iterator, Mapping

from bert_helpers import models
from bert_helpers.diagnosis import checks_data, checks_model, checks_run, fixes
from bert_helpers.diagnosis.findings import Finding, check, with_fix
from bert_helpers.errors import ParameterError
from bert_helpers.parameters import PARAMETERS
from bert_helpers.runs import Run, finish, prepare
from bert_helpers.tasks.base import options
from bert_helpers.tasks.qa import THRESHOLD
from bert_helpers.tasks.registry import TASKS

OTHER_TEST_ROWS = {"redraw_splits", "TRAIN_SIZE", "VALIDATION_SIZE", "TEST_SIZE"}


@check
def diagnose_rows(run: Run) -> Iterator[Finding]:
    """Find the faults of data and tokens, which training does not change."""
    p, task = run.parameters, run.task
    yield from checks_data.check_dataset(run.dataset, task=task, difference=p.get("DIFFERENCE"), seed=p["SEED"])
    yield from checks_model.check_tokens(run.dataset, run.encoded, run.tokenizer, task=task)


@check
def diagnose(
    run: Run, *, rows: Iterable[Finding] | None = None, rate: float | None = None, memory: float | None = None
) -> Iterator[Finding]:
    """Find the faults of data and tokens, and those of the untrained model or the finished run.

    `rows` are the findings of `diagnose_rows`, if they are known already. `rate` is that of
    `checks_run.matrix_product_rate` (None: speed is not checked), `memory` what a step may take in bytes (None: all
    that is free).
    """
    p, task, history, config = run.parameters, TASKS[run.task], run.history, run.trainer.model.config
    yield from diagnose_rows(run) if rows is None else rows
    if history is None:
        yield from checks_model.check_model(run.trainer, task=task, memory=memory, seed=p["SEED"])
        return
    if p["EARLY_STOPPING"]:  # the model is that of the best epoch
        history = history.loc[: history.validation_loss.idxmin()]
    yield from checks_run.check_run(
        run.log_history,
        history,
        chance=task.chance_loss(run.encoded["train"], config, **options(task.chance_loss, p)),
        lowest=task.lowest_loss(run.encoded["train"], config, **options(task.lowest_loss, p)),
        learning_rate=p["LEARNING_RATE"],
        weight=models.initial_weight_size(run.trainer.model),
        usual=checks_model.usual_rate(run.trainer.model),
        classes=task.class_logits(run.validation),
        losses=checks_run.row_losses(run.trainer, run.validation) if task.has_classes else None,
        rate=rate,
    )
    if hasattr(config, "thresholds"):
        yield from checks_run.check_thresholds(*run.validation[:2], config.thresholds, seed=p["SEED"])
    if "has_answer" in run.encoded["validation"].column_names:
        rows = run.encoded["validation"], run.dataset["validation"]
        threshold = getattr(config, THRESHOLD, None)
        yield from checks_run.check_no_answer(run.validation, *rows, threshold, seed=p["SEED"])


def first_fix(found: Iterable[Finding]) -> Mapping[str, object]:
    """Return the first fix whose effect a new training can show (`retrainable`); an empty one if there is none."""
    return next((finding.fix for finding in found if retrainable(finding.fix)), {})


def retrain(run: Run, fix: Mapping[str, object]) -> Run:
    """Train again with a finding's `fix`, that is its parameters and the fixed training rows; the test rows stay.

    Without a fix, return the run itself. Raises ParameterError for a fix that is not `retrainable`.
    """
    if not fix:
        return run
    if not retrainable(fix):
        names = ", ".join(fix)
        raise ParameterError(f"the fix changes {names}: no new training on the same test rows can show what it does")
    dataset = fixes.apply_fix(run.dataset, fix, seed=run.parameters["SEED"])
    folder = f"{run.parameters['OUTPUT_DIR']}/retrained"  # keeps the run's own checkpoints
    return finish(prepare(dataset, {**with_fix(run.parameters, fix), "OUTPUT_DIR": folder}, task=run.task))


def retrainable(fix: Mapping[str, object]) -> bool:
    """Return whether a fix changes the training rows or the training, and leaves the test rows as they are."""
    names = {name.removesuffix("_FACTOR") for name in fix}
    return bool(names & {*PARAMETERS, *fixes.ACTIONS}) and not names & OTHER_TEST_ROWS
