"""A process that knows what the panel shows of this host, for kernels in containers: their bridge starts it by its name.

It looks when it is asked, and at GPUs for as long as somebody goes on asking. It does nothing: of a click it tells the words, which the
bridge then judges.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..bridge.serving import serve
from ..errors import ApptainerError, InstanceNotFound, SpecError
from ..gpu import find_sampler
from .context import find_context
from .folders import list_entries
from .front.markup import render_page, render_text
from .front.model import Action, Form, Section, Values, Words
from .front.source import ALL_GPUS, TITLES, SourceError
from .loader import WITH_GPUS, HostSource

_REST_AFTER_S = 10.0
# Each imports only those before it.
_CODE = ("model", "pictures", "markup", "source", "fields", "page", "pulse", "business", "view", "remote")


class Panels:
    """The answers, for one kernel."""

    def __init__(self) -> None:
        self._context = find_context()
        self._sampler = find_sampler()
        self._source = HostSource(self._context, self._sampler)

    def answer(self, record: dict[str, Any]) -> dict[str, Any]:
        """Answer a record of `bridge.panel`."""
        if record["kernel"] != self._context.kernel_id:
            self._context = replace(self._context, kernel_id=record["kernel"])
            self._source = HostSource(self._context, self._sampler)
        os.chdir(record["cwd"])
        try:
            return {"value": self._find_value(record["ask"], tuple(record["words"]), record["values"])}
        except ApptainerError as error:
            return {"error": error.to_json()}
        except SourceError as error:
            return {"error": SpecError(str(error)).to_json()}

    def rest(self) -> None:
        """Nobody looks any more."""
        self._source.watch(None, _ignore)

    def _find_value(self, ask: str, words: Words, values: Mapping[str, Any]) -> object:
        match ask:
            case "code":
                return read_code()
            case "entries":
                return list_entries(words[0])
            case "act":
                name, key, label = words
                return self._find_words(name, key, label, values)
        sections = self._load(words)
        if ask == "page":
            return {"html": render_page(sections), "text": render_text(sections)}
        return {"sections": [_encode(section) for section in sections]}

    def _load(self, names: Words) -> list[Section]:
        if not names:
            self._sampler.look()
        elif names[0] in WITH_GPUS:
            sampler = self._source.find_sampler(names[0])
            if sampler.latest is None:
                # Once begun, it goes on by itself.
                sampler.look()
            self._source.watch(names[0], _ignore)
        return [self._get(name) for name in names or TITLES]

    def _get(self, name: str) -> Section:
        if name not in (*TITLES, ALL_GPUS):
            raise SpecError(f"the panel has no page {name!r}", hint=f"its pages are {', '.join(TITLES)}")
        return self._source.load(name)

    def _find_words(self, name: str, key: str, label: str, values: Mapping[str, Any]) -> Words:
        """Return the command line of a click. Raises InstanceNotFound where what was clicked is gone, SpecError for what was filled in."""
        section = self._get(name)
        row = section.find_row(key)
        found: Action | Form | None = (
            next((action for action in row.actions if action.label == label), None) if row else None
        )
        found = found or next(
            (form for form in section.forms if form.label == label and (row or not form.is_for_row)), None
        )
        if found is None:
            raise InstanceNotFound(f"{label}: it is not there any more", hint="choose another one")
        reason = found.reason or (row.reasons.get(label, "") if row else "")
        if reason:
            raise SpecError(f"{label}: not possible, {reason}")
        return found.words if isinstance(found, Action) else found.build(_check_values(found, values), key)


def read_code() -> list[tuple[str, str]]:
    """Return the modules of the panel's face, which run in the container: names and code."""
    folder = Path(__file__).with_name("front")
    return [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _CODE]


def _check_values(form: Form, given: Mapping[str, Any]) -> Values:
    """Return what was filled in, as the form's own widgets would have it. Raises SpecError."""
    values: dict[str, str | bool] = {}
    for field in form.fields:
        value = given.get(field.name)
        if not isinstance(value, bool if field.kind == "check" else str) or (
            field.options and value not in field.options
        ):
            raise SpecError(f"{form.label}: {field.label} cannot be {value!r}")
        values[field.name] = value
    return values


def _encode(section: Section) -> dict[str, Any]:
    record = asdict(section)
    for form in record["forms"]:
        del form["build"]
    return record


def _ignore() -> None:
    pass


def main() -> int:
    """Serve until standard input ends."""
    panels = Panels()
    return serve(panels.answer, rest=panels.rest, rest_after_s=_REST_AFTER_S)


if __name__ == "__main__":
    sys.exit(main())
