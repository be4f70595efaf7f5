"""Load tokenizer and model by name, with every weight accounted for.

A name is a packaged model, a local folder, or the Hub id "owner/name[@revision]" of an encoder: BERT or a relative.
"""

import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import __version__ as version
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging

from bert_helpers import files
from bert_helpers.errors import ModelError
from bert_helpers.readers import hub, model_files
from bert_helpers.readers.model_files import DEFAULT_MODEL as DEFAULT_MODEL
from bert_helpers.readers.model_files import PACKAGED as PACKAGED
from bert_helpers.readers.model_files import fields

OTHERS = "take one of the table in docs/models.md"
FEWEST_TOKENS = 0.9  # share of a trained model's embeddings; some are padded to a round number
FEWEST_CAPITALS = 0.05  # share of vocabulary entries; over a third in bert-base-cased, none in uncased models
SENTENCEPIECE = ("spm.model", "spiece.model", "sentencepiece.bpe.model")  # read by a library of its own
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE)
# Nothing else is ever downloaded, neither code nor pickles.
TEXT_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *TOKENIZER_FILES)
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
DROPOUT_FIELDS = ("hidden_dropout_prob", "dropout", "mlp_dropout")  # names of the field in different families


def load_tokenizer(name: str, *, words: bool = False) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the named model; its `model_max_length` is the number of the model's positions.

    `words` is for texts given as lists of words: byte-level tokenizers (RoBERTa's) then see a blank before each.
    Raises ModelError.
    """
    folder = locate(name, weights=False)
    found = [file for file in TOKENIZER_FILES if (folder / file).is_file()]
    if not found:  # Transformers would invent a vocabulary of 5 tokens
        fix = f"one of {', '.join(TOKENIZER_FILES[:3])} is needed; models of characters or bytes have none: {OTHERS}"
        raise ModelError("no tokenizer here", source=name, fix=fix)
    if found[0] in SENTENCEPIECE and not find_spec("sentencepiece"):  # Transformers would ask for tiktoken
        fix = "pip install sentencepiece protobuf; the saved model then has tokenizer.json and does not need it"
        raise ModelError(f"its tokenizer, {found[0]}, is read by sentencepiece, which is missing", source=name, fix=fix)
    options = {"add_prefix_space": True} if words else {}
    settings = fields(folder / "tokenizer_config.json")
    if not (folder / "tokenizer.json").is_file() and "do_lower_case" not in settings:
        options |= _casing(name, folder / "vocab.txt")
    with _errors(name):
        config = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    if not tokenizer.is_fast:
        raise ModelError("its tokenizer does not give the positions of tokens in the text", source=name, fix=OTHERS)
    before_words = tokenizer.backend_tokenizer.pre_tokenizer
    if words and isinstance(before_words, ByteLevel):
        before_words.add_prefix_space = True
        tokenizer.backend_tokenizer.pre_tokenizer = before_words
    if tokenizer.pad_token is None and config.pad_token_id is not None:  # tokenizer_config.json is missing
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    tokenizer.padding_side = "right"  # labels of words and answers count from the first token
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions(config))  # missing in some folders: 10**30
    return tokenizer


def _casing(name: str, vocabulary: Path) -> dict[str, bool]:
    """Return how case and accents are handled, inferred from the vocabulary; Transformers would lower-case everything.

    Raises ModelError if only a few entries have capitals, since they may have been added to either kind.
    """
    if not vocabulary.is_file():
        return {}
    pieces = [piece for piece in files.read_text(vocabulary).split() if piece[0] not in "[<"]
    capitals = sum(piece != piece.lower() for piece in pieces) / max(1, len(pieces))
    if 0 < capitals < FEWEST_CAPITALS:
        problem = f"its vocabulary has capitals in {capitals:.1%} of the pieces: were its texts lower-cased or not?"
        raise ModelError(problem, source=name, fix='write {"do_lower_case": true}, or false, to tokenizer_config.json')
    accents = any(unicodedata.normalize("NFD", piece) != piece for piece in pieces)
    return {"do_lower_case": not capitals, **({"strip_accents": False} if accents else {})}


def positions(config: PreTrainedConfig) -> int:
    """Return how many tokens a model accepts; some have unused positions (RoBERTa: 514 rows for 512 tokens)."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name:
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return getattr(config, "max_position_embeddings", None) or 10**30


def load_model(
    name: str, model_class: type, *, seed: int = 0, trained: bool = False, **config: object
) -> PreTrainedModel:
    """Return the named model with the head of `model_class` (AutoModelFor…), in float32.

    A head that the files lack, or have with another number of outputs, is drawn from `seed`, with a warning if the
    files have another. With `trained`, every weight must be there.

    `config` sets fields of the model's config, its own (`num_labels`, `id2label`, …) or new ones, which Transformers
    would drop. `output_bias` gives the initial biases of a new head's last layer, instead of 0. With `target_mean` and
    `target_deviation` a regressor learns standardized labels, (label - mean) / deviation, of which its loss is; the
    labels it is given and the scores it returns are in the data's units.

    Raises ModelError for an unknown name, a model that is no encoder or has no such head, pickled or missing weights,
    or a scale for several outputs.
    """
    folder = locate(name)
    if not trained:  # fields left by another task; "problem_type" would choose the loss
        config = {"problem_type": None, "output_bias": None, **config}
    with _errors(name), torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model, info = model_class.from_pretrained(
            folder,
            config=_config(name, folder, model_class, config),
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=not trained,
        )
    for weights in model.parameters():  # parts of one tensor (NomicBERT) could not be saved separately
        if weights.untyped_storage().nbytes() > weights.nbytes:
            weights.data = weights.data.clone()
    new = _account_for_weights(name, model.base_model_prefix, info, trained=trained)
    new = new or (not trained and _renew_head_of_other_labels(name, folder, model, seed))
    if new and config.get("output_bias"):
        output_layer(model).bias.data = torch.tensor(config["output_bias"])
    outputs = model.config.num_labels
    if outputs != 1 and "target_mean" in config:
        raise ModelError(f"the model has {outputs} outputs, not one", source=name, fix="load it with num_labels=1")
    if outputs == 1 and hasattr(model.config, "target_mean"):
        model.register_forward_pre_hook(_standardize_labels, with_kwargs=True)
        model.register_forward_hook(_scores_in_the_datas_units)
    return model


def _config(name: str, folder: Path, model_class: type, given: Mapping[str, object]) -> PreTrainedConfig:
    """Return the config of the files with the given fields, also those that are new."""
    settings = AutoConfig.from_pretrained(folder, **given)
    new = {field: value for field, value in given.items() if value is not None and not hasattr(settings, field)}
    settings.update(new)
    if type(settings) not in getattr(model_class, "_model_mapping", [type(settings)]):
        problem = f"Transformers has no {model_class.__name__} for a {settings.model_type!r} model"
        raise ModelError(problem, source=name, fix=OTHERS)
    return settings


def _renew_head_of_other_labels(name: str, folder: Path, model: PreTrainedModel, seed: int) -> bool:
    """Redraw the last layer, with a warning, if the files have it for labels of other names; return whether they do."""
    named = list((fields(folder / "config.json").get("id2label") or {}).values())
    if not set(named) - {*model.config.id2label.values(), "LABEL_0", "LABEL_1"}:
        return False
    layer = output_layer(model)
    nn.init.normal_(layer.weight, std=model.config.initializer_range, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(layer.bias)
    warnings.warn(f"{name}: the head is new; the files have one for {', '.join(named)[:80]}", stacklevel=3)
    return True


def _account_for_weights(name: str, prefix: str, info: Mapping[str, Iterable], *, trained: bool) -> bool:
    """Raise ModelError if the files lack weights of the encoder; warn if a new head replaces another.

    The names of the encoder's weights begin with `prefix`. The files of a trained model must contain every weight.
    Returns whether the head, or a part of it, is new.
    """
    misshapen = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    lost = sorted({*info["missing_keys"], *misshapen})
    head = [key for key in lost if "pooler" not in key and not key.startswith(f"{prefix}.")]
    encoder = [key for key in lost if "pooler" not in key and key not in head]
    if encoder or (trained and lost):
        first = (encoder or lost)[0]
        raise ModelError(f"{len(encoder or lost)} weights are missing or misshapen, first {first!r}", source=name)
    other = sorted(key for key in info["unexpected_keys"] if "pooler" not in key)
    if lost and (misshapen or other):
        warnings.warn(f"{name}: the head is new; the files have another, {(misshapen or other)[0]}", stacklevel=3)
    return bool(head)


def dropout_field(name: str, value: float) -> dict[str, float]:
    """Return the fields of the named model's config that set the dropout of hidden states, with this value."""
    config = AutoConfig.from_pretrained(locate(name, weights=False))
    return {field: value for field in DROPOUT_FIELDS if hasattr(config, field)}


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """Return the last layer of the head, which computes the logits."""
    base = set(model.base_model.modules())
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module not in base][-1]


def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add embeddings for tokens that have none, with a warning.

    Raises ModelError if many are missing, as when the tokenizer belongs to another model.
    """
    rows = len(model.get_input_embeddings().weight)
    if rows < FEWEST_TOKENS * tokenizer.vocab_size:
        problem = f"the tokenizer has {tokenizer.vocab_size} tokens, the model {rows}: it is of another model"
        raise ModelError(problem, source=tokenizer.name_or_path)
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer))
        warnings.warn(f"the tokenizer has {len(tokenizer)} tokens, the model {rows}: the others are new", stacklevel=2)


def standardize(labels: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Return labels on the scale that a regressor learns: (label - mean) / deviation, if its config has these."""
    return (labels - getattr(config, "target_mean", 0.0)) / getattr(config, "target_deviation", 1.0)


def _standardize_labels(
    model: PreTrainedModel, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    labels = kwargs.get("labels")
    return args, kwargs if labels is None else {**kwargs, "labels": standardize(labels, model.config)}


def _scores_in_the_datas_units(
    model: PreTrainedModel, args: tuple[object, ...], output: SequenceClassifierOutput
) -> SequenceClassifierOutput:
    output.logits = output.logits * model.config.target_deviation + model.config.target_mean
    return output


def load_trained(
    name: str, model_class: type, *, num_labels: int | None = None, labels: Sequence[str] | None = None
) -> PreTrainedModel:
    """Load a model that was fine-tuned earlier, with its head, from the folder in which a run left it.

    Raises ModelError if it was trained for another task: if it has another class, not `num_labels` outputs (classes; 1
    for regression), or not the classes `labels` in this order. Also if a weight is missing or not finite, if two
    classes share a name, or if the tokenizer has far fewer tokens than the model.
    """
    folder = locate(name)
    with _errors(name):
        config = AutoConfig.from_pretrained(folder)
    if not has_head(config, model_class):
        architecture = (config.architectures or ["model without a head"])[0]
        needed = model_class.__name__.removeprefix("AutoModel")
        raise ModelError(f"a {architecture}, not one {needed}; it is of another task", source=name)
    if num_labels not in (None, config.num_labels):
        problem = f"has {config.num_labels} outputs where {num_labels} are needed; it is of another task"
        raise ModelError(problem, source=name)
    classes = [config.id2label[i] for i in range(config.num_labels)]
    if labels is not None and classes != list(labels):
        problem = f"its classes are {classes}, those of the data {list(labels)}"
        raise ModelError(problem, source=name, fix="rename the labels")
    if len(set(classes)) < len(classes):
        raise ModelError(f"two classes have the same name, in {str(classes)[:200]}", source=name)
    model = load_model(name, model_class, trained=True)
    if not all(torch.isfinite(weights).all() for weights in model.parameters()):
        raise ModelError("has weights that are not finite: its training diverged", source=name, fix="train it again")
    tokens = len(load_tokenizer(name))
    if tokens < FEWEST_TOKENS * config.vocab_size:
        problem = f"its tokenizer has {tokens} tokens, the model {config.vocab_size}: it is of another model"
        raise ModelError(problem, source=name)
    return model


def has_head(config: PreTrainedConfig, model_class: type) -> bool:
    """Return whether a saved model belongs to `model_class`, as BertFor… does to AutoModelForTokenClassification."""
    return (config.architectures or [""])[0].endswith(model_class.__name__.removeprefix("AutoModel"))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Save weights, config and tokenizer in `folder`, which `records.new_run` provides. Raises ParameterError."""
    with files.writing(folder), quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def locate(name: str, *, weights: bool = True) -> Path:
    """Return the local folder of the named model; checks the digest of a packaged one, downloads one from the Hub.

    Config, tokenizer and, unless `weights` is False, weights are downloaded; never code or pickles. Raises ModelError
    if there is no such model, if it is no encoder or brings code of its own, or if the Hub cannot be reached.
    """
    folder = model_files.local_folder(name, weights=weights)
    if folder:
        _check_is_encoder(name, folder)
        return folder
    repo, _, revision = name.partition("@")
    with _errors(name):
        commit = hub.find_commit(repo, revision or None, kind="model")
        folder = _download(repo, commit, TEXT_FILES)
        model_files.check(name, folder, weights=False)
        _check_is_encoder(name, folder)
        if weights:
            _download(repo, commit, WEIGHT_FILES)
            model_files.check(name, folder)
    return folder


def _check_is_encoder(name: str, folder: Path) -> None:
    kind = fields(folder / "config.json").get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ModelError(f"a {kind!r} model, which Transformers {version} does not know", source=name)
    if CONFIG_MAPPING[kind] not in MODEL_FOR_MASKED_LM_MAPPING or CONFIG_MAPPING[kind]().is_encoder_decoder:
        problem = f"a {kind!r} model is no encoder of tokens, as BERT and its relatives are"
        raise ModelError(problem, source=name, fix=OTHERS)


def _download(repo: str, commit: hub.Commit, files: tuple[str, ...]) -> Path:
    """Return the folder with those of the files that the repository has; offline, with those in the cache."""
    try:
        return Path(
            snapshot_download(
                repo, revision=commit.hash, allow_patterns=list(files), local_files_only=bool(commit.offline)
            )
        )
    except LocalEntryNotFoundError as error:
        why = commit.offline or "it stopped answering"
        raise hub.HubError(f"{hub.unreachable(why)}, and the cache does not hold all files") from error


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except hub.HubError as error:
        raise ModelError(str(error), source=name) from error
    except Exception as error:  # the libraries raise a dozen types for broken files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"cannot be loaded: {reason}", source=name) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the reports and progress bars of loading and saving; `load_model` checks the loading info itself."""
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
    """Return the root mean square of the weights in an encoder's layers, without embeddings and pooler."""
    weights = [
        p
        for name, p in model.base_model.named_parameters()
        if p.ndim > 1 and not re.search("embed|pooler|position|relative", name)
    ]
    return float(torch.sqrt(sum((p.detach().float() ** 2).sum() for p in weights) / sum(p.numel() for p in weights)))


def initial_weight_size(model: torch.nn.Module) -> float:
    """Return the `weight_size` before the last training, which is saved with the model; if untrained, the current one.

    Training changes it by a tenth.
    """
    saved = getattr(model.config, "initial_weight_size", None)
    return saved if isinstance(saved, float) and 0 < saved < math.inf else weight_size(model)
