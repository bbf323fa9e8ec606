"""The bridge of a kernel: what its plan says, for the room that serves it."""

from __future__ import annotations

import os
import pwd

from ..bridge.listener import BridgeListener, Log
from ..bridge.model import BoundPath, BridgeSetup
from ..instances.model import Instance
from .paths import build_path_map
from .plan import LaunchPlan


def open_bridge(
    plan: LaunchPlan, instance: Instance, log: Log, *, kernelspec: str, label: str
) -> BridgeListener | None:
    """Listen for the kernel in `instance`; None where its plan has no bridge, or none can be made: it starts all the same."""
    if plan.bridge == "off":
        return None
    listener = BridgeListener(build_setup(plan, instance, kernelspec=kernelspec, label=label), plan.private_dir, log)
    try:
        listener.open()
    except OSError as error:
        log.warning("Kernel %s has no bridge: %s", plan.kernel_id, error)
        return None
    return listener


def build_setup(plan: LaunchPlan, instance: Instance, *, kernelspec: str, label: str) -> BridgeSetup:
    """Return what the bridge has to know."""
    paths = build_path_map(plan)
    limits = plan.resources
    return BridgeSetup(
        level=plan.bridge,
        kernel_id=plan.kernel_id,
        kernelspec=kernelspec,
        label=label,
        engine=plan.engine,
        instance=instance,
        paths=paths,
        binds=tuple(BoundPath(bind.source, bind.destination, bind.mode, bind.why) for bind in plan.binds),
        overlays=plan.options.overlays,
        limits={"memory": limits.memory_bytes, "cpus": limits.cpus, "pids": limits.pids},
        has_gpu=plan.gpu.nv or plan.options.rocm,
        network=plan.options.network,
        isolation=plan.options.isolation,
        sees_home=paths.is_visible(os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)),
    )
