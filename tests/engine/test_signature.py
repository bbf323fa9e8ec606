"""Whose keys have signed an image: real keys, a real signature."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from traitlets.config import Config

import jupyter_apptainer.policy as policy_module
from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.engine.api import Engine
from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.engine.signature import build_verify, parse_signers
from jupyter_apptainer.errors import CommandError, EngineOutputError, PolicyError
from jupyter_apptainer.kernels.settle import settle_spec
from jupyter_apptainer.places import Places


@pytest.fixture(scope="module")
def signed(engine: EngineInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A small signed image and the fingerprint of its signer, whose key is in a keyring of its own."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "box/.singularity.d").mkdir(parents=True)
    image = folder / "image.sif"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPTAINER_CONFIGDIR", str(folder / "config"))
        Engine(engine).build(str(image), str(folder / "box"))
        run_engine(engine, "key", "newpair", "-N", "Ann", "-E", "ann@example.org", "-C", "", "-P", "", "--push=false")
        fingerprint = re.search(r"Fingerprint: +([0-9A-F]{40})", run_engine(engine, "key", "list"))
        assert fingerprint
        run_engine(engine, "sign", str(image))
        yield image, fingerprint[1].lower()


def run_engine(engine: EngineInfo, *words: str) -> str:
    answer = subprocess.run(
        [engine.path, *words], env=build_engine_environment(os.environ), capture_output=True, text=True, check=True
    )
    return answer.stdout


def find_signers(engine: EngineInfo, image: Path) -> frozenset[str]:
    return Runner().run(build_verify(engine, str(image), build_engine_environment(os.environ)))


def test_signer_of_an_image(engine: EngineInfo, signed: tuple[Path, str]) -> None:
    image, fingerprint = signed
    assert find_signers(engine, image) == {fingerprint}


def test_a_signature_does_not_survive_a_change(engine: EngineInfo, signed: tuple[Path, str], tmp_path: Path) -> None:
    changed = tmp_path / "changed.sif"
    data = bytearray(signed[0].read_bytes())
    # Inside of the file system, which begins with this word.
    data[data.index(b"hsqs") + 200] ^= 1
    changed.write_bytes(data)
    with pytest.raises(CommandError):
        find_signers(engine, changed)


def test_an_overlay_in_a_signed_image_counts_for_nothing(
    engine: EngineInfo, signed: tuple[Path, str], tmp_path: Path
) -> None:
    image = Path(shutil.copy(signed[0], tmp_path / "more.sif"))
    (tmp_path / "layer.img").write_bytes(bytes(4096))
    overlay = ("--datatype", "4", "--parttype", "4", "--partfs", "2", "--partarch", "2")
    run_engine(engine, "sif", "add", *overlay, str(image), str(tmp_path / "layer.img"))
    with pytest.raises(CommandError):
        find_signers(engine, image)


def test_a_policy_by_signature(
    engine: EngineInfo, signed: tuple[Path, str], starter_image: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_module, "SYSTEM_FOLDERS", ())

    def settle(image: Path, signer: str) -> str:
        settings = ApptainerConfig(config=Config(ApptainerPolicy={"images": [f"signed:{signer}"]}))
        return settle_spec(
            {"image": str(image)}, base_dir="/", environ=os.environ, settings=settings, places=places
        ).spec.image

    image, fingerprint = signed
    assert settle(image, fingerprint) == str(image)
    for other, signer in ((image, "0" * 40), (starter_image, fingerprint)):
        with pytest.raises(PolicyError, match=r"image: .*\.sif: images that are allowed: signed:"):
            settle(other, signer)


def test_a_key_that_is_not_known_here_counts_for_nothing(
    engine: EngineInfo, signed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPTAINER_CONFIGDIR", str(tmp_path))
    with pytest.raises(CommandError):
        find_signers(engine, signed[0])


def test_an_image_without_a_signature(engine: EngineInfo, starter_image: Path) -> None:
    with pytest.raises(CommandError):
        find_signers(engine, starter_image)


def build_answer(text: str) -> Completed:
    return Completed(("verify",), 0, text, "")


def test_a_signature_of_something_else_in_the_image_counts_for_nothing() -> None:
    row = '{"Signer": {"Partition": "%s", "Fingerprint": "AB", "KeyCheck": true, "DataCheck": %s}}'
    answer = '{"SignerKeys": [%s]}'
    assert parse_signers(build_answer(answer % (row % ("FS", "true")))) == {"ab"}
    assert parse_signers(build_answer(answer % (row % ("Def.FILE", "true")))) == frozenset()
    mixed = ",".join([row % ("FS", "true"), row % ("Def.FILE", "false")])
    assert parse_signers(build_answer(answer % mixed)) == frozenset()


@pytest.mark.parametrize("text", ["", "[]", '{"SignerKeys": [{}]}', "x"])
def test_an_answer_that_is_not_understood(text: str) -> None:
    with pytest.raises(EngineOutputError):
        parse_signers(build_answer(text))
