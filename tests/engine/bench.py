"""The engine, to be made to fail, and what its failure has to be explained by."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.command import Command, Completed, returns_nothing
from jupyter_apptainer.engine.diagnose import diagnose, find_rule
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.runner import Runner


@dataclass(frozen=True)
class Bench:
    """The engine with a folder for its own files and one for ours, both of this test alone."""

    engine: EngineInfo
    image: Path
    folder: Path
    flags: tuple[str, ...]
    env: Mapping[str, str]
    global_flags: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    names: list[str] = field(default_factory=list)

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None) -> Completed:
        argv = (*self.prefix, self.engine.path, *self.global_flags, *map(str, words))
        command = Command(
            argv, {**self.env, **(env or {})}, returns_nothing, "try", timeout_s=120, cwd=str(self.folder)
        )
        return Runner().complete(command)

    def execute(
        self, *words: str | Path, image: Path | str | None = None, command: Sequence[str] = ("true",)
    ) -> Completed:
        """Run `exec` with the flags that this host makes necessary, then `words`."""
        return self.run("exec", *self.flags, *words, image or self.image, *command)

    def make_overlay(self, name: str) -> Path:
        completed = self.run("overlay", "create", "--size", "64", name)
        assert completed.returncode == 0, completed.stderr
        return self.folder / name

    @contextmanager
    def instance(self, name: str, *words: str | Path) -> Iterator[dict[str, int]]:
        """Start an instance; yields {"init": pid, "starter": pid}. Killing init makes the starter take all away."""
        completed = self.run("instance", "start", *self.flags, *words, self.image, name)
        assert completed.returncode == 0, completed.stderr
        (path,) = self.folder.glob(f"config/instances/app/*/*/{name}/{name}.json")
        record = json.loads(path.read_text())
        pids = {"init": record["pid"], "starter": record["ppid"]}
        starter = os.pidfd_open(pids["starter"])
        try:
            yield pids
        finally:
            with suppress(ProcessLookupError):
                os.kill(pids["init"], signal.SIGKILL)
            assert select.select([starter], [], [], 15)[0], "the starter does not end"
            os.close(starter)


def check(
    completed: Completed, rule: str, error: type[e.ApptainerError], says: str = "", *, subject: str = ""
) -> e.ApptainerError:
    """The run must have failed, and be explained by exactly that row."""
    assert completed.returncode != 0
    found = find_rule(completed)
    assert found is not None, completed.stderr
    assert found.name == rule, completed.stderr
    explained = diagnose(completed, title="try", subject=subject)
    assert type(explained) is error
    assert says in explained.message
    assert explained.hint
    return explained


def in_mount_namespace(bench: Bench, script: str) -> Bench:
    return replace(bench, prefix=("unshare", "--mount", "sh", "-c", script + '; exec "$@"', "sh"))


def as_nobody(bench: Bench) -> Bench:
    """Run the engine as user nobody, with a usable /dev/fuse and a folder that is theirs."""
    fuse = bench.folder / "fuse"
    os.mknod(fuse, 0o600 | 0o020000, os.makedev(10, 229))
    fuse.chmod(0o666)
    for path in (bench.folder, *bench.folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o755)
    os.chown(bench.folder, 65534, 65534)
    program = Path(bench.engine.path).resolve()
    script = f"mount --bind '{fuse}' /dev/fuse" + open_to_all(bench.folder, program.parents[1], bench.image)
    env = {**bench.env, "HOME": str(bench.folder)}
    inner = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    bench = replace(bench, engine=replace(bench.engine, path=str(program)))
    changed = in_mount_namespace(bench, script)
    return replace(changed, prefix=(*changed.prefix, *inner), flags=(), env=env)


def open_to_all(folder: Path, *wanted: Path) -> str:
    """Shell text that makes paths below root's home reachable for everybody, in this mount namespace alone."""
    blocked = {next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None) for path in wanted}
    text = ""
    for number, path in enumerate(wanted):
        kept = folder / f"kept{number}"
        kept.mkdir() if path.is_dir() else kept.touch()
        text += f" && mount --bind '{path}' '{kept}'"
    for closed in filter(None, blocked):
        text += f" && mount -t tmpfs -o mode=755 tmpfs '{closed}'"
    for number, path in enumerate(wanted):
        make = f"mkdir -p '{path}'" if path.is_dir() else f"mkdir -p '{path.parent}' && touch '{path}'"
        if any(closed and path.is_relative_to(closed) for closed in blocked):
            text += f" && {make} && mount --bind '{folder}/kept{number}' '{path}'"
    return text
