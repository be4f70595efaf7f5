"""Data, names and parameters from elsewhere are only ever displayed."""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from nbconvert import HTMLExporter
from transformers import BertForSequenceClassification

from bert_helpers import DataError, ModelError, ParameterError, models
from bert_helpers.cli import main as cli
from bert_helpers.cli import notebooks
from bert_helpers.evaluation import plots

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
# Each of these leaves a mark on the page if it acts.
MARK = "document.documentElement.setAttribute(&quot;data-live&quot;,1)".replace("&quot;", "'")
PLANTS = {
    "script": f"<script>{MARK}</script>",
    "handler": f'<img src=x onerror="{MARK}">',
    "end of style": f'</style><svg onload="{MARK}"></svg>',
    "end of attribute": f'"><b onmouseover="{MARK}" style="position:fixed" autofocus tabindex=1 onfocus="{MARK}">',
    "end of comment": f"--><script>{MARK}</script>",
    "end of cell": f"</td></table><script>{MARK}</script>",
    "entity": f"&lt;script&gt;{MARK}&lt;/script&gt;",
    "formula": f"$\\href{{javascript:{MARK}}}{{x}}$",
}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


class Live(HTMLParser):
    """Elements and attributes that can act."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in ("script", "svg", "img", "iframe", "object", "embed", "link", "base") else []
        self.found += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def live(html):
    parser = Live()
    parser.feed(html)
    return parser.found


def page_after_scripts(path, fragment="", *options):
    """The page in a real browser after its scripts have run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    command += [*options, path.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "<body" in done.stdout, done.stderr[-2000:]
    return done.stdout


def marked(html):
    return "data-live" in html[: html.index("<head")]


@pytest.mark.parametrize("plant", PLANTS)
def test_html_of_ours_shows_what_is_planted_and_does_nothing(plant):
    text = PLANTS[plant]
    tags = [f"B-{text.replace(' ', '')}", "O", f"B-{text.replace(' ', '')}"]
    html = plots.entities_html([text, "and", text], tags, ["O", *tags[:2]])
    assert live(html) == []
    table = pd.DataFrame({text: [text]}, index=[text])
    assert live(table.to_html()) == []
    assert live(plots.prose(table).to_html()) == []
    assert live(text) != [] or plant in ("entity", "formula")  # the search finds what is active


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_the_browser_tells_live_from_dead(tmp_path):
    for name in ("script", "handler", "end of style"):
        path = tmp_path / f"{name}.html"
        path.write_text(f"<html><head><style>b {{}}{PLANTS[name] if 'style' in name else '</style>'}</head><body>"
                        f"{PLANTS[name]}</body></html>")  # fmt: skip
        assert marked(page_after_scripts(path))
    (tmp_path / "dead.html").write_text("<html><head></head><body>" + plots.entities_html([PLANTS["script"]], ["O"]))
    assert not marked(page_after_scripts(tmp_path / "dead.html"))


def executed(notebook, folder, bert, given):
    """The notebook's HTML after a run with a tiny model."""
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOKS.parent)}
    source = [str(word) for name, value in given.items() for word in ("-p", name, value)]
    common = ["-p", "MODEL", str(bert), "-p", "EPOCHS", "1", "-p", "MAX_LENGTH", "32", "-p", "OUTPUT_DIR", "results/x"]
    command = [sys.executable, "-m", "bert_helpers", "run", str(NOTEBOOKS / notebook), *common, *source]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    html, _ = HTMLExporter().from_filename(str(folder / "results/notebooks" / notebook))
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pages(tiny_bert, tmp_path_factory):
    """Notebooks 1 and 4 on data in which texts, labels, columns, types and file names are planted."""
    made = {}
    folder = tmp_path_factory.mktemp("texts")
    plants = list(PLANTS.values())
    rows = [(f"{plants[i % 8]} {i} {plants[i // 8 % 8]}", plants[i % 2] + "$x^$") for i in range(96)]
    name, column = "a<img src=x onerror=alert(1)>.csv", PLANTS["script"]
    pd.DataFrame(rows, columns=[column, "b<svg onload=1>"]).to_csv(folder / name, index=False)
    given = {"DATA": name, "TEXT_COLUMN": column, "LABEL_COLUMN": "b<svg onload=1>"}
    made["texts"] = executed("01_fine_tune.ipynb", folder, tiny_bert, given), plants[0]
    folder = tmp_path_factory.mktemp("words")
    kinds = [plant.replace(" ", "") for plant in (PLANTS["script"], PLANTS["handler"], "</style><svg/onload=1>")]
    rows = [
        {"tokens": [plants[i % 8], "met", f"{plants[i % 5]}{i}"], "ner_tags": [f"B-{kinds[i % 3]}", "O", "B-PER"]}
        for i in range(60)
    ]
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"DATA": "words.jsonl", "STRIDE": 8, "TRANSFER_DATA": "words.jsonl"}
    made["words"] = executed("04_ner.ipynb", folder, tiny_bert, given), plants[0]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("which", ["texts", "words"])
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_nothing_planted_in_data_lives_in_an_executed_notebook(which, pages):
    path, plant = pages[which]
    assert plant.replace("<", "&lt;").replace(">", "&gt;") in path.read_text(encoding="utf-8")  # it is shown
    assert not marked(page_after_scripts(path))


@pytest.mark.parametrize("names", [["$5 to $10", "$", "$\\frac$"], ["^_{", "a$b$c"]])
def test_dollar_signs_in_labels_are_no_formula(names, tmp_path):
    labels = np.arange(len(names))
    plots.confusion_matrix(labels, labels, names).savefig(tmp_path / "a.png")
    plots.type_confusion([[f"B-{name}" for name in names]], [[f"B-{name}" for name in names]]).savefig(
        tmp_path / "b.png"
    )
    history = pd.DataFrame({"train_loss": [1.0], "validation_loss": [1.0]}, index=[1])
    plots.small_multiples(dict.fromkeys(names, history)).savefig(tmp_path / "c.png")


# --- folders, parameters, models ---------------------------------------------------------------------------


def test_a_parameter_name_that_is_code_is_refused_before_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "x = 1; open('results/owned', 'w').close(); y"
    (tmp_path / "evil.yaml").write_text(json.dumps({code: 1}))
    assert cli.main(["run", str(NOTEBOOKS / "01_fine_tune.ipynb"), "-f", "evil.yaml"]) == 2
    assert "is no parameter of this notebook" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "evil.yaml"]


def test_a_parameter_value_is_a_value(tmp_path):
    text = "'''\"\\\n__import__('os').system('touch owned')"
    values = notebooks.declared_parameters(NOTEBOOKS / "01_fine_tune.ipynb", {"TEXT_COLUMN": text})
    assert values["TEXT_COLUMN"] == text


BAD_LINES = [
    (["run", "none.ipynb"], "none.ipynb: no such notebook"),
    (["run", "FIRST", "-p", "EPOCH", "3"], "did you mean EPOCHS?"),
    (["run", "FIRST", "-p", "epochs", "3"], "epochs is no parameter of this notebook; did you mean EPOCHS?"),
    (["run", "FIRST", "-p", "EPOCHS", "three"], "EPOCHS is 'three'; it must be a whole number"),
    (["run", "FIRST", "-p", "EPOCHS", "0"], "must lie between"),
    (["run", "FIRST", "-p", "LEARNING_RATE", "nan"], "must lie between"),
    (["run", "FIRST", "-p", "OUTPUT_DIR", ""], "OUTPUT_DIR is empty"),
    (["run", "FIRST", "-f", "none.yaml"], "none.yaml: cannot be read as YAML"),
    (["run", "FIRST", "-f", "list.yaml"], "list.yaml: holds no parameters; write one per line"),
    (["run", "FIRST", "-f", "broken.yaml"], "broken.yaml: cannot be read as YAML"),
    (["run", "FIRST", "-f", "object.yaml"], "object.yaml: cannot be read as YAML"),
    (["run", "FIRST", "-f", "numbers.yaml"], "numbers.yaml: holds no parameters"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_command_line_is_one_line_and_status_2(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("EPOCHS: [")
    (tmp_path / "object.yaml").write_text("EPOCHS: !!python/object/apply:os.system ['touch owned']")
    (tmp_path / "numbers.yaml").write_text("1: 2")
    line = [str(NOTEBOOKS / "01_fine_tune.ipynb") if word == "FIRST" else word for word in line]
    assert cli.main(line) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()
    with pytest.raises(ParameterError):
        cli.main([*line, "--debug"])


def test_bad_input_that_a_notebook_refuses_is_status_2_too(tiny_bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["run", str(NOTEBOOKS / "01_fine_tune.ipynb"), "-p", "MODEL", str(tiny_bert), "-p", "DATA", "none.csv"]
    assert cli.main(line) == 2
    assert "01_fine_tune.ipynb: DataError: none.csv: no such file or folder" in capsys.readouterr().out


@pytest.mark.parametrize("line", [[], ["fly"], ["run"], ["run", "a.ipynb", "-p", "EPOCHS"]])
def test_an_unknown_command_is_status_2(line, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(line)
    assert left.value.code == 2
    assert "usage: bert_helpers" in capsys.readouterr().err


ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b2J\u202e\x08\udcff"


@pytest.mark.parametrize("command", ["gallery", "run"])
def test_the_terminal_gets_no_orders_from_what_is_shown(command, monkeypatch, capsys):
    """This holds for everything that a command or a library prints: types, architectures, file names, errors."""

    def prints(options):
        print(f"type {ORDERS}\tüber 🎬")
        print(f"owner {ORDERS}\r50%", file=sys.stderr)
        raise DataError("is no file", source=ORDERS)

    monkeypatch.setattr(cli, f"_{command}", prints)
    assert cli.main([command, *["x.ipynb"] * (command == "run")]) == 2
    out, err = capsys.readouterr()
    assert out == "type \\u001b]0;owned\\u0007\\u001b[2J\\u009b2J\\u202e\\u0008\\udcff\tüber 🎬\n"
    assert err.count("owned") == 2
    assert "\r50%" in err  # bars need it
    assert err.replace("\n", "").replace("\r", "").isprintable()


def test_predictions_that_a_program_reads_are_what_they_are(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_command", lambda options: print("\x1b[2J") or 0)
    assert cli.main(["predict", "folder", "text"]) == 0
    assert capsys.readouterr().out == "\x1b[2J\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli.main(["predict", "folder", "text"])
    assert capsys.readouterr().out == "\\u001b[2J\n"


class Owned:
    """What a pickle may do when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def copy(tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "training_args.bin", "optimizer.pt"])
def test_no_pickle_is_opened(name, copy, tmp_path):
    torch.save({"weights": Owned(tmp_path / "owned")}, copy / name)
    if name == "pytorch_model.bin":
        (copy / "model.safetensors").unlink()
    try:
        models.load_model(str(copy), BertForSequenceClassification)
    except ModelError:
        assert name in ("pytorch_model.bin", "model.safetensors")
    else:
        assert name not in ("pytorch_model.bin", "model.safetensors")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("field", ["auto_map", "custom_pipelines"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_with_code_of_its_own_is_refused_and_the_code_not_run(field, file, copy, tmp_path):
    code = f"from pathlib import Path\nPath({str(tmp_path / 'owned')!r}).touch()\nclass Own: pass\n"
    (copy / "own.py").write_text(code)
    names = {"AutoModelForSequenceClassification": "own.Own", "AutoConfig": "own.Own", "AutoTokenizer": ["own.Own"] * 2}
    more = {"auto_map": names, "custom_pipelines": {"text-classification": {"impl": "own.Own", "pt": ["AutoModel"]}}}
    fields = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**fields, field: more[field]}))
    for load in (models.load_tokenizer, lambda name: models.load_model(name, BertForSequenceClassification)):
        with pytest.raises(ModelError, match=rf"{file} names code of the model's own \({field}\), which is never run"):
            load(str(copy))
    assert not (tmp_path / "owned").exists()
