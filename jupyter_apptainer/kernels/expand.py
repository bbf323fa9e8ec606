"""Host paths as people write them in a kernel.json: `~`, `~name`, `$VAR`, `${VAR}`, and relative to that file's folder."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


def resolve_path(path: str, base_dir: str | os.PathLike[str], environ: Mapping[str, str]) -> str:
    """Return the absolute path that `path` means, with `environ` as the variables; `$$` is a dollar sign.

    Links stay as they are. Raises LookupError where a variable is not set or a user does not exist.
    """
    filled = _VARIABLE.sub(lambda match: _fill(match, environ), _fill_home(path, environ))
    return os.path.normpath(os.path.join(os.path.abspath(base_dir), filled))


def _fill(match: re.Match[str], environ: Mapping[str, str]) -> str:
    dollar, plain, braced = match.groups()
    if dollar:
        return "$"
    name = plain or braced
    value = environ.get(name)
    if not value:
        raise LookupError(f"the variable {name} is not set")
    return value


def _fill_home(path: str, environ: Mapping[str, str]) -> str:
    if not path.startswith("~"):
        return path
    user, slash, rest = path[1:].partition("/")
    if user:
        try:
            home = pwd.getpwnam(user).pw_dir
        except KeyError:
            raise LookupError(f"there is no user {user}") from None
    else:
        home = environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return home + slash + rest
