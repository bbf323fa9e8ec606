"""An instance that runs, and what the ledger remembers of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .process import ProcessIdentity

# Programs that serve an instance's file systems. They outlive a starter that was killed, and then hold the overlay's lock.
# In the order in which they must end: the one on top first, so that the ext3 image is written back and left clean.
FUSE_HELPERS = ("fuse-overlayfs", "fuse2fs", "gocryptfs", "squashfuse_ll", "squashfuse")

# Names of instances that were started before there was a kernel for them.
SPARE_PREFIX = "jpa-spare-"


@dataclass(frozen=True)
class Instance:
    """A running instance.

    init: PID 1 of the container (the engine's appinit). starter: its parent ("Apptainer instance: …"), which unmounts when init
    ends and must never be killed itself. pid_namespace, mount_namespace: inode numbers, of init and of the starter (where the
    FUSE helpers live). record_path: the engine's own file about it; log_paths: what its main process prints.
    """

    name: str
    image: str
    init: ProcessIdentity
    starter: ProcessIdentity
    pid_namespace: int
    mount_namespace: int
    record_path: str
    log_paths: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        """For the ledger."""
        return {
            "name": self.name,
            "image": self.image,
            "init": self.init.to_json(),
            "starter": self.starter.to_json(),
            "pid_namespace": self.pid_namespace,
            "mount_namespace": self.mount_namespace,
            "record_path": self.record_path,
            "log_paths": list(self.log_paths),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Instance:
        """From the ledger."""
        out, err = record["log_paths"]
        return cls(
            name=record["name"],
            image=record["image"],
            init=ProcessIdentity.from_json(record["init"]),
            starter=ProcessIdentity.from_json(record["starter"]),
            pid_namespace=record["pid_namespace"],
            mount_namespace=record["mount_namespace"],
            record_path=record["record_path"],
            log_paths=(out, err),
        )


@dataclass(frozen=True)
class LedgerEntry:
    """What we remember of one instance, from before its start until after its end.

    owner: the process that started it and will stop it; once that is gone, the janitor may. instance: None while it starts.
    directories: folders of ours that go with it. overlays: image files that it has mounted for writing.
    connection_file: the client's, which goes with a kernel that nobody owns any more.
    record_dir, log_dir: where the engine keeps its file about the instance and its logs, known before the start.

    process: the engine's process that joined the instance for the kernel; kernel: the kernel itself. kernelspec: its name.
    persist: whether the kernel outlives its owner, or for how many seconds. orphaned_at: when its owner was found gone. keeper:
    the owner's, see `keeper`. shared: name of the instance where several kernels share it, each with an entry of its own; wish:
    the fields of the configuration that it was started with, as JSON; instance_directories: folders that go with the last of them.
    phases: seconds that each phase of the newest start took, in their order. unpacked: the unpacked copy of the image that it was
    started from; empty where it is the image itself.
    """

    name: str
    image: str
    owner: ProcessIdentity
    kernel_id: str
    label: str
    started_at: float
    record_dir: str
    log_dir: str
    directories: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    connection_file: str = ""
    instance: Instance | None = None
    process: ProcessIdentity | None = None
    kernel: ProcessIdentity | None = None
    kernelspec: str = ""
    persist: bool | int = False
    orphaned_at: float | None = None
    keeper: ProcessIdentity | None = None
    shared: str = ""
    wish: Mapping[str, str] = field(default_factory=dict)
    instance_directories: tuple[str, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    unpacked: str = ""

    @property
    def instance_name(self) -> str:
        """The engine's name of the instance."""
        return self.shared or self.name

    @property
    def is_spare(self) -> bool:
        """It waits for a kernel, and none has run in it."""
        return not self.kernel_id and self.name.startswith(SPARE_PREFIX)

    def to_json(self) -> dict[str, Any]:
        """For the ledger's file."""
        return {
            "version": 1,
            "name": self.name,
            "image": self.image,
            "owner": self.owner.to_json(),
            "kernel_id": self.kernel_id,
            "label": self.label,
            "started_at": self.started_at,
            "record_dir": self.record_dir,
            "log_dir": self.log_dir,
            "directories": list(self.directories),
            "overlays": list(self.overlays),
            "connection_file": self.connection_file,
            "instance": self.instance.to_json() if self.instance else None,
            "process": self.process.to_json() if self.process else None,
            "kernel": self.kernel.to_json() if self.kernel else None,
            "kernelspec": self.kernelspec,
            "persist": self.persist,
            "orphaned_at": self.orphaned_at,
            "keeper": self.keeper.to_json() if self.keeper else None,
            "shared": self.shared,
            "wish": dict(self.wish),
            "instance_directories": list(self.instance_directories),
            "phases": dict(self.phases),
            "unpacked": self.unpacked,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> LedgerEntry:
        """From the ledger's file. Raises KeyError, TypeError or ValueError for anything that we did not write."""
        return cls(
            name=record["name"],
            image=record["image"],
            owner=ProcessIdentity.from_json(record["owner"]),
            kernel_id=record["kernel_id"],
            label=record["label"],
            started_at=float(record["started_at"]),
            record_dir=record["record_dir"],
            log_dir=record["log_dir"],
            directories=_read_words(record["directories"]),
            overlays=_read_words(record["overlays"]),
            connection_file=record["connection_file"],
            instance=Instance.from_json(record["instance"]) if record["instance"] else None,
            process=_read_process(record["process"]),
            kernel=_read_process(record["kernel"]),
            kernelspec=str(record["kernelspec"]),
            persist=record["persist"] if isinstance(record["persist"], bool) else int(record["persist"]),
            orphaned_at=None if record["orphaned_at"] is None else float(record["orphaned_at"]),
            keeper=_read_process(record["keeper"]),
            shared=str(record["shared"]),
            wish={str(name): str(value) for name, value in dict(record["wish"]).items()},
            instance_directories=_read_words(record["instance_directories"]),
            # Not in the entries of kernels that were started before an update.
            phases={str(name): float(seconds) for name, seconds in dict(record.get("phases") or {}).items()},
            unpacked=str(record.get("unpacked") or ""),
        )


def _read_process(record: dict[str, int] | None) -> ProcessIdentity | None:
    return ProcessIdentity.from_json(record) if record else None


def _read_words(value: object) -> tuple[str, ...]:
    # What is named here will be deleted: the letters of a string must not pass for a list of folders.
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"a list of strings was expected, not {value!r}")
    return tuple(value)
