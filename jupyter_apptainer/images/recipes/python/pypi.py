"""An environment.yml without conda: its packages as requirements for pip, where PyPI is known to have the same.

conda's channels hold more than Python packages, and some of these under other names. What is not listed here is refused, line by
line: a package of the same name that somebody else has put on PyPI would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..findings import Finding

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
_SPEC = re.compile(r"^(?:[\w./-]+::)?(?P<name>[A-Za-z0-9_.-]+)\s*(?P<version>.*)$")


def translate_packages(packages: Iterable[tuple[str, int]]) -> tuple[list[str], str, list[Finding]]:
    """Return the requirements, the versions of Python that are wanted (""  for any), and what cannot be had.

    packages: each as conda writes it, with its line.
    """
    lines: list[str] = []
    findings: list[Finding] = []
    python = ""
    for text, number in packages:
        match = _SPEC.match(text.strip())
        name = match["name"].lower() if match else ""
        known = _OTHER.get(name, name if name in _SAME else "")
        specifier = translate_version(match["version"]) if match else None
        if name != "python" and not known:
            findings.append(_refuse(number, name or text))
        elif specifier is None:
            reason = f"{text}: pip has no counterpart for these versions"
            findings.append(Finding(number, "error", "version-untranslated", reason, "write NAME=1.2 or NAME>=1.2,<2"))
        elif name == "python":
            python = specifier
        else:
            lines.append(known + specifier)
    return lines, python, findings


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
        f"{name} is not known to be the same on PyPI",
        "if it is, write it below `- pip:`; if it is no Python package, build with conda, or put Debian's into apt.txt",
    )
