"""The wheel contains what the command line needs: samples, templates, every subpackage."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


def run(*words, folder, **environment):
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_trains_predicts_and_shows_its_runs(tiny_bert, tmp_path):
    source, site, home = tmp_path / "source", tmp_path / "site", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT / "bert_helpers", source / "bert_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "install", "--no-deps", "--target", site, wheel, folder=tmp_path)

    def bert_helpers(*words):
        return run(sys.executable, "-m", "bert_helpers", *words, folder=home, PYTHONPATH=str(site))

    where = run(
        sys.executable, "-c", "import bert_helpers; print(bert_helpers.__file__)", folder=home, PYTHONPATH=str(site)
    )
    assert where.startswith(str(site))
    assert json.loads(bert_helpers("info", "--json"))["samples"]["classification"]["train"] == 480
    sizes = ("--train-size", 48, "--validation-size", 16, "--test-size", 16, "--epochs", 1, "--max-length", 32)
    bert_helpers("train", "classification", "--model", tiny_bert, *sizes)
    assert bert_helpers("predict", "results/classification", "A text.").startswith("text,label,")
    assert "results/classification" in (home / "results/classification/model/README.md").read_text(encoding="utf-8")
    assert "classification" in (home / "results/index.html").read_text(encoding="utf-8")
