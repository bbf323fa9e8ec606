"""`%apptainer` and `%%apptainer` in a kernel inside a container, where no engine is: each line goes to the host and is judged there.

This folder alone is lent to the container, read-only, and is `jupyter_apptainer` there. Standard library and IPython, Python 3.7 or later.
"""

# ruff: noqa: UP006, UP035 - the image's Python may be older than ours
from __future__ import annotations

import re
from typing import Any, List, Tuple

from .front import panel
from .magic import Magics

__all__ = ["load_ipython_extension", "panel", "unload_ipython_extension"]

_BUILD_CELL = re.compile(r"\s*%%apptainer\s(?:[^\n]*\s)?build\s")

_loaded: List[Tuple[Magics, Any]] = []


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext jupyter_apptainer`."""
    magics = Magics(shell)
    matcher = _build_matcher(magics)
    unload_ipython_extension(shell)
    shell.register_magic_function(magics.apptainer, "line_cell", "apptainer")
    shell.events.register("post_run_cell", magics.explain_missing)
    _get_matchers(shell).append(matcher)
    _loaded.append((magics, matcher))


def unload_ipython_extension(shell: Any) -> None:
    """Called by `%unload_ext jupyter_apptainer`."""
    while _loaded:
        magics, matcher = _loaded.pop()
        shell.events.unregister("post_run_cell", magics.explain_missing)
        matchers = _get_matchers(shell)
        matchers[:] = [each for each in matchers if each is not matcher]


def _get_matchers(shell: Any) -> Any:
    """Return the list to which completions are added; IPython before 8.6 has none."""
    return getattr(shell.Completer, "custom_matchers", [])


def _build_matcher(magics: Magics) -> Any:
    try:
        from IPython.core.completer import SimpleCompletion, context_matcher
    except ImportError:
        return None

    @context_matcher()  # type: ignore[untyped-decorator]  # IPython's own
    def match(context: Any) -> Any:
        line = context.text_until_cursor
        begin = re.search(r"(?:^|[=(])\s*%?%apptainer[ \t]+([^\n]*)\Z", line)
        if context.cursor_line and _BUILD_CELL.match(context.full_text):
            above = context.full_text.split("\n")[: context.cursor_line]
            begun = line.rpartition(":")[2].lstrip()
            words = magics.complete_recipe("\n".join([*above, line]))
        elif begin:
            begun = (begin.group(1).split() or [""])[-1] if not begin.group(1)[-1:].isspace() else ""
            words = magics.complete(begin.group(1))
        else:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=word, type=about[:70]) for word, about in words],
            "matched_fragment": begun,
            "suppress": bool(begin or words),
        }

    return match
