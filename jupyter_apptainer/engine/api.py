"""`Engine` and `AsyncEngine`: the engine for scripts and notebooks, without Jupyter.

    >>> from jupyter_apptainer import Engine
    >>> Engine.find().exec("python.sif", ["python", "--version"]).stdout
    'Python 3.12.1\\n'

Both make the same commands; one waits for them, the other is awaited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .command import Command, Completed
from .environment import build_engine_environment
from .locate import EngineInfo, get_engine
from .options import (
    ContainerOptions,
    InstanceRow,
    build_exec,
    build_image_build,
    build_instance_list,
    build_instance_start,
    build_instance_stop,
)
from .output import OnText
from .runner import AsyncRunner, Runner


class _Commands:
    """The commands, as values, for one engine and one environment."""

    def __init__(self, info: EngineInfo, *, environ: Mapping[str, str] | None = None) -> None:
        self.info = info
        self._environ = dict(os.environ if environ is None else environ)

    def _env(self, container_env: Mapping[str, str] | None = None) -> dict[str, str]:
        return build_engine_environment(self._environ, container_env)

    def _exec(
        self,
        target: str,
        argv: Sequence[str],
        options: ContainerOptions | None,
        env: Mapping[str, str] | None,
        cwd: str | None,
        timeout_s: float | None,
    ) -> Command[Completed]:
        return build_exec(self.info, target, argv, self._env(env), options=options, cwd=cwd, timeout_s=timeout_s)

    def _start(
        self,
        image: str,
        name: str,
        options: ContainerOptions | None,
        env: Mapping[str, str] | None,
        arguments: Sequence[str],
    ) -> Command[None]:
        return build_instance_start(self.info, image, name, options or ContainerOptions(), self._env(env), arguments)

    def _build(
        self,
        target: str,
        source: str,
        build_args: Mapping[str, str] | None,
        mksquashfs_args: str | None,
        is_forced: bool,
    ) -> Command[None]:
        return build_image_build(
            self.info,
            target,
            source,
            self._env(),
            build_args=build_args,
            mksquashfs_args=mksquashfs_args,
            is_forced=is_forced,
        )


class Engine(_Commands):
    """Apptainer or SingularityCE on this machine; every method waits for its command and raises an ApptainerError that explains."""

    @classmethod
    def find(cls, path: str | None = None) -> Engine:
        """Return the engine at `path`, else the one on PATH or in our own folder. Raises EngineNotFound."""
        return cls(get_engine(path))

    def exec(
        self,
        target: str,
        argv: Sequence[str],
        *,
        options: ContainerOptions | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float | None = None,
        on_text: OnText | None = None,
    ) -> Completed:
        """Run a program in an image, or in an instance (`instance://NAME`), and return what it printed.

        env: variables of the program, passed unchanged; the host's stay outside. on_text: called with the stream's name and text
        as it comes. Raises CommandError where the program ends with another status than 0.
        """
        return Runner().run(self._exec(target, argv, options, env, cwd, timeout_s), on_text=on_text)

    def list_instances(self) -> tuple[InstanceRow, ...]:
        """Return all instances of this user on this host."""
        return Runner().run(build_instance_list(self.info, self._env()))

    def start_instance(
        self,
        image: str,
        name: str,
        *,
        options: ContainerOptions | None = None,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Start an instance. Raises InstanceExists, ImageNotFound, …"""
        Runner().run(self._start(image, name, options, env, arguments))

    def stop_instance(self, name: str, *, timeout_s: int = 10) -> None:
        """Stop an instance through the engine. Raises InstanceNotFound."""
        Runner().run(build_instance_stop(self.info, name, self._env(), timeout_s=timeout_s))

    def build(
        self,
        target: str,
        source: str,
        *,
        build_args: Mapping[str, str] | None = None,
        mksquashfs_args: str | None = None,
        is_forced: bool = False,
        on_text: OnText | None = None,
    ) -> None:
        """Build `target` from a definition file, an image, a folder or a URI. Raises BuildError, DiskFull, …"""
        Runner().run(self._build(target, source, build_args, mksquashfs_args, is_forced), on_text=on_text)


class AsyncEngine(_Commands):
    """`Engine` for code on an event loop: the same methods, to be awaited. Cancelling one stops its command."""

    @classmethod
    def find(cls, path: str | None = None) -> AsyncEngine:
        """Return the engine at `path`, else the one on PATH or in our own folder. Raises EngineNotFound."""
        return cls(get_engine(path))

    async def exec(
        self,
        target: str,
        argv: Sequence[str],
        *,
        options: ContainerOptions | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float | None = None,
        on_text: OnText | None = None,
    ) -> Completed:
        """See `Engine.exec`."""
        return await AsyncRunner().run(self._exec(target, argv, options, env, cwd, timeout_s), on_text=on_text)

    async def list_instances(self) -> tuple[InstanceRow, ...]:
        """See `Engine.list_instances`."""
        return await AsyncRunner().run(build_instance_list(self.info, self._env()))

    async def start_instance(
        self,
        image: str,
        name: str,
        *,
        options: ContainerOptions | None = None,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """See `Engine.start_instance`."""
        await AsyncRunner().run(self._start(image, name, options, env, arguments))

    async def stop_instance(self, name: str, *, timeout_s: int = 10) -> None:
        """See `Engine.stop_instance`."""
        await AsyncRunner().run(build_instance_stop(self.info, name, self._env(), timeout_s=timeout_s))

    async def build(
        self,
        target: str,
        source: str,
        *,
        build_args: Mapping[str, str] | None = None,
        mksquashfs_args: str | None = None,
        is_forced: bool = False,
        on_text: OnText | None = None,
    ) -> None:
        """See `Engine.build`."""
        await AsyncRunner().run(self._build(target, source, build_args, mksquashfs_args, is_forced), on_text=on_text)
