"""The description of our REST interface, openapi.yaml: shipped for people and programs, and what requests are held against."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

PATH = Path(__file__).with_name("openapi.yaml")


@cache
def load_openapi() -> dict[str, Any]:
    """Read the file, once."""
    document: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return document


@cache
def get_validator(name: str) -> Draft202012Validator:
    """Return what holds something against the JSON schema of this name."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": load_openapi()["components"]})
