"""All tasks by name, for code that takes any task. Code for one task imports its class instead."""

from collections import UserDict
from importlib import import_module

from bert_helpers.tasks.base import Task


class _Tasks(UserDict):
    """Task objects, each made from its module and class on first access, so that other tasks are not imported."""

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
