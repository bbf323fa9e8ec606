"""A plan for a machine that is none in particular."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.kernels.plan import LaunchContext, LaunchPlan, build_launch_plan
from jupyter_apptainer.kernels.spec import parse_container_spec

ENGINE = EngineInfo("/e/apptainer", "apptainer", (1, 4, 5), "1.4.5", "PATH", False, "/e/apptainer.conf", "/e/libexec")
CONTEXT = LaunchContext(
    engine=ENGINE,
    kernel_id="1f3c",
    instance_name="jpa-1f3c-aa",
    cwd="/data/project",
    home="/home/u",
    engine_home="/home/u",
    private_dir="/run/user/1000/jpa/aa",
    scratch_dir="/var/tmp/jpa-1000/aa",
    ipython_dir="/home/u/.local/share/jupyter-apptainer/ipython",
    matplotlib_dir="/home/u/.cache/jupyter-apptainer/matplotlib",
    environ={"LANG": "C.UTF-8", "PYTHONPATH": "/host", "HF_TOKEN": "s3"},
)


def plan(config: dict[str, Any] | None = None, **context: Any) -> LaunchPlan:
    """Without a bridge, which has tests of its own."""
    wish = {"image": "/i.sif", "bridge": "off", **(config or {})}
    return build_launch_plan(parse_container_spec(wish), replace(CONTEXT, **context))


def destinations(found: LaunchPlan) -> list[str]:
    return [bind.destination for bind in found.binds]
