"""Failures of signing and verifying."""

from __future__ import annotations

from ... import errors as e
from .rule import Rule, build_row

ROWS: tuple[Rule, ...] = (
    build_row(
        "signature-none",
        r"signature not found for object group",
        e.SignatureError,
        "the image {subject} is not signed",
        "sign it with a key of yours: `jupyter apptainer image sign {subject}`; or ask its maker for a signed one",
    ),
    build_row(
        "signature-broken",
        r"integrity compromised|object not signed|not associated with object group|signed object\(s\) missing",
        e.SignatureError,
        "the image {subject} has been changed, or something was added to it, since it was signed: do not use it",
        "fetch it again from its maker",
    ),
    build_row(
        "signature-unknown-key",
        r"signature made by unknown entity",
        e.SignatureError,
        "the image {subject} is signed with a key that this machine does not know",
        "get the maker's public key, check its fingerprint with them, and add it: `apptainer key import FILE`",
    ),
    build_row(
        "signing-no-key",
        r"keyring is empty|Failed to sign container: index out of range",
        e.SignatureError,
        "there is no key to sign {subject} with, or not the one that was named",
        "see which there are: `apptainer key list --secret`; make one: `apptainer key newpair`; others verify with its public part: `apptainer key export FILE`",
    ),
    build_row(
        "signing-passphrase",
        r"private key checksum failure",
        e.SignatureError,
        "the key could not be unlocked: the passphrase is wrong, or was not given",
        "type it when asked, or give it on standard input",
    ),
)
