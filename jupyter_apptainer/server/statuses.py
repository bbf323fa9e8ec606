"""Which HTTP status an error of ours has. The nearest class above an error counts."""

from __future__ import annotations

from collections.abc import Mapping

from .. import errors as e

STATUSES: Mapping[type[e.ApptainerError], int] = {
    e.ApptainerError: 500,
    e.EngineError: 503,
    e.EngineOutputError: 500,
    e.CommandError: 500,
    e.ImageNotFound: 404,
    e.ImageInvalid: 422,
    e.ImageCorrupt: 422,
    e.ImageMismatch: 409,
    e.ImageBusy: 409,
    e.SignatureError: 422,
    e.ProgramNotFound: 422,
    e.OverlayNotFound: 404,
    e.OverlayBusy: 409,
    e.OverlayConflict: 409,
    e.OverlayImageMismatch: 409,
    e.OverlayModeMismatch: 409,
    e.OverlayReadOnly: 409,
    e.OverlayCreateError: 409,
    e.OverlayFull: 507,
    e.OverlayUnclean: 409,
    e.DiskFull: 507,
    e.InstanceExists: 409,
    e.InstanceNameInvalid: 400,
    e.InstanceNotFound: 404,
    e.BindSourceNotFound: 422,
    e.BindInvalid: 400,
    e.RegistryError: 502,
    e.RegistryAuthError: 401,
    e.ProcessNotOrphaned: 409,
    e.CommandTimeout: 504,
    e.TaskError: 500,
    e.TaskNotFound: 404,
    e.TaskConflict: 409,
    e.TooManyTasks: 429,
    e.SpecError: 400,
    e.PolicyError: 403,
    e.LaunchError: 422,
}
# Errors of HTTP itself, which have no class of ours.
CODES: Mapping[int, str] = {
    400: "bad-request",
    401: "not-authenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
}
INTERNAL = "internal-error"


def find_status(error: e.ApptainerError) -> int:
    """Return the status for an error."""
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)
