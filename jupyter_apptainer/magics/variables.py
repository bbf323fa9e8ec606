"""`--var NAME`: a variable of the notebook goes into a Python body in a container, and what it has become comes back.

As JSON, which is data and nothing else. A pickle only where somebody asks for it by name: loading one runs what its maker wrote into it.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SpecError
from .model import OnText

MAX_BYTES = 64 << 20
_PYTHON = re.compile(r"(?:.*/)?(?:python|pypy)[\d.]*")
# Runs in whatever Python the image has, from 2.7 on. Names with an underscore are no part of the body's own.
_PROGRAM = """\
import base64, json, sys, traceback
def _run(given, wanted, body, mark, limit):
    space = {{"__name__": "__main__"}}
    for name, (form, text) in given.items():
        if form == "json":
            space[name] = json.loads(text)
        else:
            import pickle
            space[name] = pickle.loads(base64.b64decode(text))
    code = compile(body, "<cell>", "exec")
    try:
        exec(code, space)
    except Exception:
        kind, error, trace = sys.exc_info()
        traceback.print_exception(kind, error, trace.tb_next)
        sys.exit(1)
    found = {{}}
    for name, form in wanted:
        if name in space:
            found[name] = _pack(space[name], form)
    text = base64.b64encode(json.dumps(found).encode()).decode()
    if len(text) > limit:
        sys.exit("the variables are larger than %d MiB: write them to a file" % (limit >> 20))
    sys.stdout.flush()
    sys.stdout.write(mark + text + "\\n")
    sys.stdout.flush()
def _pack(value, form):
    if form == "pickle":
        import pickle
        return [form, base64.b64encode(pickle.dumps(value, 2)).decode()]
    try:
        return [form, json.dumps(value)]
    except (TypeError, ValueError) as error:
        return ["error", "%s: %s" % (type(value).__name__, error)]
_run({given!r}, {wanted!r}, {body!r}, {mark!r}, {limit})
"""


class Exchange:
    """The variables of one cell. `program` is what runs instead of the body; `filter` takes the answer out of what it prints."""

    def __init__(
        self, wanted: Sequence[tuple[str, str]], body: str, namespace: Mapping[str, Any], words: Sequence[str]
    ) -> None:
        if not any(_PYTHON.fullmatch(word) for word in words):
            raise SpecError(
                "--var needs a Python that runs the body", hint="as in `%%apptainer --var x exec IMAGE python`"
            )
        self._wanted = dict(wanted)
        # The record separator is in nobody's output by chance, and the rest cannot be guessed.
        self._mark = f"\x1e{secrets.token_hex(8)}:"
        self._answer = self._held = ""
        self._has_answer = False
        given = {name: _pack(name, namespace[name], form) for name, form in wanted if name in namespace}
        self.program = _PROGRAM.format(
            given=given, wanted=list(wanted), body=body, mark=self._mark, limit=MAX_BYTES * 4 // 3
        )

    def filter(self, on_text: OnText) -> OnText:
        """Return a function that passes on all but the answer."""

        def pass_on(stream: str, text: str) -> None:
            if stream == "stdout":
                text = self._take(text)
            if text:
                on_text(stream, text)

        return pass_on

    def strip(self, stdout: str) -> str:
        """Return the output without the answer."""
        return stdout.partition(self._mark)[0]

    def unpack(self) -> dict[str, Any]:
        """Return the variables as the body has left them. Raises SpecError for what cannot travel."""
        if not self._answer:
            return {}
        try:
            found = json.loads(base64.b64decode(self._answer))
            return {name: self._unpack_one(name, *found[name]) for name in self._wanted if name in found}
        except (ValueError, TypeError) as error:
            if isinstance(error, SpecError):
                raise
            raise SpecError("the answer of the cell's program is damaged: no variable was set") from error

    def _unpack_one(self, name: str, form: str, text: str) -> Any:
        if form == "error":
            raise SpecError(
                f"--var {name}: {text}",
                hint=f"`--var {name}:pickle` takes anything; only for images that you trust, because a pickle runs code",
            )
        # What form is believed is what was asked for, not what the program says.
        if self._wanted[name] == "pickle":
            return pickle.loads(base64.b64decode(text))
        return json.loads(text)

    def _take(self, text: str) -> str:
        """Return what of the text is output: up to the mark, and not what may be the beginning of one."""
        if self._has_answer:
            self._answer += text
            if len(self._answer) > 2 * MAX_BYTES:
                raise SpecError(f"the variables are larger than {MAX_BYTES >> 20} MiB", hint="write them to a file")
            return ""
        text = self._held + text
        plain, mark, self._answer = text.partition(self._mark)
        self._has_answer = bool(mark)
        at = plain.rfind("\x1e")
        is_begun = not mark and at >= 0 and self._mark.startswith(plain[at:])
        self._held = plain[at:] if is_begun else ""
        return plain[:at] if is_begun else plain


def _pack(name: str, value: Any, form: str) -> list[str]:
    if form == "json":
        try:
            text = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"--var {name}: a {type(value).__name__} does not travel as JSON ({error})",
                hint=f"`--var {name}:pickle` takes anything that both sides know",
            ) from error
    else:
        text = base64.b64encode(pickle.dumps(value, 2)).decode()
    if len(text) > MAX_BYTES:
        raise SpecError(f"--var {name} is larger than {MAX_BYTES >> 20} MiB", hint="write it to a file and bind that")
    return [form, text]
