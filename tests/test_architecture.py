"""The package's shape: docs/architecture.md names every module once, imports go down, and the bounds on size hold.

A bound that no longer fits is changed here, with the reason in the commit.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import nbformat
import pytest
from conftest import ROOT

from bert_helpers.parameters import task_names

PACKAGE = ROOT / "bert_helpers"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
ALL = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
MODULES = {name for name, path in ALL.items() if path.name not in ("__init__.py", "__main__.py")}

LINES = 14_396  # of the whole package, code, docstrings and comments together
NOTEBOOK_1_MODULES, NOTEBOOK_1_LINES = 42, 8_017  # what its imports load, `__init__` files left out
TASK_SWITCHES = 2  # outside tasks/ and the table of parameters; one is the key of a tag in the JSON of spaCy 2


def lines(names) -> int:
    return sum(len(ALL[name].read_text(encoding="utf-8").splitlines()) for name in names)


def imported(tree: ast.Module, *, late: bool) -> Iterator[str]:
    """Yield the package's modules that a file imports; if `late`, also inside functions."""
    nodes = ast.walk(tree) if late else (node for node in tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in ALL)
        elif isinstance(node, ast.ImportFrom) and node.module in ALL:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in ALL else node.module for name in inner)


def loaded(names) -> set[str]:
    """Return what importing these modules loads, including the `__init__` files of their packages."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imported(ast.parse(ALL[name].read_text(encoding="utf-8")), late=False)
            waiting += [name.rpartition(".")[0]] * ("." in name)
    return found


def named_on_the_page() -> list[str]:
    paths = re.findall(r"^\| `([\w/]+\.py)` \|", PAGE, re.MULTILINE)
    return [f"bert_helpers.{path.removesuffix('.py').replace('/', '.')}" for path in paths]


def test_the_page_has_one_line_for_each_module():
    assert sorted(named_on_the_page()) == sorted(MODULES)


def test_imports_go_down_the_page_late_ones_too():
    graph, order = grimp.build_graph("bert_helpers", cache_dir=None), named_on_the_page()
    up = [
        (name, other)
        for name in order
        for other in graph.find_modules_directly_imported_by(name) & MODULES
        if order.index(other) <= order.index(name)
    ]
    assert not up


def test_what_the_walks_name_exists():
    _, walks = PAGE.split("\n## Three walks")
    named = re.findall(r"`(\w+(?:/\w+)?\.py)` `([\w.]+)", walks)
    assert len(named) > 15
    for path, name in named:
        tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        defined |= {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        assert set(name.split(".")) <= defined, (path, name)


def test_the_package_is_no_longer_than_it_may_be():
    assert lines(ALL) <= LINES


def test_notebook_1_loads_what_can_be_read_in_an_evening():
    cells = nbformat.read(ROOT / "notebooks/01_fine_tune.ipynb", as_version=4).cells
    source = re.sub(r"^[%!].*$", "", "\n".join(c.source for c in cells if c.cell_type == "code"), flags=re.MULTILINE)
    names = set(imported(ast.parse(source), late=True))
    assert "bert_helpers.training" in names
    modules = loaded(names)
    assert len(modules & MODULES) <= NOTEBOOK_1_MODULES
    assert lines(modules) <= NOTEBOOK_1_LINES


def switches(path: Path) -> list[str]:
    """Return all strings, other than docstrings, that are a task's name: a comparison, a key, a choice."""
    tree, tasks = ast.parse(path.read_text(encoding="utf-8")), task_names()
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in tasks
    ]


def test_no_module_outside_tasks_asks_which_task_it_has_before_it():
    outside = [p for p in PACKAGE.rglob("*.py") if p.parent.name != "tasks" and p.name != "parameters.py"]
    found = [switch for path in sorted(outside) for switch in switches(path)]
    assert len(found) <= TASK_SWITCHES, "\n".join(found)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_inside_functions_are_of_slow_libraries_or_lead_to_them(name):
    """Tasks import `models` late, and the command line its own modules: they load PyTorch and papermill."""
    tree = ast.parse(ALL[name].read_text(encoding="utf-8"))
    late = [
        module
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for module in imported(ast.Module(node.body, []), late=True)
    ]
    of_tasks = name.startswith("bert_helpers.tasks.") and set(late) == {"bert_helpers.models"}
    assert not late or of_tasks or name in ("bert_helpers.cli.main", "bert_helpers.cli.notebooks"), late
