"""`inspect IMAGE` without further flags: its labels, as an object."""

from __future__ import annotations

import json

from .context import Context
from .engine_words import run_engine
from .line import EngineLine
from .model import Answer, OnText, Request, Value


def inspect_image(context: Context, line: EngineLine, request: Request, on_text: OnText) -> Answer:
    """Ask for the labels in the form that can be read."""
    asked = EngineLine(line.head, line.command, (("json", ""),), ("--json", *line.tail), line.arguments)
    answer = run_engine(context, asked, request, on_text)
    data = json.loads(answer.stdout)["data"]["attributes"]
    return Answer(0, answer.stdout, answer.stderr, Value("record", data.get("labels") or {}))
