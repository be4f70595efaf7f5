"""README and the pages of commands do not rot: their lines run on a tiny BERT and print what is shown; errors exist."""

import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed.run
from accelerate.commands.launch import launch_command_parser
from conftest import ROOT

from bert_helpers.cli import main as cli
from bert_helpers.cli import notebooks

README = ROOT / "README.md"
# In the order in which somebody would follow them; the commands of a page come after those that it builds on.
PAGES = [README, *(ROOT / "docs" / f"{name}.md" for name in ("install", "your_data", "command_line", "devices"))]
BLOCKS = [
    block  # commands have no language
    for page in PAGES
    for block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines() if line]
PROGRAM, RUN = "python -m bert_helpers ", "python -m bert_helpers run "
# How each command line is checked: the first kind that its line matches
KINDS = {
    "not run: needs the network, or changes the shell": r"git clone|py(thon3)? -m venv|\. \.venv|\.venv\\|pip install",
    "make -n": r"make \w+",
    "parameters only: needs the network and a GPU": r"papermill \S+ \S+ -f notebooks/params/",
    "options only: needs several GPUs": r"torchrun |accelerate launch ",
    "notebook": rf"papermill \S+ \S+ -p |{RUN}",
    "command": PROGRAM,
    "tensorboard --inspect": r"tensorboard ",
    "jupyter": r"jupyter lab notebooks$",
}
OPTIONS = {"QA_OPTIONS": "epochs 1, max_length 48, stride 8", "STS_OPTIONS": "epochs 1, max_length 48"}
TINY = {"MODEL": "tiny-bert", "EPOCHS": 1, "MAX_LENGTH": 48, "STRIDE": 8, "PRECISION": "fp32"}


def kind(line):
    return next((name for name, pattern in KINDS.items() if re.match(pattern, line)), None)


def lines_of(name):
    return [line for line in LINES if kind(line) == name]


@pytest.fixture(scope="module")
def home(tiny_bert, tmp_path_factory):
    """What a reader has in front of them, and the tiny model."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_bert, folder / "tiny-bert")
    for name in ("examples", "notebooks"):
        (folder / name).symlink_to(ROOT / name)
    (folder / notebooks.EXECUTED).mkdir(parents=True)  # `make run` comes first, and papermill makes no folder
    return folder


def test_every_command_line_has_a_runner():
    assert len(LINES) > 20
    assert [line for line in LINES if kind(line) is None] == []
    assert [name for name in KINDS if not lines_of(name)] == []


def test_links_lead_somewhere_and_that_of_the_runs_is_the_notebook_s_own():
    for page in (README, *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
    picture = runpy.run_path(str(ROOT / "docs/picture.py"))
    assert picture["PICTURE"].read_bytes() == picture["from_notebook"]()


def test_lines_that_need_the_network_or_change_the_shell_are_not_run_what_they_name_exists():
    named = {word for line in lines_of("not run: needs the network, or changes the shell") for word in line.split()}
    assert "-e" in named
    assert (ROOT / "pyproject.toml").is_file()
    assert lines_of("jupyter") == ["jupyter lab notebooks"] * 2
    subprocess.run([sys.executable, "-m", "jupyter", "lab", "--version"], check=True, capture_output=True)


@pytest.mark.parametrize("line", lines_of("make -n"))
def test_a_make_line_names_a_target(line):
    done = subprocess.run([*shlex.split(line, comments=True), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", lines_of("parameters only: needs the network and a GPU"))
def test_lines_that_need_the_network_and_a_gpu_are_not_run_names_and_types_of_their_parameters_are_right(line):
    _, notebook, out, _, file = shlex.split(line)
    given = notebooks.read_parameters(ROOT / file)
    values = notebooks.declared_parameters(ROOT / notebook, given)
    assert {name: values[name] for name in given} == given
    assert Path(out).parent == notebooks.EXECUTED


@pytest.mark.parametrize("line", lines_of("options only: needs several GPUs"))
def test_lines_that_need_several_gpus_are_not_run_their_options_are_right(line):
    launcher, _, words = line.partition(" -m bert_helpers ")
    start, *options = shlex.split(launcher)
    if start == "torchrun":
        torch.distributed.run.get_args_parser().parse_args([*options, "-m", "bert_helpers"])
    else:
        launch_command_parser().parse_args([*options[1:], "-m", "bert_helpers"])
    assert cli._parse(shlex.split(words)).task == "classification"


def test_the_command_lines_run_in_their_order_with_a_tiny_model_and_print_what_is_shown(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    printed, outputs = {}, []
    for line in lines_of("command"):
        if line in printed:  # the front page shows some lines of the others
            outputs.append(printed[line])
            continue
        words = shlex.split(line)[3:]
        if words[0] == "train":
            options = cli._parse(words).parser._option_string_actions
            tiny = [(f"--{name.lower().replace('_', '-')}", str(value)) for name, value in TINY.items()]
            words += [word for pair in tiny if pair[0] in options for word in pair]
        capsys.readouterr()
        assert cli.main(words) == 0, line
        printed[line] = capsys.readouterr().out
        outputs.append(printed[line])
        assert printed[line] or "--out " in line, line
    for line in lines_of("tensorboard --inspect"):  # which ends, where the server would not
        words = [sys.executable, "-m", "tensorboard.main", *shlex.split(line)[1:], "--inspect"]
        assert "eval/validation_loss" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    shown = [block for language, block in BLOCKS if language == "text"]
    assert shown
    for block in shown:
        assert forms(block) in [forms("".join(group)) for group in groups(outputs)]


def groups(outputs):
    """Every run of one to three outputs, one after the other."""
    return [outputs[i : i + n] for i in range(len(outputs)) for n in (1, 2, 3)]


def forms(text):
    """The first word of every line: a metric's name, a table's header, a text."""
    return [re.split(r"[ ,]", line)[0] for line in text.splitlines() if line]


@pytest.mark.slow
def test_the_notebook_lines_run_in_their_order_with_a_tiny_model(home):
    """papermill as it stands; so does `run`."""
    for line in lines_of("notebook"):
        words = shlex.split(line)
        (path,) = (word for word in words if word.startswith("notebooks/"))
        declared = notebooks.declared_parameters(ROOT / path, {})
        tiny = {name: value for name, value in cheaper(declared).items() if f"-p {name} " not in line}
        words = [sys.executable, "-m", *(words[2:] if line.startswith(PROGRAM) else words)]
        words += [word for name, value in tiny.items() for word in ("-p", name, str(value))]
        for name in OPTIONS.keys() & set(words):  # a line's own options stay, of the tiny model's size
            words[words.index(name) + 1] += f", {OPTIONS[name]}"
        done = subprocess.run(words, cwd=home, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"


def cheaper(declared):
    """The tiny model's parameters, of those that the notebook has."""
    sizes = {"TRAIN_SIZE": 96, "VALIDATION_SIZE": 16, "TEST_SIZE": 16}
    values = {**TINY, **sizes}
    return {name: value for name, value in {**values, **OPTIONS}.items() if name in declared}


# --- errors ------------------------------------------------------------------------------------------------


def messages():
    """Every text of the package, with … for what is put into it."""
    for path in (ROOT / "bert_helpers").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_errors_of_the_troubleshooting_table_exist():
    quoted = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    known = list(messages())
    assert 8 <= len(quoted) <= 14
    clauses = [clause.rstrip(".") for quote in quoted for clause in quote.split("; ")]  # an error's problem and fix
    assert [clause for clause in clauses if not any(clause in message for message in known)] == []


def test_the_front_page_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    assert len(text.split()) <= 1200


def test_errors_of_data_lead_to_a_page_that_exists(tmp_path, monkeypatch, capsys):
    assert (ROOT / cli.FORMATS.removeprefix("what a file must hold: ")).is_file()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("body,label\nx,y\n")
    assert cli.main(["train", "classification", "--data", "mine.csv"]) == 2
    told = capsys.readouterr().err
    assert "no column 'text'" in told
    assert told.endswith(f"({cli.FORMATS})\n")
    assert cli.main(["train", "classification", "--epochs", "0"]) == 2
    assert cli.main(["evaluate", "none"]) == 2
    assert cli.FORMATS not in capsys.readouterr().err
