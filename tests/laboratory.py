"""Fixtures about images: a registry, a small image in it, and small images on disk, each made once for all tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.build import build_image
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.images.transfer import Settings
from jupyter_apptainer.places import Places
from tests.registry import OciImage, Registry, make_oci_image, make_root, start_registry

_PROGRAMS = [
    "sh",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "date",
    "dirname",
    "echo",
    "env",
    "gzip",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sleep",
    "stat",
    "tar",
    "test",
    "touch",
]

# What every image of the tests is built from: two apps, a label, a help text.
DEFINITION = """\
Bootstrap: localimage
From: {root}

%labels
    org.example.purpose tests

%help
    A shell, and nothing else.

%runscript
    exec sh "$@"

%appinstall tide
    echo high > level

%apprun tide
    exec sh -c 'read level < level && echo "$level"'

%apprun shore
    exec echo sand
"""


@dataclass(frozen=True)
class Lab:
    """A folder of its own for the engine's passwords, keys and cache, and how it reaches the registries."""

    engine: EngineInfo
    places: Places
    environ: dict[str, str]

    def settings(self, registry: Registry | None = None, *, is_plain: bool = True, trusts: bool = True) -> Settings:
        """Return how a registry is reached."""
        certificate = registry.certificate if registry and trusts else None
        return Settings(
            no_https=("*",) if is_plain and certificate is None else (),
            ca_bundle=str(certificate) if certificate else None,
            environ=self.environ,
        )


@pytest.fixture(scope="session")
def lab(engine: EngineInfo, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    names = ("CONFIGDIR", "CACHEDIR")
    own = {f"{prefix}_{name}": str(folder / name) for prefix in ("APPTAINER", "SINGULARITY") for name in names}
    return Lab(engine, places, {**os.environ, **own})


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def registry(places: Places, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that speaks plain http and wants no password."""
    found = start_registry(tmp_path_factory.mktemp("plain") / "r", storage)
    yield found
    found.end()


@pytest.fixture(scope="session")
def closed_registry(places: Places, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with the same images, with TLS of an authority of its own, and a password."""
    found = start_registry(tmp_path_factory.mktemp("tls") / "r", storage, has_tls=True, has_password=True)
    yield found
    found.end()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with a shell in it."""
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def oci_image(root: Path, registry: Registry) -> OciImage:
    """A small image that is in the registries as lab/tiny:1."""
    image = make_oci_image(root)
    image.push(registry, "lab/tiny", "1")
    return image


@pytest.fixture(scope="session")
def small_sif(lab: Lab, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SIF with labels and apps. Read only: copy it to change it."""
    folder = tmp_path_factory.mktemp("small")
    definition = folder / "small.def"
    definition.write_text(DEFINITION.format(root=root))
    env = build_engine_environment(lab.environ)
    build = build_image_build(lab.engine, str(folder / "small.sif"), str(definition), env, mksquashfs_args="-comp zstd")
    Runner().run(build)
    return folder / "small.sif"


@pytest.fixture(scope="session")
def small_image(engine: EngineInfo, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of a shell and a few programs of this host: it is built and unpacked in no time."""
    folder = tmp_path_factory.mktemp("small")
    programs = [found for name in _PROGRAMS if (found := shutil.which(name))]
    listing = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = sorted(set(re.findall(r"(/\S+) \(0x", listing)))
    lines = [f"    {program} /usr/bin/" for program in programs] + [f"    {path}" for path in libraries]
    lines.append("    /etc/os-release")
    setup = 'cd "$APPTAINER_ROOTFS" && mkdir -p usr/bin mnt opt && ln -sfn usr/bin bin'
    text = "\n".join(
        ["Bootstrap: scratch", "", "%setup", f"    {setup}", "%files", *lines, "", "%post", "    true", ""]
    )
    definition = folder / "small.def"
    definition.write_text(text)
    return build_image(engine, places, load_definition(definition), folder / "small.sif").path


@pytest.fixture(scope="session")
def key(lab: Lab) -> Lab:
    """A key to sign with, in the laboratory's own ring; its passphrase is `sea salt`."""
    names = ("--name", "Ada", "--email", "ada@example.org", "--comment", "", "--password", "sea salt", "--push=false")
    subprocess.run(
        [lab.engine.path, "key", "newpair", "--bit-length", "2048", *names],
        env=lab.environ,
        check=True,
        capture_output=True,
    )
    return lab
