"""Read inputs as people have them, a folder a case, and print a verdict for each: `python benchmarks/cases.py FOLDER`.

The folder is `../shared/cases`; nothing in the project needs it. What is read is shown with rows, labels, and what was
assumed, so that a person can compare it with the table of its README.
"""

import logging
import sys
from pathlib import Path

from bert_helpers.errors import BertHelpersError
from bert_helpers.readers.source import assumed
from bert_helpers.tasks.registry import TASKS

C = "classification"
# By case: source, task, options of a normal user, and the right behaviour: rows of all splits, or a part of the error
CASES = [
    ("01_sms_spam_kaggle/spam.csv", C, {"text_column": "v2", "label_column": "v1"}, 240),
    ("01_sms_spam_kaggle/spam_utf8.csv", C, {"text_column": "v2", "label_column": "v1"}, 240),
    ("03_ag_news", C, {"text_column": "3", "label_column": "1"}, 240),
    ("03_ag_news", C, {"text_column": "2,3", "label_column": "1"}, 240),
    ("03_ag_news", C, {}, "columns by number"),
    ("04_sentiment140/training.1600000.processed.noemoticon.csv", C, {"text_column": "6", "label_column": "1"}, 200),
    ("04_sentiment140", C, {"text_column": "6", "label_column": "1"}, 200),
    ("05_emotions", C, {}, 300),
    ("11_float_labels/mixed.csv", C, {}, 200),
    ("11_float_labels/nan_label.csv", C, {}, "label is missing"),
    ("11_float_labels/nan_label.csv", C, {"drop_empty": True}, 198),
    ("11_float_labels/nan_literal.csv", C, {}, "'nan' says that there is none"),
    ("11_float_labels/train.csv", C, {"label_column": "Label"}, 200),
    ("11_float_labels/train_trailing_comma.csv", C, {"label_column": "Label"}, 202),
    ("11_float_labels/splits", C, {}, 200),
    ("13_kaggle_train_test", C, {"label_column": "target"}, 200),
    ("13_kaggle_train_test/with_empty.csv", C, {"label_column": "target"}, "text is empty"),
    ("13_kaggle_train_test/with_empty.csv", C, {"label_column": "target", "drop_empty": True}, 197),
    ("14_excel/data.xlsx", C, {}, 120),
    ("17_mrpc/train.tsv", C, {"text_column": "#1 String", "pair_column": "#2 String", "label_column": "Quality"}, 200),
    ("17_mrpc/msr_paraphrase_train.txt", C, {"text_column": "#1 String", "pair_column": "#2 String",
                                            "label_column": "Quality"}, 200),
    ("19_aclImdb", C, {}, 240),
    ("21_pandas_json/records.json", C, {}, 160),
    ("21_pandas_json/columns.json", C, {}, 160),
    ("21_pandas_json/index.json", C, {}, 160),
    ("21_pandas_json/data_field.json", C, {}, 160),
    ("21_pandas_json/columns_8000.json", C, {}, 8000),
    ("22_doccano_classification/all.jsonl", C, {}, 160),
    ("22_doccano_classification/annotations.jsonl", C, {}, 160),
    ("22_doccano_classification/multi.jsonl", C, {"label_column": "labels"}, "multilabel"),
    ("23_label_variants/data.csv", C, {}, 200),
    ("60_readability/train.csv", "regression", {"text_column": "excerpt", "pair_column": "", "label_column": "target",
                                                "low": -5.0}, 200),
    ("62_sts_01/pairs100.csv", "regression", {}, "LOW"),
    ("62_sts_01/pairs100.csv", "regression", {"high": 100.0}, 220),
    ("63_sick/SICK_train.txt", "regression", {"text_column": "sentence_A", "pair_column": "sentence_B",
                                              "label_column": "relatedness_score"}, 220),
    ("84_imbalanced/data.csv", C, {}, 330),
    ("85_noise", C, {}, 800),
    ("86_retweets/data.csv", C, {}, 190),
    ("87_german/de.csv", C, {}, 160),
    ("87_german/zh.csv", C, {}, 160),
    ("88_sorted/cut", C, {}, 300),
    ("91_columns_0_1/data.csv", C, {"text_column": "0", "label_column": "1"}, 160),
]  # fmt: skip


def main(folder: Path) -> int:
    """Print the verdicts; return how many are wrong."""
    logging.disable()
    wrong = 0
    for source, task, options, right in CASES:
        try:
            splits = TASKS[task].load(folder / source, **options)
            rows = sum(map(len, splits.values()))
            said = ", ".join(f"{len(split)} {name}" for name, split in splits.items()) + f"; {assumed(splits)}"
            good = right == rows
        except BertHelpersError as error:
            said, good = str(error), isinstance(right, str) and right in str(error)
        except Exception as error:
            said, good = f"{type(error).__name__}: {error}", False
        wrong += not good
        print(f"{'right' if good else 'WRONG'}  {source}  {options or ''}\n       {said[:600]}", flush=True)
    print(f"{len(CASES) - wrong} of {len(CASES)} right")
    return wrong


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
