"""Secrets for a build: a password or token that scripts read from a file, and that nothing keeps.

They lie in a folder of this user's in memory (where the machine has one) while the build runs, and are shown to it read-only. A
finished image is searched for them before it gets its name.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError
from ..instances.janitor import remove_tree
from ..places import Places, make_private_dir

# Below the folder of host_settings, for a build has no other place where something can be mounted in any image.
MOUNT_POINT = "/mnt/secrets"
# What is shorter is found by chance everywhere.
_LEAST_BYTES = 8
_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PASSWORD = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")
_REDACTED = "…"
_PREFIX = "secrets-"


@dataclass(frozen=True)
class SecretSource:
    """Where a secret comes from: the file `path`, or the variable `variable`. name: of the file that scripts read."""

    name: str
    path: str = ""
    variable: str = ""

    def load(self, environ: Mapping[str, str]) -> bytes:
        """Read it. Raises SpecError, which never has the value in it."""
        if self.variable:
            if self.variable not in environ:
                raise SpecError(f"secret {self.name}: the variable {self.variable} is not set")
            return os.fsencode(environ[self.variable])
        try:
            with open(self.path, "rb") as stream:
                content = stream.read(_MAX_BYTES + 1)
        except OSError as error:
            raise SpecError(f"secret {self.name}: {self.path}: {error.strerror}") from error
        if len(content) > _MAX_BYTES:
            raise SpecError(f"secret {self.name}: {self.path} is larger than {_MAX_BYTES >> 20} MiB")
        return content


def parse_secret(text: str) -> SecretSource:
    """Parse `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`, or `id=NAME` for the variable NAME, as Docker has them. Raises SpecError."""
    given = dict(part.partition("=")[::2] for part in text.split(","))
    name = given.pop("id", "")
    kind = given.pop("type", "")
    path = given.pop("src", "") or given.pop("source", "")
    variable = given.pop("env", "")
    is_good = _NAME.fullmatch(name) and not given and kind in ("", "file", "env") and not (path and variable)
    if not is_good or (kind == "file" and not path):
        # The text may be the secret itself.
        raise SpecError(
            "--secret: expected id=NAME,src=FILE or id=NAME,env=VARIABLE",
            hint="the secret itself is not given here, where everybody on the machine could see it",
        )
    if path:
        return SecretSource(name, path=os.path.abspath(os.path.expanduser(path)))
    return SecretSource(name, variable=variable or name)


def find_left_secrets(places: Places) -> list[Path]:
    """Return the folders of builds that were killed."""
    folders = places.runtime.glob(f"{_PREFIX}*-*")
    return [path for path in folders if not os.path.exists(f"/proc/{path.name.split('-')[1]}")]


class Secrets:
    """The secrets of one build."""

    def __init__(self, sources: Iterable[SecretSource], places: Places, environ: Mapping[str, str]) -> None:
        self._sources = tuple(sources)
        self._environ = environ
        self._values: dict[str, bytes] = {}
        self._folder = places.runtime / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"

    def __bool__(self) -> bool:
        return bool(self._sources)

    @property
    def variables(self) -> frozenset[str]:
        """Variables that hold secrets; the engine does not get them."""
        return frozenset(source.variable for source in self._sources if source.variable)

    def hide_passwords(self, texts: Iterable[str]) -> None:
        """Treat the passwords in addresses of proxies and indexes as secrets: they must not stay either."""
        for text in texts:
            for password in _PASSWORD.findall(text):
                self._values[f"a password of the host's settings ({len(self._values)})"] = os.fsencode(password)

    def write(self) -> str:
        """Read all secrets, write them for the build, and return the bind that shows them."""
        given = {source.name: source.load(self._environ) for source in self._sources}
        self._values |= given
        make_private_dir(self._folder.parent)
        self._folder.mkdir(mode=0o700)
        for name, value in given.items():
            descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(value)
        return f"{self._folder}:{MOUNT_POINT}:ro"

    def remove(self) -> None:
        """Remove what was written."""
        remove_tree(str(self._folder))

    def redact(self, text: str) -> str:
        """Return a text without the secrets, line by line for those that have several."""
        for value in self._values.values():
            for line in value.decode("utf-8", "replace").splitlines():
                text = text.replace(line, _REDACTED) if len(line.strip()) >= _LEAST_BYTES else text
        return text

    def list_needles(self) -> dict[bytes, str]:
        """Return what must not be in an image, with the name of each: the values, and usual ways to write them."""
        needles: dict[bytes, str] = {}
        for name, value in self._values.items():
            plain = value.strip()
            if len(plain) >= _LEAST_BYTES:
                quoted = urllib.parse.quote(plain, safe="").encode()
                needles |= dict.fromkeys((plain, quoted, base64.b64encode(plain), base64.b64encode(value)), name)
        return needles
