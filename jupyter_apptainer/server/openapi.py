"""The description of our REST interface, openapi.yaml: shipped for people and programs, and what requests are held against."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).with_name("openapi.yaml")


@cache
def load_openapi() -> dict[str, Any]:
    """Read the file, once."""
    document: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return document


def get_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of this name, with all that it may refer to."""
    return {"$ref": f"#/components/schemas/{name}", "components": load_openapi()["components"]}
