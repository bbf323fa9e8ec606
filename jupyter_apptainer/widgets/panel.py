"""Opens the panel in the best form that this front end has: widgets, else a page, else text."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from ..bridge import lent
from ..bridge.model import VARIABLE
from ..gpu import Sampler, find_sampler
from .context import find_context
from .front.markup import render_page, render_text
from .loader import HostSource, load_all

PAUSE_AFTER_S = 600.0


class StaticPanel:
    """The panel as it was when it was asked for: nothing in it moves, and nothing can be clicked."""

    def __init__(self) -> None:
        context, sampler = find_context(), Sampler()
        sampler.look()
        self._sections = load_all(context, sampler)

    def _repr_html_(self) -> str:
        return render_page(self._sections)

    def __repr__(self) -> str:
        return render_text(self._sections)


def panel(*, pause_after_s: float = PAUSE_AFTER_S) -> Any:
    """Return the panel, to be shown as a cell's result.

    pause_after_s: after how many seconds in which nobody touches it, it stops looking until somebody does; while a cell runs it goes on.
    Without ipywidgets (`pip install jupyter-apptainer[panel]`), or outside of a notebook, it is a page or a text.
    """
    if VARIABLE in os.environ:
        # In a container of ours, whose image has this package.
        return lent.panel(pause_after_s=pause_after_s)
    if not _is_in_kernel() or importlib.util.find_spec("ipywidgets") is None:
        return StaticPanel()
    from .front.view import PanelView

    return PanelView(HostSource(find_context(), find_sampler()), pause_after_s=pause_after_s)


def _is_in_kernel() -> bool:
    """Say whether a front end with widgets may be at the other end."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
