"""A kernel's bridge without a kernel: what the worker would know of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.bridge.model import BridgeSetup
from jupyter_apptainer.bridge.paths import PathMap
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.instances.model import Instance
from jupyter_apptainer.instances.process import ProcessIdentity

ENGINE = EngineInfo("/e/apptainer", "apptainer", (1, 4, 5), "1.4.5", "PATH", False, "/e/apptainer.conf", "/e/libexec")


def make_setup(root: Path, **changes: Any) -> BridgeSetup:
    """A kernel in `root`/work, which the container has at the same path; `root`/data is /data there."""
    for name in ("work", "data", "other"):
        (root / name).mkdir(exist_ok=True)
    instance = Instance(
        name="jpa-1",
        image=str(root / "i.sif"),
        init=ProcessIdentity(1, 1),
        starter=ProcessIdentity(1, 1),
        pid_namespace=1,
        mount_namespace=1,
        record_path="/r",
        log_paths=("/o", "/e"),
    )
    values: dict[str, Any] = {
        "level": "full",
        "kernel_id": "k",
        "kernelspec": "lab",
        "label": "n.ipynb",
        "engine": ENGINE,
        "instance": instance,
        "paths": PathMap(
            mounts=((str(root / "work"), str(root / "work")), ("/data", str(root / "data"))),
            home=("", ""),
            cwd=str(root / "work"),
        ),
        "binds": (),
        "overlays": (),
        "limits": {"memory": None, "cpus": 2.0, "pids": None},
        "has_gpu": False,
        "network": "host",
        "isolation": "default",
        "sees_home": False,
    }
    return BridgeSetup(**{**values, **changes})


@pytest.fixture
def setup(tmp_path: Path) -> BridgeSetup:
    return make_setup(tmp_path)
