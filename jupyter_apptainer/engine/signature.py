"""`verify`: whose PGP keys have signed an image, as far as they are in the engine's keyring.

`--all`, because the engine would otherwise pass over an unsigned overlay in a signed image, and mount it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import EngineOutputError
from .command import Command, Completed
from .locate import EngineInfo

# The type of the object that is the root file system.
_ROOT = "FS"


def build_verify(engine: EngineInfo, image: str, env: Mapping[str, str]) -> Command[frozenset[str]]:
    """Check all signatures of a SIF, without asking a server for keys. Fails where one is not valid, or there is none."""
    argv = (engine.path, "verify", "--local", "--all", "--json", image)
    return Command(argv, env, parse_signers, f"verify {image}", image, timeout_s=600)


def parse_signers(completed: Completed) -> frozenset[str]:
    """Return the fingerprints, 40 lower-case digits, of the keys whose signature covers the root file system."""
    try:
        signers = [row["Signer"] for row in json.loads(completed.stdout)["SignerKeys"] or []]
        is_sound = all(signer["KeyCheck"] and signer["DataCheck"] for signer in signers)
        found = {str(signer["Fingerprint"]).lower() for signer in signers if signer["Partition"] == _ROOT}
    except (ValueError, KeyError, TypeError) as error:
        raise EngineOutputError(f"unexpected answer of verify: {error}") from error
    return frozenset(found) if is_sound else frozenset()
