"""The tree of errors: complete, with stable codes, and readable."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from jupyter_apptainer import errors
from jupyter_apptainer.errors import (
    LOG_TAIL_LINES,
    ApptainerError,
    EngineNotFound,
    ImageCorrupt,
    LaunchError,
    SpecError,
    iter_error_classes,
)

CLASSES = list(iter_error_classes())
BY_NAME = {cls.__name__: cls for cls in CLASSES}


def read_drawn_tree() -> dict[str, str | None]:
    """Name of each class in the module's docstring, with the name that it hangs from."""
    drawing = (errors.__doc__ or "").partition("::\n")[2].partition("\n\nA message")[0]
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in drawing.splitlines():
        match = re.match(r"^    (?P<lines>(?:[│ ]  )*(?:[├└]─ )?)(?P<name>[A-Z]\w+)", line)
        if match:
            depth = len(match["lines"]) // 3
            del path[depth:]
            parents[match["name"]] = path[-1] if path else None
            path.append(match["name"])
    return parents


def test_the_drawing_shows_exactly_the_classes() -> None:
    drawn = read_drawn_tree()
    assert set(drawn) <= set(BY_NAME)
    # A refinement of a class (AppArmorUserNamespaces) may be drawn beside it.
    assert set(BY_NAME) == set(drawn)
    for name, parent in drawn.items():
        if parent is not None:
            assert issubclass(BY_NAME[name], BY_NAME[parent]), name


def test_codes_are_unique_and_their_own() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all("code" in vars(cls) for cls in CLASSES)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_every_class_of_the_module_is_in_the_tree() -> None:
    found = {obj for obj in vars(errors).values() if isinstance(obj, type) and issubclass(obj, Exception)}
    assert found == {cls for cls in CLASSES if cls.__module__ == errors.__name__}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_can_be_shown(cls: type[ApptainerError]) -> None:
    error = cls("100% wrong", hint="use 50%", command="apptainer exec", returncode=255, log_tail=["at 7%"])
    assert "%" not in error.render()
    assert "100 percent wrong" in error.render()
    assert "at 7 percent" in error.render()
    shown = json.loads(json.dumps(error.to_json()))
    assert shown == {
        "code": cls.code,
        "message": "100% wrong",
        "hint": "use 50%",
        "command": "apptainer exec",
        "returncode": 255,
        "log_tail": ["at 7%"],
    }


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_hints_are_advice_without_per_cent_signs(cls: type[ApptainerError]) -> None:
    hint = cls.default_hint
    assert hint is None or (hint == hint.strip() and not hint.endswith(".") and "%" not in hint)


def test_message_and_hint_are_the_text() -> None:
    assert str(ApptainerError("it broke")) == "it broke"
    assert str(ApptainerError("it broke", hint="mend it")) == "it broke\nHint: mend it"
    assert str(EngineNotFound("none")) == f"none\nHint: {EngineNotFound.default_hint}"


def test_an_empty_hint_takes_the_default_away() -> None:
    assert str(ImageCorrupt("it broke", hint="")) == "it broke"


def test_of_a_long_log_the_end_is_kept() -> None:
    error = ApptainerError("x", log_tail=[str(number) for number in range(100)])
    assert error.log_tail == tuple(str(number) for number in range(100 - LOG_TAIL_LINES, 100))
    lines = error.render().splitlines()
    assert lines[1] == "Last lines:"
    assert all(int(a) + 1 == int(b) for a, b in pairwise(lines[2:]))


def test_a_wrong_request_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no such field"):
        raise SpecError("no such field")


@pytest.mark.parametrize("cls", list(iter_error_classes(LaunchError)), ids=lambda cls: cls.__name__)
def test_a_failed_start_names_its_phase(cls: type[LaunchError]) -> None:
    assert cls.phase in ("image", "overlay", "instance", "connect")
