"""Why a kernel ended before anybody could use it: exit status and last lines, turned into an error that helps."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from ..engine.command import Completed
from ..engine.diagnose import diagnose
from ..errors import (
    ApptainerError,
    ImageLacksIpykernel,
    ImageLacksPython,
    InstanceBroken,
    KernelDied,
    ProgramNotFound,
)
from ..instances.model import Instance
from ..instances.oom import OomRecord
from .plan import LaunchPlan


def explain_end(
    plan: LaunchPlan, instance: Instance | None, returncode: int, lines: Sequence[str], oom: OomRecord
) -> ApptainerError:
    """Say why the kernel's process ended.

    returncode: its exit status, negative for a signal. lines: what it printed itself, oldest first. oom: noted at its start.
    """
    text = "\n".join(lines)
    if instance is not None and not instance.init.is_alive():
        return InstanceBroken(
            f"the instance {plan.instance_name} of {plan.image} ended while its kernel started",
            hint="try again; somebody or something stopped it, or the machine is short of memory",
            log_tail=lines,
        )
    if "No module named ipykernel" in text or "No module named 'ipykernel" in text:
        return ImageLacksIpykernel(
            f"the image {plan.image} has no ipykernel",
            hint="add it to the image's recipe: `pip install ipykernel`",
            log_tail=lines,
        )
    if returncode in (255, 1) and any(line.startswith(("FATAL", "ERROR")) for line in lines):
        found = diagnose(
            Completed(plan.kernel_argv, returncode, "", text), title="start the kernel", subject=plan.image
        )
        if isinstance(found, ProgramNotFound):
            return ImageLacksPython(found.message, hint=found.hint, log_tail=lines)
        return found
    evidence = oom.explain() if returncode == -signal.SIGKILL else ""
    if evidence:
        return KernelDied(
            f"the kernel in {plan.image} was killed before it listened, probably because memory ran out: {evidence}",
            hint="give the job or session more memory, or use less in what starts with the kernel",
            log_tail=lines,
        )
    how = (
        f"was ended by signal {signal.Signals(-returncode).name}"
        if returncode < 0
        else f"ended with exit status {returncode}"
    )
    return KernelDied(
        f"the kernel in {plan.image} {how} before it listened",
        hint="the last lines say why" if lines else "run `jupyter apptainer kernel check NAME`",
        log_tail=lines,
    )
