"""The panel of the host in a container kernel: with widgets where the image has them, as a page elsewhere."""

# ruff: noqa: UP006, UP035 - the image's Python may be older than ours
from __future__ import annotations

import os
import sys
from typing import Any, Dict

from .call import ApptainerError, Call


class Page:
    """The panel where no widgets can be shown: as it was when it was asked for."""

    def __init__(self, value: Dict[str, str]) -> None:
        self._value = value

    def __repr__(self) -> str:
        return self._value["text"]

    def _repr_html_(self) -> str:
        return self._value["html"]


def panel(*, pause_after_s: float = 600.0) -> Any:
    """Return the panel of the host, as far as this kernel's bridge admits it: `%apptainer panel`, `jupyter_apptainer.panel()`.

    With ipywidgets 8 in the image it can be clicked; else it is a page. pause_after_s: when nobody has touched it for so long, it rests.
    """
    if not _has_widgets():
        return Page(Call("panel", words=["page"], cwd=os.getcwd()).finish().check().value or {})
    return _load_front().open_panel(Call, ApptainerError, os.getcwd(), pause_after_s)


def _has_widgets() -> bool:
    ipython = sys.modules.get("IPython")
    if sys.version_info < (3, 9) or ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return False
    try:
        import ipywidgets
    except ImportError:
        return False
    return int(ipywidgets.__version__.split(".")[0]) >= 8


def _load_front() -> Any:
    """Return the module that shows the panel; its code comes from the host, so both are of one version."""
    import linecache
    import types

    package = (__package__ or "") + "_front"
    if package not in sys.modules:
        sources = Call("panel", words=["code"], cwd=os.getcwd()).finish().check().value or []
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = []
        for name, source in sources:
            file = f"<panel>/{name}.py"
            module = types.ModuleType(package + "." + name)
            module.__package__ = package
            sys.modules[module.__name__] = module
            # Tracebacks show lines of it.
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            exec(compile(source, file, "exec"), module.__dict__)
    return sys.modules[package + ".remote"]
