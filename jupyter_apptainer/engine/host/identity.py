"""Subordinate ids, which `--fakeroot` and builds use."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from ..locate import load_capabilities
from .probe import ROOT, Probe, read_text

WANTED_IDS = 65536


def probe_fakeroot(*, root: Path = ROOT, uid: int | None = None) -> Probe:
    """Say which of the engine's fakeroot modes this user gets: mapped ids, or the fakeroot command."""
    name = "fakeroot"
    uid = os.geteuid() if uid is None else uid
    if uid == 0 and not load_capabilities().missing:
        return Probe(name, "ok", "root builds without it")
    user = _find_user_name(uid)
    counts = {file: count_subordinate_ids(root / "etc" / file, user, uid) for file in ("subuid", "subgid")}
    fix = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    if all(count >= WANTED_IDS for count in counts.values()):
        return Probe(name, "ok", f"{user} has {counts['subuid']} subordinate ids: builds map them")
    seen = ", ".join(f"{count} in /etc/{file}" for file, count in counts.items())
    if uid == 0:
        return Probe(name, "warn", f"root lacks capabilities and has too few subordinate ids ({seen}): no builds", fix)
    how = (
        "the fakeroot command" if shutil.which("fakeroot") else "a namespace with one id, for fakeroot is not installed"
    )
    detail = (
        f"{user} has too few subordinate ids ({seen}): builds go through {how}, where some packages fail to install"
    )
    return Probe(name, "warn", detail, fix)


def count_subordinate_ids(path: Path, user: str, uid: int) -> int:
    """Return the size of the largest range of `user`, by name or number, in a file of the format of subuid(5)."""
    sizes = [0]
    for line in read_text(path).splitlines():
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in (user, str(uid)) and fields[2].isdigit():
            sizes.append(int(fields[2]))
    return max(sizes)


def _find_user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
