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
    """Find what is in data and tokens, which training does not change."""
    p, task = run.parameters, run.task
    yield from checks_data.check_dataset(run.dataset, task=task, difference=p.get("DIFFERENCE"), seed=p["SEED"])
    yield from checks_model.check_tokens(run.dataset, run.encoded, run.tokenizer, task=task)


@check
def diagnose(
    run: Run,
    *,
    rows: Iterable[Finding] | None = None,
    rate: float | None = None,
    memory: float | None = None,
) -> Iterator[Finding]:
    """Find what is in data and tokens, and in the untrained model or the finished run, whichever it is.

    `rows` are those of `diagnose_rows`, if they are known already. `rate` is `checks_run.matrix_product_rate`'s (None:
    speed is not checked), `memory` what a step may take in bytes (None: what is free).
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
        learning_rate=p["LEARNING_RATE"],
        weight=models.initial_weight_size(run.trainer.model),
        usual=checks_model.usual_rate(run.trainer.model),
        classes=task.class_logits(run.validation),
        rate=rate,
    )
    if hasattr(config, "thresholds"):
        yield from checks_run.check_thresholds(*run.validation[:2], config.thresholds, seed=p["SEED"])
    if "has_answer" in run.encoded["validation"].column_names:
        rows = run.encoded["validation"], run.dataset["validation"]
        threshold = getattr(config, THRESHOLD, None)
        yield from checks_run.check_no_answer(run.validation, *rows, threshold, seed=p["SEED"])


def first_fix(found: Iterable[Finding]) -> Mapping[str, object]:
    """Return the fix of the first finding that a new training can prove; an empty one if there is none."""
    return next((finding.fix for finding in found if retrainable(finding.fix)), {})


def retrain(run: Run, fix: Mapping[str, object]) -> Run:
    """Train the run again with a finding's `fix`, on the fixed training rows and with its parameters; same test rows.

    Without a fix it is the run itself.

    Raises ParameterError for a fix whose effect a new training does not show (`retrainable`).
    """
    if not fix:
        return run
    if not retrainable(fix):
        names = ", ".join(fix)
        raise ParameterError(f"the fix changes {names}: no new training on the same test rows can show what it does.")
    dataset = fixes.apply_fix(run.dataset, fix, seed=run.parameters["SEED"])
    folder = f"{run.parameters['OUTPUT_DIR']}/retrained"  # the run's own checkpoints stay
    return finish(prepare(dataset, {**with_fix(run.parameters, fix), "OUTPUT_DIR": folder}, task=run.task))


def retrainable(fix: Mapping[str, object]) -> bool:
    """Return whether a fix changes training rows or how they are trained on, and leaves the test rows as they are."""
    names = {name.removesuffix("_FACTOR") for name in fix}
    return bool(names & {*PARAMETERS, *fixes.ACTIONS}) and not names & OTHER_TEST_ROWS
