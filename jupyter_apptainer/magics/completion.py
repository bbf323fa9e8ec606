"""Tab in a line of the magic, in the first line of a cell, and in a definition below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from ..errors import ApptainerError
from .model import Completion

if TYPE_CHECKING:
    from .host import Host

_LINE = re.compile(r"(?:^|[=(])\s*%?%apptainer[ \t]+(?P<rest>[^\n]*)\Z")
_DESCRIPTION_CHARACTERS = 70


def build_matcher(get_host: Callable[[], Host]) -> Any:
    """Return a matcher for `Completer.custom_matchers`."""

    @context_matcher(identifier=__name__)  # type: ignore[untyped-decorator]  # IPython's own
    def match_apptainer(context: CompletionContext) -> Any:
        found = _find(get_host, context)
        if found is None:
            return {"completions": []}
        fragment, completions = found
        return {
            "completions": [SimpleCompletion(each.text, type=_shorten(each.description)) for each in completions],
            "matched_fragment": fragment,
            "suppress": True,
        }

    return match_apptainer


def _find(get_host: Callable[[], Host], context: CompletionContext) -> tuple[str, Sequence[Completion]] | None:
    """Return the word that is begun, and what it may become; None where the cursor is not ours."""
    # Loaded at the first Tab, not by %load_ext.
    from .candidates import find_candidates
    from .definition_words import complete_definition, is_definition

    if context.cursor_line and is_definition(context.full_text):
        above = context.full_text.split("\n")[: context.cursor_line]
        return complete_definition("\n".join([*above, context.text_until_cursor]))
    match = _LINE.search(context.text_until_cursor)
    if match is None:
        return None
    words = _split(match["rest"])
    try:
        return words[-1], find_candidates(get_host(), words)
    except (ApptainerError, OSError):
        # No engine, or it does not answer: there is nothing to offer, and Tab is no place for an error.
        return words[-1], []


def _split(text: str) -> list[str]:
    """Return the words, the last of them as far as it is typed; a quote that is open does not matter here."""
    words = text.split()
    return [*words, ""] if not words or text[-1].isspace() else words


def _shorten(text: str) -> str:
    return text if len(text) <= _DESCRIPTION_CHARACTERS else text[: _DESCRIPTION_CHARACTERS - 1] + "…"
