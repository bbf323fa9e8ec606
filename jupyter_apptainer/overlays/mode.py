"""In which mode a user can write to an image through an overlay: found out by asking the image, not by guessing.

plain: the engine's squashfuse shows the image's files as the user's own (Apptainer's own builds, squashfuse 0.2 and newer), or
they are the user's (a sandbox), so everything can be written to. fakeroot: they show as root's, and the container's root, who is
the user outside, can write to them. Files made in one mode belong to ids that the other does not know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.options import ContainerOptions, build_exec
from ..engine.runner import Runner
from ..errors import CommandError, EngineError, OverlayReadOnly
from .model import Mode

# Where packages are installed, in images of all kinds; what an image lacks does not count.
_QUESTION = 'for d in /usr /usr/local /opt /opt/venv /opt/conda; do [ ! -d "$d" ] || [ -w "$d" ] || exit 3; done'
_TIMEOUT_S = 60


def choose_mode(engine: EngineInfo, image: str, environ: Mapping[str, str]) -> Mode:
    """Return the first mode in which the image's folders can be written to. Raises OverlayReadOnly where there is none.

    Takes about a quarter of a second for each mode that is tried; root needs no other than "plain".
    """
    if os.geteuid() == 0 or can_write(engine, image, "plain", environ):
        return "plain"
    if can_write(engine, image, "fakeroot", environ):
        return "fakeroot"
    raise OverlayReadOnly(
        f"an overlay above {image} cannot be written to by this user: the image's folders are root's, and --fakeroot fails",
        hint="use a folder of packages: `jupyter apptainer overlay create --packages DIR --image IMAGE`, or ask for a "
        "range in /etc/subuid and /etc/subgid (`jupyter apptainer doctor`)",
    )


def can_write(engine: EngineInfo, image: str, mode: Mode, environ: Mapping[str, str]) -> bool:
    """Say whether a container of this mode could write to the image's folders, had it an overlay. Writes nothing.

    Raises EngineError where no container runs here at all.
    """
    options = ContainerOptions(writable_tmpfs=True, home="none", isolation="contain", fakeroot=mode == "fakeroot")
    command = build_exec(
        engine,
        image,
        ("/bin/sh", "-c", _QUESTION),
        build_engine_environment(environ),
        options=options,
        timeout_s=_TIMEOUT_S,
    )
    try:
        Runner().run(command)
    except CommandError:
        return False
    except EngineError:
        if mode == "fakeroot":
            return False
        raise
    return True
