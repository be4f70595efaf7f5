"""All tasks by name, for what takes any of them; who needs one task imports its class."""

from collections import UserDict
from importlib import import_module

from bert_helpers.tasks.base import Task


class _Tasks(UserDict):
    """Task objects, each made of its module and class when it is first asked for: one task loads one task."""

    def __getitem__(self, name: str) -> Task:
        task = super().__getitem__(name)
        if isinstance(task, str):
            module, _, class_name = task.partition(" ")
            task = self.data[name] = getattr(import_module(f"bert_helpers.tasks.{module}"), class_name)()
        return task


TASKS = _Tasks(
    {
        "classification": "classification Classification",
        "multilabel": "multilabel Multilabel",
        "regression": "regression Regression",
        "ner": "ner EntityRecognition",
        "qa": "qa QuestionAnswering",
    }
)
