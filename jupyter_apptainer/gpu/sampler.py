"""One sampler of the GPUs for all viewers in this process: it runs while somebody looks, and keeps a short history.

A viewer gets each report in the sampler's thread, and must be quick there. Nobody looking means no thread, and a driver left alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from ..errors import PolicyError
from .model import Device, GpuReport
from .read import GpuReader

INTERVAL_S = 1.0
HISTORY = 120
Listener = Callable[[GpuReport], None]


class Reader(Protocol):
    """What looks: a `GpuReader`, or a bridge to one."""

    def read(self, *, is_all: bool = False) -> GpuReport:
        """Look now."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True)
class Sample:
    """One point of a sparkline. None where the device did not tell."""

    taken_at: float
    utilisation_percent: int | None
    memory_used_bytes: int | None


class Viewer:
    """Somebody who looks, until `close`; also a context manager."""

    def __init__(self, sampler: Sampler, listener: Listener) -> None:
        self._sampler = sampler
        self.listener = listener

    def close(self) -> None:
        """Look no more. Closing twice is no error."""
        self._sampler.remove(self)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Sampler:
    """open_reader: called in the sampler's thread when the first viewer comes. is_all: see `GpuReader.read`."""

    def __init__(
        self, open_reader: Callable[[], Reader] = GpuReader, interval_s: float = INTERVAL_S, *, is_all: bool = False
    ) -> None:
        self._open_reader = open_reader
        self._interval_s = interval_s
        self._is_all = is_all
        self._lock = threading.Lock()
        self._viewers: list[Viewer] = []
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._history: dict[str, deque[Sample]] = {}
        self._latest: GpuReport | None = None

    @property
    def latest(self) -> GpuReport | None:
        """The last report, None before the first."""
        return self._latest

    @property
    def is_running(self) -> bool:
        """Whether anybody looks."""
        return self._thread is not None

    def watch(self, listener: Listener) -> Viewer:
        """Call `listener` with each report from now on, until the viewer is closed."""
        viewer = Viewer(self, listener)
        with self._lock:
            self._viewers.append(viewer)
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._stop,), name="jpa-gpu", daemon=True)
                self._thread.start()
        return viewer

    def look(self) -> GpuReport:
        """Look once, for somebody who does not stay. Blocks, as long as the driver takes."""
        reader = self._open_reader()
        try:
            report = reader.read(is_all=self._is_all)
        finally:
            reader.close()
        self._take(report)
        return report

    def remove(self, viewer: Viewer) -> None:
        """Forget a viewer; with the last one the thread ends."""
        with self._lock:
            if viewer in self._viewers:
                self._viewers.remove(viewer)
            if self._viewers or self._thread is None:
                return
            # Not waited for: a driver that is slow to answer must not hold up whoever closes a panel.
            self._thread = None
            self._stop.set()

    def get_history(self, device: Device) -> tuple[Sample, ...]:
        """Return what was read of a device lately, oldest first."""
        return tuple(self._history.get(device.uuid, ()))

    def _run(self, stop: threading.Event) -> None:
        reader = self._open_reader()
        try:
            while not stop.is_set():
                report = reader.read(is_all=self._is_all)
                if not stop.is_set():
                    self._take(report)
                stop.wait(self._interval_s)
        finally:
            reader.close()

    def _take(self, report: GpuReport) -> None:
        for device in report.devices:
            points = self._history.setdefault(device.uuid, deque(maxlen=HISTORY))
            points.append(Sample(report.taken_at, device.utilisation_percent, device.memory_used_bytes))
        self._latest = report
        with self._lock:
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.listener(report)


_shared: dict[bool, Sampler] = {}
_shared_lock = threading.Lock()


def find_sampler(*, is_all: bool = False) -> Sampler:
    """Return the sampler that all viewers in this process share. is_all: that of who looks at all devices of the machine."""
    with _shared_lock:
        if is_all not in _shared:
            _shared[is_all] = Sampler(_open_reader, is_all=is_all)
        return _shared[is_all]


def _open_reader() -> GpuReader:
    """Name other users where the policy says so; one that cannot be understood says no."""
    # At first use: settings are traitlets, and readings need none.
    from ..policy import shows_other_users

    try:
        return GpuReader(show_others=shows_other_users())
    except PolicyError:
        return GpuReader()
