"""`jupyter apptainer registry login | logout`: passwords of image registries, kept by the engine."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from ..errors import SpecError
from ..images.login import log_in, log_out
from .image_settings import build_transfer_settings, find_engine_and_places
from .output import print_note
from .verbs import add_verb


def add_parser(subparsers: Any) -> None:
    """Add `registry` and its subcommands."""
    parser = subparsers.add_parser(
        "registry",
        help="log in to and out of image registries",
        description="Passwords for image registries. The engine keeps them, in a file that only you can read.",
        epilog="examples:\n  jupyter apptainer registry login ghcr.io -u ada < token",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    login = add_verb(
        commands,
        "registry",
        "login",
        "log in; the password is read from standard input, or asked for on a terminal",
        "login ghcr.io -u ada < token",
        "login localhost:5000 -u ada",
    )
    login.add_argument("-u", "--username", required=True, metavar="USER", help="your name there")
    login.add_argument(
        "--no-https", action="store_true", help="the registry speaks plain http (see ApptainerConfig.no_https)"
    )
    login.set_defaults(func=_login)
    logout = add_verb(commands, "registry", "logout", "forget the password", "logout ghcr.io")
    logout.set_defaults(func=_logout)
    for command in (login, logout):
        command.add_argument("host", metavar="HOST", help="HOST or HOST:PORT; docker.io for Docker Hub")


def _login(arguments: argparse.Namespace) -> int:
    host = _clean_host(arguments.host)
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {arguments.username} at {host}: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise SpecError("there is no password on standard input", hint=f"`… registry login {host} -u USER < FILE`")
    engine, _ = find_engine_and_places()
    log_in(engine, host, arguments.username, password, build_transfer_settings(no_https=arguments.no_https))
    print_note(f"logged in to {host} as {arguments.username}")
    return 0


def _logout(arguments: argparse.Namespace) -> int:
    host = _clean_host(arguments.host)
    engine, _ = find_engine_and_places()
    log_out(engine, host, build_transfer_settings(no_https=False))
    print_note(f"logged out of {host}")
    return 0


def _clean_host(text: str) -> str:
    """Take what people type: with or without docker:// or oras:// before it."""
    return text.removeprefix("docker://").removeprefix("oras://").rstrip("/")
