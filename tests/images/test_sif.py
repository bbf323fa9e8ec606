"""The reader of SIF files against the engine's own words, and against files that are damaged or made to mislead."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.options import build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.errors import ApptainerError, ImageCorrupt, ImageInvalid, SignatureError
from jupyter_apptainer.images.content import find_origin, read_content
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.sif import MAX_TEXT_BYTES, read_json, read_sif, read_text
from jupyter_apptainer.images.signing import sign_image, verify_image
from tests.laboratory import Lab

_TABLE, _DESCRIPTOR = 4096, 585


def ask_engine(lab: Lab, *words: str) -> str:
    env = build_engine_environment(lab.environ)
    return subprocess.run([lab.engine.path, *words], env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def copy(small_sif: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(small_sif, tmp_path / "copy.sif"))


def test_objects_are_those_that_the_engine_lists(lab: Lab, small_sif: Path) -> None:
    rows = re.findall(r"^(\d+) +\|.*?\|(\d+)-(\d+) +\|", ask_engine(lab, "sif", "list", str(small_sif)), re.MULTILINE)
    found = read_sif(str(small_sif)).objects
    assert [(each.id, each.offset, each.offset + each.size_bytes) for each in found] == [
        tuple(map(int, row)) for row in rows
    ]
    assert read_sif(str(small_sif)).uuid in ask_engine(lab, "sif", "header", str(small_sif))


def test_content_is_what_the_engine_tells(lab: Lab, small_sif: Path) -> None:
    told = json.loads(ask_engine(lab, "inspect", "--json", "--all", str(small_sif)))["data"]["attributes"]
    content = read_content(check_image(str(small_sif)))
    assert content.labels == told["labels"]
    assert content.labels["org.example.purpose"] == "tests"
    assert (content.definition or "").strip() == told["deffile"]
    assert (content.runscript, content.help) == (told["runscript"], told["helpfile"])
    assert content.apps == tuple(ask_engine(lab, "inspect", "--list-apps", str(small_sif)).split())
    assert (content.compression, content.file_system, content.architecture) == ("zstd", "squashfs", "amd64")
    assert content.origin
    assert content.origin.startswith("localimage /")
    assert not content.signatures


def test_unpacked_image_says_the_same(lab: Lab, small_sif: Path, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    env = build_engine_environment(lab.environ)
    Runner().run(build_image_build(lab.engine, str(folder), str(small_sif), env, is_sandbox=True))
    packed, unpacked = read_content(check_image(str(small_sif))), read_content(check_image(str(folder)))
    assert unpacked.apps == packed.apps == ("shore", "tide")
    assert unpacked.labels["org.example.purpose"] == "tests"
    assert unpacked.file_system == "folder"
    # Whatever lies in an image, no file outside of it is read, and nothing is waited for.
    marks = folder / ".singularity.d"
    for name, replacement in (("runscript", "/etc/hostname"), ("Singularity", None)):
        (marks / name).unlink()
        os.symlink(replacement, marks / name) if replacement else os.mkfifo(marks / name)
    (marks / "labels.json").write_text("[" * 100_000)
    spoilt = read_content(check_image(str(folder)))
    assert (spoilt.runscript, spoilt.definition, spoilt.labels) == (None, None, {})


def test_embedded_overlay_is_seen(lab: Lab, copy: Path) -> None:
    ask_engine(lab, "overlay", "create", "--size", "64", str(copy))
    assert read_content(check_image(str(copy))).overlay_bytes == (64 * 1024 * 1024,)


def test_signature_is_seen_checked_and_broken(key: Lab, copy: Path) -> None:
    environ = key.environ
    with pytest.raises(SignatureError, match="not signed"):
        verify_image(key.engine, str(copy), environ, is_local=True)
    with pytest.raises(SignatureError, match="passphrase"):
        sign_image(key.engine, key.places, str(copy), environ, passphrase="river salt")
    sign_image(key.engine, key.places, str(copy), environ, passphrase="sea salt")
    (signer,) = verify_image(key.engine, str(copy), environ, is_local=True)
    assert signer.name.startswith("Ada")
    assert (signer.is_local, signer.is_intact) == (True, True)
    (signature,) = read_content(check_image(str(copy))).signatures
    assert (signature.fingerprint, signature.hash) == (signer.fingerprint, "SHA-256")

    stranger = {**environ, "APPTAINER_CONFIGDIR": f"{copy}.d", "SINGULARITY_CONFIGDIR": f"{copy}.d"}
    with pytest.raises(SignatureError, match="does not know") as caught:
        verify_image(key.engine, str(copy), stranger, is_local=True)
    assert "key import" in (caught.value.hint or "")
    with pytest.raises(SignatureError, match="no key to sign") as caught:
        sign_image(key.engine, key.places, str(copy), stranger)
    assert "key newpair" in (caught.value.hint or "")

    other = Path(shutil.copy(copy, f"{copy}.2"))
    overlay = ("--datatype", "4", "--parttype", "4", "--partfs", "2", "--partarch", "2")
    ask_engine(key, "sif", "add", *overlay, str(other), "/bin/sh")
    system = read_sif(str(copy)).system_partition
    assert system
    with copy.open("r+b") as stream:
        stream.seek(system.offset + system.size_bytes // 2)
        stream.write(b"tampered")
    for spoilt in (copy, other):
        with pytest.raises(SignatureError, match="has been changed, or something was added"):
            verify_image(key.engine, str(spoilt), environ, is_local=True)


def test_folder_carries_no_signature(lab: Lab, root: Path) -> None:
    with pytest.raises(ImageInvalid, match="only SIF files"):
        verify_image(lab.engine, str(root), lab.environ)


# --- damaged files


def read_all(path: Path) -> None:
    """Read everything that the catalogue would."""
    read_content(check_image(str(path)))
    sif = read_sif(str(path))
    for each in (*sif.find("definition"), *sif.find("json")):
        read_text(sif, each)


@pytest.mark.parametrize("size", [0, 31, 41, 42, 64, 127, 128, 4095, 4097, 32_000, 33_000, 500_000])
def test_file_that_is_cut_short(copy: Path, size: int) -> None:
    os.truncate(copy, size)
    with pytest.raises((ImageInvalid, ImageCorrupt)):
        read_sif(str(copy))
    with pytest.raises((ImageInvalid, ImageCorrupt)):
        read_all(copy)


def test_any_change_of_header_and_table_is_read_or_refused(copy: Path) -> None:
    good = copy.read_bytes()
    numbers = random.Random(7)
    refused = 0
    for _ in range(1500):
        content = bytearray(good[: _TABLE + 6 * _DESCRIPTOR + 2000])
        for _ in range(numbers.choice((1, 2, 8))):
            place = numbers.choice((numbers.randrange(32, 128), numbers.randrange(_TABLE, _TABLE + 4 * _DESCRIPTOR)))
            content[place] = numbers.choice((0, 1, 0x7F, 0xFF, numbers.randrange(256)))
        with copy.open("r+b") as stream:
            stream.write(content)
        try:
            read_all(copy)
        except ApptainerError:
            refused += 1
    assert refused > 100


def patch(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(content)


@pytest.mark.parametrize(
    ("place", "content", "says"),
    [
        pytest.param(64 + 3 * 8, (2**40).to_bytes(8, "little"), "damaged header", id="too-many-descriptors"),
        pytest.param(64 + 4 * 8, (2**62).to_bytes(8, "little"), "cut short", id="table-far-away"),
        pytest.param(_TABLE + 17, (2**62).to_bytes(8, "little"), "outside of the file", id="object-far-away"),
        pytest.param(_TABLE + 17, (-5).to_bytes(8, "little", signed=True), "outside of the file", id="object-before"),
        pytest.param(_TABLE + 25, (2**62).to_bytes(8, "little"), "outside of the file", id="object-endless"),
    ],
)
def test_misleading_numbers_are_named(copy: Path, place: int, content: bytes, says: str) -> None:
    patch(copy, place, content)
    with pytest.raises(ImageCorrupt, match=says):
        read_sif(str(copy))


def test_definition_of_gigabytes_is_not_read(copy: Path) -> None:
    os.truncate(copy, 8 * 1024**3)
    patch(copy, _TABLE + 25, (4 * 1024**3).to_bytes(8, "little"))
    sif = read_sif(str(copy))
    (definition,) = sif.find("definition")
    assert definition.size_bytes > MAX_TEXT_BYTES
    with pytest.raises(ImageCorrupt, match="too large"):
        read_text(sif, definition)


def test_metadata_that_is_no_json(copy: Path) -> None:
    sif = read_sif(str(copy))
    metadata = sif.find("json")[0]
    patch(copy, metadata.offset, b"]")
    with pytest.raises(ImageCorrupt, match="no JSON"):
        read_json(sif, metadata)
    with pytest.raises(ImageCorrupt, match="no JSON"):
        read_content(check_image(str(copy)))


def test_file_system_without_beginning(copy: Path) -> None:
    system = read_sif(str(copy)).system_partition
    assert system
    patch(copy, system.offset, b"\0" * 96)
    with pytest.raises(ImageCorrupt, match="no valid beginning"):
        read_content(check_image(str(copy)))


@pytest.mark.parametrize(
    ("definition", "origin"),
    [
        ("Bootstrap: docker\nFrom: debian:12\n", "docker://debian:12"),
        ("bootstrap: library\nfrom: lab/tools\n%post\nFrom: nothing", "library://lab/tools"),
        ("Bootstrap: debootstrap\nOSVersion: bookworm\n", "debootstrap bookworm"),
        ("Bootstrap: localimage\nFrom: /x.sif\n", "localimage /x.sif"),
        ("Bootstrap: scratch\n", "scratch"),
        ("%post\n", None),
        (None, None),
    ],
)
def test_origin_from_a_definition_file(definition: str | None, origin: str | None) -> None:
    assert find_origin({}, definition) == origin
