"""Tries from inside a container whether CUDA can work there.

The engine's `--nv` succeeds in silence where there is no GPU, no driver, or libraries that the image cannot load.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..engine.environment import build_engine_environment
from ..engine.options import build_exec
from ..engine.runner import Runner
from ..errors import ApptainerError
from ..images.probe import is_python_command
from .plan import LaunchPlan

_TIMEOUT_S = 30.0
# What people set to hide all GPUs.
_HIDDEN = ("", "-1", "none", "NoDevFiles")
# CUresult values (CUDA driver API).
_NO_DEVICE, _DRIVER_MISMATCH = 100, 803
# For whatever Python the image has. The driver's library alone: no context, hence no memory of the GPU.
_SCRIPT = """
import ctypes, json
try:
    print(json.dumps({"status": ctypes.CDLL("libcuda.so.1").cuInit(0)}))
except OSError as error:
    print(json.dumps({"error": str(error)}))
"""


def try_gpu(plan: LaunchPlan, environ: Mapping[str, str]) -> str:
    """Return why CUDA cannot work in the running container of `plan`; empty where it can, or where it cannot be tried.

    Takes a second or so, in a process of its own.
    """
    if not is_python_command(plan.kernel_command) or plan.container_env.get("CUDA_VISIBLE_DEVICES") in _HIDDEN:
        return ""
    command = build_exec(
        plan.engine,
        f"instance://{plan.instance_name}",
        (plan.kernel_command[0], "-c", _SCRIPT),
        build_engine_environment(environ, plan.container_env),
        options=plan.options,
        cwd="/",
        timeout_s=_TIMEOUT_S,
    )
    try:
        return explain_answer(Runner().run(command).stdout)
    except ApptainerError:
        # The container has ended meanwhile, or its Python cannot do this: no finding.
        return ""


def explain_answer(answer: str) -> str:
    """Say what the answer of the trial means."""
    try:
        found = json.loads(answer.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return ""
    if found.get("status") == 0:
        return ""
    reason = _describe_error(found["error"]) if "error" in found else _describe_status(found["status"])
    return f"no GPU can be used in the container: {reason}"


def _describe_status(status: int) -> str:
    if status == _NO_DEVICE:
        return "CUDA finds no device (100): the job has none, or CUDA_VISIBLE_DEVICES names none that is there"
    if status == _DRIVER_MISMATCH:
        return "the driver's libraries are not of the version of the loaded driver (803): the host has to be restarted"
    return f"CUDA does not start (cuInit gives {status}); `nvidia-smi` on the host may say why"


def _describe_error(error: str) -> str:
    found = re.search(r"version [`'](GLIBC_[\d.]+)' not found \(required by ([^)]+)\)", error)
    if found:
        version = found[1].removeprefix("GLIBC_")
        return (
            f"{found[2]} comes from the host and needs glibc {version}, and the image's is older; "
            f"take an image with glibc {version} or newer"
        )
    if "cannot open shared object file" in error:
        return f"the driver's libraries of the host are not there ({error})"
    return error
