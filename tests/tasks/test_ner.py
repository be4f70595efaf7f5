"""Tags, alignment and entity metrics."""

import json
from itertools import pairwise, product
from types import SimpleNamespace

import helpers
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2
from transformers import BertConfig
from transformers.trainer_utils import PredictionOutput

from bert_helpers import DataError, ParameterError, models, training
from bert_helpers.readers import conll, source
from bert_helpers.tasks import entities, ner
from bert_helpers.tasks.registry import TASKS

# --- files -------------------------------------------------------------------------------------------------

WORDS = [["Anna", "Lee", "sings"], ["Rain"]]
TAGS = [["B-PER", "I-PER", "O"], ["O"]]


def columns(separator, extra="", newline="\n"):
    blocks = [
        newline.join(separator.join([w, *([extra] if extra else []), t]) for w, t in zip(words, labels, strict=True))
        for words, labels in zip(WORDS, TAGS, strict=True)
    ]
    return (newline * 2).join(blocks) + newline


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


BAD = {
    "one column": ("a.conll", "Anna\nLee\n", "line 1: 'Anna' does not end in a tag"),
    "a tag missing": ("a.conll", "Anna\tB-PER\nLee\nsings\tO\n", "line 2: 1 columns, where the file has 2"),
    "a column missing": ("a.conll", "Anna N B-PER\nLee I-PER\nsings V O\n", "line 2: 2 columns, where.*3"),
    "empty": ("a.conll", "", "empty"),
    "blank lines only": ("a.conll", "\n\n\n", "holds no words"),
    "no type": ("a.conll", "Anna B-PER\nLee I\nsings O\n", "line 2: 'I' is not a tag"),
    "no type after the prefix": ("a.conll", "Anna B-PER\nLee B-\n", "line 2: 'B-' is not a tag"),
    "no prefix": ("a.conll", "Anna B-PER\n\nLee PER\n", "line 3: 'PER' is not a tag"),
    "illegal": ("a.conll", "Anna B-PER\nLee E-LOC\nsings O\n\nBrask S-LOC\n", "line 2: E-LOC after B-PER is illegal"),
    "undecodable": ("a.conll", b"Anna B-PER\nL\xc3\xa9\xe9e I-PER\n", "line 2: byte 4 is not UTF-8"),
    "count": ("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O"]}\n', "row 1.*2 words but 1 tags"),
    "numbers without names": ("a.jsonl", '{"tokens": ["a"], "ner_tags": [0]}\n', "row 1.*0 is not a tag"),
    "no words": ("a.jsonl", '{"tokens": [], "ner_tags": []}\n' * 2, "row 1.*a list of words"),
    "null word": ("a.jsonl", '{"tokens": ["a", null], "ner_tags": ["O", "O"]}\n', "word 2: the word None is not text"),
    "columns": ("a.jsonl", '{"words": ["a"], "ner_tags": ["O"]}\n', "no column 'tokens'.*'words'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_its_place(case, tmp_path):
    name, content, message = BAD[case]
    with pytest.raises(DataError, match=message):
        TASKS["ner"].load(write(tmp_path / name, content))


def test_a_tag_unknown_to_training_is_named(tmp_path):
    write(tmp_path / "train.conll", columns(" ") * 9)
    write(tmp_path / "test.conll", "Brask B-LOC\n")
    with pytest.raises(
        DataError, match=r"test\.conll.*line 1: the tag 'B-LOC' is not among those trained on, O, B-PER"
    ):
        TASKS["ner"].load(tmp_path)
    with pytest.raises(DataError, match=r"the tag 'B-LOC' .* TRANSFER_TYPES, or leave this text out \(TRANSFER_DATA"):
        ner.load_tagged_rows(tmp_path / "test.conll", ["O", "B-PER", "I-PER"])


def test_types_of_other_data_are_read_from_a_line():
    assert conll.read_types("town:place,human : person ,") == {"town": "place", "human": "person"}
    assert conll.read_types(" ") is None
    for text in ("town", "a:b:c", "town:", ":place"):
        with pytest.raises(ParameterError, match=f"TRANSFER_TYPES has '{text}'; write their type, a colon and ours"):
            conll.read_types(text)


def test_types_are_renamed_and_dropped(tmp_path):
    path = write(tmp_path / "a.conll", "Anna B-person\nin O\nBrask B-place\n")
    rows = ner.load_tagged_rows(path, ["O", "B-PER", "I-PER"], types={"person": "PER"})
    assert rows[0] == {"tokens": ["Anna", "in", "Brask"], "ner_tags": [1, 0, 0]}
    with pytest.raises(
        DataError, match=r"a\.conll: no entity of the type 'persn'; there are person, place; .* TRANSFER_TYPES"
    ):
        ner.load_tagged_rows(path, ["O", "B-PER", "I-PER"], types={"persn": "PER"})


def test_files_named_as_conll_2003_names_them_are_splits_and_the_scheme_is_reported(tmp_path):
    iob1 = columns(" ").replace("B-PER", "I-PER") + "\n"
    for name in ("eng.train", "eng.testa", "eng.testb"):
        write(tmp_path / name, iob1)
    dataset = TASKS["ner"].load(tmp_path)
    assert {name: len(split) for name, split in dataset.items()} == {"train": 2, "validation": 2, "test": 2}
    assert source.source_name(dataset["validation"]) == "eng.testa, tags in IO"
    assert dataset["train"].features["ner_tags"].feature.names == ["O", "B-PER", "I-PER"]
    assert dataset["train"][0]["ner_tags"] == [1, 2, 0]


def test_json_lines_give_the_same_rows_as_columns(tmp_path):
    rows = [{"tokens": w, "ner_tags": t} for w, t in zip(WORDS, TAGS, strict=True)] * 10
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(tmp_path / "a.conll", (columns(" ") + "\n") * 10)
    one, two = (TASKS["ner"].load(tmp_path / name) for name in ("a.jsonl", "a.conll"))
    assert all(one[name].to_list() == two[name].to_list() for name in one)


# --- alignment ---------------------------------------------------------------------------------------------

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def dataset_of(rows):
    return DatasetDict({"test": Dataset.from_dict({"tokens": [r[0] for r in rows], "ner_tags": [r[1] for r in rows]})})


def decode(encoded):
    """Return the labels that a perfect tagger would predict, put back into sentences."""
    width = max(encoded["length"])
    labels = np.array([row + [-100] * (width - len(row)) for row in encoded["labels"]])
    return [row.tolist() for row in ner.sentences_from_windows(labels, labels, encoded["sentence"])[0]]


WORD = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "\u200b", "\x00", "unbelievably", "don't", "...!!!", "[SEP]", "🙂", "ﬁ", "Ａ", "\ud800"[:0]]
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(WORD, st.integers(0, 4)), max_size=60).map(
            lambda pairs: tuple(zip(*pairs, strict=True)) or ((), ())
        ),
        min_size=1,
        max_size=4,
    ),
    max_length=st.integers(8, 64),
    share=st.floats(0, 0.9),
)
def test_aligned_labels_decode_to_the_tags_and_every_word_is_predicted_once(tokenizer, rows, max_length, share):
    rows = [(list(words), list(labels)) for words, labels in rows]
    stride = int(share * (max_length - 3))
    encoded = TASKS["ner"].encode(dataset_of(rows), tokenizer, max_length=max_length, stride=stride)["test"]
    assert decode(encoded) == [labels for _, labels in rows]
    assert max(encoded["length"]) <= max_length
    assert {len(row) for row in encoded["input_ids"]} == set(encoded["length"])


@pytest.mark.parametrize("length", [0, 1, 29, 30, 31, 61, 500, 3000])
def test_sentences_of_any_length_lose_no_word(length, tokenizer):
    labels = [i % 5 for i in range(length)]
    rows = [([f"word{i}" for i in range(length)], labels), (["end"], [1])]
    encoded = TASKS["ner"].encode(dataset_of(rows), tokenizer, max_length=32, stride=10)["test"]
    assert decode(encoded) == [labels, [1]]


@pytest.mark.parametrize("stride", [0, 10, 25])
def test_every_window_has_something_to_learn_even_amid_a_word_that_fills_it(stride, tokenizer):
    rows = [(["see", "https://" + "q7x-" * 60, "now"], [0, 1, 0])]
    encoded = TASKS["ner"].encode(dataset_of(rows), tokenizer, max_length=32, stride=stride)["test"]
    assert decode(encoded) == [[0, 1, 0]]
    assert all(max(labels) >= 0 for labels in encoded["labels"])  # the mean loss of no label is NaN


def test_a_word_at_a_border_is_labelled_where_it_has_context(tokenizer):
    rows = [(["a"] * 100, [0] * 100)]
    encoded = TASKS["ner"].encode(dataset_of(rows), tokenizer, max_length=32, stride=10)["test"]
    for number, row in enumerate(encoded):
        own = [i for i, label in enumerate(row["labels"]) if label != -100]
        if number:
            assert own[0] >= 5
        if number < len(encoded) - 1:
            assert own[-1] <= row["length"] - 5


def test_pieces_and_labels_by_hand():
    tokenizer = models.load_tokenizer(models.DEFAULT_MODEL)
    row = TASKS["ner"].encode(dataset_of([(["Okafor", "left"], [1, 0])]), tokenizer)["test"][0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["[CLS]", "ok", "##af", "##or", "left", "[SEP]"]
    assert row["labels"] == [-100, 1, -100, -100, 0, -100]


@pytest.mark.parametrize("stride", [-1, 30, 31])
def test_a_stride_without_room_is_refused(stride, tokenizer):
    with pytest.raises(ParameterError, match=f"STRIDE is {stride}.*0 to 29"):
        TASKS["ner"].encode(dataset_of([(["a"], [0])]), tokenizer, max_length=32, stride=stride)


# --- legal tags ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_legal_tags_are_the_best_of_all_legal_sequences(length, seed):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=(length, len(NAMES))) for _ in range(4)] + [np.eye(5)[[1, 2]][:length]] * 9
    for row, found in zip(scores, entities.legal_tags(scores, NAMES), strict=True):
        legal = [
            tags
            for tags in product(range(len(NAMES)), repeat=len(row))
            if all(j not in (2, 4) or i in (j - 1, j) for i, j in pairwise((0, *tags)))
        ]
        best = max(legal, key=lambda tags: sum(row[i, tag] for i, tag in enumerate(tags)))
        assert found == [NAMES[tag] for tag in best]


def test_legal_tags_depend_on_the_names_of_the_tags_and_not_on_the_other_sentences():
    scores = [np.eye(5)[[2, 2, 0]]] * 3 + [np.eye(5)[[1, 2, 0]]]
    assert entities.legal_tags(scores, NAMES) == [["B-PER", "I-PER", "O"]] * 4
    assert entities.legal_tags(scores[:1], NAMES) == [["B-PER", "I-PER", "O"]]
    names = ["O", "B-LOC", "I-PER", "I-LOC", "I-ORG"]  # two types without B-
    assert entities.legal_tags(scores[:1], names) == [["I-PER", "I-PER", "O"]]


def test_predicted_tags_are_legal_unless_greedy():
    labels = np.array([[-100, 0, 0, -100], [-100, 0, -100, -100]])
    scores = np.zeros((2, 4, 5))
    scores[0, 1], scores[0, 2] = [3, 2.9, 0, 0, 0], [0, 0, 4, 0, 0]  # O I-PER; B-PER I-PER has nearly the same sum
    scores[1, 1, 3] = 9
    output = PredictionOutput(scores, labels, {})
    encoded = Dataset.from_dict({"sentence": [0, 1]})
    assert ner.predicted_tags(output, encoded, NAMES, greedy=True) == [["O", "I-PER"], ["B-LOC"]]
    assert ner.predicted_tags(output, encoded, NAMES) == [["B-PER", "I-PER"], ["B-LOC"]]


@pytest.mark.parametrize(("own", "tags"), [(True, ["B-PER", "I-PER"]), (False, ["I-PER", "I-PER"])])
def test_a_model_of_another_program_may_have_learned_iob1(own, tags, tiny_bert):
    config = BertConfig(id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)})
    if own:
        TASKS["ner"].finish_model(SimpleNamespace(config=config))
    output = PredictionOutput(np.eye(5)[[[0, 2, 2, 0]]], np.array([[-100, 0, 0, -100]]), {})
    rows = Dataset.from_dict({"tokens": [["Ann", "Lee"]]})
    assert TASKS["ner"].table(output, Dataset.from_dict({"sentence": [0]}), rows, config) == {"tags": [tags]}


# --- spans of characters -----------------------------------------------------------------------------------


def as_spans(words, tags):
    """Return a sentence as text with character spans, independently of the code under test."""
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    found = [[int(starts[a]), int(starts[b]) + len(words[b]), kind] for kind, a, b in get_entities(tags)]
    return {"text": " ".join(words), "label": found}


def test_columns_and_spans_of_the_same_sentences_have_the_same_f1_to_the_last_digit(tmp_path):
    """As for CoNLL-2003, where both are 0.8…: words are separated by blanks."""
    sample = TASKS["ner"].load("sample")
    names = sample["train"].features["ner_tags"].feature.names
    for name, split in sample.items():
        rows = [as_spans(row["tokens"], [names[i] for i in row["ner_tags"]]) for row in split]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spans = TASKS["ner"].load(tmp_path, words="blanks")
    test, gold = spans["test"], entities.named(spans["test"]["ner_tags"], names)
    assert [split["tokens"] for split in spans.values()] == [split["tokens"] for split in sample.values()]
    assert [split["ner_tags"] for split in spans.values()] == [split["ner_tags"] for split in sample.values()]
    rng = np.random.default_rng(0)
    guess = entities.legal_tags(
        [rng.normal(size=(len(row), 9)) + 2 * np.eye(9)[row] for row in test["ner_tags"]], names
    )
    by_word = TASKS["ner"].measure(guess, gold, sample["test"]).values()
    by_character = TASKS["ner"].measure(guess, gold, test).values()
    assert 0.1 < by_word["f1"] < 0.9
    for name in ("f1", "precision", "recall"):
        assert by_character[f"span_{name}"] == by_character[name] == by_word[name]
    assert "span_f1" not in by_word


def test_a_span_that_cuts_a_word_is_learned_whole_and_scored_as_it_is(tmp_path):
    rows = [{"text": "the Rhine-Main area", "label": [[4, 9, "LOC"]]}, {"text": "the Rhine", "label": [[4, 9, "LOC"]]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
    split = TASKS["ner"].load(tmp_path / "a.jsonl", words="blanks")["train"]
    perfect = entities.named(split["ner_tags"], ["O", "B-LOC", "I-LOC"])
    values = TASKS["ner"].measure(perfect, perfect, split).values()
    whole = sum(text == "the Rhine" for text in split["text"])
    assert values["f1"] == 1
    assert values["span_f1"] == whole / len(split)


def test_new_texts_get_the_characters_of_their_entities(tokenizer):
    text = "  Anna Lee,\n who is in Øst–Brask. "
    rows = TASKS["ner"].with_fields(Dataset.from_dict({"text": [text, "  "]}), tokenizer)
    tags = [["B-PER", "I-PER", *["O"] * 4, "B-LOC", "I-LOC", "I-LOC", "O"], ["O"]]
    assert [len(row) for row in rows["tokens"]] == [10, 1]
    found = entities.character_spans(text, rows["tokens"][0], tags[0])
    assert found == [(2, 10, "PER", "Anna Lee"), (23, 32, "LOC", "Øst–Brask")]
    assert all(text[start:end] == part for start, end, _, part in found)
    assert entities.character_spans("  ", rows["tokens"][1], tags[1]) == []


def test_tags_that_are_numbers_need_their_names(tmp_path):
    rows = [{"tokens": ["Anna", "Lee", "sings"], "ner_tags": [1, 2, 0]}] * 20
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(tmp_path / "a.conll", "Anna 1\nLee 2\nsings 0\n\n" * 20)
    for name in ("a.jsonl", "a.conll"):
        dataset = TASKS["ner"].load(tmp_path / name, tag_names="O, B-PER, I-PER")
        assert dataset["train"].features["ner_tags"].feature.names == ["O", "B-PER", "I-PER"]
        assert dataset["train"][0]["ner_tags"] == [1, 2, 0]
        with pytest.raises(DataError, match=r"1'? is not a tag; give their names in order by TAG_NAMES"):
            TASKS["ner"].load(tmp_path / name)
    with pytest.raises(DataError, match="2 is not a tag"):
        TASKS["ner"].load(tmp_path / "a.jsonl", tag_names="O, B-PER")


def test_a_split_without_tags_is_left_out_with_a_word(tmp_path):
    write(tmp_path / "train.conll", (columns(" ") + "\n") * 20)
    write(tmp_path / "test.conll", "Anna\nLee\nsings\n\nRain\n")
    dataset = TASKS["ner"].load(tmp_path)
    assert source.assumed(dataset)["test.conll"] == {"left out": "no labels; use it with predict"}
    with pytest.raises(DataError, match="does not end in a tag"):
        TASKS["ner"].load(tmp_path / "test.conll")


# --- metrics -----------------------------------------------------------------------------------------------

CASES = {
    "perfect": ([["B-PER", "I-PER", "O"]], [["B-PER", "I-PER", "O"]]),
    "orphan I": ([["B-PER", "O", "B-LOC"]], [["I-PER", "O", "I-LOC"]]),
    "type switch inside": ([["B-PER", "I-PER", "I-PER"]], [["B-PER", "I-LOC", "I-PER"]]),
    "nothing predicted": ([["B-PER", "O"], ["O"]], [["O", "O"], ["O"]]),
    "nothing there": ([["O", "O"]], [["B-PER", "O"]]),
    "boundary": ([["B-ORG", "I-ORG", "I-ORG", "O"]], [["B-ORG", "I-ORG", "O", "O"]]),
    "neighbours": ([["B-PER", "B-PER", "I-PER"]], [["B-PER", "I-PER", "I-PER"]]),
    "several": (
        [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"], ["B-MISC", "O", "O"]],
        [["B-PER", "I-PER", "O", "B-ORG"], ["B-LOC", "B-ORG"], ["O", "O", "B-MISC"]],
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning", "ignore::UserWarning")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_seqevals(case, strict):
    gold, predicted = CASES[case]
    options = {"mode": "strict", "scheme": IOB2} if strict else {}
    ours = entities.EntityMeasure(predicted, gold, strict=strict).values()
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert ours[name] == pytest.approx(score(gold, predicted, zero_division=0, **options)), name
    assert ours["token_accuracy"] == pytest.approx(accuracy_score(gold, predicted))


def test_scores_by_type_equal_seqevals():
    gold, predicted = CASES["several"]
    ours = entities.EntityMeasure(predicted, gold).by_type(n_resamples=20)
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    for kind in ("PER", "LOC", "ORG", "MISC"):
        assert ours.value[kind] == pytest.approx(report[kind]["f1-score"])
        assert ours.precision[kind] == pytest.approx(report[kind]["precision"])
        assert ours.recall[kind] == pytest.approx(report[kind]["recall"])
        assert ours.support[kind] == report[kind]["support"]


def test_the_modes_differ_where_they_should():
    gold, predicted = CASES["orphan I"]
    assert entities.EntityMeasure(predicted, gold).values()["f1"] == 1
    assert entities.EntityMeasure(predicted, gold, strict=True).values()["f1"] == 0


def test_tagging_nothing_scores_the_share_of_o():
    gold = [["B-PER", "O", "O", "O"]]
    values = entities.EntityMeasure([["O"] * 4], gold).values()
    assert values["all_o_accuracy"] == values["token_accuracy"] == 0.75
    assert values["f1"] == 0


def test_intervals_come_from_resampled_sentences():
    gold = [["B-PER", "O"]] * 50 + [["O", "B-LOC"]] * 50
    predicted = [["B-PER", "O"]] * 50 + [["O", "O"]] * 50
    table = entities.EntityMeasure(predicted, gold).intervals()
    assert table.value["recall"] == 0.5
    assert table.low["recall"] == pytest.approx(0.4, abs=0.02)  # binomial: 0.5 ± 1.96 · 0.05
    assert table.high["recall"] == pytest.approx(0.6, abs=0.02)


def test_kinds_of_error_by_hand():
    gold = [["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "I-ORG", "O", "B-MISC"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG", "O", "B-ORG", "O", "B-LOC", "O"]]
    assert entities.error_kinds(gold, predicted).to_dict() == {
        **{"correct": 1, "wrong type": 1, "wrong boundary": 1, "both wrong": 0, "missed": 1, "spurious": 1}
    }


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([["O"]], [["O"], ["O"]], "2 predicted sentences for 1"),
        ([], [], "0 predicted sentences"),
        ([["O", "O"]], [["O"]], "sentence 1: 1 predicted tags for 2 words"),
        ([["O"], ["MISC", "O"]], [["O"], ["MISC", "O"]], "sentence 2: 'MISC' is not a tag"),  # not a type 'ISC'
    ],
)
def test_predictions_that_do_not_fit_are_refused(gold, predicted, message):
    with pytest.raises(DataError, match=message):
        entities.EntityMeasure(predicted, gold)


def test_the_worst_sentences_come_first():
    gold = [["O"], ["B-PER", "O"], ["B-PER", "B-LOC"]]
    predicted = [["O"], ["O", "O"], ["O", "B-PER"]]
    assert entities.worst_sentences(gold, predicted) == [2, 1]


def test_the_baseline_knows_the_commonest_tag_of_a_word():
    lexicon = entities.most_frequent_tags(
        [["Brask", "won"], ["in", "brask"], ["Brask"]], [["B-ORG", "O"], ["O", "B-LOC"], ["B-ORG"]]
    )
    assert lexicon == {"brask": "B-ORG", "won": "O", "in": "O"}


def test_a_tagger_trains_and_its_epoch_scores_are_those_of_its_predictions(tiny_bert, tokenizer, tmp_path):
    dataset = TASKS["ner"].load("sample", train_size=48, validation_size=16, test_size=8)
    encoded = TASKS["ner"].encode(dataset, tokenizer, max_length=64)
    names = dataset["train"].features["ner_tags"].feature.names
    task = TASKS["ner"]
    model = models.load_model(str(tiny_bert), task.model_class, num_labels=len(names), id2label=dict(enumerate(names)))
    args = helpers.arguments(tmp_path, epochs=2, learning_rate=3e-3, precision="fp32", disable_tqdm=True)
    trainer = helpers.make_trainer(model, args, encoded, task="ner", tokenizer=tokenizer)
    trainer.train()
    output = trainer.predict(encoded["validation"])
    predicted, gold = ner.sentences_from_windows(
        output.predictions.argmax(axis=-1), output.label_ids, encoded["validation"]["sentence"]
    )
    assert [row.tolist() for row in gold] == dataset["validation"]["ner_tags"]
    tags = [[[names[i] for i in row] for row in side] for side in (predicted, gold)]
    accuracy = entities.EntityMeasure(*tags).values()["token_accuracy"]
    assert training.history(trainer).validation_token_accuracy.iloc[-1] == pytest.approx(accuracy)


def test_the_sample_keeps_its_promises():
    dataset = TASKS["ner"].load("sample")
    names = dataset["train"].features["ner_tags"].feature.names
    assert {name: len(split) for name, split in dataset.items()} == {"train": 420, "validation": 80, "test": 200}
    assert names == ["O", *(f"{p}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for p in "BI")]
    empty = np.mean([not any(row) for split in dataset.values() for row in split["ner_tags"]])
    assert 0.25 < empty < 0.35

    def mentions(split):
        for row in split:
            for _, first, last in get_entities([names[i] for i in row["ner_tags"]]):
                yield " ".join(row["tokens"][first : last + 1]).lower()

    known = set(mentions(dataset["train"]))
    test = list(mentions(dataset["test"]))
    assert sum(entity in known for entity in test) <= len(test) / 2
    assert len(ner.load_tagged_rows("sample", names)) == 80


def test_copies_of_one_file_are_one_split(tmp_path):
    for name in ("train", "train.txt", "dev", "test"):
        write(tmp_path / name, (columns("\t") + "\n") * 20)
    assert len(TASKS["ner"].load(tmp_path)["train"]) == 40
    write(tmp_path / "train.txt", (columns("\t") + "\n") * 21)
    with pytest.raises(DataError, match=r"both train and train\.txt hold the train split"):
        TASKS["ner"].load(tmp_path)
