"""JSON schemas of what people write: the configuration in kernel.json, and the field `apptainer` of a notebook's metadata.

The files *.schema.json beside this one are their copies for editors; `python -m jupyter_apptainer.kernels.schemas` writes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .spec import build_json_schema

_HERE = Path(__file__).parent
_OF_NOTEBOOKS = {
    "image": "The image: NAME.sif of one of your kernels' images, NAME.sif@sha256:DIGEST or sha256:DIGEST wherever it lies, or a path.",
    "binds": "Names of binds that each reader defines (ApptainerConfig.named_binds), or paths as in kernel.json.",
    "home": "none, for an empty home folder.",
}


def build_notebook_schema() -> dict[str, object]:
    """Return the JSON schema of the field `apptainer`: the fields of kernel.json, all of them optional and without defaults."""
    schema: dict[str, Any] = build_json_schema()
    for name, entry in schema["properties"].items():
        entry.pop("default", None)
        if name in _OF_NOTEBOOKS:
            entry["description"] = _OF_NOTEBOOKS[name]
    return {
        "$schema": schema["$schema"],
        "title": "Container of a notebook (metadata.apptainer of an .ipynb file)",
        "type": "object",
        "properties": schema["properties"],
        "additionalProperties": False,
    }


FILES = {
    "kernel-config.schema.json": build_json_schema,
    "notebook-metadata.schema.json": build_notebook_schema,
}


def main() -> None:
    """Write the files."""
    for name, build in FILES.items():
        (_HERE / name).write_text(json.dumps(build(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
