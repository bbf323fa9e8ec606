"""Which variables a kernel sees, and why each of them. Clean by default: an allow-list, never the whole of the host's.

Host settings such as PYTHONPATH, VIRTUAL_ENV, CONDA_PREFIX or JUPYTERHUB_API_TOKEN would make the image import the host's
packages, or hand a token to code that should not have it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..engine.environment import is_variable_name


@dataclass(frozen=True)
class EnvEntry:
    """One variable that the kernel will see, and why."""

    name: str
    value: str
    why: str


# Patterns as in fnmatch, with the reason that `explain` shows.
ALLOWED: tuple[tuple[str, str], ...] = (
    ("LANG", "language of the host"),
    ("LC_*", "language of the host"),
    ("TZ", "time zone of the host"),
    ("TERM", "terminal"),
    ("USER", "who you are"),
    ("LOGNAME", "who you are"),
    ("CUDA_VISIBLE_DEVICES", "the GPUs given to you"),
    ("CUDA_DEVICE_ORDER", "the GPUs given to you"),
    ("NVIDIA_VISIBLE_DEVICES", "the GPUs given to you"),
    ("ROCR_VISIBLE_DEVICES", "the GPUs given to you"),
    ("HIP_VISIBLE_DEVICES", "the GPUs given to you"),
    ("GPU_DEVICE_ORDINAL", "the GPUs given to you"),
    ("ZE_AFFINITY_MASK", "the GPUs given to you"),
    ("ONEAPI_DEVICE_SELECTOR", "the GPUs given to you"),
    ("SLURM_*", "the job that this runs in"),
    ("OMP_NUM_THREADS", "number of threads"),
    ("OMP_PLACES", "number of threads"),
    ("OMP_PROC_BIND", "number of threads"),
    ("OPENBLAS_NUM_THREADS", "number of threads"),
    ("MKL_NUM_THREADS", "number of threads"),
    ("NUMBA_NUM_THREADS", "number of threads"),
    ("http_proxy", "the way to the network"),
    ("https_proxy", "the way to the network"),
    ("ftp_proxy", "the way to the network"),
    ("no_proxy", "the way to the network"),
    ("HTTP_PROXY", "the way to the network"),
    ("HTTPS_PROXY", "the way to the network"),
    ("FTP_PROXY", "the way to the network"),
    ("NO_PROXY", "the way to the network"),
    ("JPY_SESSION_NAME", "the notebook that this kernel belongs to"),
    ("KERNEL_*", "sent by the client with its request"),
)
# Most are no patterns, and every variable of the host is looked up at each start.
_NAMES = {pattern: why for pattern, why in ALLOWED if "*" not in pattern}
_PATTERNS = tuple((pattern, why) for pattern, why in ALLOWED if "*" in pattern)
# Credentials that match a pattern above all the same.
NEVER: tuple[str, ...] = ("SLURM_JWT", "*_TOKEN", "*_PASSWORD")
# The engine sets these itself, or its `--cleanenv` would be pointless with them.
RESERVED: tuple[str, ...] = ("HOME", "APPTAINER*", "SINGULARITY*")


def plan_environment(
    *,
    host: Mapping[str, str],
    kernelspec_env: Mapping[str, str],
    spec_env: Mapping[str, str],
    inherit: Iterable[str],
    own: Iterable[EnvEntry],
) -> tuple[EnvEntry, ...]:
    """Return the variables in the order of rising precedence, each name once.

    host: the server's variables and those of the request. inherit: name patterns that the kernel.json asks for.
    kernelspec_env: `env` at the top of kernel.json. spec_env: `env` in its container config. own: those that we need.
    """
    found: dict[str, EnvEntry] = {}
    for name in sorted(host):
        why = _why_inherited(name, inherit)
        if why and is_variable_name(name) and not _matches(name, RESERVED):
            found[name] = EnvEntry(name, host[name], why)
    for entry in own:
        found[entry.name] = entry
    for name, value in kernelspec_env.items():
        found[name] = EnvEntry(name, value, "`env` of kernel.json")
    for name, value in spec_env.items():
        found[name] = EnvEntry(name, value, "`env` of the container config")
    return tuple(found.values())


def _why_inherited(name: str, inherit: Iterable[str]) -> str | None:
    for pattern in inherit:
        if fnmatch.fnmatchcase(name, pattern):
            return f"`inherit_env` has {pattern}"
    if _matches(name, NEVER):
        return None
    return _NAMES.get(name) or next((why for pattern, why in _PATTERNS if fnmatch.fnmatchcase(name, pattern)), None)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
