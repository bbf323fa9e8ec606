"""What tests may not leave behind, and how to see it.

A session of tests marks every process that it starts: the soft limit RLIMIT_RSS, which Linux does not enforce, is set to
a number of its own. Children inherit it through every exec, so it also finds the engine's daemons and FUSE helpers,
which have a new parent and an empty environment, and never a process of somebody else.

    python -m tests.world new-tag           print a number for JPA_TEST_TAG
    python -m tests.world check-tag TAG     list what still carries it; status 1 if anything does
    python -m tests.world check-user NAME   list what still runs in an account that exists for the tests alone
"""

from __future__ import annotations

import os
import pwd
import resource
import secrets
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PAGE = 4096
_LIMIT = "Max resident set"


@dataclass(frozen=True)
class Process:
    """A living process; pid and start time together are its identity."""

    pid: int
    start_ticks: int
    ppid: int
    # A fork server that rests is another program in the same process.
    command: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.pid} (parent {self.ppid}): {self.command}"


def new_tag() -> int:
    """Return a number of bytes that no other session uses as its limit; far above any memory."""
    return (1 << 50) + secrets.randbelow(1 << 32) * _PAGE


def set_tag(tag: int) -> None:
    """Mark this process and all that it will start."""
    _, hard = resource.getrlimit(resource.RLIMIT_RSS)
    resource.setrlimit(resource.RLIMIT_RSS, (tag, hard))


def get_tag() -> int:
    """Return the tag of this process."""
    return resource.getrlimit(resource.RLIMIT_RSS)[0]


def iter_tagged(tag: int) -> Iterator[Process]:
    """Yield the living processes that carry `tag`, without this one."""
    return _iter_processes(lambda folder: _read_tag(folder) == tag)


def iter_of_user(uid: int) -> Iterator[Process]:
    """Yield the living processes of a user, without this one."""
    return _iter_processes(lambda folder: _read_uid(folder) == uid)


def _iter_processes(is_wanted: Callable[[Path], bool]) -> Iterator[Process]:
    """Yield living processes. Zombies have ended, and are not ours to reap."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if is_wanted(folder):
                yield _read_process(folder)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _read_uid(folder: Path) -> int:
    # The folder itself belongs to root where a process must not be looked into; the status tells the truth.
    status = (folder / "status").read_text()
    return int(status.partition("\nUid:")[2].split()[0])


def _read_tag(folder: Path) -> int | None:
    for line in (folder / "limits").read_text().splitlines():
        if line.startswith(_LIMIT):
            soft = line.removeprefix(_LIMIT).split()[0]
            return int(soft) if soft.isdigit() else None
    return None


def _read_process(folder: Path) -> Process:
    # The name in field 2 may contain spaces and parentheses (proc(5)).
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(folder.name)
    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    name = (folder / "comm").read_text().strip()
    return Process(int(folder.name), int(fields[19]), int(fields[1]), f"{name}: {words}"[:300])


def wait_until_gone(processes: Iterable[Process], timeout_s: float) -> None:
    """Return when all of `processes` have ended, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(descriptor)


def find_leftovers(
    iter_ours: Callable[[], Iterator[Process]], known: Iterable[Process] = (), *, grace_s: float = 5.0
) -> list[Process]:
    """Return the processes of ours, other than `known`, that have not ended within `grace_s`."""
    deadline = time.monotonic() + grace_s
    before = frozenset(known)
    while left := [process for process in iter_ours() if process not in before]:
        if time.monotonic() >= deadline:
            return left
        wait_until_gone(left, deadline - time.monotonic())
    return []


def list_files(*roots: Path) -> frozenset[Path]:
    """Return every file, socket, link and folder below `roots`."""
    found: set[Path] = set()
    for root in roots:
        for folder, folders, files in os.walk(root):
            found.update(Path(folder) / name for name in (*folders, *files))
    return frozenset(found)


def describe(tag: int, ledger: Path, instance_logs: Path) -> str:
    """Return what a person wants to see beside a failed test: processes, ledger, the tails of the newest logs."""
    parts = ["processes of this session:", *(f"  {process}" for process in iter_tagged(tag))]
    for path in sorted(ledger.glob("*")) if ledger.is_dir() else []:
        parts += [f"ledger {path.name}:", _indent(path.read_text(errors="replace"))]
    logs = [path for path in instance_logs.rglob("jpa-*") if path.is_file() and path.stat().st_size]
    for path in sorted(logs, key=lambda path: path.stat().st_mtime)[-4:]:
        tail = path.read_text(errors="replace").splitlines()[-15:]
        parts += [f"log {path.name}:", _indent("\n".join(tail))]
    return "\n".join(parts)


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


def main(arguments: list[str]) -> int:
    match arguments:
        case ["new-tag"]:
            print(new_tag())
            return 0
        case ["check-tag", tag] if tag.isdigit():
            left = find_leftovers(lambda: iter_tagged(int(tag)))
        case ["check-user", name]:
            uid = pwd.getpwnam(name).pw_uid
            left = find_leftovers(lambda: iter_of_user(uid))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    for process in left:
        print(f"left behind by the tests: {process}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
