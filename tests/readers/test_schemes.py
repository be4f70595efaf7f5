"""Spellings and schemes of tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_helpers.readers import schemes

SPAN = st.tuples(st.sampled_from(["PER", "ORG", "LOC-2"]), st.integers(1, 4))
SENTENCE = st.lists(st.one_of(SPAN, st.just(("O", 1))), max_size=8)


def write_tags(spans, scheme):
    """Write spans as tags of a scheme, independently of the code under test."""
    result = []
    for i, (kind, length) in enumerate(spans):
        if kind == "O":
            result += ["O"]
            continue
        follows_own_kind = i > 0 and spans[i - 1][0] == kind
        if scheme == "IOB2":
            result += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
        elif scheme == "IOB1":
            result += [f"{'B' if follows_own_kind else 'I'}-{kind}"] + [f"I-{kind}"] * (length - 1)
        elif length == 1:
            result += [f"S-{kind}"]
        else:
            result += [f"B-{kind}"] + [f"I-{kind}"] * (length - 2) + [f"E-{kind}"]
    return result


@given(st.lists(SENTENCE, min_size=1, max_size=5), st.sampled_from(["IOB1", "BIOES"]))
def test_every_scheme_keeps_its_entities_on_the_way_to_iob2(sentences, scheme):
    sequences = [write_tags(spans, scheme) for spans in sentences]
    found = schemes.find_scheme(sequences)
    assert [schemes.to_iob2(row, found) for row in sequences] == [write_tags(spans, "IOB2") for spans in sentences]


@given(st.lists(SENTENCE, min_size=1, max_size=5))
def test_iob2_is_left_as_it_is(sentences):
    sequences = [write_tags(spans, "IOB2") for spans in sentences]
    found = schemes.find_scheme(sequences)
    assert found in {"IOB2", "IO"}
    assert [schemes.to_iob2(row, found) for row in sequences] == sequences


LETTERS = {
    "BILOU": {"B": "B", "I": "I", "E": "L", "S": "U"},
    "BMES": {"B": "B", "I": "M", "E": "E", "S": "S"},
    "BMEWO": {"B": "B", "I": "M", "E": "E", "S": "W"},
    "small": {"B": "b", "I": "i", "E": "e", "S": "s"},
    "BIOES": {"B": "B", "I": "I", "E": "E", "S": "S"},
}


@given(
    st.lists(SENTENCE, min_size=1, max_size=5),
    st.sampled_from(sorted(LETTERS)),
    st.sampled_from(["{0}-{1}", "{0}_{1}", "{0}:{1}", "{1}-{0}", "{1}_{0}"]),
)
def test_every_spelling_keeps_its_entities_on_the_way_to_iob2(sentences, letters, form):
    def spell(tag):
        outside = "o" if letters == "small" else "O"
        return outside if tag == "O" else form.format(LETTERS[letters][tag[0]], tag[2:])

    written = [[spell(tag) for tag in write_tags(spans, "BIOES")] for spans in [*sentences, [("O", 1)]]]
    table, note = schemes.read_spelling(dict.fromkeys(tag for row in written for tag in row))
    read = [[table[tag] for tag in row] for row in written]
    found = schemes.find_scheme(read)
    expected = [write_tags(spans, "IOB2") for spans in [*sentences, [("O", 1)]]]
    assert [schemes.to_iob2(row, found) for row in read] == expected
    assert bool(note) == (read != written)


def test_schemes_are_told_apart():
    assert schemes.find_scheme([["B-PER", "I-PER", "O"]]) == "IOB2"
    assert schemes.find_scheme([["I-PER", "B-PER", "O"]]) == "IOB1"
    assert schemes.find_scheme([["I-PER", "O"]]) == "IO"
    assert schemes.find_scheme([["S-PER", "B-LOC", "E-LOC"]]) == "BIOES"
    assert schemes.find_scheme([["O"]]) == "IO"


def test_an_entity_that_begins_with_i_is_one_as_conlleval_reads_it():
    rows = [["B-PER", "O", "I-LOC", "I-LOC"], ["B-PER", "I-ORG", "I-ORG"]]
    assert schemes.find_scheme(rows) == "IOB2"
    assert schemes.slips(rows) == 2
    assert [schemes.to_iob2(row, "IOB2") for row in rows] == [
        ["B-PER", "O", "B-LOC", "I-LOC"],
        ["B-PER", "B-ORG", "I-ORG"],
    ]


@pytest.mark.parametrize(
    ("sequence", "position"),
    [
        (["B-PER", "E-LOC"], 1),
        (["O", "E-PER"], 1),
        (["S-PER", "I-PER", "S-PER", "B-LOC", "E-LOC"], 1),
        (["S-LOC", "O", "B-PER", "O", "S-LOC"], 3),
        (["S-LOC", "S-LOC", "B-PER"], 2),
        (["B-PER", "I-PER", "O", "B-LOC", "S-LOC"], 4),  # IOB2: the single S- is the slip
    ],
)
def test_an_illegal_sequence_is_found_where_it_is(sequence, position):
    with pytest.raises(schemes.SequenceError) as caught:
        schemes.find_scheme([["O"], sequence])
    assert caught.value.places[0] == (1, position)


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        (["O", "PER", "job title"], ["O", "I-PER", "I-job title"]),
        (["O", "e-mail"], ["O", "I-e-mail"]),
        (["O", "B", "I"], ["O", "B-ENTITY", "I-ENTITY"]),
        (["o", "O", "B-PER"], ["O", "O", "B-PER"]),
        (["O", "b-per", "I-per"], ["O", "B-per", "I-per"]),
    ],
)
def test_other_tags_are_read_as_what_they_are(tags, read):
    assert schemes.read_spelling(tags) == (dict(zip(tags, read, strict=True)), schemes.read_spelling(tags)[1])
    assert schemes.read_spelling(tags)[1]


@pytest.mark.parametrize(
    ("tags", "bad"),
    [
        (["O", "B-PER", "PER"], {"PER"}),
        (["O", "B-PER", "X-PER", "B-"], {"X-PER", "B-"}),
        (["NOUN", "VERB"], {"NOUN", "VERB"}),  # no O: a column of something else
        (["O", "B_PER", "PER"], {"PER"}),
        (["O", "12"], {"12"}),
    ],
)
def test_what_is_no_tag_is_named(tags, bad):
    with pytest.raises(schemes.TagError) as caught:
        schemes.read_spelling(tags)
    assert caught.value.tags == bad


def test_brackets_within_brackets_are_the_outer_ones():
    assert schemes.read_brackets(["(ORG(GPE)", "*", "*)", "*"]) == ["B-ORG", "I-ORG", "I-ORG", "O"]
    assert schemes.read_brackets(["(ORG*", "(GPE)", "*)", "(DATE)"]) == ["B-ORG", "I-ORG", "I-ORG", "B-DATE"]
