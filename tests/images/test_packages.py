"""What files of an image say about installed packages, from the formats' own descriptions."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

import pytest

from jupyter_apptainer.images.packages import Package, find_packages, is_wanted
from jupyter_apptainer.images.pins import build_constraints, build_preferences, list_pins

SITE = "opt/venv/lib/python3.11/site-packages"
METADATA = "Metadata-Version: 2.1\nName: Widget_Lib\nVersion: 1.0+local\nLicense: Name: not this\n\nName: body\n"
CASES: dict[str, tuple[dict[str, str], list[Package]]] = {
    "dpkg": (
        {
            "var/lib/dpkg/status": "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n"
            "Description: x\n more\n\nPackage: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36-9\n\n"
            "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: bash\nStatus: install ok installed\nVersion: 5.2\n"
        },
        [
            Package("dpkg", "", "bash", "5.2"),
            Package("dpkg", "", "libc6:amd64", "2.36-9"),
            Package("dpkg", "", "libc6:i386", "2.36-9"),
        ],
    ),
    "distroless": (
        {"var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2024a\n"},
        [Package("dpkg", "", "tzdata", "2024a")],
    ),
    "apk": (
        {"lib/apk/db/installed": "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:busybox\nV:1.36-r5\n"},
        [Package("apk", "", "busybox", "1.36-r5"), Package("apk", "", "musl", "1.2.4-r2")],
    ),
    "python": (
        {f"{SITE}/widget_lib-1.0.dist-info/METADATA": METADATA},
        [Package("python", f"/{SITE}", "Widget_Lib", "1.0+local")],
    ),
    "python from an archive": (
        {
            f"{SITE}/widget_lib-1.0.dist-info/METADATA": METADATA,
            f"{SITE}/widget_lib-1.0.dist-info/direct_url.json": json.dumps(
                {"url": "https://me:pass@host/w.whl", "archive_info": {"hashes": {"sha256": "ab12"}}}
            ),
        },
        [Package("python", f"/{SITE}", "Widget_Lib", "1.0+local", "https://host/w.whl", "ab12")],
    ),
    "python from git": (
        {
            f"{SITE}/widget_lib-1.0.dist-info/METADATA": METADATA,
            f"{SITE}/widget_lib-1.0.dist-info/direct_url.json": json.dumps(
                {"url": "https://host/w", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
            ),
        },
        [Package("python", f"/{SITE}", "Widget_Lib", "1.0+local", "git+https://host/w@c0ffee")],
    ),
    "egg-info": (
        {"usr/lib/python3/dist-packages/six.egg-info": "Name: six\nVersion: 1.16\n"},
        [Package("python", "/usr/lib/python3/dist-packages", "six", "1.16")],
    ),
    "conda": (
        {
            "opt/env/conda-meta/numpy-1.26.4-py311_0.json": json.dumps(
                {
                    "name": "numpy",
                    "version": "1.26.4",
                    "build": "py311_0",
                    "url": "https://u:p@host/t/secret/c/numpy.conda",
                    "sha256": "cd34",
                }
            ),
            "opt/env/conda-meta/broken.json": "{",
        },
        [Package("conda", "/opt/env", "numpy", "1.26.4=py311_0", "https://host/c/numpy.conda", "cd34")],
    ),
    "r": (
        {"usr/lib/R/site-library/ggplot2/DESCRIPTION": "Package: ggplot2\nVersion: 3.4.1\nTitle: plots\n"},
        [Package("r", "/usr/lib/R/site-library", "ggplot2", "3.4.1")],
    ),
    "julia": (
        {"opt/julia/packages/JSON/93Ea8/Project.toml": 'name = "JSON"\nversion = "0.21.4"\n[deps]\n'},
        [Package("julia", "/opt/julia/packages", "JSON", "0.21.4")],
    ),
    "nothing": ({f"{SITE}/empty.dist-info/METADATA": "", "etc/passwd": "root"}, []),
}


@pytest.mark.parametrize(("files", "expected"), CASES.values(), ids=CASES)
def test_packages_are_found(files: dict[str, str], expected: list[Package]) -> None:
    assert list(find_packages({path: text.encode() for path, text in files.items() if is_wanted(path)})) == expected


def test_packages_of_rpm_are_found(tmp_path: Path) -> None:
    """A database as rpm makes it: a table of headers, each an index and its data in network order."""
    values = {
        1000: (6, b"bash\0"),
        1001: (6, b"5.2.26\0"),
        1002: (6, b"4.el9\0"),
        1003: (4, struct.pack(">I", 1)),
        1022: (6, b"x86_64\0"),
    }
    index, data = b"", b""
    for tag, (kind, value) in values.items():
        data += b"\0" * (-len(data) % 4)
        index += struct.pack(">IIII", tag, kind, len(data), 1)
        data += value
    blob = struct.pack(">II", len(values), len(data)) + index + data
    path = tmp_path / "rpmdb.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,), (b"\0\0",)])
    database.close()
    files = {"usr/lib/sysimage/rpm/rpmdb.sqlite": path.read_bytes(), "var/lib/rpm/rpmdb.sqlite": b"not a database"}
    assert find_packages(files) == (Package("rpm", "", "bash.x86_64", "1:5.2.26-4.el9"),)


def test_pins_leave_free_what_is_there_twice() -> None:
    packages = [
        Package("python", "/usr/lib/python3/dist-packages", "six", "1.16"),
        Package("python", "/opt/a/site-packages", "six", "1.17"),
        Package("python", "/opt/a/site-packages", "numpy", "1.26"),
        Package("python", "/opt/b/site-packages", "numpy", "2.0"),
        Package("dpkg", "", "bash", "5.2"),
    ]
    assert build_constraints(packages) == "six==1.17\n"
    conda = Package("conda", "/opt/env", "numpy", "1.26=py311_0", "https://host/c/numpy.conda", "cd34")
    assert list_pins([conda])["conda"] == "@EXPLICIT\nhttps://host/c/numpy.conda\n"
    assert list_pins(packages)["dpkg"] == "bash=5.2\n"
    assert build_preferences(packages) == "Package: bash\nPin: version 5.2\nPin-Priority: 999\n"
