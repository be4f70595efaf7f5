"""Promises about the repository: pins in one place, notebooks executed, and no trace of a machine in them."""

import getpass
import re
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT
from mutants import BREAKS
from packaging.requirements import Requirement

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]


def requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_every_requirement_is_pinned_and_installed_as_pinned():
    for requirement in requirements():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert requirement.marker is None, requirement  # one pin for every Python
        assert version(requirement.name).split("+")[0] == str(requirement.specifier)[2:], requirement


def test_conda_and_the_package_read_the_pins_of_requirements_txt():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    assert 'dependencies = { file = ["requirements.txt"] }' in (ROOT / "pyproject.toml").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ruff = next(str(r.specifier)[2:] for r in requirements() if r.name == "ruff")
    assert next(repo["rev"] for repo in hooks if "ruff" in repo["repo"]) == f"v{ruff}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_top_to_bottom(path):
    """nbval compares nothing if the execution count is missing."""
    assert [cell.execution_count for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    assert not [output for cell in cells(path) for output in cell.outputs if output.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval_compares_more_than_it_ignores(path):
    with_output = [cell for cell in cells(path) if cell.outputs]
    compared = [c for c in with_output if "nbval-ignore-output" not in c.metadata.get("tags", [])]
    assert len(compared) >= 8
    for cell in compared:
        for output in cell.outputs:  # progress bars are never compared: their state depends on the moment
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), cell.source
            assert output.get("data", {}).get("text/html") != "", cell.source
            # an address in memory, which differs between runs
            assert " at 0x" not in output.get("data", {}).get("text/plain", ""), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_parameters_are_annotated_literals(path):
    (parameters,) = (cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", []))
    assert max(len(cell.source.splitlines()) for cell in cells(path) if cell.id != parameters.id) <= 25
    for line in parameters.source.splitlines():
        if line.startswith("# "):  # a heading
            continue
        # papermill reads a parameter's type and comment only from lines of this form, without a second "="
        assert re.fullmatch(r"[A-Z_]+: (str|int|float|bool) = ([^#=]+?)(  # [^=]+)?", line), line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_path_user_or_host(path):
    notebook = nbformat.read(path, as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("image/png", None)  # random letters
    text = nbformat.writes(notebook)
    for word in (str(ROOT), str(Path.home()), "/tmp/", "/home/", "C:\\\\Users"):
        assert word not in text
    for word in (socket.gethostname(), f"{getpass.getuser()}@"):
        assert not re.search(rf"\b{re.escape(word)}", text)


def test_every_break_of_make_mutants_still_has_one_place():
    package = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bert_helpers").rglob("*.py"))
    assert [old for old, _ in BREAKS if package.count(old) != 1] == []


def test_no_file_is_over_a_megabyte():
    assert FILES
    assert not [path.name for path in FILES if path.stat().st_size > 1_000_000]


def test_a_clean_clone_needs_no_shared_folder():
    asking = [
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if path.suffix in {".py", ".ipynb", ".yaml", ".toml"} and path != Path(__file__).resolve()
        if "shared/data" in path.read_text(encoding="utf-8")
    ]
    assert asking == []
