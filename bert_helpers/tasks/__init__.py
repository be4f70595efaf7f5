"""What differs between the tasks, in one class and one file each; everything else is shared."""

from bert_helpers.tasks.base import Task, options
from bert_helpers.tasks.classification import Classification
from bert_helpers.tasks.ner import EntityRecognition
from bert_helpers.tasks.qa import QuestionAnswering
from bert_helpers.tasks.regression import Regression

__all__ = ["TASKS", "Task", "options"]

TASKS: dict[str, Task] = {
    task.name: task for task in (Classification(), Regression(), EntityRecognition(), QuestionAnswering())
}
