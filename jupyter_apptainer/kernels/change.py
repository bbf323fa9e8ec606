"""Other settings for a kernel that runs: written into its notebook's metadata, held against all rules before, and then the kernel is ended.

The server that has it starts it anew, and reads its settings anew, for its instance is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ApptainerConfig
from ..errors import InstanceNotFound, SpecError
from ..instances.janitor import end_entry
from ..instances.model import LedgerEntry
from ..places import Places
from .kernelspecs import get_kernelspec
from .layers import Setting
from .notebook import FIELD, load_settings
from .running import find_entries
from .settle import settle_spec


@dataclass(frozen=True)
class Change:
    """What was changed. settings: each value of the kernel's next start, with its origin. is_ended: the kernel was ended for it."""

    kernel_id: str
    notebook: str
    metadata: Mapping[str, object]
    settings: tuple[Setting, ...]
    is_ended: bool


def change_kernel(
    places: Places,
    pattern: str,
    changes: Mapping[str, object],
    settings: ApptainerConfig,
    environ: Mapping[str, str],
    *,
    unset: tuple[str, ...] = (),
    is_later: bool = False,
) -> Change:
    """Keep `changes` in the notebook's metadata, without the fields `unset`, and end the kernel unless `is_later`.

    pattern: as `find_entries` takes it. Raises InstanceNotFound, SpecError for what is wrong, PolicyError for what the notebook may
    not ask for; then nothing was changed.
    """
    entry = _get_entry(places, pattern)
    _refuse_shared(entry)
    notebook, metadata, wishes = "", dict[str, object](), tuple[Setting, ...]()
    if changes or unset:
        notebook = _get_notebook(entry)
        metadata = _merge(load_settings(notebook), changes, unset)
        wishes = _judge(entry, notebook, metadata, settings, places, environ)
        write_settings(notebook, metadata)
    if not is_later:
        _end(places, entry)
    return Change(entry.kernel_id, notebook, metadata, wishes, not is_later)


def _end(places: Places, entry: LedgerEntry) -> None:
    """End the container. Its owner removes what belongs to it, before the start that follows; where there is none, we do."""
    if entry.instance and entry.owner.is_alive():
        entry.instance.init.send_signal(signal.SIGKILL)
    else:
        end_entry(places, entry)


def write_settings(path: str, metadata: Mapping[str, object]) -> None:
    """Write the field into the notebook, and leave all else as it is. Raises SpecError where there is no such notebook."""
    target = Path(os.path.realpath(path))
    try:
        document: Any = json.loads(target.read_text(encoding="utf-8"))
        below = document["metadata"]
        if metadata:
            below[FIELD] = dict(metadata)
        else:
            below.pop(FIELD, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"the notebook {path} cannot be changed: {error}", hint="save it first") from error
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # As Jupyter writes it, so that a version control shows this change alone.
        fresh.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.copymode(target, fresh)
        fresh.replace(target)
    except OSError as error:
        raise SpecError(
            f"the notebook {path} cannot be written: {error.strerror}", hint="check its permissions"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def _get_entry(places: Places, pattern: str) -> LedgerEntry:
    found = find_entries(places, pattern)
    if len(found) > 1:
        names = ", ".join(entry.kernel_id[:8] for entry in found)
        raise SpecError(f"{pattern!r} means several kernels: {names}", hint="name one of them")
    if not found:
        raise InstanceNotFound(f"no kernel matches {pattern!r}", hint="`jupyter apptainer kernel ps` shows them")
    return found[0]


def _get_notebook(entry: LedgerEntry) -> str:
    if not (entry.label.endswith(".ipynb") and os.path.isfile(entry.label)):
        raise SpecError(
            f"it is not known which notebook the kernel {entry.kernel_id[:8]} is for, so its settings cannot be kept",
            hint="change the kernel for all its notebooks: `jupyter apptainer kernel edit NAME`",
        )
    return entry.label


def _merge(old: Mapping[str, object], changes: Mapping[str, object], unset: tuple[str, ...]) -> dict[str, object]:
    merged = {**old, **changes}
    env, added = old.get("env"), changes.get("env")
    if isinstance(env, dict) and isinstance(added, dict):
        merged["env"] = {**env, **added}
    return {name: value for name, value in merged.items() if name not in unset}


def _judge(
    entry: LedgerEntry,
    notebook: str,
    metadata: Mapping[str, object],
    settings: ApptainerConfig,
    places: Places,
    environ: Mapping[str, str],
) -> tuple[Setting, ...]:
    kernelspec = get_kernelspec(entry.kernelspec)
    settled = settle_spec(
        kernelspec.config,
        base_dir=str(kernelspec.folder),
        environ=environ,
        settings=settings,
        places=places,
        kernelspec_env=kernelspec.env,
        notebook=notebook,
        notebook_settings=metadata,
    )
    if settled.warnings:
        # "Not honoured" is no way to answer somebody who asks for it.
        raise SpecError("; ".join(settled.warnings), hint="ask whoever wrote the configuration")
    return settled.settings


def _refuse_shared(entry: LedgerEntry) -> None:
    if entry.shared:
        raise SpecError(
            f"the kernel {entry.kernel_id[:8]} shares its container with others, whose settings these are too",
            hint="`jupyter apptainer kernel edit NAME`, and shut all of them down",
        )
