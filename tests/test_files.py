import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from transformers import BertForSequenceClassification

from bert_helpers import DataError, ParameterError, files, models, records


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


# --- write -------------------------------------------------------------------------------------------------


def test_json_is_written_whole_with_plain_numbers(tmp_path):
    path = files.write_json(tmp_path / "a" / "b.json", {"x": np.float32(0.5), "y": [np.int64(2), float("nan")]})
    assert json.loads(path.read_text()) == {"x": 0.5, "y": [2, None]}
    with pytest.raises(TypeError):
        files.write_json(path, {"x": object()})
    assert json.loads(path.read_text())["x"] == 0.5
    assert os.listdir(path.parent) == ["b.json"]


def test_what_is_written_is_read_back_as_it_was(tmp_path):
    text = "a\r\nb\rc\u2028d\x00"
    assert files.write_text(tmp_path / "a.txt", text).read_bytes() == text.encode()
    content = {"name that is not UTF-8 \udcff": ["\x1b", 1e99, None, True]}
    assert files.read_json(files.write_json(tmp_path / "a.json", content)) == content


def test_a_file_keeps_its_mode_and_a_link_or_folder_is_not_written_through(tmp_path):
    path = files.write_text(tmp_path / "a.txt", "a")
    path.chmod(0o640)
    assert files.write_text(path, "b").stat().st_mode & 0o777 == 0o640
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(ParameterError, match="is a link, a folder or a device"):
            files.write_text(tmp_path / name, "c")
    assert path.read_text() == "b"


def test_what_a_killed_process_left_is_removed_and_what_another_writes_stays(tmp_path):
    child = subprocess.Popen(["true"])
    child.wait()
    (tmp_path / f".a[1].txt.{child.pid}.12345678").write_text("half")
    (tmp_path / f".a[1].txt.{os.getpid()}.12345678").write_text("being written")
    (tmp_path / ".a1.txt.1.12345678").write_text("of another file")
    files.write_text(tmp_path / "a[1].txt", "whole")
    left = {f".a[1].txt.{os.getpid()}.12345678", ".a1.txt.1.12345678", "a[1].txt"}
    assert set(os.listdir(tmp_path)) == left


# The child can write no more than 200 kB, as on a full disk.
LIMITED = """
import resource, sys
from pathlib import Path
from transformers import BertForSequenceClassification
from bert_helpers import ParameterError, files, models, records

folder, bert = Path(sys.argv[1]), sys.argv[2]
model, tokenizer = models.load_model(bert, BertForSequenceClassification), models.load_tokenizer(bert)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
def run():
    with records.new_run(folder / "run") as new:
        models.save_model(model, tokenizer, new / "model")

for write in (
    run,
    lambda: files.write_json(folder / "metrics.json", {"x": "y" * 300_000}),
    lambda: files.write_text(folder / "predictions.csv", "y" * 300_000),
):
    try:
        write()
    except ParameterError as error:
        print(error)
"""


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_partial(before, tiny_bert, tokenizer, tmp_path):
    if before:
        model = models.load_model(str(tiny_bert), BertForSequenceClassification)
        with records.new_run(tmp_path / "run") as new:
            models.save_model(model, tokenizer, new / "model")
            records.write(new, records.Record(metrics={}, parameters={}, data={}))
        files.write_json(tmp_path / "metrics.json", {"x": 1})
        files.write_text(tmp_path / "predictions.csv", "a,b")
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(tiny_bert)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refused = [re.search(r"(\S+): cannot be written", line)[1] for line in done.stdout.splitlines()]
    assert [os.path.basename(path) for path in refused] == ["model", "metrics.json", "predictions.csv"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents


@pytest.mark.parametrize("folder", ["file", "file/below", "readonly/deep"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_training(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    if folder.startswith("readonly"):  # root may write anywhere, so the refusal is simulated

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ParameterError, match=f"{folder}: cannot be written"):
        files.check_writable(tmp_path / folder)


# --- read --------------------------------------------------------------------------------------------------

BROKEN = {
    "": "is not JSON", "{": "is not JSON", '{"x": 1' + "0" * 5000 + "}": "is not JSON", "[" * 100_000: "is nested too",
    "\xff": "is not UTF-8 text", "x" * (files.LARGEST + 1): "is larger than 5 MB", "PIPE": "is no file, or is gone",
    "GONE": "is no file, or is gone",
}  # fmt: skip


@pytest.mark.parametrize(("content", "problem"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_file_that_cannot_be_read_says_why(content, problem, tmp_path):
    path = tmp_path / "a.json"
    if content == "PIPE":
        os.mkfifo(path)
    elif content != "GONE":
        path.write_text(content, encoding="latin-1")
    with pytest.raises(DataError) as caught:
        files.read_json(path)
    assert caught.value.source == str(path)
    assert caught.value.problem.startswith(problem)


MISMATCHES = [
    ({"x": 1}, {"x": float}, ""), ({"x": 1.0}, {"x": int}, "x is 1.0"), ({"x": True}, {"x": int}, "x is true"),
    ({"x": float("nan")}, {"x": float}, "x is NaN"), ({"x": 10**400}, {"x": float}, "x is 1000"),
    ({}, {"x": (str, None)}, ""), ({}, {"x": str}, "x is null"), (None, None, ""), (0, None, "it is 0"),
    ([{"a": []}], [{"a": [str]}], ""), ([{"a": [1]}], [{"a": [str]}], "[0].a[0] is 1"), ({}, [str], "it is {}"),
    ({"a": {"b": "c"}}, {...: ({...: float}, str)}, 'a.b is "c"'), ({"y": [[2]]}, {"x": (int, None)}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("value", "schema", "problem"), MISMATCHES)
def test_a_schema_names_the_field_that_is_not_as_it_should_be(value, schema, problem):
    found = files.mismatch(value, schema)
    assert found == problem or (problem.endswith("1000") and found.startswith(problem))


def test_relative_paths_are_taken_from_the_project_when_a_kernel_runs_in_notebooks(tmp_path, monkeypatch):
    (tmp_path / "bert_helpers").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "mine.csv").write_text("x")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert files.base_folder() == tmp_path
    assert files.resolve("mine.csv") == os.path.join("..", "mine.csv")
    monkeypatch.chdir(tmp_path)
    assert files.base_folder() == tmp_path
    names = ["mine.csv", "stanfordnlp/imdb", "sample"]
    assert [files.resolve(name) for name in names] == names
