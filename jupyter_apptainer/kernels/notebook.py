"""What a notebook says about its container: the field `apptainer` of its metadata, read from the file when its kernel starts.

The file may be anything and anybody's: it is opened without waiting, and parsed only where the field can be in it at all.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from typing import BinaryIO

from ..errors import PolicyError, SpecError

FIELD = "apptainer"
# For clients that do not tell a kernel which notebook it is for.
VARIABLE = "JUPYTER_APPTAINER_NOTEBOOK"
SESSION_VARIABLE = "JPY_SESSION_NAME"
_SUFFIX = ".ipynb"
_MAX_FILE_BYTES = 256 << 20
_MAX_FIELD_CHARACTERS = 64 << 10
_BLOCK = 1 << 20


def find_notebook(request: Mapping[str, str], own: Mapping[str, str], root: str | None = None) -> str | None:
    """Return the path of the notebook that a kernel is started for, None where that is not known or it is no notebook.

    request: the variables of the start. own: those of this process: a value that stands there as well was inherited, from a kernel
    that we run in, and says nothing about this start. root: the folder that the server shows. Raises PolicyError for a path outside.
    """
    session = request.get(SESSION_VARIABLE, "")
    if session == own.get(SESSION_VARIABLE):
        session = ""
    path = os.path.abspath(os.path.join(root or "", session or request.get(VARIABLE, "")))
    if not path.endswith(_SUFFIX) or "\0" in path:
        return None
    if session and root and not path.startswith(os.path.abspath(root).rstrip("/") + "/"):
        raise PolicyError(
            f"the notebook {path} is outside of this server's folder {root}, so its settings are not read",
            hint="open it by its path below the server's folder",
        )
    return path


def load_settings(path: str) -> Mapping[str, object]:
    """Return the field `apptainer` of the notebook's metadata, unchecked; empty where there is no such file or field.

    Raises SpecError where the file is not a notebook, or the field not an object of reasonable size.
    """
    text = _read(path)
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(
            f"the notebook {path} cannot be read as JSON: {error}", hint="repair it, or make a copy"
        ) from error
    metadata = document.get("metadata") if isinstance(document, dict) else None
    settings = metadata.get(FIELD) if isinstance(metadata, dict) else None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise SpecError(
            f"the notebook {path}: {FIELD} in its metadata is {_name_type(settings)}, expected an object of fields",
            hint='as in {"image": "torch.sif", "nv": true}',
        )
    if len(json.dumps(settings)) > _MAX_FIELD_CHARACTERS:
        raise SpecError(
            f"the notebook {path}: {FIELD} in its metadata has more than {_MAX_FIELD_CHARACTERS} characters",
            hint="take out what does not belong there",
        )
    return settings


def _read(path: str) -> bytes | None:
    """Return the content of a notebook in which the word can be found; None for others, and where there is no file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SpecError(f"the notebook {path} is not a file", hint="make a copy of its content, and open that")
        # Without waiting: a named pipe, should there be one by now, would keep us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise SpecError(
            f"the notebook {path} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    with open(descriptor, "rb") as stream:
        if not _has_field(stream):
            return None
        if os.fstat(descriptor).st_size > _MAX_FILE_BYTES:
            raise SpecError(
                f"the notebook {path} is larger than {_MAX_FILE_BYTES >> 20} MiB, too large to look for its container's settings",
                hint="clear its outputs",
            )
        stream.seek(0)
        return stream.read()


def _has_field(stream: BinaryIO) -> bool:
    """Say whether the word is anywhere in the file; most notebooks do not have it, and need not be parsed."""
    word = f'"{FIELD}"'.encode()
    end = b""
    while block := stream.read(_BLOCK):
        if word in end + block:
            return True
        end = block[-len(word) :]
    return False


def _name_type(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
