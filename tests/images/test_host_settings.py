"""What a build is told of the host's certificates, indexes and proxies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.host_settings import (
    HostSettings,
    load_host_settings,
    parse_pip_settings,
    write_build_settings,
)


def test_sections_of_pip_settings_override_each_other() -> None:
    listing = (
        ":env:.index-url='https://env/simple'\n"
        "global.index-url='https://global/simple'\n"
        "install.index-url='https://install/simple'\n"
        "global.extra-index-url='https://a https://b'\n"
        "download.timeout='5'\n"
        "global.broken=nonsense\n"
    )
    assert parse_pip_settings(listing) == {"index-url": "https://env/simple", "extra-index-url": "https://a https://b"}


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_are_found_by_the_usual_variables(name: str, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("PEM")
    environ = {"PIP_CONFIG_FILE": "/dev/null", name: str(bundle)}
    assert load_host_settings(environ).ca_bundle == bundle


def test_named_certificates_win(tmp_path: Path) -> None:
    bundle, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    bundle.write_text("PEM")
    other.write_text("PEM")
    assert load_host_settings({"SSL_CERT_FILE": str(other)}, bundle).ca_bundle == bundle


def test_named_certificates_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="ca_bundle"):
        load_host_settings({}, tmp_path / "missing.pem")


def test_settings_arrive_in_a_shell_as_they_are(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("PEM")
    folder = tmp_path / "settings"
    folder.mkdir()
    proxy = "http://user:p$(id)'\"word@proxy:3128"
    settings = HostSettings(bundle, {"index-url": "https://index/simple", "timeout": "7"}, {"https_proxy": proxy})
    binds = write_build_settings(settings, folder, {"APT_SOURCE": "deb http://a b c"})
    assert binds == (f"{folder}:/mnt",)
    script = f'PIP_TIMEOUT=1; . {folder}/settings.sh; printf "%s\\n" "$https_proxy" "$APT_SOURCE" "$PIP_CERT" "${{PIP_TIMEOUT-}}"'
    shown = subprocess.run(("sh", "-c", script), capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == [proxy, "deb http://a b c", "/mnt/ca.crt", ""]
    assert (folder / "pip.conf").read_text() == "[global]\nindex-url = https://index/simple\ntimeout = 7\n"
    assert (folder / "uv.toml").read_text() == 'index-url = "https://index/simple"\n'
    assert (folder / "ca.crt").read_text() == "PEM"


@pytest.mark.parametrize("is_url", [True, False], ids=["file-url", "path"])
def test_index_on_this_host_is_mounted_with_what_is_beside_it(tmp_path: Path, is_url: bool) -> None:
    index = tmp_path / "pypi" / "simple"
    index.mkdir(parents=True)
    folder = tmp_path / "settings"
    folder.mkdir()
    word = index.as_uri() if is_url else str(index)
    settings = HostSettings(None, {"extra-index-url": f"{word} https://other/simple"}, {})
    binds = write_build_settings(settings, folder, {})
    assert binds[1:] == (f"{index.parent}:/mnt/index-1:ro",)
    assert (folder / "index-1").is_dir()
    assert "extra-index-url = file:///mnt/index-1/simple https://other/simple\n" in (folder / "pip.conf").read_text()
