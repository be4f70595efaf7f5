import ast
import pickle

import pytest
from conftest import ROOT

from bert_helpers.errors import BertHelpersError, DataError, Interrupted, parameter
from bert_helpers.parameters import option_of

SENTENCES = [
    ({"problem": "no such file"}, "no such file."),
    ({"problem": "no such file", "source": "a.csv", "fix": "name another"}, "a.csv: no such file; name another."),
    ({"problem": "it is empty", "source": "a.csv", "row": 3}, "a.csv, row 3: it is empty."),
    ({"problem": "it is empty", "row": [3, 7], "unit": "line"}, "line 3 (also line 7): it is empty."),
    ({"problem": "it is empty", "row": [3, 7, 9]}, "row 3 (also rows 7, 9): it is empty."),
    (
        {"problem": "it is empty", "row": list(range(1, 13))},
        "row 1 (also rows 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more): it is empty.",
    ),
    ({"problem": "no answer", "row": ["q1"], "unit": "question"}, "question 'q1': no answer."),
    ({"problem": "holds int64", "source": "a.csv", "column": "text"}, "a.csv, column 'text': holds int64."),
    ({"problem": "no column 'text'", "source": "a.csv", "column": "text"}, "a.csv: no column 'text'."),
    ({"problem": "is 0", "parameter": "EPOCHS", "fix": "give 1 or more"}, "EPOCHS is 0; give 1 or more."),
    (
        {"problem": "no column 'x'", "source": "a.csv", "parameter": "TEXT_COLUMN"},
        "a.csv: no column 'x'; name the right one by TEXT_COLUMN.",
    ),
    (
        {"problem": "too few", "source": "a.csv", "parameter": "DATA", "fix": f"lower {parameter('TEST_SIZE')}"},
        "a.csv: too few; lower TEST_SIZE.",
    ),
    ({"problem": "is empty", "fix": "did you mean EPOCHS?"}, "is empty; did you mean EPOCHS?"),
]


ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b2J\r\u202egpj.exe\udcff"  # set the title, clear twice, reverse the text


@pytest.mark.parametrize("field", ["problem", "source", "row", "column", "fix"])
def test_no_sentence_gives_the_terminal_an_order(field):
    error = DataError(**{"problem": "it is empty", field: [ORDERS] if field == "row" else ORDERS})
    assert "owned" in str(error)
    for text in (str(error), error.sentence(option_of)):
        assert text.isprintable()


@pytest.mark.parametrize(("fields", "sentence"), SENTENCES)
def test_fields_make_a_sentence(fields, sentence):
    assert str(BertHelpersError(**fields)) == sentence


def test_the_command_line_spells_parameters_and_nothing_else_its_own_way():
    error = DataError(
        "no column 'TEXT_COLUMN'", source="EPOCHS.csv", fix=f"name it by {parameter('TEXT_COLUMN')}", parameter="EPOCHS"
    )
    assert error.sentence(option_of) == "EPOCHS.csv: no column 'TEXT_COLUMN'; name it by --text-column."
    assert str(error) == "EPOCHS.csv: no column 'TEXT_COLUMN'; name it by TEXT_COLUMN."


def test_all_rows_are_fields_however_many_the_sentence_names():
    error = DataError("it is empty", row=range(1, 100))
    assert (error.row, len(error.rows)) == (1, 99)
    assert DataError("it is empty").row is None


@pytest.mark.parametrize("field", ["problem", "source", "row", "column", "fix", "parameter"])
@pytest.mark.parametrize("foreign", ["x" * 10_000, "\x1b" * 200])
def test_no_sentence_is_longer_than_2000_characters_and_other_fields_stay(field, foreign):
    fields = {"problem": "it is empty", "source": "a.csv", "column": "text", "fix": "fill it", field: foreign}
    error = DataError(**{**fields, "row": [foreign] * 20 if field == "row" else [3, 7]})
    assert len(str(error)) < 2_000
    for name, words in {
        "source": "a.csv, ",
        "row": "row 3 (also row 7)",
        "problem": ": it is empty; ",
        "fix": "fill it",
    }.items():
        assert name == field or words in str(error)


def test_a_signal_is_kept():
    assert Interrupted("stopped", 15).signal == 15


def test_errors_pass_between_processes():
    assert str(pickle.loads(pickle.dumps(DataError("it is empty")))) == "it is empty."


ERRORS = {"DataError", "ModelError", "ParameterError", "TrainingError", "HubError"}


def written(node: ast.AST | None) -> str:
    """Return the text of a literal, with {} for what is filled in; "" for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_what_errors_are_made_of_are_clauses_and_the_place_is_a_field():
    bad, count = [], 0
    for path in sorted((ROOT / "bert_helpers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            texts = {}
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ERRORS:
                texts = {word.arg: word.value for word in node.keywords} | dict(
                    zip(["problem"], node.args, strict=False)
                )
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                texts = {node.targets[0].id: node.value}
            for text in (written(texts.get(name)) for name in ("problem", "fix")):
                count += bool(text)
                if text.endswith(".") or text.startswith("{}: "):
                    bad.append(f"{path.name}:{node.lineno} {text}")
    assert count > 200
    assert not bad, "\n".join(bad)
