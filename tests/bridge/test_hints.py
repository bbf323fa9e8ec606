"""Of which paths a container is told that the host has them."""

from __future__ import annotations

import pwd
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jupyter_apptainer import policy
from jupyter_apptainer.bridge import hints
from jupyter_apptainer.bridge.hints import explain_missing
from jupyter_apptainer.bridge.model import BridgeSetup


@pytest.fixture
def host(setup: BridgeSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BridgeSetup:
    """The folder of the test is a place like any other, and nobody's home; there is no policy."""
    monkeypatch.setattr(hints, "_SYSTEM", ("/etc",))
    monkeypatch.setattr(policy, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="u", pw_dir=str(tmp_path / "home")))
    for name in ("other/file", "other/.secret", "home/file", "work/file"):
        (tmp_path / name).write_text("x")
    (tmp_path / "other/link").symlink_to("/etc/passwd")
    return setup


def test_a_file_that_is_not_bound_is_named_with_its_bind(host: BridgeSetup, tmp_path: Path) -> None:
    text = explain_missing(f"{tmp_path}/other/file", "/", host)
    assert f"`jupyter apptainer kernel edit lab --bind {tmp_path}/other`" in (text or "")
    # Relative to the caller's folder; and a folder is bound itself.
    assert f"--bind {tmp_path}/other`" in (explain_missing("../other", f"{tmp_path}/work", host) or "")


@pytest.mark.parametrize(
    "path",
    [
        "other/none",
        "other/.secret",
        "other/link",
        "home/file",
        "work/file",
        "work/none",
        "other/x\0y",
        "other/../../../../etc/passwd",
    ],
)
def test_of_other_paths_nothing_is_told(host: BridgeSetup, tmp_path: Path, path: str) -> None:
    assert explain_missing(f"{tmp_path}/{path}", "/", host) is None


def test_the_home_is_only_told_of_to_a_kernel_that_has_it(host: BridgeSetup, tmp_path: Path) -> None:
    assert explain_missing(f"{tmp_path}/home/file", "/", replace(host, sees_home=True)) is not None


def test_a_policy_that_forbids_the_bind_forbids_the_answer(host: BridgeSetup, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    config_file = config / "jupyter_apptainer_config.py"
    config_file.write_text("c.ApptainerPolicy.binds = ['/data']\n")
    assert explain_missing(f"{tmp_path}/other/file", "/", host) is None
    config_file.write_text("this is no Python\n")
    assert explain_missing(f"{tmp_path}/other/file", "/", host) is None
