"""What this machine lets us do, each thing tried and not guessed. Findings are `Probe` values; nothing is changed or raised.

Used by `jupyter apptainer doctor`; a start that fails has its own explanation from `diagnose`.
"""

from __future__ import annotations

from .engine import probe_engine, probe_settings, probe_variables
from .fuse import probe_fuse_device, probe_helpers, probe_kernel_version
from .gpu import probe_nvidia
from .identity import probe_fakeroot
from .namespaces import probe_apparmor, probe_capabilities, probe_confinement, probe_user_namespaces
from .probe import Probe, Status
from .processes import probe_cgroups, probe_hidepid, probe_reaping
from .storage import build_roles, probe_disks

__all__ = [
    "Probe",
    "Status",
    "build_roles",
    "probe_apparmor",
    "probe_capabilities",
    "probe_cgroups",
    "probe_confinement",
    "probe_disks",
    "probe_engine",
    "probe_fakeroot",
    "probe_fuse_device",
    "probe_helpers",
    "probe_hidepid",
    "probe_kernel_version",
    "probe_nvidia",
    "probe_reaping",
    "probe_settings",
    "probe_user_namespaces",
    "probe_variables",
]
