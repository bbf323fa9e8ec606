"""Runs inside the container as its main process: begins `fork_server.py`, which itself imports from the bundle what it needs.

    python fork_begin.py BUNDLE LAYERS SOCKET SETTINGS [OPTION OF THE SHIM]... -m ipykernel_launcher -f FILE

BUNDLE: see `module_bundle`; "-": there is none. LAYERS: "-": the container's files are those of the image; "?": nobody knows which are not;
else folders with a colon between them: of those with modules of the bundle, where others may be. The rest is for `fork_server.py`.
Python 3.8 and newer, standard library only; and of that only what Python has loaded in any case.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESUME = "_JPA_FORK_SERVER"
NONE, UNKNOWN = "-", "?"


def load(file: str) -> Any:
    """Load a file that lies beside this one, under a name that no notebook has."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), file + ".py")
    module = type(sys)("_jupyter_apptainer_" + file)
    module.__file__ = path
    with open(path, "rb") as stream:
        code = compile(stream.read(), path, "exec")
    sys.modules[module.__name__] = module
    exec(code, vars(module))  # our own
    return module


def open_bundle(path: str, layers: str, *, is_first: bool) -> Any:
    """Return what finds modules in the bundle; None where there is none that fits. is_first: nothing else has run in the container."""
    if path == NONE:
        return None
    changed = layers.split(":") if is_first and layers not in (NONE, UNKNOWN) else None
    return load("module_bundle").open_bundle(path, layers != NONE, changed)


def main() -> None:
    """Load the server, and have it go on."""
    sys.path.pop(0)
    is_first = RESUME not in os.environ
    bundle = open_bundle(*sys.argv[1:3], is_first=is_first)
    if bundle is not None:
        sys.meta_path.insert(0, bundle)
    server = load("fork_server")
    if bundle is not None:
        sys.meta_path.remove(bundle)
    # One that rests looks again, when it imports the rest.
    server.main(bundle if is_first else None)


if __name__ == "__main__":
    sys.modules["_jupyter_apptainer_fork_begin"] = sys.modules["__main__"]
    main()
