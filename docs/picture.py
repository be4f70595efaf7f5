"""Extract README's picture, the figure of notebook 2 with faulty runs next to a healthy one; run by `make refresh`."""

import base64
import json
from pathlib import Path

HERE = Path(__file__).parent
PICTURE = HERE / "sick_runs.png"


def from_notebook() -> bytes:
    """Return the figure from the notebook's outputs."""
    notebook = json.loads((HERE.parent / "notebooks/02_debug.ipynb").read_text(encoding="utf-8"))
    (cell,) = (cell for cell in notebook["cells"] if "plots.small_multiples(" in "".join(cell["source"]))
    (figure,) = (output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {}))
    return base64.b64decode(figure)


if __name__ == "__main__":
    PICTURE.write_bytes(from_notebook())
