"""A folder of the host as a layer for Python packages: as quick as the disk, where an ext3 overlay goes through FUSE twice.

It is a virtual environment above the image's Python, which sees the image's packages below its own. The folder is bound at
its own path and the kernel runs the environment's interpreter, so `%pip` installs into it; packages of the image are
shadowed, never changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions, build_exec
from ..engine.runner import Runner
from ..errors import OverlayCreateError
from ..instances.janitor import remove_tree
from .manage import check_disk
from .model import Overlay, OverlayRecord, load_overlay, save_record

# Runs in the container. `.pth` files are read when the environment's own folder is on the path already, so it comes first.
_SCRIPT = """
import os, site, sys, sysconfig, venv
target = sys.argv[1]
venv.EnvBuilder(system_site_packages=True, symlinks=True, with_pip=False).create(target)
own = os.path.join(target, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
below = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")] + site.getsitepackages()
with open(os.path.join(own, "_image.pth"), "w") as stream:
    for path in dict.fromkeys(below):
        if os.path.isdir(path):
            stream.write("import site; site.addsitedir(%r)\\n" % path)
for name in ("pip", "pip3"):
    script = os.path.join(target, "bin", name)
    with open(script, "w") as stream:
        stream.write('#!/bin/sh\\nexec "${0%/*}/python" -m pip "$@"\\n')
    os.chmod(script, 0o755)
"""


def create_packages(
    engine: EngineInfo, path: str, image: str, python: str, environ: Mapping[str, str], record: OverlayRecord
) -> Overlay:
    """Make the folder `path` for the image's interpreter `python`. record: says which image it is for.

    Raises OverlayCreateError where something is there, or the image's Python cannot make it.
    """
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise OverlayCreateError(f"{path} exists already", hint="use it, or choose another name")
    if not os.path.isdir(os.path.dirname(path)):
        raise OverlayCreateError(f"there is no folder {os.path.dirname(path)}", hint="create it first")
    check_disk(path)
    os.mkdir(path)
    try:
        options = ContainerOptions(binds=(Bind(path, path),), home="none", isolation="contain", writable_tmpfs=False)
        command = build_exec(
            engine,
            image,
            (python, "-c", _SCRIPT, path),
            build_engine_environment(environ),
            options=options,
            timeout_s=120,
        )
        Runner().run(command)
        save_record(path, replace(record, python=os.path.join(path, "bin", "python"), mode="plain"))
    except BaseException:
        remove_tree(path)
        raise
    return load_overlay(path)
