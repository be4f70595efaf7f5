"""Read inputs as people have them, one folder per case, and print a verdict for each.

    python benchmarks/cases.py FOLDER

The folder is `../shared/cases`; nothing in the project needs it. For each case the rows, the labels and what was
assumed are printed, so that a person can compare them with the table in its README.
"""

import logging
import sys
from pathlib import Path

from bert_helpers.errors import BertHelpersError
from bert_helpers.readers.source import assumed
from bert_helpers.tasks.registry import TASKS

C = "classification"
TOXIC = "toxic,severe_toxic,obscene,threat,insult,identity_hate"
# For each case: source, task, the options that a typical user gives, and the right behaviour: the number of rows in all
# splits (and of entities, or of questions with an answer), or a part of the error
CASES = [
    ("01_sms_spam_kaggle/spam.csv", C, {"text_column": "v2", "label_column": "v1"}, 240),
    ("01_sms_spam_kaggle/spam_utf8.csv", C, {"text_column": "v2", "label_column": "v1"}, 240),
    ("03_ag_news", C, {"text_column": "3", "label_column": "1"}, 240),
    ("03_ag_news", C, {"text_column": "2,3", "label_column": "1"}, 240),
    ("03_ag_news", C, {}, "columns by number"),
    ("04_sentiment140/training.1600000.processed.noemoticon.csv", C, {"text_column": "6", "label_column": "1"}, 200),
    ("04_sentiment140", C, {"text_column": "6", "label_column": "1"}, 200),
    ("05_emotions", C, {}, 300),
    ("09_jigsaw/train.csv", "multilabel", {"text_column": "comment_text", "label_column": TOXIC}, 200),
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
    ("22_doccano_classification/multi.jsonl", "multilabel", {}, 160),
    ("23_label_variants/data.csv", C, {}, 200),
    ("30_kaggle_gmb/ner_dataset.csv", "ner", {}, (160, 262)),
    ("30_kaggle_gmb/ner_dataset_utf8.csv", "ner", {}, (160, 262)),
    ("30_kaggle_gmb/no_commas_blank.csv", "ner", {}, (155, 262)),
    ("30_kaggle_gmb/no_commas_id.csv", "ner", {}, (155, 262)),
    ("30_kaggle_gmb/no_header.csv", "ner", {}, (160, 262)),
    ("30_kaggle_gmb/with_blank_lines.csv", "ner", {}, (160, 262)),
    ("32_doccano_spans/admin.jsonl", "ner", {}, (160, 262)),
    ("32_doccano_spans/relations.jsonl", "ner", {}, (160, 262)),
    ("33_labelstudio_ner/project-1-at-2024-01-01.json", "ner", {}, (160, 262)),
    ("33_labelstudio_ner/project-1-min.json", "ner", {}, (160, 262)),
    ("33_labelstudio_ner/project-1.conll", "ner", {}, (160, 262)),
    ("36_brat", "ner", {}, (40, 67)),
    ("38_germeval", "ner", {}, (160, 262)),
    ("38_germeval/renamed", "ner", {}, (160, 262)),
    ("38_germeval/renamed", "ner", {"tags_column": "4"}, (160, 36)),
    ("39_conllu/norne.conllu", "ner", {}, (160, 262)),
    ("39_conllu/norne_name.conll", "ner", {}, (160, 262)),
    ("39_conllu/plain.conll", "ner", {}, (160, 262)),
    ("39_conllu/plain_nomwt.conll", "ner", {}, (160, 262)),
    ("41_wikiann", "ner", {}, (160, 262)),
    ("41_wikiann/train.txt", "ner", {}, (120, 196)),
    ("42_bilou/train.conll", "ner", {}, (160, 262)),
    ("44_bare_labels/train.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/crlf.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/illegal_I.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/lower_o.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/mixed_sep.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/tag_first.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/three_blank.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/underscore.txt", "ner", {}, (160, 262)),
    ("45_messy_bio/missing_tag.txt", "ner", {}, 'line 78'),
    ("47_text_entities_csv/ner.csv", "ner", {}, (160, 262)),
    ("50_squad2/train-v2.0.json", "qa", {}, (100, 75)),
    ("51_covidqa_int_ids/COVID-QA.json", "qa", {}, (100, 100)),
    ("53_answer_start/arcd_wrong_start.json", "qa", {}, (100, 100)),
    ("54_answer_spaces/train.json", "qa", {}, (100, 100)),
    ("54b_offset_text_trailing/train.json", "qa", {}, (100, 100)),
    ("55_hf_rows/array.json", "qa", {}, (100, 100)),
    ("55_hf_rows/flat_data.json", "qa", {}, (100, 100)),
    ("55_hf_rows/train.json", "qa", {}, (100, 100)),
    ("55_hf_rows/train.jsonl", "qa", {}, (100, 100)),
    ("57_qa_csv/qa.csv", "qa", {}, 'holds it 2 times'),
    ("57_qa_csv/qa.csv", "qa", {"nearest_answer": True}, (100, 100)),
    ("57_qa_csv/qa.jsonl", "qa", {}, 'holds it 2 times'),
    ("57_qa_csv/qa.jsonl", "qa", {"nearest_answer": True}, (100, 100)),
    ("58_dup_ids/train.json", "qa", {}, (100, 100)),
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


MARKED = {
    "ner": lambda split: sum(tag % 2 for row in split["ner_tags"] for tag in row),  # names: O, B-, I-, B-, I-, …
    "qa": lambda split: sum(bool(answers["text"]) for answers in split["answers"]),
}


def main(folder: Path) -> int:
    """Print the verdicts and return the number of wrong ones."""
    logging.disable()
    wrong = 0
    for source, task, options, right in CASES:
        try:
            splits = TASKS[task].load(folder / source, **options)
            rows, found = (
                sum(map(len, splits.values())),
                sum(map(MARKED[task], splits.values())) if task in MARKED else 0,
            )
            said = ", ".join(f"{len(split)} {name}" for name, split in splits.items()) + f"; {found}; {assumed(splits)}"
            good = right == ((rows, found) if task in MARKED else rows)
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
