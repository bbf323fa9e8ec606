"""Engine command lines for images that travel or are signed: pull, convert, push, sign, verify, log in, clean the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import EngineOutputError
from .command import Command, Completed, returns_nothing
from .locate import EngineInfo, build_flags, build_wrapper


@dataclass(frozen=True)
class SignerCheck:
    """One signature as `verify` sees it. is_local: the key is on this machine's ring. is_intact: the content is as signed."""

    name: str
    fingerprint: str
    is_local: bool
    is_intact: bool


def build_pull(
    engine: EngineInfo, target: str, uri: str, env: Mapping[str, str], *, no_https: bool = False
) -> Command[None]:
    """`pull` of a SIF. Without the engine's cache, which would keep the whole file a second time."""
    flags = ("--disable-cache", "--force", *(("--no-https",) if no_https else ()))
    return Command((engine.path, "pull", *flags, target, uri), env, returns_nothing, f"pull {uri}", uri, timeout_s=None)


def build_convert(
    engine: EngineInfo,
    target: str,
    uri: str,
    env: Mapping[str, str],
    *,
    no_https: bool = False,
    mksquashfs_args: str | None = None,
) -> Command[None]:
    """Make a SIF of an OCI image. Apptainer's `build` does it with any compression; its cache keeps the layers.

    SingularityCE's `build` wants root, its `pull` does not.
    """
    title = f"pull {uri}"
    insecure = ("--no-https",) if no_https else ()
    if engine.flavour != "apptainer":
        argv: tuple[str, ...] = (engine.path, "pull", "--force", *insecure, target, uri)
        return Command(argv, env, returns_nothing, title, uri, timeout_s=None)
    squashfs = ("--mksquashfs-args", mksquashfs_args) if mksquashfs_args else ()
    flags = (*build_flags(engine), "--force", *insecure, *squashfs)
    argv = (*build_wrapper(), engine.path, "build", *flags, target, uri)
    return Command(argv, env, returns_nothing, title, uri, timeout_s=None)


def build_push(
    engine: EngineInfo, image: str, uri: str, env: Mapping[str, str], *, no_https: bool = False
) -> Command[None]:
    """`push` of a SIF. Signatures travel along; a library that wants one is told that none is needed."""
    flags = (*(("--no-https",) if no_https else ()), *(("--allow-unsigned",) if uri.startswith("library:") else ()))
    return Command((engine.path, "push", *flags, image, uri), env, returns_nothing, f"push {uri}", uri, timeout_s=None)


def build_sign(
    engine: EngineInfo, image: str, env: Mapping[str, str], *, key_index: int | None = None
) -> Command[None]:
    """`sign` with a key of the user's ring; the engine reads the passphrase, if the key has one, from standard input."""
    flags = ("--keyidx", str(key_index)) if key_index is not None else ()
    return Command((engine.path, "sign", *flags, image), env, returns_nothing, f"sign {image}", image, timeout_s=300)


def build_check_signatures(
    engine: EngineInfo, image: str, env: Mapping[str, str], *, is_local: bool = False
) -> Command[tuple[SignerCheck, ...]]:
    """`verify`, for people; `signature.build_verify` is for policies. is_local: ask no key server.

    All objects have to be signed: an overlay that somebody added to a signed image would be mounted too.
    """
    flags = ("--local",) if is_local else ()
    argv = (engine.path, "verify", "--all", "--json", *flags, image)
    return Command(argv, env, parse_signatures, f"verify {image}", image, timeout_s=300)


def parse_signatures(completed: Completed) -> tuple[SignerCheck, ...]:
    """Parse `verify --json`; a signature is there once for each object that it covers. Raises EngineOutputError."""
    try:
        rows = [row["Signer"] for row in json.loads(completed.stdout)["SignerKeys"] or []]
        found = [
            SignerCheck(row["Name"], row["Fingerprint"].lower(), bool(row["KeyLocal"]), bool(row["DataCheck"]))
            for row in rows
        ]
        return tuple(dict.fromkeys(found))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineOutputError(f"unexpected answer of verify: {error}") from error


def build_login(engine: EngineInfo, host: str, user: str, password: str, env: Mapping[str, str]) -> Command[None]:
    """`registry login`; the password goes through standard input, where no list of processes shows it."""
    argv = (engine.path, "registry", "login", "--username", user, "--password-stdin", f"docker://{host}")
    return Command(argv, env, returns_nothing, f"log in to {host}", host, timeout_s=120, stdin=password)


def build_logout(engine: EngineInfo, host: str, env: Mapping[str, str]) -> Command[None]:
    """`registry logout`. Logging out twice is no error."""
    argv = (engine.path, "registry", "logout", f"docker://{host}")
    return Command(argv, env, returns_nothing, f"log out of {host}", host, timeout_s=60)


def build_cache_clean(engine: EngineInfo, env: Mapping[str, str]) -> Command[None]:
    """`cache clean` of the engine's own cache, without its question."""
    return Command(
        (engine.path, "cache", "clean", "--force"), env, returns_nothing, "clean the engine's cache", timeout_s=600
    )
