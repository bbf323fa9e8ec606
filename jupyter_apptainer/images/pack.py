"""From the folder that a build has left to a SIF: packed once, with the header that the engine would write.

With an epoch nothing of it depends on when and where it is made: the same folder gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..engine.command import Command
from ..engine.locate import EngineInfo
from ..engine.packing import build_describe, build_pack
from ..engine.runner import Runner
from .reproducible import VARIABLE, settle_tree
from .sif_write import Text, measure_offset, write_header


class Packing:
    """One folder on its way to a SIF. It is changed: what depends on the time is settled in place.

    texts: what is kept in the SIF besides what the engine keeps.
    """

    def __init__(
        self,
        engine: EngineInfo,
        folder: Path,
        target: Path,
        env: Mapping[str, str],
        *,
        epoch: int | None,
        texts: Sequence[Text] = (),
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._target = target
        self._env = dict(env)
        self._epoch = epoch
        self._texts = tuple(texts)

    def build_command(self, mksquashfs_args: str) -> Command[None]:
        """Settle the folder, and return the command that writes its file system."""
        env = self._env
        if self._epoch is not None:
            settle_tree(self._folder, self._epoch)
            # mksquashfs takes it for its own time, and for that of all files that are later.
            env = env | {VARIABLE: str(self._epoch)}
        described = Runner().run(build_describe(self._engine, str(self._folder), self._env))
        definition = (self._folder / ".singularity.d/Singularity").read_bytes()
        self._texts = (Text("", definition), Text("inspect-metadata.json", described.encode()), *self._texts)
        offset = measure_offset(self._texts)
        arguments = mksquashfs_args.split()
        return build_pack(self._engine, str(self._folder), str(self._target), env, offset=offset, arguments=arguments)

    def conclude(self) -> None:
        """Write the header, when the file system is there."""
        write_header(self._target, self._texts, int(time.time()) if self._epoch is None else self._epoch)
