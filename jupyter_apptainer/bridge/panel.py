"""The panel of a kernel in a container: what it asks for, and which of its buttons the level of the bridge admits.

A click is named by its page, row and label: the words that run are the host's own, and never come from the container.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import BridgeError, PolicyError
from .allowed import check_allowed, refuse
from .model import BridgeSetup
from .request import Request

# What follows each of them: how many words.
_ASKS: Mapping[str, range] = {
    "code": range(1),
    "page": range(1),
    "load": range(2),
    "entries": range(1, 2),
    "act": range(3, 4),
}
FindCwd = Callable[[Request, BridgeSetup], str]


def build_record(request: Request, setup: BridgeSetup, find_cwd: FindCwd) -> dict[str, Any]:
    """Return the question for `widgets.serve`. Raises BridgeError for what is none, PolicyError for what the level does not admit."""
    ask, *words = request.words or ("",)
    if ask not in _ASKS or len(words) not in _ASKS[ask]:
        raise BridgeError(f"the panel knows {', '.join(_ASKS)}, and not {' '.join(request.words)[:60]!a}")
    if ask == "entries" and setup.level != "full":
        raise refuse("panel entries", setup.level, "what lies in the host's folders is not shown")
    # What is filled in may be a relative path; pages have none.
    cwd = find_cwd(request, setup) if ask == "act" else "/"
    return {"ask": ask, "words": words, "values": dict(request.given), "cwd": cwd, "kernel": setup.kernel_id}


def restrict(value: Any, setup: BridgeSetup) -> Any:
    """Return an answer without the words of its buttons, and with the reason at each that the level does not admit."""
    reason = _explain(setup)
    if not isinstance(value, dict) or "sections" not in value:
        return value
    for section in value["sections"]:
        for form in section["forms"]:
            form["reason"] = form["reason"] or ("" if setup.level == "full" else reason)
        for row in section["rows"]:
            for action in row["actions"]:
                is_admitted = _is_admitted(action.pop("words"), setup.level)
                action["reason"] = action["reason"] or ("" if is_admitted else reason)
    return value


def admit(words: Sequence[str], level: str) -> None:
    """Raises PolicyError for a click that the level does not admit."""
    if level != "full":
        check_allowed("own", words, level)


def _is_admitted(words: Sequence[str], level: str) -> bool:
    try:
        admit(words, level)
    except PolicyError:
        return False
    return True


def _explain(setup: BridgeSetup) -> str:
    name = setup.kernelspec or "NAME"
    return f"the bridge of this kernel is `{setup.level}`: `jupyter apptainer kernel edit {name} --bridge full` on the host opens it"
