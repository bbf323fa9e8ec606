"""Notebooks that run inside Apptainer containers.

`Engine` and `AsyncEngine` run the engine from Python; `ContainerSpec` says what a kernel wants; `panel` shows what runs where. They are loaded at first use,
so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine.api import AsyncEngine, Engine
    from .kernels.spec import ContainerSpec

    # By name alone: a door imports this module, and no door may lead to another.
    panel: Any

__all__ = ["AsyncEngine", "ContainerSpec", "Engine", "__version__", "panel"]

_HOMES = {
    "AsyncEngine": ".engine.api",
    "Engine": ".engine.api",
    "ContainerSpec": ".kernels.spec",
    "panel": ".widgets.panel",
}


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Called by a Jupyter server that looks for the extension `jupyter_apptainer`."""
    from importlib import import_module

    # By name: nothing else here leads to a door.
    door = f"{__name__}.server.app"
    return [{"module": door, "app": import_module(door).ApptainerExtension}]


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython for `%load_ext jupyter_apptainer`: the magic `apptainer`, for lines and for cells."""
    import os
    from importlib import import_module

    if "JUPYTER_APPTAINER_SOCK" in os.environ:
        # In a container of ours, whose image has this package: the engine is on the host.
        import_module(f"{__name__}.bridge.lent").load_ipython_extension(shell)
        return
    import_module(f"{__name__}.magics.extension").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Called by IPython for `%unload_ext jupyter_apptainer`."""
    import os
    from importlib import import_module

    if "JUPYTER_APPTAINER_SOCK" in os.environ:
        import_module(f"{__name__}.bridge.lent").unload_ipython_extension(shell)
        return
    import_module(f"{__name__}.magics.extension").unload(shell)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
