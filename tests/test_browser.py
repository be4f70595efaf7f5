"""The notebooks as a reader meets them: in JupyterLab, in Chromium. `make test-browser`.

What is tested here is the page: bars, figures, links, "Run All". The committed outputs are opened as they are; what is
run from the top has a tiny model and few rows, for nbval runs every notebook with its own parameters already.
Screenshots of each notebook as committed, light and dark, wide and narrow, are left in results/screenshots/.
One notebook only: `python -m pytest -m browser -k 04_ner`.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import NamedTuple

import nbformat
import psutil
import pytest
from conftest import ROOT
from playwright.sync_api import Page, TimeoutError, expect, sync_playwright
from test_project import NOTEBOOKS, cells
from test_readme import cheaper
from test_security import CHROMIUM

from bert_helpers.cli import notebooks

pytestmark = pytest.mark.browser

SCREENSHOTS = ROOT / "results/screenshots"
WIDTHS = {"wide": 1400, "narrow": 600}
HEIGHT = 1500  # of a screenshot; a whole notebook in one picture is more pixels high than Chromium draws
SECONDS = 600  # a notebook may take; half a minute on two free cores
SETTINGS = {
    # All cells in the page at once: by default JupyterLab draws those in view. No blank screen after the last.
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    # No question about news, which would lie over the notebook, and no request to anybody.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # One moment of writing, ours.
    "docmanager-extension/plugin": {"autosave": False},
}
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
# What the page shows of each code cell, in order. Only the model tells an error from a warning: both look like stderr.
SHOWN = """() => jupyterapp.shell.currentWidget.content.widgets.filter(({model}) => model.type === 'code').map(
  ({model, node}) => ({
    prompt: node.querySelector('.jp-InputPrompt').textContent,
    errors: model.outputs.toJSON().filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`),
    figures: [...node.querySelectorAll('.jp-OutputArea-output img')].filter(i => i.complete && i.naturalWidth).length,
    widgets: model.outputs.toJSON().flatMap((o, i) => 'application/vnd.jupyter.widget-view+json' in (o.data || {})
      ? [node.querySelectorAll('.jp-OutputArea-child')[i]] : []).map(
      w => ({drawn: !!w.querySelector('.jupyter-widgets'), text: w.innerText})),
  }))"""
# The indicator beside the notebook says "idle" before there is a connection, and what is run then is never answered.
IDLE = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
BAR = "from tqdm.auto import tqdm\n\nfor _ in tqdm(range(3), desc='three steps'):\n    pass"
FIGURE = "%matplotlib inline\nfrom bert_helpers.evaluation import plots\n\nplots.residuals([1.0, 2.0], [1.5, 2.5])"


class Lab(NamedTuple):
    url: str
    token: str
    folder: object  # the server's root: `run/` without outputs, `committed/` with them


@pytest.fixture(scope="module")
def lab(browser, tiny_bert, tmp_path_factory):  # the browser first: without one there is nothing to serve
    """JupyterLab on loopback, with a token and nobody's settings, on copies of the notebooks."""
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(ROOT / "notebooks", home / "root/committed", ignore=shutil.ignore_patterns("results", ".*"))
    shutil.copytree(ROOT / "docs", home / "root/docs")  # drawings, and what the notebooks link to
    (home / "root/run").mkdir()
    for path in NOTEBOOKS:
        write_with_a_tiny_model(path, home / "root/run" / path.name, tiny_bert)
    for name, values in SETTINGS.items():
        path = home / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    token = secrets.token_hex(16)
    folders = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "IPYTHONDIR",
    )
    environment = {
        **os.environ,
        **{name: str(home / name.lower()) for name in folders},
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTER_TOKEN": token,  # not an argument: those everybody on the machine can read
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={free_port()}", f"--ServerApp.root_dir={home / 'root'}"),
        *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url="),
        *(["--allow-root"] if is_root() else []),
    ]
    log = home / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, cwd=home / "root", env=environment, stdout=stream, stderr=stream)
    try:
        yield Lab(address(server, home / "jupyter_runtime_dir", log), token, home / "root")
    finally:
        end(server)


def write_with_a_tiny_model(source, target, bert):
    """Without outputs, so that all that the page shows afterwards comes from the run it was asked for."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    given = {**cheaper(notebooks.declared_parameters(source, {})), "MODEL": str(bert), "RUN_MODEL": str(bert)}
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in given.items():
        line = re.compile(rf"^({name}: \w+ = ).*$", re.MULTILINE)
        parameters.source = line.sub(lambda found, value=value: f"{found[1]}{value!r}", parameters.source)
    nbformat.write(notebook, target)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


def address(server, runtime, log):
    """The server's address, once it answers; it takes the next port if ours was taken meanwhile."""
    record = runtime / f"jpserver-{server.pid}.json"
    for _ in range(240):
        if server.poll() is not None:
            break
        if record.exists() and record.stat().st_size:
            return json.loads(record.read_text())["url"]
        time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def end(server):
    """Server and kernels; kernels that outlive a server that was killed go on computing."""
    children = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([psutil.Process(server.pid), *children] if children else [], timeout=20)
    for process in alive:
        process.kill()
    if server.poll() is None:
        server.kill()
    server.wait()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.exit("test-browser needs Chromium: apt-get install chromium (or install Google Chrome).", returncode=1)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=not is_root())
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page of its own for each test: no cookie, no open tab of another; and no kernel that keeps a model's memory."""
    with browser.new_context(viewport={"width": WIDTHS["wide"], "height": HEIGHT}) as context:
        page = context.new_page()
        yield page
        page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")


def open_notebook(page: Page, lab, path):
    page.goto(f"{lab.url}lab/tree/{path}?reset&token={lab.token}")
    page.wait_for_function(IDLE, timeout=120_000)
    page.evaluate("() => jupyterapp.restored")
    expect(page.get_by_role("dialog")).to_have_count(0)


def command(page: Page, name, **arguments):
    """A command of JupyterLab, where the way to it through the menus is not what is tested."""
    page.evaluate("async ([name, options]) => { await jupyterapp.commands.execute(name, options) }", [name, arguments])


def run_all(page: Page, seconds=SECONDS):
    """As a reader does it. Returns what the page shows of each cell; AssertionError with the cell that failed."""
    confirm = page.get_by_role("button", name="Confirm Kernel Restart")
    for _ in range(3):  # on a busy machine a click on the menu was seen to do nothing
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name=re.compile("^Restart Kernel and Run All Cells")).click()
        with contextlib.suppress(TimeoutError):
            confirm.wait_for(timeout=20_000)
            break
    confirm.click()
    last = time.monotonic() + seconds
    while True:
        shown = page.evaluate(SHOWN)
        failed = {f"code cell {i}": cell["errors"][0] for i, cell in enumerate(shown, 1) if cell["errors"]}
        assert failed == {}
        if page.evaluate(IDLE) and all(re.fullmatch(r"\[\d+\]:?", cell["prompt"]) for cell in shown):
            page.wait_for_timeout(2000)  # figures and bars are drawn after the kernel has sent them
            return page.evaluate(SHOWN)
        assert time.monotonic() < last, f"after {seconds} s: {[cell['prompt'] for cell in shown]}"
        page.wait_for_timeout(500)


def numbers(shown):
    return [int(cell["prompt"].strip("[]:")) for cell in shown]


def figures(notebook_cells):
    """How many each code cell has."""
    return [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook_cells]


def photograph(page: Page, name):
    """The notebook from top to bottom, in pictures of a screen each, numbered."""
    for old in SCREENSHOTS.glob(f"{name}-*-*-*.png"):
        old.unlink()
    for theme in ("light", "dark"):
        command(page, "apputils:change-theme", theme=f"JupyterLab {theme.capitalize()}")
        page.wait_for_selector(f'body[data-jp-theme-name="JupyterLab {theme.capitalize()}"]', state="attached")
        for width, pixels in WIDTHS.items():
            page.set_viewport_size({"width": pixels, "height": HEIGHT})
            page.wait_for_timeout(1000)  # the layout follows with a delay
            view = page.locator(f"{PANEL} .jp-WindowedPanel-outer")
            step, whole = view.evaluate("v => [v.clientHeight - 40, v.scrollHeight]")
            for number, top in enumerate(range(0, whole - 40, step), 1):
                view.evaluate("(v, top) => v.scrollTo({top, behavior: 'instant'})", top)
                page.wait_for_timeout(150)
                page.locator(PANEL).screenshot(path=SCREENSHOTS / f"{name}-{theme}-{width}-{number:02}.png")
    page.set_viewport_size({"width": WIDTHS["wide"], "height": HEIGHT})


def test_the_server_wants_its_token(lab):
    assert lab.url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{lab.url}api/contents", timeout=30)


def test_a_bar_and_a_figure_are_drawn_and_a_failing_cell_is_named(lab, page):
    """What the tests below look for is there to be found."""
    code = [nbformat.v4.new_code_cell(source) for source in (BAR, FIGURE, "1 / 0", "2")]
    kernel = nbformat.read(NOTEBOOKS[0], as_version=4).metadata.kernelspec
    notebook = nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel})
    for name, kept in (("fails", 4), ("fine", 2)):
        notebook.cells = notebook.cells[:kept]
        nbformat.write(notebook, lab.folder / f"run/{name}.ipynb")
    open_notebook(page, lab, "run/fails.ipynb")
    with pytest.raises(AssertionError, match=r"code cell 3.*ZeroDivisionError"):
        run_all(page, seconds=120)
    open_notebook(page, lab, "run/fine.ipynb")
    bar, figure = run_all(page, seconds=120)
    assert [widget["drawn"] for widget in bar["widgets"]] == [True]
    assert re.search("three.steps:.100%", bar["widgets"][0]["text"])
    assert (bar["figures"], figure["figures"]) == (0, 1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outline_and_the_links(path, lab, page):
    """As a reader opens it, before a run: figures there, headings in the table of contents, links that lead."""
    open_notebook(page, lab, f"committed/{path.name}")
    assert [cell["figures"] for cell in page.evaluate(SHOWN)] == figures(cells(path))
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    command(page, "toc:show-panel")
    entries = page.locator(".jp-TableOfContents:visible .jp-tocItem-content")
    expect(entries).to_have_text(
        re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    )
    page.screenshot(path=SCREENSHOTS / f"{path.stem}-outline.png")
    targets = set(re.findall(r"\]\((\w+\.ipynb)\)", text))
    assert targets == {other.name for other in NOTEBOOKS} & targets
    for target in sorted(targets):
        command(page, "docmanager:open", path=f"committed/{path.name}")
        page.locator(f'{PANEL} a[href*="{target}"]').last.click()
        expect(page.locator(".lm-mod-current[role=tab] .lm-TabBar-tabLabel", has_text=target)).to_be_visible()
    command(page, "docmanager:open", path=f"committed/{path.name}")
    command(page, "application:toggle-left-area")
    photograph(page, path.stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_top(path, lab, page):
    started = time.monotonic()
    open_notebook(page, lab, f"run/{path.name}")
    command(page, "application:toggle-left-area")
    try:
        shown = run_all(page)
    except AssertionError:
        photograph(page, f"{path.stem}-failed")
        raise
    print(f"{path.name}: {time.monotonic() - started:.0f} s")
    assert numbers(shown) == list(range(1, len(shown) + 1))
    assert [cell["figures"] for cell in shown] == figures(cells(path))
    for widget in (widget for cell in shown for widget in cell["widgets"]):
        assert widget["drawn"], widget
        assert not re.search("Error displaying|Failed to load|Loading widget", widget["text"]), widget
    command(page, "docmanager:save")
    saved = lab.folder / "run" / path.name
    assert [cell.execution_count for cell in cells(saved)] == numbers(shown)
    assert figures(cells(saved)) == figures(cells(path))
    assert not [output for cell in cells(saved) for output in cell.outputs if output.output_type == "error"]
