"""Definition files for Python environments, made of what the recipes of Python say. Pure: text from values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ..base import Base
from ..write import StageDraft, build_print, render_definition
from .debian import SystemPackages

# Where what is needed during the build alone waits.
STAGING = "/.copied"
_APT = "apt-get -o APT::Sandbox::User=root -qq"
_INSTALL = f"{_APT} -y --no-install-recommends install"
# A Python that is not the system's own has its headers with it.
_INSTALL_HEADERS = (
    'python3 -c \'import os, sysconfig; raise SystemExit(os.path.exists(sysconfig.get_path("include") + "/Python.h"))\' '
    f"&& {_INSTALL} python3-dev"
)
_PIP = "python3 -m pip install"
_PIP_SETTINGS = "export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore"
_CONSTRAINTS = "system.txt"
_SYSTEM_PROGRAM = """\
import re, subprocess, sys
from pip._vendor.packaging.specifiers import SpecifierSet
def find_version(package):
    text = subprocess.check_output(["dpkg-query", "-W", "-f", "${{Version}}", package], text=True)
    return re.sub(r"^[0-9]+:|-[^-]*$|[+~].*", "", text)
for name, package, versions in {wanted}:
    found = find_version(package)
    if found not in SpecifierSet(versions):
        sys.exit(f"the recipe wants {{name}} {{versions}}, and this system has {{found}}: choose another with --base")
with open("{constraints}", "w") as stream:
    for name, package in {fitted}:
        print(name + "==" + ".".join(find_version(package).split(".")[:2]) + ".*", file=stream)
"""
_TEST = ["python3 -c 'import ipykernel'"]


@dataclass(frozen=True)
class BaseSystem:
    """What an image begins with. headers: for debootstrap. apt_source: a line of sources.list(5), during the build alone."""

    base: Base
    headers: Mapping[str, str] = field(default_factory=dict)
    apt_source: str = ""


@dataclass(frozen=True)
class Extras:
    """What a folder adds. apt: packages of the system. files: (source, destination). script: run at the end, in `folder`."""

    apt: Sequence[str] = ()
    files: Sequence[tuple[str, str]] = ()
    script: Sequence[str] = ()
    notes: Sequence[str] = ()


def build_pip_definition(
    system: BaseSystem,
    lines: Sequence[str],
    files: Iterable[str],
    extras: Extras,
    project: str = "",
    *,
    python: str = "",
    variables: Mapping[str, str] | None = None,
    packages: SystemPackages | None = None,
) -> str:
    """Return the definition for requirements.

    project: the folder below STAGING to install, or "". python: the versions of Python that will do, as pip writes them.
    variables: for the finished image. packages: what the system has of the environment.
    """
    packages = packages or SystemPackages()
    draft = _begin(system, files, extras)
    draft.post += _build_apt(system, [*extras.apt, *packages.apt], has_headers=bool(packages.fitted))
    draft.post += _choose_python()
    draft.post += _check_python(python)
    draft.post += _check_system(packages)
    lines = [f"--constraint {_CONSTRAINTS}", *lines] if packages.fitted else lines
    if lines:
        draft.post += ["", _mark(draft, exclude=("project", "folder"))]
        draft.post += _write_file(f"{STAGING}/requirements.txt", "\n".join(lines))
        draft.post += ["echo '== Installing the Python packages'", f"( cd {STAGING} && {_PIP} -r requirements.txt )"]
    if project:
        draft.post += ["", f"# layer: {STAGING}/{project}"]
        draft.post += ["echo '== Installing the project'", f"{_PIP} {STAGING}/{project}"]
    draft.post += [f"python3 -c 'import ipykernel' 2>/dev/null || {_PIP} ipykernel"]
    draft.environment = [
        'export PATH="/opt/venv/bin:$PATH"',
        "export LANG=C.UTF-8",
        *_build_variables({**packages.variables, **(variables or {})}),
    ]
    return _finish(draft, system, extras)


def build_conda_definition(
    system: BaseSystem,
    environment: str,
    below: str,
    files: Iterable[str],
    variables: Mapping[str, str],
    extras: Extras,
) -> str:
    """Return the definition for an environment.yml. below: its folder, below that of all files."""
    place = str(PurePosixPath(STAGING, below))
    draft = _begin(system, files, extras)
    draft.post += _build_apt(system, extras.apt)
    draft.post += ["", _mark(draft, exclude=("folder",))]
    draft.post += [f"mkdir -p {shlex.quote(place)}", f"cd {shlex.quote(place)}"]
    draft.post += _write_file("environment.yml", environment)
    draft.post += [
        "",
        "echo '== Creating the environment'",
        "for conda in micromamba mamba conda none; do ! command -v $conda >/dev/null || break; done",
        "case $conda in",
        '    none) echo "no micromamba, mamba or conda in this image: choose another with --base" >&2; exit 1 ;;',
        "    micromamba) micromamba create -y -p /opt/env -f environment.yml ;;",
        "    *) $conda env create -p /opt/env -f environment.yml ;;",
        "esac",
        "cd /",
        "/opt/env/bin/python -c 'import ipykernel' 2>/dev/null || $conda install -y -p /opt/env -c conda-forge ipykernel",
        "$conda clean -a -y >/dev/null",
        'export PATH="/opt/env/bin:$PATH"',
    ]
    draft.environment = [
        'export PATH="/opt/env/bin:$PATH"',
        "export CONDA_PREFIX=/opt/env",
        "export LANG=C.UTF-8",
        *_build_variables(variables),
    ]
    return _finish(draft, system, extras)


def _begin(system: BaseSystem, files: Iterable[str], extras: Extras) -> StageDraft:
    draft = StageDraft(system.base.agent, system.base.reference, headers=dict(system.headers), notes=list(extras.notes))
    draft.files = [(path, f"{STAGING}/{path}", "") for path in dict.fromkeys(files)]
    draft.files += [(source, target, "") for source, target in extras.files]
    draft.post = [f"mkdir -p {STAGING}", _PIP_SETTINGS]
    return draft


def _finish(draft: StageDraft, system: BaseSystem, extras: Extras) -> str:
    if extras.script:
        draft.post += ["", f"# layer: {STAGING}/folder", "echo '== Running postBuild'", *extras.script]
    draft.post += ["", "# layer", "echo '== Cleaning up'", "cd /", f"rm -rf {STAGING} /root/.cache"]
    if system.apt_source:
        # Where it came from is nobody's business elsewhere, and may not be reachable there.
        draft.post += [": >/etc/apt/sources.list", "rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*"]
    draft.runscript = ['exec python3 "$@"']
    draft.test = _TEST
    return render_definition([draft])


def _mark(draft: StageDraft, exclude: Sequence[str]) -> str:
    """Return the mark of a layer to which all waiting files belong but those in folders of others; see `images.layering`."""
    waiting = [target for _, target, _ in draft.files if target.startswith(f"{STAGING}/")]
    own = [path for path in waiting if PurePosixPath(path).relative_to(STAGING).parts[0] not in exclude]
    return f"# layer: {' '.join(own)}" if own else "# layer"


def _build_apt(system: BaseSystem, packages: Sequence[str], *, has_headers: bool = False) -> list[str]:
    lines: list[str] = []
    wanted = list(packages)
    if system.apt_source:
        # Ubuntu has python3-venv outside the part that debootstrap reads.
        lines.append(f"echo {shlex.quote(system.apt_source)} >/etc/apt/sources.list")
        wanted.append("python3-venv")
    if not wanted:
        return []
    return [
        *lines,
        "echo '== Installing the packages of the system'",
        "if ! command -v apt-get >/dev/null; then",
        '    echo "no apt in this image: choose one of Debian or Ubuntu with --base" >&2',
        "    exit 1",
        "fi",
        "export DEBIAN_FRONTEND=noninteractive",
        f"{_APT} update",
        f"{_INSTALL} {' '.join(shlex.quote(name) for name in wanted)}",
        *([_INSTALL_HEADERS] if has_headers else []),
        "rm -rf /var/lib/apt/lists/*",
    ]


def _choose_python() -> list[str]:
    managed = 'os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")'
    return [
        "",
        "# Into the image's own Python, or into a virtual environment where that one belongs to the system.",
        'export PATH="/opt/venv/bin:$PATH"',
        "if ! command -v python3 >/dev/null; then",
        '    echo "no Python in this image: choose another with --base" >&2',
        "    exit 1",
        "fi",
        f"python3 -c 'import os, pip, sys, sysconfig; sys.exit(os.path.exists({managed}))' 2>/dev/null \\",
        "    || python3 -m venv /opt/venv",
    ]


def _check_python(wanted: str) -> list[str]:
    if not wanted:
        return []
    code = (
        "import platform; from pip._vendor.packaging.specifiers import SpecifierSet; "
        f"raise SystemExit(platform.python_version() not in SpecifierSet({wanted!r}))"
    )
    message = f"the recipe wants Python {wanted}, and this image has another: choose another with --base"
    return [f"python3 -c {shlex.quote(code)} || {{ echo {shlex.quote(message)} >&2; exit 1; }}"]


def _check_system(packages: SystemPackages) -> list[str]:
    """Compare what apt has installed with what the recipe wants, and note down the versions that pip has to compile for."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in packages.variables.items()]
    if not packages.wanted and not packages.fitted:
        return lines
    program = _SYSTEM_PROGRAM.format(
        wanted=json.dumps(packages.wanted),
        fitted=json.dumps(packages.fitted),
        constraints=f"{STAGING}/{_CONSTRAINTS}",
    )
    return [*lines, *_write_file(f"{STAGING}/system.py", program), f"python3 {STAGING}/system.py"]


def _build_variables(variables: Mapping[str, str] | None) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in (variables or {}).items()]


def _write_file(path: str, text: str) -> list[str]:
    first, *rest = build_print(text)
    return ["", first, *rest[:-1], f"{rest[-1]} >{path}"]
