"""GPUs as the host sees them: readings per device or slice, and which notebook holds what.

A GPU that is not there is a status with a reason and a fix, never an error. `pick()` chooses the freest device for a script:

    from jupyter_apptainer import gpu
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.pick().uuid
"""

from .choose import pick
from .model import Device, GpuReport, GpuStatus, Holder
from .read import GpuReader, read_gpus
from .sampler import Sampler, Viewer, find_sampler

__all__ = [
    "Device",
    "GpuReader",
    "GpuReport",
    "GpuStatus",
    "Holder",
    "Sampler",
    "Viewer",
    "find_sampler",
    "pick",
    "read_gpus",
]
