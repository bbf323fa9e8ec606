"""All pages of the panel by their names, and this host as what is behind a panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import ApptainerError
from ..gpu import Sampler, Viewer, find_sampler
from .commands import Commands
from .context import PanelContext
from .folders import list_entries
from .front.model import Action, Section
from .front.source import ALL_GPUS, TITLES, Outcome, SourceError
from .sections.gpu import build_gpu_section
from .sections.images import load_images
from .sections.instances import load_instances
from .sections.kernel import load_kernel
from .sections.overlays import load_overlays
from .sections.tasks import load_tasks

_LOADERS: Mapping[str, Callable[[PanelContext], Section]] = {
    "images": load_images,
    "overlays": load_overlays,
    "instances": load_instances,
    "tasks": load_tasks,
}
# They show what the sampler has read; on the others nobody looks at GPUs.
WITH_GPUS = frozenset({"kernel", "gpu", ALL_GPUS})


def load_section(name: str, context: PanelContext, sampler: Sampler) -> Section:
    """Load one section now. GPUs are as the sampler has seen them last: a driver may take seconds to answer."""
    if name in ("gpu", ALL_GPUS):
        return build_gpu_section(sampler.latest, sampler)
    return load_kernel(context, sampler.latest) if name == "kernel" else _LOADERS[name](context)


def load_all(context: PanelContext, sampler: Sampler) -> list[Section]:
    """Load all of them."""
    return [load_section(name, context, sampler) for name in TITLES]


class HostSource:
    """A `Source`: reads the rooms, and runs command lines of ours. all_gpus: the sampler for all devices of the machine."""

    def __init__(self, context: PanelContext, sampler: Sampler, all_gpus: Sampler | None = None) -> None:
        self._context = context
        self._sampler = sampler
        self._all_gpus = all_gpus or find_sampler(is_all=True)
        self._commands = Commands(context.environ)
        self._watched: Sampler | None = None
        self._viewer: Viewer | None = None

    def find_sampler(self, name: str) -> Sampler:
        """Return the one whose readings a page shows."""
        return self._all_gpus if name == ALL_GPUS else self._sampler

    def load(self, name: str) -> Section:
        """See `Source`."""
        try:
            return load_section(name, self._context, self.find_sampler(name))
        except (ApptainerError, OSError) as error:
            raise SourceError(str(error)) from error

    def load_all(self) -> Sequence[Section]:
        """See `Source`."""
        return [self.load(name) for name in TITLES]

    def watch(self, name: str | None, on_news: Callable[[], None]) -> None:
        """See `Source`. The first reading of a GPU is shown as soon as it is there."""
        wanted = self.find_sampler(name) if name in WITH_GPUS and name else None
        if wanted is self._watched:
            return
        if self._viewer:
            self._viewer.close()
        self._watched = wanted
        self._viewer = wanted.watch(lambda _: on_news()) if wanted else None

    def list_entries(self, path: str) -> Sequence[str]:
        """See `Source`."""
        return list_entries(path)

    def start(self, action: Action, on_end: Callable[[Outcome], None]) -> None:
        """See `Source`."""
        self._commands.start(action.words, on_end)

    def close(self) -> None:
        """See `Source`."""
        self._commands.close()
