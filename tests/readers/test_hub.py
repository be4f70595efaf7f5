"""The Hub's paths, against a local stand-in for the Hub.

The libraries read the Hub's address when they are imported, so the code under test runs in separate processes
(`CLIENT`), which take one request per line and answer each with one line.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from huggingface_hub.constants import HF_HUB_OFFLINE
from safetensors.torch import load_file, save

from bert_helpers import BertHelpersError, models
from bert_helpers.tasks.registry import TASKS

PATIENCE = 30  # seconds within which an unreachable Hub must be reported

# --- the stand-in ------------------------------------------------------------------------------------------


class Hub:
    """Repositories in memory; `mode` says how requests are answered, `log` holds (method, path, status).

    Modes: "up"; "is absent" (nobody listens); "refuses" (503); "drops" (closes the connection); "hangs" (never
    answers); "stops" (knows revisions and folders, but drops files); "cuts" (breaks off in the middle of a file).
    """

    def __init__(self):
        self.repos, self.moved, self.log, self.mode = {}, {}, [], "up"
        self.closing, self.port = threading.Event(), 0
        self.listen()
        self.url = f"http://127.0.0.1:{self.port}"

    def listen(self):
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def hang_up(self):
        self.server.shutdown()
        self.server.server_close()

    def push(self, kind, name, files, *revisions):
        """Make a commit that these revisions (branches, tags) point to from now on; return its hash."""
        commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
        repo = self.repos.setdefault((kind, name), {})
        repo[commit] = files
        repo.update(dict.fromkeys(revisions or ["main"], commit))
        return commit

    @contextmanager
    def answering(self, mode):
        self.mode = mode
        if mode == "is absent":
            self.hang_up()
        try:
            yield
        finally:
            self.mode = "up"
            if mode == "is absent":
                self.listen()

    def sent(self, repo):
        """Return the paths of the repository's files that were sent."""
        found = [path for method, path, status in self.log if method == "GET" and status == 200]
        return {path.split("/", 5)[-1] for path in found if path.startswith(f"/{repo}/resolve/")}

    def close(self):
        self.closing.set()
        self.hang_up()


class Handler(BaseHTTPRequestHandler):  # HTTP/1.0: one connection per request, so none outlives `hang_up`
    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.hub.log.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status, code, message, **headers):
        self.reply(status, {"error": message}, X_Error_Code=code, X_Error_Message=message, **headers)

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address, mode = urlsplit(self.path), self.hub.mode
        is_file = "/resolve/" in address.path
        if mode == "refuses":
            return self.reply(503, {"error": "Service Unavailable"})
        if mode == "hangs":
            self.hub.closing.wait()
        if mode in ("hangs", "drops") or (mode == "stops" and is_file):
            return self.hub.log.append((self.command, self.path, None))
        # [api/][models|datasets/]OWNER/NAME[/(resolve|revision|tree|paths-info)/REVISION[/PATH]]
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        api = parts[0] == "api" and bool(parts.pop(0))
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        if parts[0] in self.hub.moved:
            return self.reply(307, Location=self.path.replace(parts[0], self.hub.moved[parts[0]], 1))
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        verb, revision = parts[2:4] or ("revision", "main")
        repo = self.hub.repos.get((kind, name))
        if repo is None:  # what the Hub answers to a client that is not logged in
            return self.fail(401, "RepoNotFound", "Invalid username or password.")
        commit = revision if isinstance(repo.get(revision), dict) else repo.get(revision)
        if commit is None:
            return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo[commit]
        if is_file and path in files:
            etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
            if mode == "cuts" and self.command == "GET":
                return self.reply(200, b"PAR1", Content_Length=len(files[path]), ETag=etag, X_Repo_Commit=commit)
            return self.reply(200, files[path], ETag=etag, X_Repo_Commit=commit)
        if api and verb == "revision":
            siblings = [{"rfilename": file} for file in files]
            return self.reply(200, {"id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings})
        if api and verb == "tree":
            deep = parse_qs(address.query).get("recursive", [""])[0].lower() in ("true", "1")
            if entries := tree(files, f"{path}/" if path else "", deep):
                return self.reply(200, entries)
        if api and verb == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", [])
            return self.reply(200, [entry for entry in tree(files, "", True) if entry["path"] in wanted])
        return self.fail(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)

    do_HEAD = do_POST = do_GET


def tree(files, prefix, deep):
    """Return the entries below a folder as in the Hub's API."""
    entries = {}
    for path, content in files.items():
        if path.startswith(prefix):
            *folders, _ = path.removeprefix(prefix).split("/")
            for i in range(1, len(folders) + 1):
                folder = prefix + "/".join(folders[:i])
                if deep or i == 1:
                    entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if deep or not folders:
                oid = hashlib.sha1(content).hexdigest()
                entries[path] = {"type": "file", "path": path, "oid": oid, "size": len(content)}
    return list(entries.values())


# --- what is on it -----------------------------------------------------------------------------------------

CARD = """---
configs:
- config_name: plain_text
  default: true
  data_files:
  - {split: train, path: plain_text/train-*}
  - {split: test, path: plain_text/test-*}
  - {split: unsupervised, path: plain_text/unsupervised-*}
- config_name: short
  data_files:
  - {split: train, path: short/train-*}
  - {split: dev, path: short/dev-*}
dataset_info:
- config_name: plain_text
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': neg, '1': pos}}}
---
# Reviews
"""


def rows(first, count, label=None):
    """Return a Parquet file of `count` rows; the labels alternate unless one is given."""
    texts = [f"{first} {i}" for i in range(count)]
    labels = [i % 2 if label is None else label for i in range(count)]
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": pa.array(labels, pa.int64())}), file)
    return file.getvalue()


def reviews(first, count):
    """Return the files of a repository like stanfordnlp/imdb, with a second config."""
    return {
        "README.md": CARD.encode(),
        "plain_text/train-00000-of-00001.parquet": rows(first, count),
        "plain_text/test-00000-of-00001.parquet": rows(f"{first} test", 10),
        "plain_text/unsupervised-00000-of-00001.parquet": rows(f"{first} unlabelled", 6, label=-1),
        "short/train-00000-of-00001.parquet": rows(f"{first} short", 20),
        "short/dev-00000-of-00001.parquet": rows(f"{first} short dev", 4),
    }


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Return the file that code from the stand-in would leave behind if it were run."""
    return tmp_path_factory.mktemp("executed") / "marker"


@pytest.fixture(scope="module")
def hub(tiny_bert, executed):
    hub = Hub()
    bert = {file.name: file.read_bytes() for file in tiny_bert.iterdir()}
    config = json.loads(bert["config.json"])
    weights = load_file(tiny_bert / "model.safetensors")
    older = {name: tensor + 1 for name, tensor in weights.items()}
    code = f"open({str(executed)!r}, 'w').write(__name__)\n".encode()
    auto = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoModelForSequenceClassification": "own.Model"}
    tokenizer = {**json.loads(bert["tokenizer_config.json"]), "auto_map": {"AutoTokenizer": ["own.Slow", "own.Fast"]}}

    def with_config(**fields):
        return {**bert, "config.json": json.dumps({**config, **fields}).encode()}

    def without(*names):
        return {name: content for name, content in bert.items() if name not in names}

    hub.push(
        "models", "owner/tiny-bert", {**bert, "model.safetensors": save(older, {"format": "pt"})}, "v1", "refs/pr/1"
    )
    hub.push("models", "owner/tiny-bert", bert)
    hub.moved["tiny-bert"] = "owner/tiny-bert"
    hub.push("models", "owner/pickled", {**without("model.safetensors"), "pytorch_model.bin": b"\x80\x02N."})
    hub.push("models", "owner/decoder", with_config(model_type="gpt2"))
    hub.push("models", "owner/own-type", {**with_config(model_type="own", auto_map=auto), "own.py": code})
    own_code = {**with_config(auto_map=auto), "tokenizer_config.json": json.dumps(tokenizer).encode(), "own.py": code}
    hub.push("models", "owner/own-code", own_code)
    hub.push("models", "owner/no-tokenizer", without("tokenizer.json", "tokenizer_config.json"))
    hub.push("models", "owner/broken-config", {**bert, "config.json": b"{"})
    hub.push("models", "owner/broken-tokenizer", {**bert, "tokenizer.json": b"{"})
    hub.push("models", "owner/broken-weights", {**bert, "model.safetensors": b"no weights"})

    hub.push("datasets", "owner/reviews", reviews("older", 30), "v1", "refs/convert/parquet")
    hub.push("datasets", "owner/reviews", reviews("newer", 40))
    hub.push("datasets", "owner/reviews", reviews("never loaded", 50), "v2")
    bare = {"data/train-00000-of-00001.parquet": rows("bare", 30), "data/test-00000-of-00001.parquet": rows("bare", 6)}
    hub.push("datasets", "owner/Bare-Reviews", bare)
    hub.push("datasets", "owner/test-only", {"test.parquet": rows("test", 9)})
    hub.push("datasets", "owner/scripted", {"scripted.py": code, "README.md": b"# Scripted\n"})
    hub.push("datasets", "owner/no-data", {"README.md": b"# No data\n", "notes.md": b"none"})
    hub.push("datasets", "owner/broken", {"train.parquet": b"PAR1, or so it says. PAR1"})
    hub.push("datasets", "owner/cut-off", {"train.parquet": rows("cut", 30)})
    yield hub
    hub.close()


# --- the code under test -----------------------------------------------------------------------------------

CLIENT = """
import hashlib, json, os, signal, sys, time

answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not come between
from bert_helpers import models
from bert_helpers.tasks.registry import TASKS
from bert_helpers.readers import hub, source
from transformers import BertForSequenceClassification


def load_data(name):
    dataset = TASKS["classification"].load(name)
    train = dataset["train"]
    return {
        "rows": {split: len(rows) for split, rows in dataset.items()},
        "texts": sorted({text.rsplit(" ", 1)[0] for split in dataset.values() for text in split["text"]}),
        "labels": train.features["label"].names,
        "place": source.source_name(train),
    }


def load_tokenizer(name):
    tokenizer = models.load_tokenizer(name)
    return {"ids": tokenizer("a good film")["input_ids"], "limit": tokenizer.model_max_length, "size": len(tokenizer)}


def load_model(name):
    model = models.load_model(name, BertForSequenceClassification, num_labels=3)
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    return {"labels": model.config.num_labels, "digest": digest.hexdigest()}


for line in sys.stdin:
    request = json.loads(line)
    hub.TIMEOUT = request["timeout"]
    signal.alarm(100)  # ends a process that hangs
    started = time.monotonic()
    try:
        answer = globals()[request["call"]](request["name"])
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    signal.alarm(0)
    answer["seconds"] = time.monotonic() - started
    print(json.dumps(answer), file=answers, flush=True)
"""


class Client:
    """Start a Python process whose Hub is at `url`, with an empty cache."""

    def __init__(self, url, home):
        self.home, self.errors = home, home / "stderr.txt"
        settings = ("HF_", "TRANSFORMERS_", "HUGGING")
        env = {key: value for key, value in os.environ.items() if not key.startswith(settings)}
        env = {key: value for key, value in env.items() if not key.lower().endswith("_proxy")}
        env |= {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CLIENT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=home,
                env=env,
            )

    def ask(self, call, name, timeout=10):
        self.process.stdin.write(json.dumps({"call": call, "name": str(name), "timeout": timeout}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the client ended: {self.errors.read_text()[-3000:]}"
        answer = json.loads(line)
        self.seconds = answer.pop("seconds")
        return answer

    def data(self, name, **options):
        return self.ask("load_data", name, **options)

    def tokenizer(self, name, **options):
        return self.ask("load_tokenizer", name, **options)

    def model(self, name, **options):
        return self.ask("load_model", name, **options)

    def close(self):
        self.process.kill()  # it holds nothing, and torch takes seconds to exit
        self.process.communicate()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    client = Client(hub.url, tmp_path_factory.mktemp("client"))
    yield client
    client.close()


def refusal(answer, error):
    """Return the message of an answer that must be this error."""
    assert answer.get("error") == error, answer
    return answer["message"]


# --- models ------------------------------------------------------------------------------------------------


def test_a_model_of_the_hub_equals_its_local_copy(client, hub, tiny_bert):
    assert client.tokenizer("owner/tiny-bert") == client.tokenizer(tiny_bert)
    assert "model.safetensors" not in hub.sent("owner/tiny-bert")  # a tokenizer needs no weights
    assert client.model("owner/tiny-bert") == client.model(tiny_bert)
    assert hub.sent("owner/tiny-bert") == {file.name for file in tiny_bert.iterdir()}


def test_a_model_under_its_old_name_without_owner(client, tiny_bert):
    assert client.tokenizer("tiny-bert") == client.tokenizer(tiny_bert)
    assert client.model("tiny-bert") == client.model(tiny_bert)


def test_the_revision_picks_the_weights(client, hub):
    main = client.model("owner/tiny-bert")
    older = client.model("owner/tiny-bert@v1")
    assert main.keys() == older.keys()
    assert main != older
    commit = hub.repos["models", "owner/tiny-bert"]["v1"]
    assert client.model(f"owner/tiny-bert@{commit}") == client.model("owner/tiny-bert@refs/pr/1") == older
    assert client.tokenizer("owner/tiny-bert@refs/pr/1")["limit"] == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/nothing", "owner/nothing: no such file or folder here, and no such model on the Hub"),
        ("owner/reviews", "no such model on the Hub"),  # a dataset's name
        ("owner/tiny-bert@v9", "has no revision 'v9'"),
        ("not a name!", "not a valid repository name"),
        ("owner/decoder", "a 'gpt2' model"),
        ("owner/own-type", "names code of the model's own (auto_map)"),
        ("owner/own-code", "names code of the model's own (auto_map)"),
        ("owner/broken-config", "config.json is not JSON"),
    ],
)
def test_a_name_that_is_no_encoder(client, hub, name, message):
    before = len(hub.log)
    assert message in refusal(client.tokenizer(name), "ModelError")
    assert message in refusal(client.model(name), "ModelError")
    assert not any("safetensors" in path for _, path, _ in hub.log[before:])


def test_a_repository_with_pickled_weights_only(client, hub):
    assert "pickled weights" in refusal(client.model("owner/pickled"), "ModelError")
    assert client.tokenizer("owner/pickled")["limit"] == 64
    assert "pytorch_model.bin" not in hub.sent("owner/pickled")
    # Transformers would look for a conversion by a bot, and ask for one.
    assert not any("commits" in path or "discussions" in path for _, path, _ in hub.log)


def test_missing_or_broken_files(client):
    assert "no tokenizer" in refusal(client.tokenizer("owner/no-tokenizer"), "ModelError")
    assert "owner/broken-tokenizer" in refusal(client.tokenizer("owner/broken-tokenizer"), "ModelError")
    assert "owner/broken-weights" in refusal(client.model("owner/broken-weights"), "ModelError")


def test_code_in_a_repository_is_neither_fetched_nor_run(client, hub, executed):
    for name in ("owner/own-code", "owner/own-type"):
        client.tokenizer(name)
        client.model(name)
        assert "own.py" not in hub.sent(name)
    assert "no longer supported" in refusal(client.data("owner/scripted"), "DataError")
    assert not executed.exists()
    assert not list(client.home.rglob("own.py"))


# --- datasets ----------------------------------------------------------------------------------------------


def test_a_dataset_and_its_unlabelled_split(client):
    assert client.data("owner/reviews") == {
        "rows": {"train": 36, "validation": 4, "test": 10},  # a tenth of 40 held out, the unlabelled rows left alone
        "texts": ["newer", "newer test"],
        "labels": ["neg", "pos"],
        "place": "owner/reviews, train split",
    }
    assert "downloading the data set owner/reviews from the Hugging Face Hub, commit " in client.errors.read_text()


def test_a_config_with_a_split_named_dev(client):
    answer = client.data("owner/reviews/short")
    assert answer["rows"] == {"train": 18, "validation": 4, "test": 2}
    assert answer["texts"] == ["newer short", "newer short dev"]
    assert answer["labels"] == ["0", "1"]


@pytest.mark.parametrize("revision", ["v1", "refs/convert/parquet", "a hash"])
def test_a_pinned_revision(client, hub, revision):
    revision = hub.repos["datasets", "owner/reviews"]["v1"] if revision == "a hash" else revision
    assert client.data(f"owner/reviews@{revision}")["texts"] == ["older", "older test"]
    assert client.data(f"owner/reviews/short@{revision}")["texts"] == ["older short", "older short dev"]


def test_a_dataset_without_a_card(client):
    answer = client.data("owner/Bare-Reviews")
    assert answer["rows"] == {"train": 27, "validation": 3, "test": 6}
    assert answer["labels"] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/nothing", "owner/nothing: no such file or folder here, and no such dataset on the Hub"),
        ("owner/tiny-bert", "no such dataset on the Hub"),  # a model's name
        ("owner/reviews@v9", "has no revision 'v9'"),
        ("owner/reviews/long", "'long' not found. Available: ['plain_text', 'short']"),
        ("-owner-/reviews", "not a valid repository name"),
        ("owner/test-only", "no train split; it has test"),
        ("owner/no-data", "no data files of a known kind"),
        ("owner/broken", "owner/broken: Parquet"),
    ],
)
def test_a_dataset_that_cannot_be_had(client, name, message):
    assert message in refusal(client.data(name), "DataError")


def test_a_download_that_breaks_off(client, hub):
    with hub.answering("cuts"):
        assert "owner/cut-off: peer closed connection" in refusal(client.data("owner/cut-off"), "DataError")
    assert client.data("owner/cut-off")["rows"]["train"] == 24


# --- no answer ---------------------------------------------------------------------------------------------

CALLS = [("data", "DataError"), ("tokenizer", "ModelError"), ("model", "ModelError")]


@pytest.mark.parametrize(("call", "error"), CALLS)
@pytest.mark.parametrize(
    ("mode", "reason"),
    [("is absent", "Connection refused"), ("refuses", "answers 503"), ("drops", "disconnect"), ("hangs", "timed out")],
)
def test_the_hub_does_not_answer(client, hub, call, error, mode, reason):
    with hub.answering(mode):
        answer = getattr(client, call)("owner/not-in-the-cache", timeout=1 if mode == "hangs" else 10)
    message = refusal(answer, error)
    assert "the Hub cannot be reached" in message
    assert reason in message
    assert client.seconds < PATIENCE


@pytest.mark.parametrize("mode", ["is absent", "refuses"])
def test_without_the_hub_the_cache_stands_in_for_the_same_revision_and_config_only(client, hub, mode):
    calls = [
        (client.data, "owner/reviews/plain_text"),
        (client.data, "owner/reviews/plain_text@v1"),
        (client.data, "owner/Bare-Reviews"),
        (client.tokenizer, "owner/tiny-bert@v1"),
        (client.model, "owner/tiny-bert@v1"),
    ]
    online = [call(name) for call, name in calls]
    client.tokenizer("owner/broken-weights@main")  # its weights are not in the cache
    with hub.answering(mode):
        assert [call(name) for call, name in calls] == online
        assert client.seconds < PATIENCE
        # datasets would take the latest that is in the cache: of v1 for v2, of plain_text for long
        for name in ("owner/reviews@v2", "owner/reviews/short@v2", "owner/reviews/long", "owner/Bare-Reviews@v2"):
            assert "the Hub cannot be reached" in refusal(client.data(name), "DataError")
        # which config is the default one is not known offline
        assert "name the config" in refusal(client.data("owner/reviews"), "DataError")
        assert "the Hub cannot be reached" in refusal(client.model("owner/tiny-bert@v2"), "ModelError")


def test_the_hub_stops_answering_in_between(client, hub):
    client.data("owner/reviews@v1")
    with hub.answering("stops"):  # datasets would go on with v1
        assert "the Hub cannot be reached" in refusal(client.data("owner/reviews/plain_text@v2"), "DataError")
        assert client.seconds < PATIENCE
        refusal(client.tokenizer("owner/no-tokenizer@main"), "ModelError")
    assert client.data("owner/reviews@v2")["texts"] == ["never loaded", "never loaded test"]


@pytest.mark.skipif(not HF_HUB_OFFLINE, reason="somebody set HF_HUB_OFFLINE=0 for these tests")
@pytest.mark.parametrize("load", [TASKS["classification"].load, models.load_tokenizer])
def test_offline_by_wish(load):
    with pytest.raises(BertHelpersError, match=r"owner/nothing: the Hub cannot be reached \(HF_HUB_OFFLINE is set\)"):
        load("owner/nothing")
