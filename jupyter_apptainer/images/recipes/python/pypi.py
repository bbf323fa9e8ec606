"""An environment.yml without conda: its packages as requirements for pip, and as packages of Debian.

conda's channels hold more than Python packages, and some of these under other names. What is listed neither here nor in `debian` is
refused, line by line: a package of the same name that somebody else has put on PyPI would be worse than none. A comment behind
a dependency says what it is: `# pip: NAME` or `# apt: NAME…`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..findings import Finding
from .debian import SystemPackages, find_packages
from .environment import CondaPackage

# Names that are the same in conda-forge and on PyPI, and mean the same project.
_NAMES = """
    altair arviz astropy beautifulsoup4 black bokeh bottleneck cartopy click cloudpickle cython dask datashader distributed
    fastapi fastcore flask fsspec gensim geopandas h5netcdf h5py holoviews httpx hvplot imageio ipykernel ipympl ipyparallel
    ipython ipywidgets jinja2 joblib jupyter jupyterlab jupytext keras lightgbm llvmlite lxml mpmath mypy nbclient nbconvert
    nbformat netcdf4 networkx nltk notebook numba numexpr numpy openpyxl packaging pandas panel papermill patsy pillow pint
    pip plotly polars psutil pyarrow pydantic pymc pyproj pytest pyyaml rasterio requests ruff scikit-image scikit-learn
    scipy seaborn setuptools shapely spacy sqlalchemy statsmodels sympy tabulate tornado tqdm traitlets transformers uvicorn
    voila wheel xarray xgboost xlrd xlsxwriter zarr
    """
_SAME = frozenset(_NAMES.split())
# The same project under another name.
_OTHER = {
    "dask-core": "dask",
    "jupyter_client": "jupyter-client",
    "jupyter_core": "jupyter-core",
    "jupyter_server": "jupyter-server",
    "matplotlib": "matplotlib",
    "matplotlib-base": "matplotlib",
    "opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "seaborn-base": "seaborn",
}
_OPERATORS = ("==", ">=", "<=", "!=", "~=", ">", "<")
APT_NAME = re.compile(r"^[a-z0-9][a-z0-9+.:-]*(=\S+)?$")
_SPEC = re.compile(r"^(?:[\w./-]+::)?(?P<name>[A-Za-z0-9_.-]+)\s*(?P<version>.*)$")


@dataclass
class Translation:
    """lines: requirements for pip. python: the versions that are wanted, "" for any. findings: among others, what cannot be had."""

    lines: list[str] = field(default_factory=list)
    python: str = ""
    system: SystemPackages = field(default_factory=SystemPackages)
    findings: list[Finding] = field(default_factory=list)


def translate_packages(packages: Iterable[CondaPackage]) -> Translation:
    """Return what pip and apt shall install."""
    found = Translation()
    for package in packages:
        _translate(found, package)
    return found


def _translate(found: Translation, package: CondaPackage) -> None:
    match = _SPEC.match(package.text.strip())
    name = match["name"].lower() if match else ""
    specifier = translate_version(match["version"]) if match else None
    kind, _, said = (word.strip() for word in package.note.partition(":"))
    known = _OTHER.get(name, name if name in _SAME else "")
    debian = find_packages(name)
    if kind == "apt":
        _add_said_apt(found, package, name, said.split())
    elif specifier is None:
        reason = f"{package.text}: pip has no counterpart for these versions"
        hint = "write NAME=1.2 or NAME>=1.2,<2"
        found.findings.append(Finding(package.line, "error", "version-untranslated", reason, hint))
    elif kind == "pip":
        _add_said_pip(found, package, said, specifier)
    elif name == "python":
        found.python = specifier
    elif known:
        found.lines.append(known + specifier)
    elif debian:
        found.system.add(name, debian, specifier)
        found.lines += [debian.pip] if debian.pip else []
        _tell_debian(found, package, name, debian.apt)
    else:
        found.findings.append(_refuse(package.line, name or package.text))


def _add_said_apt(found: Translation, package: CondaPackage, name: str, words: list[str]) -> None:
    if not words or not all(map(APT_NAME.match, words)):
        hint = "write `# apt: NAME…`, as in `# apt: libgsl-dev`"
        reason = f"{package.note!r} names no packages of Debian"
        found.findings.append(Finding(package.line, "error", "apt-package", reason, hint))
        return
    found.system.add_apt(words)
    _tell_debian(found, package, name, words)


def _add_said_pip(found: Translation, package: CondaPackage, said: str, specifier: str) -> None:
    try:
        requirement = Requirement(said)
    except InvalidRequirement:
        reason = f"{package.note!r} is no requirement of pip"
        found.findings.append(Finding(package.line, "error", "requirement-invalid", reason, "write `# pip: NAME`"))
        return
    found.lines.append(said if requirement.specifier or requirement.url else said + specifier)


def _tell_debian(found: Translation, package: CondaPackage, name: str, apt: Iterable[str]) -> None:
    reason = f"{name} comes from Debian or Ubuntu: {' '.join(apt)}"
    found.findings.append(Finding(package.line, "note", "from-debian", reason))


def translate_version(version: str) -> str | None:
    """Return conda's wish for a version as pip writes it; None where pip cannot say it. A build's name is left out."""
    text = version.strip()
    if not text or text == "*":
        return ""
    if text.startswith(_OPERATORS):
        clauses = ",".join(part.strip() for part in text.split(","))
        return _check(re.sub(r"(?<=[=<>~])\s+", "", clauses))
    if text.startswith("="):
        wanted = text[1:].split("=")[0].strip()
        return _check(f"=={wanted.removesuffix('.*').removesuffix('*')}.*") if wanted else None
    # `numpy 1.26.*`, and `numpy 1.26.4 py311h64a7726_0`.
    return _check(f"=={text.split()[0]}")


def _check(specifier: str) -> str | None:
    try:
        SpecifierSet(specifier)
    except InvalidSpecifier:
        return None
    return specifier


def _refuse(line: int, name: str) -> Finding:
    return Finding(
        line,
        "error",
        "not-on-pypi",
        f"{name} is not known to be the same on PyPI, nor in Debian",
        "say behind it what it is, `# pip: NAME` or `# apt: NAME…`, or build with conda",
    )
