"""Our kernelspecs on disk: one folder each, below Jupyter's data paths, with kernel.json and logos.

A kernelspec is ours where its provisioner is `apptainer-provisioner`; others are never touched. What people write into a
kernel.json by hand stays, and so do files that they keep beside it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir, jupyter_path

from ..errors import SpecError
from ..images.probe import is_python_command
from .spec import ContainerSpec, parse_container_spec, resolve_paths, to_config

PROVISIONER = "apptainer-provisioner"
KERNEL_FILE = "kernel.json"

# jupyter_client.kernelspec has the same rule; "." and ".." fit it, but are no folders of their own.
_NAME = re.compile(r"^(?!\.{1,2}$)[a-z0-9._\-]+$", re.IGNORECASE)
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kernelspec:
    """A kernelspec of ours as it is on disk; `document` is the whole content of its kernel.json."""

    name: str
    folder: Path
    document: Mapping[str, Any]

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return str(self.document.get("display_name") or self.name)

    @property
    def language(self) -> str:
        """The language of the kernel."""
        return str(self.document.get("language") or "")

    @property
    def config(self) -> Mapping[str, object]:
        """The container's configuration, unchecked."""
        config: Mapping[str, object] = _get_provisioner(self.document).get("config", {})
        return config

    @property
    def env(self) -> Mapping[str, str]:
        """The variables at the top of kernel.json."""
        env: Mapping[str, str] = self.document.get("env") or {}
        return env

    def parse(self) -> ContainerSpec:
        """Check the configuration. Raises SpecError."""
        return parse_container_spec(self.config, origin=f"the kernel {self.name} ({self.folder / KERNEL_FILE})")

    def resolve(self, environ: Mapping[str, str]) -> ContainerSpec:
        """Check the configuration and make its paths absolute. Raises SpecError."""
        return resolve_paths(self.parse(), self.folder, environ)


def add_kernelspec(
    name: str,
    spec: ContainerSpec,
    *,
    display_name: str | None = None,
    language: str = "python",
    scope: str | Path = "user",
    replace: bool = False,
    debugger: bool = False,
    curve: bool = False,
    logos: Path | None = None,
    interrupt_mode: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Write a kernelspec and return its folder. Jupyter sees it whole or not at all: kernel.json comes last.

    scope: "user", "sys-prefix", or the path of a prefix, below which it goes to share/jupyter/kernels.
    replace: overwrite one of ours. debugger: the image has debugpy. curve: its ipykernel can encrypt connections.
    logos: a folder with logo-*.png and logo-svg.svg; None for our own. interrupt_mode: None for what suits the command.
    metadata: further entries of the kernelspec's metadata.

    Raises SpecError for a name that Jupyter would not accept or that is taken.
    """
    name = check_name(name)
    folder = find_kernels_dir(scope) / name
    _check_free(name, folder, replace=replace)
    folder.mkdir(parents=True, exist_ok=True)
    for logo in sorted((logos or find_logos(language)).glob("logo-*")):
        shutil.copyfile(logo, folder / logo.name)
    display_name = display_name or build_display_name(spec, name=name, language=language)
    document = build_document(
        folder,
        spec,
        display_name=display_name,
        language=language,
        debugger=debugger,
        curve=curve,
        interrupt_mode=interrupt_mode,
        metadata=metadata,
    )
    _write_document(folder, document)
    return folder


def build_document(
    folder: Path,
    spec: ContainerSpec,
    *,
    display_name: str,
    language: str,
    debugger: bool,
    curve: bool,
    interrupt_mode: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the content of the kernel.json in `folder`. Clients that know no provisioners run its argv.

    interrupt_mode: None for "message" where the kernel is a Python, else "signal", which any program understands.
    """
    metadata = dict(metadata or {})
    if debugger:
        metadata["debugger"] = True
    if curve:
        metadata["supported_encryption"] = ["curve"]
    metadata["kernel_provisioner"] = {"provisioner_name": PROVISIONER, "config": to_config(spec)}
    launch = [sys.executable, "-m", "jupyter_apptainer.launch", "--kernel", str(folder), "-f", "{connection_file}"]
    return {
        "argv": launch,
        "display_name": display_name,
        "language": language,
        "interrupt_mode": interrupt_mode or ("message" if is_python_command(spec.command) else "signal"),
        "metadata": metadata,
    }


def build_display_name(
    spec: ContainerSpec,
    *,
    name: str,
    language: str,
    version: str | None = None,
    title: str | None = None,
    taken: Collection[str] = (),
) -> str:
    """Return a name that tells this container from others, as in "Python 3.11 (starter.sif)".

    version: of the language; two numbers of it are shown. title: in the place of both. taken: names of other kernels, none of which is returned.
    """
    short = ".".join(version.split(".")[:2]) if version else ""
    title = title or " ".join(word for word in (language[:1].upper() + language[1:], short) if word)
    image = spec.image.rstrip("/").rpartition("/")[2]
    candidate = f"{title} ({image})"
    return candidate if candidate not in taken else f"{title} ({image}, {name})"


def iter_kernelspecs() -> Iterator[Kernelspec]:
    """Yield our kernelspecs of all Jupyter paths, by name; one that is hidden by another of the same name is left out."""
    seen: dict[str, Kernelspec | None] = {}
    for parent in jupyter_path("kernels"):
        for folder in _list_folders(Path(parent)):
            if folder.name.lower() not in seen:
                seen[folder.name.lower()] = _load(folder)
    yield from (seen[name] for name in sorted(seen) if seen[name])  # type: ignore[misc]  # None is left out


def get_kernelspec(name: str) -> Kernelspec:
    """Return our kernelspec of that name. Raises SpecError where there is none, or where it is not ours."""
    folders = [f for p in jupyter_path("kernels") for f in _list_folders(Path(p)) if f.name.lower() == name.lower()]
    if folders:
        found = _load(folders[0])
        if found:
            return found
        raise SpecError(
            f"{name} is not a container kernel: {folders[0]} is left alone",
            hint="`jupyter kernelspec list` shows the others",
        )
    names = [spec.name for spec in iter_kernelspecs()]
    near = difflib.get_close_matches(name, names, n=1)
    raise SpecError(
        f"there is no container kernel {name}",
        hint=f"did you mean {near[0]}?" if near else "`jupyter apptainer kernel list` shows those that exist",
    )


def edit_kernelspec(
    name: str, changes: Mapping[str, object], *, display_name: str | None = None, debugger: bool | None = None
) -> Path:
    """Change fields of a kernelspec's configuration and return its folder; all else in its kernel.json stays.

    changes: new values as in kernel.json; None takes the field away. debugger: None leaves the mark as it is.
    Raises SpecError where the result would be wrong; then nothing is written.
    """
    found = get_kernelspec(name)
    document: dict[str, Any] = json.loads(json.dumps(found.document))
    config = {**found.config, **changes}
    config = {field: value for field, value in config.items() if not (field in changes and value is None)}
    parse_container_spec(config, origin=f"the kernel {name}")
    _get_provisioner(document)["config"] = config
    if display_name is not None:
        document["display_name"] = display_name
    if debugger is not None:
        document["metadata"].pop("debugger", None)
        if debugger:
            document["metadata"] = {"debugger": True, **document["metadata"]}
    _write_document(found.folder, document)
    return found.folder


def remove_kernelspec(name: str) -> Path:
    """Remove a kernelspec of ours and return its folder, which stays where it holds files that are not the kernelspec's.

    The image and its overlays are never touched. Raises SpecError for one that is not ours.
    """
    folder = get_kernelspec(name).folder
    if folder.is_symlink():
        folder.unlink()
        return folder
    for file in (folder / KERNEL_FILE, *folder.glob("logo-*")):
        file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
    return folder


def check_name(name: str) -> str:
    """Return the name as Jupyter stores it, in lower case. Raises SpecError for one that it would not accept."""
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"{name!r} cannot be the name of a kernel",
            hint="use letters and digits without accents, dots, dashes and underscores",
        )
    return name.lower()


def find_kernels_dir(scope: str | Path) -> Path:
    """Return the folder for kernelspecs of "user", "sys-prefix", or a prefix."""
    if scope == "user":
        return Path(jupyter_data_dir(), "kernels")
    prefix = sys.prefix if scope == "sys-prefix" else os.path.abspath(scope)
    return Path(prefix, "share", "jupyter", "kernels")


def find_logos(language: str) -> Path:
    """Return the folder with our logos for a language: in the installed package, or in a checkout beside it."""
    kind = "python" if language.lower() == "python" else "other"
    candidates = [root / "kernelspecs" / kind for root in (_PACKAGE, _PACKAGE.parent)]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def _check_free(name: str, folder: Path, *, replace: bool) -> None:
    if not (folder / KERNEL_FILE).exists():
        return
    if _load(folder) is None:
        raise SpecError(
            f"the name {name} belongs to another kernel, which is not a container: {folder}",
            hint="choose another name",
        )
    if not replace:
        raise SpecError(f"there is a container kernel {name} already: {folder}", hint="add --replace, or edit it")


def _list_folders(parent: Path) -> list[Path]:
    try:
        return sorted(folder for folder in parent.iterdir() if (folder / KERNEL_FILE).is_file())
    except OSError:
        return []


def _load(folder: Path) -> Kernelspec | None:
    """Read a kernelspec; None where it is not ours, or where its kernel.json cannot be read."""
    try:
        document = json.loads((folder / KERNEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or _get_provisioner(document).get("provisioner_name") != PROVISIONER:
        return None
    return Kernelspec(folder.name.lower(), folder, document)


def _get_provisioner(document: Mapping[str, Any]) -> dict[str, Any]:
    metadata = document.get("metadata")
    provisioner = metadata.get("kernel_provisioner") if isinstance(metadata, dict) else None
    return provisioner if isinstance(provisioner, dict) else {}


def _write_document(folder: Path, document: Mapping[str, object]) -> None:
    """Write kernel.json in one step, with the permissions that it had, or those of any new file."""
    target = folder / KERNEL_FILE
    descriptor, temporary = tempfile.mkstemp(prefix=f".{KERNEL_FILE}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2, ensure_ascii=False)
            stream.write("\n")
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_read_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _read_umask() -> int:
    # os.umask can only be asked by setting it, which other threads would see.
    match = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match.group(1), 8) if match else 0o022
