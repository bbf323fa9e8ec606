"""What is behind a panel: pages to look at, and somebody who does what is clicked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .model import Action, Section

TITLES: Mapping[str, str] = {
    "kernel": "Kernel",
    "images": "Images",
    "overlays": "Overlays",
    "instances": "Instances",
    "gpu": "GPU",
    "tasks": "Tasks",
}


# The page of GPUs with those of the machine that nobody has given to this user.
ALL_GPUS = "gpu-all"


class SourceError(Exception):
    """A page cannot be loaded; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of an action. output: what it answered. message: what it told a person. is_task: it goes on by itself."""

    is_ok: bool
    output: str
    message: str
    is_task: bool = False


class Source(Protocol):
    """This host, or from inside a container the bridge to it. Its functions may be called in any thread."""

    def load(self, name: str) -> Section:
        """Load one page now, or `ALL_GPUS`. Raises SourceError."""
        ...

    def load_all(self) -> Sequence[Section]:
        """Load all of them, for a page that nothing moves in. Raises SourceError."""
        ...

    def watch(self, name: str | None, on_news: Callable[[], None]) -> None:
        """Somebody looks at this page now, or with None at nothing. on_news: called when there is more to see."""
        ...

    def list_entries(self, path: str) -> Sequence[str]:
        """Return the names in a folder, those of folders with a slash behind; none where it cannot be read."""
        ...

    def start(self, action: Action, on_end: Callable[[Outcome], None]) -> None:
        """Do it in a thread, and call `on_end` there; not after `close`."""
        ...

    def close(self) -> None:
        """End what is still being done. Tasks go on."""
        ...
