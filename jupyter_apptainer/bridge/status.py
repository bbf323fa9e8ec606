"""What a kernel runs in, as it is now: its mounts as the container really has them, how full its overlays are, what it uses."""

from __future__ import annotations

import os
from contextlib import suppress

from ..instances.mounts import find_place
from ..instances.stats import read_stats
from ..overlays.ext3 import read_ext3
from ..overlays.size import format_bytes
from .model import BoundPath, BridgeSetup


def build_status(setup: BridgeSetup) -> dict[str, object]:
    """Return the status for programs."""
    usage = read_stats(setup.instance)
    return {
        "image": setup.instance.image,
        "instance": setup.instance.name,
        "kernel_id": setup.kernel_id,
        "kernelspec": setup.kernelspec,
        "bridge": setup.level,
        "engine": f"{setup.engine.flavour} {setup.engine.version_text}",
        "binds": [_describe_bind(bind, setup) for bind in setup.binds],
        "overlays": [_describe_overlay(flag) for flag in setup.overlays],
        "limits": dict(setup.limits),
        "gpu": setup.has_gpu,
        "network": setup.network,
        "isolation": setup.isolation,
        "memory_bytes": usage.memory_bytes,
        "processes": usage.processes,
    }


def render_status(status: dict[str, object]) -> str:
    """Return the status for people."""
    lines = [f"{name + ':':12}{status[name]}" for name in ("image", "instance", "engine", "kernelspec", "bridge")]
    lines.append(f"{'uses:':12}{format_bytes(_to_int(status['memory_bytes']))} in {status['processes']} processes")
    limits = status["limits"]
    assert isinstance(limits, dict)
    shown = [f"{name} {_show_limit(name, value)}" for name, value in limits.items() if value is not None]
    lines.append(f"{'limits:':12}{', '.join(shown) or 'none'}")
    lines.append(f"{'GPU:':12}{'yes' if status['gpu'] else 'no'}")
    for label, items in (("binds", status["binds"]), ("overlays", status["overlays"])):
        assert isinstance(items, list)
        lines += [f"{label + ':' if i == 0 else '':12}{item['text']}" for i, item in enumerate(items)]
    return "\n".join(lines) + "\n"


def _describe_bind(bind: BoundPath, setup: BridgeSetup) -> dict[str, object]:
    inside = find_place(setup.instance.init.pid, bind.destination)
    outside = find_place("self", os.path.realpath(bind.source))
    is_mounted = inside is not None and inside == outside
    arrow = bind.source if bind.source == bind.destination else f"{bind.source} as {bind.destination}"
    return {
        "source": bind.source,
        "destination": bind.destination,
        "mode": bind.mode,
        "is_mounted": is_mounted,
        "text": f"{arrow} ({bind.mode})" + ("" if is_mounted else ": something else is mounted there"),
    }


def _describe_overlay(flag: str) -> dict[str, object]:
    path, _, mode = flag.partition(":") if flag.endswith(":ro") else (flag, "", "")
    found: dict[str, object] = {
        "path": path,
        "mode": mode or "rw",
        "used_fraction": None,
        "text": f"{path} ({mode or 'rw'})",
    }
    with suppress(OSError):
        ext3 = read_ext3(path) if os.path.isfile(path) else None
        if ext3 is not None:
            found["used_fraction"] = round(ext3.used_fraction, 4)
            full = f"{ext3.used_fraction * 100:.0f} percent of {format_bytes(ext3.size_bytes)} used"
            found["text"] = f"{path} ({mode or 'rw'}, {full})"
    return found


def _show_limit(name: str, value: float) -> str:
    return format_bytes(int(value)) if name == "memory" else f"{value:g}"


def _to_int(value: object) -> int:
    return value if isinstance(value, int) else 0
