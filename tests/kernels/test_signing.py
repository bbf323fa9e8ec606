"""For which kernels messages are not signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session
from traitlets.config import Config

from jupyter_apptainer.kernels.signing import stop_signing

IPYKERNEL = ("python", "-m", "ipykernel_launcher", "-f", "FILE")


def test_an_ipykernel_of_our_own_manager_has_an_empty_key() -> None:
    manager = KernelManager()
    assert manager.session.key
    stop_signing(manager, IPYKERNEL)
    assert manager.session.key == b""
    assert manager.get_connection_info(session=True)["session"].auth is None


@pytest.mark.parametrize("command", [("R", "-e", "IRkernel::main()"), ("python", "-m", "bash_kernel")])
def test_other_kernels_keep_their_key(command: tuple[str, ...]) -> None:
    manager = KernelManager()
    stop_signing(manager, command)
    assert manager.session.key


def test_a_key_that_was_chosen_or_is_shared_stays(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("chosen")
    chosen = KernelManager(config=Config({"Session": {"keyfile": str(file)}}))
    stop_signing(chosen, IPYKERNEL)
    assert chosen.session.key == b"chosen"
    shared = Session()
    stop_signing(KernelManager(session=shared), IPYKERNEL)
    assert shared.key
