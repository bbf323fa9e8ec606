"""An engine that cannot be got: each way to one says why it was not taken."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_apptainer.engine.install import install_engine
from jupyter_apptainer.engine.step import find_program
from jupyter_apptainer.errors import EngineInstallError
from tests.engine.test_install import make_places


def test_missing_conda_is_named_as_the_reason(tmp_path: Path) -> None:
    if any(find_program(name) for name in ("micromamba", "mamba", "conda")):
        pytest.skip("this host has conda")
    with pytest.raises(EngineInstallError, match="conda: none of micromamba, mamba, conda is installed"):
        install_engine(make_places(tmp_path), method="conda", environ={})


@pytest.mark.root
def test_every_method_says_why_it_was_not_taken(tmp_path: Path) -> None:
    hide = (
        "for name in apt-get dnf; do if [ -e /usr/bin/$name ]; then mount --bind /dev/null /usr/bin/$name; fi; done; "
    )
    argv = [sys.executable, "-m", "jupyter_apptainer.cli.main", "engine", "install", "--force"]
    done = subprocess.run(
        ("unshare", "--mount", "sh", "-ec", hide + shlex.join(argv)),
        env=os.environ | {"JUPYTER_APPTAINER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "distribution: this host has neither apt-get nor dnf" in done.stderr
    assert "unpacked: this host has no apt-get" in done.stderr
    assert "conda: none of micromamba, mamba, conda is installed" in done.stderr
    assert "Hint: ask the administrator" in done.stderr
