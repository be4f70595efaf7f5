"""SQuAD's and seqeval's metrics as `evaluate.Metric`s that need neither the Hub nor downloaded code.

Inputs, names and units are those of the metrics "squad" and "seqeval" on the Hub. Results are plain numbers, which
`evaluate.save` can write.
"""

import evaluate
from datasets import Features, List, Value
from seqeval.metrics import accuracy_score, classification_report

from bert_helpers.errors import DataError
from bert_helpers.tasks.entities import check_tags
from bert_helpers.tasks.qa import exact_match, word_f1


class Squad(evaluate.Metric):
    """Exact match and F1 of answers in percent, as SQuAD's evaluation script 1.1 (Rajpurkar et al. 2016).

    >>> Squad().compute(
    ...     predictions=[{"id": "1", "prediction_text": "the river Oun"}],
    ...     references=[{"id": "1", "answers": {"text": ["River Oun", "the Oun"], "answer_start": [4, 4]}}],
    ... )
    {'exact_match': 100.0, 'f1': 100.0}
    """

    def _info(self) -> evaluate.MetricInfo:
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        given = {"id": Value("string"), "prediction_text": Value("string")}
        return evaluate.MetricInfo(
            description=Squad.__doc__,
            citation="Rajpurkar et al. 2016, SQuAD: 100,000+ questions for machine comprehension of text",
            inputs_description="predictions: id, prediction_text; references: id, answers (text, answer_start).",
            features=Features({"predictions": given, "references": {"id": Value("string"), "answers": answers}}),
        )

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict[str, float]:
        answers = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        unanswered = next((reference["id"] for reference in references if reference["id"] not in answers), None)
        if unanswered is not None:
            raise DataError(f"question {unanswered!r} has no prediction", fix="give one, empty if need be")
        if not references:
            raise DataError("there are no questions to score")
        bare = next((reference["id"] for reference in references if not reference["answers"]["text"]), None)
        if bare is not None:
            raise DataError(f"question {bare!r} has no reference answer; SQuAD 1.1 needs one")
        pairs = [(answers[reference["id"]], reference["answers"]["text"]) for reference in references]
        scores = {
            "exact_match": [max(exact_match(answer, text) for text in texts) for answer, texts in pairs],
            "f1": [max(word_f1(answer, text) for text in texts) for answer, texts in pairs],
        }
        return {name: 100 * sum(values) / len(values) for name, values in scores.items()}


class Seqeval(evaluate.Metric):
    """Precision, recall and F1 of entities, by type and overall, and tag accuracy, by the seqeval library.

    >>> Seqeval().compute(predictions=[["B-LOC", "O"]], references=[["B-LOC", "B-PER"]])["overall_recall"]
    0.5
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=Seqeval.__doc__,
            citation="Nakayama 2018, seqeval: a Python framework for sequence labeling evaluation",
            inputs_description="predictions and references: a list of IOB2 tags for each sentence.",
            features=Features({"predictions": List(Value("string")), "references": List(Value("string"))}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, object]:
        check_tags(predictions, references)
        report = classification_report(references, predictions, output_dict=True, zero_division=0)
        overall = report.pop("micro avg")
        names = {"precision": "precision", "recall": "recall", "f1-score": "f1"}
        return {
            **{
                kind: {to: float(scores[name]) for name, to in names.items()} | {"number": int(scores["support"])}
                for kind, scores in report.items()
                if not kind.endswith(" avg")
            },
            **{f"overall_{to}": float(overall[name]) for name, to in names.items()},
            "overall_accuracy": float(accuracy_score(references, predictions)),
        }
