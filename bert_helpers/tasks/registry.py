"""All tasks by name, for what takes any of them; who needs one task imports its class."""

from bert_helpers.tasks.base import Task
from bert_helpers.tasks.classification import Classification
from bert_helpers.tasks.multilabel import Multilabel
from bert_helpers.tasks.ner import EntityRecognition
from bert_helpers.tasks.qa import QuestionAnswering
from bert_helpers.tasks.regression import Regression

TASKS: dict[str, Task] = {
    task.name: task for task in (Classification(), Multilabel(), Regression(), EntityRecognition(), QuestionAnswering())
}
