"""A registry from cells: log in, push, pull; and signatures, with their passphrase asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jupyter_apptainer.errors import RegistryError
from tests.laboratory import Lab
from tests.magics.conftest import Session
from tests.registry import PASSWORD, USER, Registry


@pytest.fixture
def answers(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person types when asked, one after the other; the engine's passwords and keys are the laboratory's."""
    given: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: given.pop(0))
    for name, value in lab.environ.items():
        if name.startswith(("APPTAINER_", "SINGULARITY_")):
            monkeypatch.setenv(name, value)
    return given


def test_an_image_goes_through_a_registry_with_a_password(
    session: Session,
    answers: list[str],
    closed_registry: Registry,
    small_sif: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(closed_registry.certificate))
    session.variables.update(small=small_sif, host=closed_registry.host)
    assert isinstance(session.run("%apptainer push $small oras://{host}/cells/small:1").error, RegistryError)
    answers.append(PASSWORD)
    login = session.run(f"%apptainer registry login --username {USER} docker://{{host}}")
    assert login.error is None, login
    assert answers == []
    assert PASSWORD not in login.out + login.err
    assert session.run("%apptainer push $small oras://{host}/cells/small:1").error is None
    assert session.run("%apptainer pull again.sif oras://{host}/cells/small:1").error is None
    assert (tmp_path / "again.sif").read_bytes() == small_sif.read_bytes()
    assert session.run("%apptainer registry logout docker://{host}").error is None


def test_a_key_with_a_passphrase_signs(
    session: Session, answers: list[str], key: Lab, small_sif: Path, tmp_path: Path
) -> None:
    shutil.copy(small_sif, tmp_path / "mine.sif")
    answers.append("sea salt")
    assert session.run("%apptainer sign mine.sif").error is None
    assert "Ada" in session.run("%apptainer verify --local mine.sif").out
    assert "Ada" in session.run("%apptainer key list").out
    assert sorted(session.run("%apptainer apps mine.sif").out.split()) == ["shore", "tide"]
