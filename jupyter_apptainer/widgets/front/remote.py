"""The panel in a kernel inside a container: pages come over the bridge, and clicks are named to the host, which judges and does them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .model import Action, Bar, Field, Form, Row, Section, Values, Words
from .source import Outcome, SourceError
from .view import PanelView

# Starts a request of the bridge; see `Call` in `bridge.lent`.
Begin = Callable[..., Any]
_TIMEOUT_S = 60.0


class RemoteSource:
    """A `Source` at the other end of the bridge. begin: as `Call`. error: what it raises. cwd: of the kernel."""

    def __init__(self, begin: Begin, error: type[Exception], cwd: str) -> None:
        self._begin = begin
        self._error = error
        self._cwd = cwd
        self._lock = threading.Lock()
        self._calls: list[Any] = []
        self._is_closed = False

    def load(self, name: str) -> Section:
        """See `Source`."""
        return self._load(name)[0]

    def load_all(self) -> Sequence[Section]:
        """See `Source`."""
        return self._load()

    def watch(self, name: str | None, on_news: Callable[[], None]) -> None:
        """See `Source`. The host looks at GPUs for as long as their page is asked for."""

    def list_entries(self, path: str) -> Sequence[str]:
        """See `Source`."""
        try:
            return [str(name) for name in self._ask("entries", path)]
        except SourceError:
            return ()

    def start(self, action: Action, on_end: Callable[[Outcome], None]) -> None:
        """See `Source`."""
        threading.Thread(target=self._run, args=(action, on_end), name="jpa-panel-command", daemon=True).start()

    def close(self) -> None:
        """See `Source`."""
        with self._lock:
            self._is_closed = True
            calls = list(self._calls)
        for call in calls:
            call.stop()

    def _load(self, *names: str) -> Sequence[Section]:
        return [_decode(section) for section in self._ask("load", *names)["sections"]]

    def _ask(self, *words: str) -> Any:
        try:
            return self._begin("panel", words=words, cwd=self._cwd).finish(timeout_s=_TIMEOUT_S).check().value
        except (self._error, OSError) as error:
            raise SourceError(str(error)) from error

    def _run(self, action: Action, on_end: Callable[[Outcome], None]) -> None:
        *words, values = action.words
        try:
            call = self._begin("panel", words=words, given=json.loads(values), cwd=self._cwd)
            with self._lock:
                self._calls.append(call)
            answer = call.finish()
            with self._lock:
                self._calls.remove(call)
            is_task = bool((answer.value or {}).get("is_task"))
            outcome = Outcome(answer.error is None, answer.stdout, _describe(answer.error), is_task)
        except (self._error, OSError) as error:
            outcome = Outcome(False, "", str(error))
        if not self._is_closed:
            on_end(outcome)


def open_panel(begin: Begin, error: type[Exception], cwd: str, pause_after_s: float) -> PanelView:
    """Return the panel as widgets."""
    return PanelView(RemoteSource(begin, error, cwd), pause_after_s=pause_after_s)


def _describe(error: Any) -> str:
    """error: of the bridge's client; None where there is none."""
    if error is None:
        return ""
    return "\n".join([str(error), *error.log_tail])


def _decode(record: Any) -> Section:
    name = record["name"]
    return Section(
        **{
            **record,
            "headings": tuple(record["headings"]),
            "notes": tuple(record["notes"]),
            "rows": tuple(_decode_row(name, row) for row in record["rows"]),
            "bars": tuple(Bar(**{**bar, "history": tuple(bar["history"])}) for bar in record["bars"]),
            "forms": tuple(_decode_form(name, form) for form in record["forms"]),
        }
    )


def _decode_row(section: str, record: Any) -> Row:
    actions = [
        Action(**action, words=("act", section, record["key"], action["label"], "{}")) for action in record["actions"]
    ]
    facts = tuple((name, value) for name, value in record["facts"])
    return Row(**{**record, "cells": tuple(record["cells"]), "actions": tuple(actions), "facts": facts})


def _decode_form(section: str, record: Any) -> Form:
    def build(values: Values, key: str) -> Words:
        return ("act", section, key, record["label"], json.dumps(dict(values)))

    fields = tuple(Field(**{**field, "options": tuple(field["options"])}) for field in record["fields"])
    return Form(**{**record, "fields": fields, "build": build})
