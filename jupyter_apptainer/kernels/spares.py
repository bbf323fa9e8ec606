"""Spare containers: started ahead, and handed to the next kernel that asks for the same.

A spare is an instance with its fork server. No kernel has run in it, its folders are empty, and it holds nothing that somebody else may
want (overlays). It belongs to this process, as its kernels do, and ends with it; `ApptainerConfig` limits number and age.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import ApptainerError
from ..images.identity import check_image
from ..instances import ledger
from ..instances.mounts import is_seen
from ..instances.start import is_healthy
from .container import ContainerKernel
from .forked import NotForked
from .inside.fork_child import OWN_NAMES
from .limits import has_memory_to_spare
from .names import Names, build_spare_names
from .plan import LaunchContext, LaunchPlan, build_launch_plan
from .prepare import Preparation
from .spec import ContainerSpec

# The kernel that has just been started goes first.
SETTLE_S = 1.0

State = Literal["starting", "ready", "taken", "dismissed"]
Log = logging.Logger | logging.LoggerAdapter[Any]


@dataclass(eq=False)
class Spare:
    """image: which one it was started from. wish, context: what its plan was made of. kernel: without a kernel yet."""

    names: Names
    image: str
    wish: ContainerSpec
    context: LaunchContext
    kernel: ContainerKernel
    state: State = "starting"
    keeper: threading.Thread | None = None


@dataclass(frozen=True)
class Taken:
    """A spare that is nobody else's any more, and the start that it fits, with its names."""

    kernel: ContainerKernel
    preparation: Preparation


class SparePool:
    """The spares of this process. Each has a thread, which waits until it is taken, or old."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spares: list[Spare] = []

    def take(self, preparation: Preparation) -> Taken | None:
        """Return a spare that fits this start; None where there is none."""
        with self._changed:
            self._drop_broken()
            for spare in [spare for spare in self._spares if spare.state == "ready"]:
                if _is_like(spare, preparation) and _sees(spare, preparation.plan):
                    self._drop(spare, "taken")
                    same = _rebuild(_start_from_the_same(preparation, spare), spare.names)
                    # The next spare is started from what is best now: there may be a copy of the image since this one was.
                    return Taken(spare.kernel, replace(same, context=preparation.context))
        return None

    def provide(self, preparation: Preparation, *, limit: int, idle_s: float, timeout_s: float, log: Log) -> None:
        """Have a spare for starts like this one, unless there is one. Returns at once."""
        if limit < 1 or not can_have_spare(preparation.plan):
            return
        with self._changed:
            self._drop_broken()
            if any(_is_like(spare, preparation) for spare in self._spares):
                return
            while len(self._spares) >= limit:
                self._drop(self._spares[0], "dismissed")
            spare = _build_spare(preparation, log)
            spare.keeper = threading.Thread(
                target=self._keep, args=(spare, idle_s, timeout_s, log), name="spare-container", daemon=True
            )
            self._spares.append(spare)
            spare.keeper.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until no spare is being started any more; returns whether one is ready."""
        with self._changed:
            self._changed.wait_for(lambda: all(spare.state != "starting" for spare in self._spares), timeout_s)
            return any(spare.state == "ready" for spare in self._spares)

    def clear(self, timeout_s: float = 30.0) -> None:
        """End all of them."""
        with self._changed:
            spares = list(self._spares)
            for spare in spares:
                self._drop(spare, "dismissed")
        for spare in spares:
            if spare.keeper is not None:
                spare.keeper.join(timeout_s)

    def forget(self) -> None:
        """In a forked child: they are its parent's."""
        self._changed = threading.Condition()
        self._spares = []

    def _drop_broken(self) -> None:
        for spare in [spare for spare in self._spares if spare.state == "ready" and not _is_whole(spare)]:
            self._drop(spare, "dismissed")

    def _drop(self, spare: Spare, state: State) -> None:
        spare.state = state
        self._spares.remove(spare)
        self._changed.notify_all()

    def _wait(self, spare: Spare, state: State, timeout_s: float) -> bool:
        """Wait while the spare is in this state; True where it is when the time is over."""
        with self._changed:
            return not self._changed.wait_for(lambda: spare.state != state, timeout_s)

    def _keep(self, spare: Spare, idle_s: float, timeout_s: float, log: Log) -> None:
        if self._wait(spare, "starting", SETTLE_S):
            problem = _start(spare, timeout_s) if has_memory_to_spare() else "this machine is short of memory"
            with self._changed:
                if spare.state == "starting" and problem:
                    log.warning("No spare container for %s: %s", spare.kernel.plan.image, problem)
                    self._drop(spare, "dismissed")
                elif spare.state == "starting":
                    spare.state = "ready"
                    self._changed.notify_all()
            if self._wait(spare, "ready", idle_s):
                self._dismiss(spare)
        if spare.state != "taken":
            spare.kernel.stop_now()

    def _dismiss(self, spare: Spare) -> None:
        with self._changed:
            if spare.state == "ready":
                self._drop(spare, "dismissed")


def can_have_spare(plan: LaunchPlan) -> bool:
    """Say whether an instance like this may wait: what it mounts is nobody else's loss, and it has no limits that carry its name."""
    options = plan.options
    has_limits = (options.memory_bytes, options.cpus, options.pids) != (None, None, None)
    return plan.fork_server is not None and not (plan.is_shared or options.overlays or options.extra or has_limits)


def _build_spare(preparation: Preparation, log: Log) -> Spare:
    names = build_spare_names(preparation.places, secrets.token_hex(4))
    wish, context = preparation.final, _build_context(preparation, names, preparation.plan.cwd)
    plan = build_launch_plan(wish, context)
    probe = preparation.probe
    kernel = ContainerKernel(
        plan,
        places=preparation.places,
        folders=preparation.folders,
        environ=os.environ,
        label="spare container",
        log=log,
        start_files=probe.start_files if probe else (),
    )
    return Spare(names, check_image(plan.image).key, wish, context, kernel)


def _start(spare: Spare, timeout_s: float) -> str:
    """Return what was wrong; the next kernel says it as well, if it still is."""
    try:
        asyncio.run(spare.kernel.start_ahead(timeout_s=timeout_s))
    except ApptainerError as error:
        return error.message
    except NotForked as error:
        return str(error)
    return ""


def _is_whole(spare: Spare) -> bool:
    instance, plan = spare.kernel.instance, spare.kernel.plan
    try:
        is_same_image = check_image(plan.image).key == spare.image
    except ApptainerError:
        return False
    is_known = ledger.load_entry(spare.kernel.places, spare.names.entry) is not None
    return is_same_image and is_known and instance is not None and is_healthy(instance)


def _is_like(spare: Spare, preparation: Preparation) -> bool:
    """Say whether a spare for this start would be the same: everything that is planned, but the kernel's id and own variables."""
    same = _start_from_the_same(preparation, spare)
    context = _build_context(same, spare.names, spare.context.cwd)
    # Usually nothing differs of what a plan is made of, and then the plan does not.
    return (same.final, context) == (spare.wish, spare.context) or build_launch_plan(
        same.final, context
    ) == spare.kernel.plan


def _start_from_the_same(preparation: Preparation, spare: Spare) -> Preparation:
    """Return the start from what the spare was started from: its image, or an unpacked copy of that."""
    plan = spare.kernel.plan
    context = replace(preparation.context, unpacked=plan.unpacked, unpacked_note=plan.unpacked_note)
    return replace(preparation, context=context)


def _sees(spare: Spare, plan: LaunchPlan) -> bool:
    """Say whether the folders that the kernel wants are in it: they may have been replaced on the host, or the notebook lies elsewhere."""
    assert spare.kernel.instance is not None
    pid = spare.kernel.instance.init.pid
    binds = [(bind.source, bind.destination or bind.source) for bind in spare.kernel.plan.options.binds]
    return all(is_seen(pid, source, destination) for source, destination in [*binds, (plan.cwd, plan.cwd)])


def _rebuild(preparation: Preparation, names: Names) -> Preparation:
    plan = build_launch_plan(preparation.final, _rename(preparation.context, names))
    return replace(preparation, plan=replace(plan, warnings=preparation.plan.warnings))


def _build_context(preparation: Preparation, names: Names, cwd: str) -> LaunchContext:
    """Return what the plan of a spare is made of: of the start, what is not its kernel's alone."""
    environ = {name: value for name, value in preparation.context.environ.items() if not name.startswith(OWN_NAMES)}
    return replace(_rename(preparation.context, names), kernel_id="", cwd=cwd, environ=environ)


def _rename(context: LaunchContext, names: Names) -> LaunchContext:
    return replace(
        context,
        entry_name=names.entry,
        instance_name=names.instance,
        instance_dir=names.instance_dir,
        private_dir=names.private_dir,
        scratch_dir=names.scratch_dir,
        is_ahead=True,
    )


pool = SparePool()
os.register_at_fork(after_in_child=pool.forget)
