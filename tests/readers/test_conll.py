"""Words and tags in columns, in all the layouts that users have."""

import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_helpers import DataError
from bert_helpers.readers import conll
from bert_helpers.readers.source import Reading, read_source
from bert_helpers.tasks.registry import TASKS

WORDS = [["Anna", "Lee", ",", "sings"], ["Rain", "in", "Brask"]]
TAGS = [["B-PER", "I-PER", "O", "O"], ["O", "O", "B-LOC"]]


def columns(line, *, words=WORDS, tags=TAGS, newline="\n", blank="", first=""):
    """Return a file; `line` gets a word, its tag, its place in the sentence and the sentence's number, from 1."""
    blocks = [
        "".join(line(word, tag, i, number) + newline for i, (word, tag) in enumerate(zip(*pair, strict=True), 1))
        for number, pair in enumerate(zip(words, tags, strict=True), 1)
    ]
    return first + (blank + newline).join(blocks)


def joined(separator, *fields):
    return lambda word, tag, i, number: separator.join([word, *fields, tag])


def read(content, path, **reading):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    how = Reading({"tokens": "TOKENS_COLUMN", reading.pop("tags", "ner_tags"): "TAGS_COLUMN"}, **reading)
    return conll.read_conll(path, how), how.assumed


def quoted(word, tag, i, number):
    return (
        f"{'Sentence: ' + str(number) if i == 1 else ''},{chr(34) + word + chr(34) if word == ',' else word},NN,{tag}"
    )


FILES = {
    "tabs": columns(joined("\t")),
    "blanks": columns(joined(" ")),
    "runs of blanks": columns(joined("   ")),
    "semicolons": columns(joined(";")),
    "bars": columns(joined("|")),
    "another column": columns(joined("\t", "NNP")),
    "carriage returns": columns(joined(" "), newline="\r\n"),
    "carriage returns alone": columns(joined(" "), newline="\r"),
    "byte order mark": "\ufeff" + columns(joined("\t")),
    "documents and comments": columns(joined(" "), first="-DOCSTART- -X- O O\n\n# a comment\n") + "\n\n\n",
    "no last newline": columns(joined("\t")).rstrip("\n"),
    "blanks and tabs": columns(lambda w, t, i, n: f"{w} {t} " if i % 2 else f"{w}\t{t}"),
    "lines of blanks": columns(joined("\t"), blank=" \t "),
    "rows of a spreadsheet": columns(joined(";", "x"), blank=";;"),
    "tag first": columns(lambda w, t, i, n: f"{t}\t{w}"),
    "an empty last column": columns(lambda w, t, i, n: f"{w}\t{t}\t"),
    "CoNLL-2003": columns(lambda w, t, i, n: f"{w} NNP {'B-NP' if i == 1 else 'I-NP'} {t}"),
    "Label Studio": columns(joined(" ", "-X-", "_"), first="-DOCSTART- -X- O\n"),
    "numbers": columns(lambda w, t, i, n: f"{i}\t{w}\tN\t{t}", first="# text\n"),
    "a counter": columns(lambda w, t, i, n: f"{i - 1 + 4 * (n - 1)}\t{w}\t{t}"),
    "numbers and no blank lines": columns(lambda w, t, i, n: f"{i}\t{w}\tN\t{t}").replace("\n\n", "\n"),
    "GermEval": columns(lambda w, t, i, n: f"{i}\t{w}\t{t}\t{'B-LOC' if w == 'Anna' else 'O'}", first="# http\n"),
    "GermEval, inner all O": columns(lambda w, t, i, n: f"{i}\t{w}\t{t}\tO"),
    "CoNLL-U": columns(lambda w, t, i, n: f"{i}\t{w}\tl\tX\t_\t_\t0\tdep\t_\t" + ("_" if t == "O" else f"name={t}"))
    .replace("2\tLee", "2-3\tLee,\t_\t_\t_\t_\t_\t_\t_\t_\n2\tLee")
    .replace("3\tBrask", "2.1\tgone\t_\t_\t_\t_\t_\t_\t_\t_\n3\tBrask"),
    "CoNLL-U, among others in MISC": columns(
        lambda w, t, i, n: f"{i}\t{w}\tl\tX\t_\t_\t0\tdep\t_\tSpaceAfter=No|NE={t}|Translit=x"
    ),
    "Universal NER": columns(lambda w, t, i, n: f"{i}\t{w}\t{t}\t-\tsomebody", first="# sent_id = 1\n# text = Anna\n"),
    "WikiANN": columns(lambda w, t, i, n: f"en:{w}\t{t}"),
    "Kaggle": columns(quoted, first="Sentence #,Word,POS,Tag\n").replace("\n\n", "\n"),
    "Kaggle without a header": columns(quoted, newline="\r\n").replace("\r\n\r\n", "\r\n"),
    "Kaggle with blank lines": columns(quoted),
    "an id in every row": columns(lambda w, t, i, n: f"s{n}\t{w}\tNN\t{t}", first="sent_id\ttoken\tpos\tner\n").replace(
        "\n\n", "\n"
    ),
    "an id in every row, blank lines": columns(lambda w, t, i, n: f"s{n} {w} NN {t}"),
    "index of pandas": columns(
        lambda w, t, i, n: f"{i - 1 + 4 * (n - 1)};{n};{w};{t}", first=";sentence_id;word;tag\n"
    ).replace("\n\n", "\n"),
    "a header": columns(joined("\t"), first="word\tlabel\n"),
    "brackets": columns(joined(" "), tags=[["(PER*", "*)", "*", "*"], ["*", "*", "(LOC)"]]),
    "CoNLL-2012": columns(
        lambda w, t, i, n: f"bc/x 0 {i - 1} {w} NN (TOP* - - - A {t} " + "* " * n + "-",
        tags=[["(PER*", "*)", "*", "*"], ["*", "*", "(LOC)"]],
        first="#begin document (bc/x); part 000\n",
    )
    + "\n#end document\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_layout_gives_the_same_sentences(name, tmp_path):
    rows, _ = read(FILES[name], tmp_path / "a.conll")
    assert rows["tokens"] == WORDS
    assert rows["ner_tags"] == TAGS
    lines = FILES[name].removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for words, numbers in zip(rows["tokens"], rows[conll.LINES], strict=True):
        assert all(word in lines[number - 1] for word, number in zip(words, numbers, strict=True))


@pytest.mark.parametrize(
    ("name", "what", "value"),
    [
        ("GermEval", "tags", "in column 3, the outer level; column 4 has another"),
        ("WikiANN", "prefix", "'en:' before every word taken off"),
        ("CoNLL-U", "tags", "in column 10, name="),
        ("Kaggle", "words", "in column Word"),
        ("Kaggle", "header", "Sentence #, Word, POS, Tag"),
        ("Kaggle without a header", "words", "in column 2"),
        ("tag first", "tags", "in column 1"),
        ("semicolons", "delimiter", "';'"),
    ],
)
def test_what_was_assumed_is_said(name, what, value, tmp_path):
    assert read(FILES[name], tmp_path / "a.conll")[1][what] == value


def test_the_plainest_file_needs_no_word(tmp_path):
    assert read(FILES["tabs"], tmp_path / "a.conll")[1] == {}


def test_the_column_of_tags_can_be_named_or_numbered(tmp_path):
    inner = [["B-LOC", "O", "O", "O"], ["O", "O", "O"]]
    rows, _ = read(FILES["GermEval"], tmp_path / "a.tsv", tags="4")
    assert rows["ner_tags"] == inner
    headed = FILES["GermEval"].replace("# http\n", "no\tword\touter\tinner\n")
    rows, _ = read(headed, tmp_path / "b.tsv", tags="inner")
    assert (rows["tokens"], rows["ner_tags"]) == (WORDS, inner)
    with pytest.raises(DataError, match="no column 'middle'") as caught:
        read(FILES["GermEval"], tmp_path / "a.tsv", tags="middle")
    assert caught.value.parameter == "TAGS_COLUMN"


def test_two_columns_of_other_tags_are_a_question(tmp_path):
    content = columns(lambda w, t, i, n: f"{w}\t{t}\t{'B-colour' if i == 1 else 'O'}")
    with pytest.raises(DataError, match="columns 2 and 3 hold tags") as caught:
        read(content, tmp_path / "a.tsv")
    assert caught.value.parameter == "TAGS_COLUMN"
    assert read(content, tmp_path / "a.tsv", tags="3")[0]["ner_tags"][0][0] == "B-colour"


WEBANNO = """#FORMAT=WebAnno TSV 3.3
#T_SP=webanno.custom.NamedEntity|identifier|value


#Text=Anna Lee, sings
1-1\t0-4\tAnna\t*[1]\tPER[1]\t
1-2\t5-8\tLee\t*[1]\tPER[1]\t
1-3\t8-9\t,\t_\t_\t
1-4\t10-15\tsings\t_\t_\t

#Text=Rain in Brask
2-1\t16-20\tRain\t_\t_\t
2-2\t21-23\tin\t_\t_\t
2-3\t24-29\tBrask\t*\tLOC\t
2-3.1\t24-26\tBr\t_\tNO\t
"""


def test_webannos_spans_are_tags(tmp_path):
    (tmp_path / "a.tsv").write_text(WEBANNO)
    splits = TASKS["ner"].load(tmp_path / "a.tsv", train_size=None)
    names = splits["train"].features["ner_tags"].feature.names
    assert splits["train"]["tokens"][:] == WORDS
    assert [[names[i] for i in row] for row in splits["train"]["ner_tags"]] == TAGS
    (tmp_path / "a.tsv").write_text(WEBANNO.replace("*[1]", "Q7[1]"))
    with pytest.raises(DataError, match="features with values: identifier, value; name one by TAGS_COLUMN"):
        TASKS["ner"].load(tmp_path / "a.tsv")
    assert TASKS["ner"].load(tmp_path / "a.tsv", tags_column="value", train_size=None)
    (tmp_path / "a.tsv").write_text(WEBANNO.replace("LOC", "LOC[2]|ORG[3]"))
    with pytest.raises(DataError, match="line 14: a word has several values"):
        TASKS["ner"].load(tmp_path / "a.tsv")


ODD_WORD = st.one_of(
    st.sampled_from(['"', "#", "_", "*", "|", "O", "\u2028", "\x85", "\u3000x", "🍿", "פנטסטי", "[1]", "1-1"]),
    st.text(st.characters(exclude_characters="\r\n\t \0", exclude_categories=["Cs"]), min_size=1, max_size=5),
)
ENTITY = st.tuples(st.lists(ODD_WORD, min_size=1, max_size=3), st.sampled_from(["", "PER", "geo_loc", "a|b*"]))


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sentences=st.lists(st.lists(ENTITY, min_size=1, max_size=5), min_size=1, max_size=5),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_words_and_tags_are_what_was_written(sentences, encoding, ending, tmp_path):
    """WebAnno's rows, and words and tags in two files; the first sentence has an entity of two words."""
    sentences = [[(["Anna", "Lee"], "PER"), (["sings"], "")], *sentences]
    words = [[word for part, _ in sentence for word in part] for sentence in sentences]
    tags = [[f"{'I' if i else 'B'}-{label}" if label else "O" for part, label in sentence for i, _ in enumerate(part)]
            for sentence in sentences]  # fmt: skip
    rows, number = ["#FORMAT=WebAnno TSV 3.3", "#T_SP=webanno.custom.NamedEntity|value", ""], 0
    for i, sentence in enumerate(sentences, 1):
        rows += ["", f"#Text={' '.join(words[i - 1])}"]
        place = 0
        for part, label in sentence:
            number += len(part) > 1
            value = re.sub(r"([\[\]|_*;\\])", r"\\\1", label) + f"[{number}]" * (len(part) > 1) if label else "_"
            for word in part:
                place += 1
                rows.append(f"{i}-{place}\t0-0\t{word}\t{value}\t")
    files = {"a.tsv": rows, "seq.in": map(" ".join, words), "seq.out": map(" ".join, tags)}
    for name, lines in files.items():
        (tmp_path / name).write_bytes("".join(f"{line}{ending}" for line in lines).encode(encoding))
    reading = Reading({"tokens": "TOKENS_COLUMN", "ner_tags": "TAGS_COLUMN"})
    for name in ("a.tsv", "seq.in"):
        found = read_source(tmp_path / name, sample="", formats=conll.FORMATS, reading=reading)["train"]
        assert found["tokens"][:] == words
        assert found["ner_tags"][:] == tags


def test_seq_in_has_its_tags_beside_it(tmp_path):
    for name, rows in {"seq.in": WORDS, "seq.out": TAGS, "label": [["a"], ["b"]]}.items():
        (tmp_path / name).write_text("".join(" ".join(row) + "\n" for row in rows))
    splits = TASKS["ner"].load(tmp_path, train_size=None)
    assert splits["train"]["tokens"][:] == WORDS
    (tmp_path / "seq.out").write_text("O O\nO O O\n")
    with pytest.raises(DataError, match="row 1: 4 words but 2 tags"):
        TASKS["ner"].load(tmp_path)


def test_latin_1_is_read_and_said(tmp_path):
    rows, assumed = read("Íñigo B-PER\nvive O\nen O\nLeón B-LOC\n".encode("latin-1"), tmp_path / "esp.train")
    assert rows["tokens"] == [["Íñigo", "vive", "en", "León"]]
    assert assumed["encoding"] == "cp1252"


def test_a_hash_that_is_a_word_is_no_comment(tmp_path):
    rows, _ = read("#rain\tO\n#\tO\nBrask\tB-LOC\n", tmp_path / "a")
    assert rows.to_list() == [
        {"tokens": ["#rain", "#", "Brask"], "ner_tags": ["O", "O", "B-LOC"], conll.LINES: [1, 2, 3]}
    ]


def test_numbers_that_are_the_only_words_are_words_and_others_are_refused(tmp_path):
    with pytest.raises(DataError, match="line 1: the first column holds numbers, which are neither"):
        read("1999 N O\n2 N O\n\n7 N B-NUM\n", tmp_path / "a.conll")
    assert read("1 O\n2 O\n\n1 B-NUM\n", tmp_path / "a.conll")[0]["tokens"][0] == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "lines", "problem"),
    [
        ("Anna\tB-PER\nLee\nsings\nO\n", [2, 3, 4], "1 columns, where the file has 2"),
        ("Anna N B-PER\nLee I-PER\nsings V O\n", [2], "2 columns, where the file has 3"),
        ("Anna\tB-PER\n\tO\nsings\tO\n\tO\n", [2, 4], "the word is empty"),
        ("text,tag\nAnna sings,B-PER O\nAnna,B-PER O\nLee,O O\n", [3, 4], "1 words but 2 tags"),
        ("Anna\nLee\n", [1], "'Anna' does not end in a tag"),
        ("Anna sings well\nin the rain\n", [1], "'Anna sings well' does not end in a tag"),
    ],
)
def test_all_lines_with_a_fault_are_named(content, lines, problem, tmp_path):
    with pytest.raises(DataError) as caught:
        read(content, tmp_path / "a.conll")
    assert (caught.value.rows, caught.value.problem, caught.value.unit) == (lines, problem, "line")


WORD = st.text(st.characters(exclude_categories=["Zs", "Zl", "Zp", "Cc", "Cs"]), min_size=1, max_size=6).filter(
    lambda word: not word.startswith(("#", "-DOCSTART-", "\ufeff")) and "|" not in word
)
ROW = st.tuples(WORD, st.sampled_from(["O", "B-PER", "I-PER", "B-LOC-2"]))


@settings(max_examples=150, deadline=None)
@given(
    sentences=st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=6),
    separator=st.sampled_from(["\t", " ", "  ", ",", ";"]),
    numbered=st.booleans(),
    extra=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
def test_any_words_are_those_of_a_plain_parse(sentences, separator, numbered, extra, newline, mark, tmp_path_factory):
    """Quotes, emoji, right-to-left text, separators of other formats: every word and tag is read unchanged."""
    if any(separator.strip() and separator in word for row in sentences for word, _ in row):
        return
    quotes = separator in ",;" and any('"' in word for row in sentences for word, _ in row)
    first = sentences[0][0][0]
    counts = first in ("0", "1") and all(
        [word for word, _ in row] == [str(int(first) + i) for i in range(len(row))] for row in sentences
    )
    if quotes or counts or all(tag == "O" for row in sentences for _, tag in row):
        return  # words that are numbers in order in every sentence look like the words' numbers
    lines = []
    for row in sentences:
        for i, (word, tag) in enumerate(row, 1):
            lines.append(separator.join([*[str(i)] * numbered, word, *["X"] * extra, tag]))
        lines.append("")
    content = ("\ufeff" if mark else "") + newline.join(lines)
    path = tmp_path_factory.mktemp("plain") / "a.txt"
    rows, assumed = read(content, path)
    got = [list(zip(row["tokens"], row["ner_tags"], strict=True)) for row in rows]
    if "prefix" in assumed:  # said
        return
    assert got == sentences


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ROW, min_size=1, max_size=5), min_size=2, max_size=5), st.randoms())
def test_quoted_words_of_csv_are_unquoted(tmp_path_factory, sentences, rng):
    rng = random.Random(rng.random())
    lines = ["Sentence #,Word,Tag"]
    for number, row in enumerate(sentences):
        for i, (word, tag) in enumerate(row):
            must = rng.random() < 0.5 or any(sign in word for sign in ',"')
            shown = '"' + word.replace('"', '""') + '"' if must else word
            lines.append(f"{'' if i else f'Sentence: {number}'},{shown},{tag}")
    got, assumed = read("\n".join(lines) + "\n", tmp_path_factory.mktemp("quoted") / "a.csv")
    if "prefix" not in assumed:
        assert [list(zip(row["tokens"], row["ner_tags"], strict=True)) for row in got] == sentences
