"""Old names of `files` and `records`, for notebooks that still use them."""

from collections.abc import Iterable
from pathlib import Path

from bert_helpers.files import base_folder, check_writable, resolve, to_json, write_json, write_text, writing
from bert_helpers.models import save_model
from bert_helpers.tasks.classification import save_predictions

__all__ = ["base_folder", "check_writable", "resolve", "save_model", "save_predictions", "to_json", "write_json",
           "write_text", "writing"]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in ("describe_data", "environment", "device_name"):
        raise AttributeError(name)
    from bert_helpers import records  # loads the tasks, which import this module

    return getattr(records, name)


def write_record(folder: Path, *, findings: Iterable | None = None, tasks: list[str] | None = None, **values) -> Path:  # noqa: ANN003
    """Write cards and record."""
    from bert_helpers import records
    from bert_helpers.diagnosis.findings import summary
    from bert_helpers.report.cards import write_cards

    if tasks is None:
        tasks = [] if "source" in values["data"] else list(values["data"])
    record = records.make(tasks=tasks, findings=None if findings is None else summary(findings), **values)
    write_cards(folder, records.asdict(record))
    return records.write(folder, record)
