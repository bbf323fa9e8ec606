"""What of the host's network settings a build needs: certificates, pip's indexes, proxies.

They reach a build's %post in a folder that is mounted over /mnt, so that nothing of them stays in the image: indexes and
proxies may carry passwords, and an image travels.
"""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..engine.step import StepError, build_step_environment, run_step
from ..errors import SpecError

MOUNT_POINT = "/mnt"

_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXY_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)
_PIP_KEYS = frozenset(
    {
        "index-url",
        "extra-index-url",
        "find-links",
        "no-index",
        "trusted-host",
        "proxy",
        "timeout",
        "default-timeout",
        "retries",
    }
)
_PIP_PLACES = frozenset({"index-url", "extra-index-url", "find-links"})


@dataclass(frozen=True)
class HostSettings:
    """ca_bundle: a PEM file. pip: option -> value, as in pip.conf. proxies: variable -> value."""

    ca_bundle: Path | None
    pip: Mapping[str, str]
    proxies: Mapping[str, str]


def load_host_settings(environ: Mapping[str, str], ca_bundle: Path | None = None) -> HostSettings:
    """Read what this host and user have set. ca_bundle overrides what the usual variables and pip's settings name."""
    if ca_bundle and not ca_bundle.is_file():
        raise SpecError(f"ca_bundle: {str(ca_bundle)!r} is no file; expected a file of certificates in PEM format")
    pip = load_pip_settings(environ)
    cert = pip.get("cert", "")
    found = find_ca_bundle(environ) or (Path(cert) if cert and Path(cert).is_file() else None)
    proxies = {name: environ[name] for name in _PROXY_VARIABLES if environ.get(name)}
    return HostSettings(
        ca_bundle=ca_bundle or found,
        pip={key: value for key, value in pip.items() if key in _PIP_KEYS},
        proxies=load_apt_proxies() | proxies,
    )


def find_ca_bundle(environ: Mapping[str, str]) -> Path | None:
    """Return the file of certificates that the usual variables name, None where none of them names a file."""
    files = (Path(environ[name]) for name in _CA_VARIABLES if environ.get(name))
    return next((path for path in files if path.is_file()), None)


def load_pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Ask pip for its settings, from files and variables; without pip, the variables alone."""
    try:
        argv = (sys.executable, "-m", "pip", "config", "list")
        return parse_pip_settings(run_step(argv, "read pip's settings", env=build_step_environment(environ)).stdout)
    except StepError:
        named = {
            name.removeprefix("PIP_").lower().replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("PIP_")
        }
        return {key: value for key, value in named.items() if value}


def parse_pip_settings(listing: str) -> dict[str, str]:
    """Parse `pip config list`: "global.index-url='…'", "install.…", ":env:.…", where the later sections win."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        name, equals, text = line.partition("=")
        section, _, key = name.partition(".")
        if not equals or section not in sections:
            continue
        try:
            sections[section][key] = str(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            continue
    return sections["global"] | sections["install"] | sections[":env:"]


def load_apt_proxies() -> dict[str, str]:
    """Return apt's own proxies as variables; debootstrap, which is no part of apt, knows only those."""
    found: dict[str, str] = {}
    for scheme in ("http", "https"):
        try:
            shown = run_step(("apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"), "read apt's proxy").stdout
        except StepError:
            break
        value = next(iter(shlex.split(shown)), "").removeprefix("PROXY=")
        if value and value != "DIRECT":
            found[f"{scheme}_proxy"] = value
    return found


def write_build_settings(settings: HostSettings, folder: Path, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Write what %post reads to `folder` and return the binds for the build. `variables` are further shell variables."""
    binds = [f"{folder}:{MOUNT_POINT}"]
    if settings.ca_bundle:
        shutil.copyfile(settings.ca_bundle, folder / "ca.crt")
    pip = {
        key: [_reach(word, folder, binds) for word in value.split()] if key in _PIP_PLACES else [value]
        for key, value in settings.pip.items()
    }
    lines = ["[global]", *(f"{key} = {' '.join(words)}" for key, words in pip.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "uv.toml").write_text(_build_uv_settings(pip), encoding="utf-8")
    exported = build_variables(settings) | dict(variables)
    script = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exported.items())
    # Settings of the builder's own shell would come before the file.
    (folder / "settings.sh").write_text(f"unset {' '.join(_pip_variables())}\n{script}", encoding="utf-8")
    return tuple(binds)


def build_variables(settings: HostSettings) -> dict[str, str]:
    """Return the variables that lead programs in %post to what `write_build_settings` has written."""
    certificates = dict.fromkeys((*_CA_VARIABLES, "NODE_EXTRA_CA_CERTS"), f"{MOUNT_POINT}/ca.crt")
    found = {
        **settings.proxies,
        "PIP_CONFIG_FILE": f"{MOUNT_POINT}/pip.conf",
        "UV_CONFIG_FILE": f"{MOUNT_POINT}/uv.toml",
    }
    return found | (certificates if settings.ca_bundle else {})


def _build_uv_settings(pip: Mapping[str, list[str]]) -> str:
    """uv reads no settings of pip's; those about where packages come from it has under the same names."""
    lines = [f"index-url = {json.dumps(pip['index-url'][0])}"] if pip.get("index-url") else []
    lines += [f"{key} = {json.dumps(pip[key])}" for key in ("extra-index-url", "find-links") if pip.get(key)]
    lines += ["no-index = true"] if pip.get("no-index", ["0"])[0].lower() in ("1", "true", "yes", "on") else []
    return "".join(f"{line}\n" for line in lines)


def _pip_variables() -> list[str]:
    return sorted("PIP_" + key.upper().replace("-", "_") for key in _PIP_KEYS)


def _reach(word: str, folder: Path, binds: list[str]) -> str:
    """Make an index on this host's disk visible in the build; anything else is returned as it is."""
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(word).path) if word.startswith("file:") else word)
    if not (word.startswith("file:") or path.is_absolute()) or not path.exists():
        return word
    # Pages of an index point to files beside it.
    shown = path.parent if path.parent != path.parent.parent else path
    name = f"index-{len(binds)}"
    (folder / name).mkdir()
    binds.append(f"{shown}:{MOUNT_POINT}/{name}:ro")
    return f"file://{MOUNT_POINT}/{name}/{path.relative_to(shown)}"
