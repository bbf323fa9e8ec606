"""Values that a person chooses for one start, in the manner of JEP 87: kernel.json declares them in `metadata.parameters`.

The declaration is a JSON schema whose properties are fields of the container; only what it lists can be chosen.
https://github.com/jupyter/enhancement-proposals/pull/87
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SpecError
from .fields import FIELDS, Problems

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}


def check_parameters(chosen: object, metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Return the chosen values. metadata: that of kernel.json. Raises SpecError for each that is not declared, or not so."""
    problems = Problems()
    declared = _get_properties(metadata)
    if not isinstance(chosen, Mapping):
        problems.add("parameters", chosen, "an object of fields and values")
        raise problems.to_error("the start")
    for name, value in chosen.items():
        schema = declared.get(name)
        if name not in FIELDS or not isinstance(schema, Mapping):
            known = ", ".join(sorted(declared)) or "none"
            problems.add(name, value, f"a parameter that kernel.json declares in metadata.parameters: {known}")
        else:
            _check_value(name, value, schema, problems)
    if problems.lines:
        error = problems.to_error("the start's parameters")
        raise SpecError(
            error.message, hint="`metadata.parameters.properties` of the kernel.json says what can be chosen"
        )
    return dict(chosen)


def _check_value(name: str, value: object, schema: Mapping[str, object], problems: Problems) -> None:
    choices = schema.get("enum")
    if "enum" in schema:
        # A JSON true is no 1.
        if not isinstance(choices, list) or not any(value == c and type(value) is type(c) for c in choices):
            problems.add(name, value, f"one of {choices}")
    elif schema.get("type") not in _TYPES:
        problems.add(name, value, "nothing: its declaration has neither `enum` nor a `type` that is known")
    elif not isinstance(value, _TYPES[str(schema["type"])]) or (
        isinstance(value, bool) and schema["type"] != "boolean"
    ):
        problems.add(name, value, f"a value of the type {schema['type']}")


def _get_properties(metadata: Mapping[str, object]) -> Mapping[str, object]:
    schema = metadata.get("parameters")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}
