"""Values that are chosen for one start: only what kernel.json declares."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.kernels.parameters import check_parameters

METADATA = {
    "parameters": {
        "type": "object",
        "properties": {
            "nv": {"enum": [True, False]},
            "image": {"type": "string", "enum": ["/a.sif", "/b.sif"]},
            "env": {"type": "object"},
            "home": {"title": "no type"},
            "theme": {"type": "string"},
        },
    }
}


@pytest.mark.parametrize("chosen", [{}, {"nv": True}, {"image": "/b.sif", "env": {"A": "1"}}], ids=repr)
def test_declared_values_are_accepted(chosen: dict[str, Any]) -> None:
    assert check_parameters(chosen, METADATA) == chosen


@pytest.mark.parametrize(
    ("chosen", "word"),
    [
        ({"image": "/c.sif"}, "one of"),
        ({"nv": 1}, "one of"),
        ({"env": []}, "type object"),
        ({"binds": ["/"]}, "declares"),
        ({"home": "none"}, "neither"),
        ({"theme": "dark"}, "declares"),
        ([], "an object"),
    ],
    ids=repr,
)
def test_all_else_is_refused(chosen: Any, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        check_parameters(chosen, METADATA)


@pytest.mark.parametrize(
    "metadata", [{}, {"parameters": None}, {"parameters": []}, {"parameters": {"properties": []}}], ids=repr
)
def test_a_kernel_without_parameters_takes_none(metadata: dict[str, Any]) -> None:
    assert check_parameters({}, metadata) == {}
    with pytest.raises(SpecError, match=r"declares in metadata\.parameters: none"):
        check_parameters({"nv": True}, metadata)
