"""Every error that this package raises on purpose.

::

    ApptainerError
    ├─ EngineError                     the binary or the host cannot do it
    │  ├─ EngineNotFound               no apptainer or singularity on this machine
    │  ├─ EngineTooOld                 found, but older than what we need
    │  ├─ EngineInstallError           `jupyter apptainer engine install` did not succeed
    │  ├─ EngineOutputError            the engine printed what we could not parse (our bug)
    │  ├─ UserNamespacesUnavailable    user namespaces are switched off or used up here
    │  ├─ AppArmorUserNamespaces       AppArmor forbids user namespaces to the engine
    │  ├─ MissingCapabilities          root without the full set of capabilities
    │  ├─ FuseUnavailable              /dev/fuse cannot be opened
    │  ├─ FuseHelperMissing            squashfuse, fuse2fs or fuse-overlayfs is not installed
    │  ├─ FakerootUnavailable          no subordinate ids, or fakeroot does not work here
    │  ├─ CgroupsUnavailable           limits asked for, but no usable cgroups
    │  ├─ NetworkUnavailable           the network wish needs root or a setuid install
    │  ├─ HidePidMount                 /proc is mounted with hidepid
    │  ├─ DbusUnavailable              systemd's user bus did not answer
    │  └─ ConfigDirUnwritable          the engine's own folder cannot be written
    ├─ CommandError                    the engine said no to this request
    │  ├─ ImageNotFound
    │  ├─ ImageInvalid                 a file, but not an image
    │  ├─ ImageCorrupt                 an image, but damaged or cut short
    │  ├─ ImageMismatch                an image, but not the one whose digest was asked for
    │  ├─ ImageBusy                    in use, so it cannot be removed
    │  ├─ SignatureError               an image is not signed, not by a known key, or not as it was signed
    │  ├─ ProgramNotFound              the program does not exist in the image
    │  ├─ OverlayNotFound
    │  ├─ OverlayBusy                  in use by another process
    │  ├─ OverlayConflict              two writable overlays
    │  ├─ OverlayImageMismatch         made above another image
    │  ├─ OverlayModeMismatch          written with --fakeroot, used without, or the reverse
    │  ├─ OverlayReadOnly              mounted, but nothing can be written
    │  ├─ OverlayCreateError
    │  ├─ OverlayFull
    │  ├─ OverlayUnclean               needs e2fsck
    │  ├─ DiskFull
    │  ├─ FuseMountTimeout
    │  ├─ InstanceExists
    │  ├─ InstanceNameInvalid
    │  ├─ InstanceNotFound
    │  ├─ InstanceBroken               listed, but its file system is gone
    │  ├─ ServiceEnded                 the instance runs, but what it was started for does not
    │  ├─ BindSourceNotFound
    │  ├─ BindInvalid
    │  ├─ ReadOnlyFilesystem           a program wrote to the image
    │  ├─ BuildError
    │  ├─ RegistryError                pull or push failed
    │  │  └─ RegistryAuthError         the registry wants a password, or another one
    │  ├─ ProcessNotOrphaned           a process on a GPU that somebody owns is not stopped
    │  └─ CommandTimeout
    ├─ SpecError (also ValueError)     the request is wrong before anything runs
    │  └─ RecipeInvalid                a definition file, Dockerfile, … that cannot be built
    ├─ TaskError                       a piece of long work, as such
    │  ├─ TaskNotFound
    │  ├─ TaskConflict                 another one makes the same thing of something else
    │  ├─ TooManyTasks                 a server's queue is full
    │  ├─ TaskCancelled
    │  ├─ TaskLost                     its process was killed
    │  └─ TaskFailed                   by a fault that has no class of its own
    ├─ PolicyError                     possible, but forbidden by this server's configuration
    ├─ BridgeError                     a request from inside a container that the host side cannot understand or serve
    └─ LaunchError                     a kernel did not come up: phase and log tail
       ├─ ImageLacksPython
       ├─ ImageLacksIpykernel
       ├─ KernelDied
       ├─ KernelTimeout
       ├─ StartCancelled               somebody ended the start
       ├─ ConnectionImpossible         neither ipc nor encrypted tcp can serve
       ├─ SharedInstanceMismatch       the instance that the kernel wants to share was started otherwise
       └─ AttachError                  a running kernel cannot be taken over

A message says what failed and on which object; a hint says what to do next. ``code`` is stable: scripts, REST clients and
translations may rely on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

LOG_TAIL_LINES = 12


class ApptainerError(Exception):
    """The root of the tree. `message` and `hint` are for people, `code` is for programs.

    Parameters
    ----------
    message: one sentence: what failed, on which object.
    hint: what to do next, as a sentence or a command; None takes the class's own `default_hint`.
    command: the engine's command line as it may be shown to people (redacted), if one ran.
    returncode: its exit status, if one ran.
    log_tail: the last lines that it printed, oldest first.
    """

    code: ClassVar[str] = "apptainer-error"
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        command: str | None = None,
        returncode: int | None = None,
        log_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.command = command
        self.returncode = returncode
        self.log_tail = tuple(log_tail)[-LOG_TAIL_LINES:]

    def __str__(self) -> str:
        """The message and the hint; the log tail is for `render`."""
        return self.message if not self.hint else f"{self.message}\nHint: {self.hint}"

    def render(self) -> str:
        """All that helps a person: message, hint, and the tail of the log.

        Free of per cent signs: jupyter_server doubles them in the dialog that shows a failed kernel start.
        """
        text = str(self)
        if self.log_tail:
            text += "\nLast lines:\n" + "\n".join(f"  {line}" for line in self.log_tail)
        return text.replace("%", " percent")

    def to_json(self) -> dict[str, object]:
        """The same content for programs."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "command": self.command,
            "returncode": self.returncode,
            "log_tail": list(self.log_tail),
        }


def iter_error_classes(root: type[ApptainerError] = ApptainerError) -> Iterator[type[ApptainerError]]:
    """Yield `root` and every class below it; tables that map errors are checked against this."""
    yield root
    for child in root.__subclasses__():
        yield from iter_error_classes(child)


# --- the binary or the host


class EngineError(ApptainerError):
    code = "engine-error"


class EngineNotFound(EngineError):
    code = "engine-not-found"
    default_hint = "run `jupyter apptainer engine install` to get one in a folder of your own; no root needed"


class EngineTooOld(EngineError):
    code = "engine-too-old"
    default_hint = "run `jupyter apptainer engine install` to get a newer one in a folder of your own"


class EngineInstallError(EngineError):
    code = "engine-install-error"


class EngineOutputError(EngineError):
    code = "engine-output-error"
    default_hint = "this is a fault of jupyter-apptainer: please report it with the file named above"


class UserNamespacesUnavailable(EngineError):
    code = "user-namespaces-unavailable"
    default_hint = "run `jupyter apptainer doctor` to see which setting forbids user namespaces on this machine"


class AppArmorUserNamespaces(UserNamespacesUnavailable):
    code = "apparmor-user-namespaces"
    default_hint = (
        "ask the administrator for an AppArmor profile with `userns,` for the engine's starter program; "
        "`jupyter apptainer doctor` prints it"
    )


class MissingCapabilities(EngineError):
    code = "missing-capabilities"
    default_hint = "run as an ordinary user, or with --userns"


class FuseUnavailable(EngineError):
    code = "fuse-unavailable"
    default_hint = (
        "everybody must be able to open /dev/fuse: `sudo chmod 666 /dev/fuse`; "
        "without it only images unpacked to a folder work (`apptainer build --sandbox DIR IMAGE`)"
    )


class FuseHelperMissing(EngineError):
    code = "fuse-helper-missing"
    default_hint = "install squashfuse, fuse2fs and fuse-overlayfs, or run `jupyter apptainer engine install`"


class FakerootUnavailable(EngineError):
    code = "fakeroot-unavailable"
    default_hint = "ask for a range in /etc/subuid and /etc/subgid: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`"


class CgroupsUnavailable(EngineError):
    code = "cgroups-unavailable"
    default_hint = "leave out the limits, or start the server inside a systemd user session"


class NetworkUnavailable(EngineError):
    code = "network-unavailable"
    default_hint = "without root only `network: host` and `network: none` exist"


class HidePidMount(EngineError):
    code = "hidepid-mount"
    default_hint = "ask the administrator to mount /proc with hidepid=0, or use an engine installed without setuid"


class DbusUnavailable(EngineError):
    code = "dbus-unavailable"
    default_hint = "try again in a moment; without limits, unset DBUS_SESSION_BUS_ADDRESS"


class ConfigDirUnwritable(EngineError):
    code = "config-dir-unwritable"
    default_hint = "make the home folder writable, or set APPTAINER_CONFIGDIR to a folder that is"


# --- the engine said no


class CommandError(ApptainerError):
    code = "command-failed"


class ImageNotFound(CommandError):
    code = "image-not-found"
    default_hint = "check the path, or fetch the image first"


class ImageInvalid(CommandError):
    code = "image-invalid"
    default_hint = "this needs a .sif file, or a folder made by `apptainer build --sandbox`"


class ImageCorrupt(CommandError):
    code = "image-corrupt"
    default_hint = "fetch or build the image again"


class ImageMismatch(CommandError):
    code = "image-mismatch"
    default_hint = "fetch the image that was meant, or correct the digest"


class ImageBusy(CommandError):
    code = "image-busy"
    default_hint = "shut down what uses it first"


class SignatureError(CommandError):
    code = "signature-error"


class ProgramNotFound(CommandError):
    code = "program-not-found"


class OverlayNotFound(CommandError):
    code = "overlay-not-found"
    default_hint = "create it: `jupyter apptainer overlay create FILE`"


class OverlayBusy(CommandError):
    code = "overlay-busy"
    default_hint = "stop the kernel that uses it, or use a copy"


class OverlayConflict(CommandError):
    code = "overlay-conflict"
    default_hint = "keep one writable overlay and add `:ro` to the others"


class OverlayImageMismatch(CommandError):
    code = "overlay-image-mismatch"
    default_hint = "use the overlay with the image that it was made above, or make another one"


class OverlayModeMismatch(CommandError):
    code = "overlay-mode-mismatch"
    default_hint = "the overlay was written with --fakeroot (or without): use it in the same way as before"


class OverlayReadOnly(CommandError):
    code = "overlay-read-only"
    default_hint = "check the owner and the permissions of the overlay, or add `:ro`"


class OverlayCreateError(CommandError):
    code = "overlay-create-error"


class OverlayFull(CommandError):
    code = "overlay-full"
    default_hint = "make the overlay larger while nothing uses it: `jupyter apptainer overlay grow FILE +1G`"


class OverlayUnclean(CommandError):
    code = "overlay-unclean"
    default_hint = "repair it while nothing uses it: `jupyter apptainer overlay check FILE`"


class DiskFull(CommandError):
    code = "disk-full"
    default_hint = "free some space, or point APPTAINER_TMPDIR to a larger disk"


class FuseMountTimeout(CommandError):
    code = "fuse-mount-timeout"
    default_hint = "the machine or its disk is very busy: try again"


class InstanceExists(CommandError):
    code = "instance-exists"


class InstanceNameInvalid(CommandError):
    code = "instance-name-invalid"
    default_hint = "use letters, digits, dots, dashes and underscores"


class InstanceNotFound(CommandError):
    code = "instance-not-found"


class InstanceBroken(CommandError):
    code = "instance-broken"
    default_hint = "stop it and start a new one"


class ServiceEnded(CommandError):
    code = "service-ended"


class BindSourceNotFound(CommandError):
    code = "bind-source-not-found"
    default_hint = "create the folder, or remove the bind"


class BindInvalid(CommandError):
    code = "bind-invalid"
    default_hint = "write SRC, SRC:DEST or SRC:DEST:ro"


class ReadOnlyFilesystem(CommandError):
    code = "read-only-filesystem"
    default_hint = "an image is read-only: add an overlay"


class BuildError(CommandError):
    code = "build-failed"


class RegistryError(CommandError):
    code = "registry-error"


class RegistryAuthError(RegistryError):
    code = "registry-auth"


class ProcessNotOrphaned(CommandError):
    code = "process-not-orphaned"


class CommandTimeout(CommandError):
    code = "command-timeout"


# --- the request


class SpecError(ApptainerError, ValueError):
    """A field is unknown, has the wrong type, or a value that cannot be."""

    code = "spec-invalid"


class RecipeInvalid(SpecError):
    """What was found before a build; `log_tail` has further findings, one a line."""

    code = "recipe-invalid"


class TaskError(ApptainerError):
    code = "task-error"


class TaskNotFound(TaskError):
    code = "task-not-found"
    default_hint = "`jupyter apptainer tasks` shows those of this host; old ones are forgotten"


class TaskConflict(TaskError):
    code = "task-conflict"


class TooManyTasks(TaskError):
    code = "too-many-tasks"
    default_hint = "wait until some are over, or cancel some"


class TaskCancelled(TaskError):
    code = "task-cancelled"


class TaskLost(TaskError):
    code = "task-lost"


class TaskFailed(TaskError):
    code = "task-failed"


class PolicyError(ApptainerError):
    code = "forbidden-by-policy"
    default_hint = "ask the administrator of this server"


class BridgeError(ApptainerError):
    code = "bridge-error"
    default_hint = "the apptainer magic without words says what this kernel may ask of the host"


# --- a kernel did not come up


class LaunchError(ApptainerError):
    """`phase` is one of the phases of a start: image, overlay, instance, connect."""

    code = "launch-failed"
    phase = "instance"


class ImageLacksPython(LaunchError):
    code = "image-lacks-python"
    phase = "image"


class ImageLacksIpykernel(LaunchError):
    code = "image-lacks-ipykernel"
    phase = "image"


class KernelDied(LaunchError):
    code = "kernel-died"
    phase = "connect"


class KernelTimeout(LaunchError):
    code = "kernel-timeout"
    phase = "connect"


class StartCancelled(LaunchError):
    code = "start-cancelled"
    phase = "connect"
    default_hint = "choose the kernel again, or restart it, to start it after all"


class ConnectionImpossible(LaunchError):
    code = "connection-impossible"
    phase = "connect"


class SharedInstanceMismatch(LaunchError):
    code = "shared-instance-mismatch"


class AttachError(LaunchError):
    code = "attach-error"
