"""Programs that bring their own C library: which libraries they need, and how they are made to find them.

Everything is asked of the new loader itself, so nothing has to be known about the libraries of any version.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .step import StepError, run_step

# Opened while running, so no program names it: threads cannot be cancelled without it (pthread_cancel(3)).
_OPENED_AT_RUN_TIME = ("libgcc_s.so.1",)


@dataclass(frozen=True)
class Loader:
    """The dynamic loader of the unpacked packages, and the folders where their libraries lie."""

    path: Path
    search: tuple[Path, ...]

    def build_argv(self, program: Path, *arguments: str) -> tuple[str, ...]:
        """Return the command line that runs an unpacked program where it lies."""
        folders = ":".join(map(str, self.search))
        return (str(self.path), "--inhibit-cache", "--library-path", folders, str(program), *arguments)

    def find_needed(self, program: Path) -> dict[str, Path]:
        """Return all libraries that `program` needs, by name. Raises StepError for one that is not in `search`."""
        argv = self.build_argv(program)
        listing = run_step((*argv[:-1], "--list", argv[-1]), f"list the libraries of {program.name}").stdout
        return parse_needed(listing, program.name, self.search)


def find_loader(root: Path) -> Loader:
    """Find the loader below an unpacked system. Raises StepError."""
    for pattern in ("usr/lib/*/ld-linux*.so.*", "usr/lib*/ld*.so.*", "lib/*/ld-linux*.so.*", "lib*/ld*.so.*"):
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                return Loader(path, (path.parent, *(each for each in (root / "usr/lib",) if each != path.parent)))
    raise StepError("the downloaded packages contain no loader of programs")


def parse_needed(listing: str, program: str, search: Sequence[Path]) -> dict[str, Path]:
    """Parse the loader's `--list`: each library and where it was found. One that the host had to lend is refused."""
    found: dict[str, Path] = {}
    for line in listing.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        path = Path(rest.rsplit(" (", 1)[0])
        if not arrow:
            continue
        if path.parent not in search:
            raise StepError(f"{program} needs {name}, which none of the downloaded packages has")
        found[Path(name).name] = path
    return found


def link_programs(
    programs: Sequence[Path], libraries: Sequence[Path], loader: Loader, patchelf: Path, target: Path
) -> None:
    """Copy all that `programs` and `libraries` need to `target`, and make the programs look for it there."""
    needed = {loader.path.name: loader.path}
    for each in (*programs, *libraries):
        needed |= loader.find_needed(each)
    opened = (folder / name for name in _OPENED_AT_RUN_TIME for folder in loader.search)
    needed |= {path.name: path for path in opened if path.exists()}
    target.mkdir(parents=True)
    for name, path in needed.items():
        shutil.copy2(path, target / name)
    for each in programs:
        title = f"link {each.name}"
        run_step(loader.build_argv(patchelf, "--set-interpreter", str(target / loader.path.name), str(each)), title)
        # DT_RPATH and not DT_RUNPATH: it counts for the libraries of libraries, and for preloaded ones.
        run_step(loader.build_argv(patchelf, "--force-rpath", "--set-rpath", str(target), str(each)), title)


def is_elf(path: Path) -> bool:
    """Say whether `path` is a compiled program or library."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"
