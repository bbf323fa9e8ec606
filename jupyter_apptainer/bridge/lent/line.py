"""The line of a cell: its words, the options of the magic before them, and a password that it asks for."""

# ruff: noqa: UP006, UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

import getpass
import os
import re
from typing import Any, Dict, List, Optional, Tuple

from .call import ApptainerError

_LOGINS = (("registry", "login"), ("keyserver", "login"), ("remote", "login"))
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class Options:
    """What stands before the command: as IPython's `%%script` has it."""

    def __init__(self, words: List[str]) -> None:
        self.is_background = self.is_quiet = self.raises = False
        self.names: Dict[str, str] = {}
        self.variables: List[str] = []
        self.raises = True
        self.words = list(words)
        while self.words and self.words[0].startswith("--"):
            name, equals, value = self.words[0][2:].partition("=")
            if name == "bg":
                self.is_background = True
            elif name == "quiet":
                self.is_quiet = True
            elif name == "no-raise-error":
                self.raises = False
            elif name in ("out", "err", "proc", "var"):
                if not equals:
                    if len(self.words) < 2:
                        raise ApptainerError(f"--{name} needs the name of a variable", code="spec-invalid")
                    del self.words[0]
                    value = self.words[0]
                if value.endswith(":pickle"):
                    raise ApptainerError(
                        f"--var {value}: no pickle crosses the bridge, because loading one runs code",
                        "leave `:pickle` out: the variable travels as JSON",
                        code="spec-invalid",
                    )
                if not value.isidentifier():
                    raise ApptainerError(f"--{name} {value!r}: this is no name of a variable", code="spec-invalid")
                if name == "var":
                    self.variables.append(value)
                else:
                    self.names[name] = value
            else:
                break
            del self.words[0]


def split_line(line: str, environ: Any = None) -> List[str]:
    """Split as a shell does, with `~` and variables outside single quotes, and nothing else of a shell."""
    env = os.environ if environ is None else environ
    words: List[str] = []
    word: Optional[str] = None
    quote = ""
    position = 0
    while position < len(line):
        char = line[position]
        position += 1
        if quote == "'":
            if char == "'":
                quote = ""
            else:
                word = (word or "") + char
        elif char == "\\" and position < len(line) and (not quote or line[position] in '"\\$`'):
            word = (word or "") + line[position]
            position += 1
        elif char == "$" and _VARIABLE.match(line, position - 1):
            match = _VARIABLE.match(line, position - 1)
            assert match is not None
            word = (word or "") + env.get(match.group(1) or match.group(2), match.group(0))
            position = match.end()
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif char == "~" and word is None and (position == len(line) or line[position] in "/ \t"):
            word = env.get("HOME", "~")
        else:
            word = (word or "") + char
    if quote:
        raise ApptainerError(f"a quote ({quote}) has no end", code="spec-invalid")
    return words if word is None else [*words, word]


def ask_password(words: List[str]) -> Tuple[List[str], Optional[str]]:
    """Return the line, and the standard input that answers a login: asked for in the cell, and kept nowhere."""
    if {"-h", "--help"} & set(words):
        return words, None
    if words[:1] == ["sign"] and len(words) > 1:
        try:
            return words, getpass.getpass("Passphrase of the key (empty if it has none): ") + "\n"
        except (EOFError, NotImplementedError, RuntimeError):
            # A key may have none.
            return words, None
    if tuple(words[:2]) not in _LOGINS:
        return words, None
    if any(word in ("-p", "--password") or word.startswith(("-p=", "--password=")) for word in words):
        raise ApptainerError(
            "a password in a cell would stay in the notebook",
            "leave the option out: you will be asked for it",
            code="spec-invalid",
        )
    try:
        password = getpass.getpass(f"Password for {words[-1]}: ")
    except (EOFError, NotImplementedError, RuntimeError):
        # StdinNotImplementedError of IPython is a NotImplementedError as well.
        raise ApptainerError(
            "there is nobody to ask for the password", "log in from a terminal first; the engine remembers it"
        ) from None
    return [*words[:2], *([] if "--password-stdin" in words else ["--password-stdin"]), *words[2:]], password
