"""Read the flags of an engine command, as the engine itself would, and forgive what a person may have got wrong.

What a flag means for a kernel is in `flag_meanings`. The rest goes to `extra_flags`, as far as `instance start` knows it: kernels
run in instances.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ...engine.flags import Flag, FlagTable
from .flag_meanings import HANDLERS, NAME
from .reading import Reading
from .words import Word

# Flags of other container programs, with the engine's own; "" means that a kernel needs nothing for it.
_FOREIGN: Mapping[str, tuple[str, bool]] = {
    "gpus": ("nv", True),
    "gpu": ("nv", False),
    "cuda": ("nv", False),
    "volume": ("bind", True),
    "rm": ("", False),
    "interactive": ("", False),
    "tty": ("", False),
    "it": ("", False),
    "ti": ("", False),
    "user": ("", True),
    "name": ("", True),
    "publish": ("", True),
}
_FOREIGN_LETTERS: Mapping[str, str] = {"v": "volume", "t": "tty"}
_IMAGE = re.compile(r"\.(sif|simg|sqsh|squashfs|img)$")
# What every container kernel is or has anyway.
_ALWAYS = frozenset({"cleanenv", "pid", "no-eval", "quiet"})


class FlagReader:
    """Reads the flags in front of the image. `own` are those of the command, `start` those of `instance start`."""

    def __init__(self, words: list[Word], own: FlagTable, start: FlagTable, reading: Reading) -> None:
        self._words = words
        self._own = own
        self._start = start
        self._reading = reading
        self._remarks = reading.remarks

    def read(self) -> list[Word]:
        """Take the flags in, and return the words from the image on."""
        line = self._words[0].line if self._words else 0
        while self._words and self._words[0].text.startswith("-") and len(self._words[0].text) > 1:
            word = self._words.pop(0)
            if word.text == "--":
                break
            if word.text.startswith("--"):
                name, equals, value = word.text[2:].partition("=")
                self._read_long(name, value if equals else None, word)
            else:
                self._read_short(word)
        self._read_network(line)
        return self._words

    def _read_network(self, line: int) -> None:
        """`--net` alone asks for a bridge, and `--network` means nothing without it."""
        network = self._reading.network
        if network == "none":
            self._reading.config["network"] = "none"
        elif network not in ("", "host"):
            self._remarks.warn(f"the network {network} needs root", "leave it out, or `--net --network none`", line)
            self._reading.append("extra_flags", "--net", f"--network={network}")

    def _read_long(self, name: str, value: str | None, word: Word) -> None:
        flag = self._own.find(name)
        if flag is None:
            flag = self._replace_unknown(name, word)
        if flag is None:
            return
        if not flag.has_value:
            if value not in ("false", "0"):
                self._take(flag, "", word)
            return
        if value is None:
            if not self._words:
                self._remarks.error(f"--{flag.name} has no value", "", word.line)
                return
            following = self._words.pop(0)
            self._take(flag, following.text, following)
        else:
            self._take(flag, value, word)

    def _replace_unknown(self, name: str, word: Word) -> Flag | None:
        """Say that there is no such flag; return the one that was probably meant."""
        foreign = _FOREIGN.get(name)
        if foreign:
            own, has_value = foreign
            if has_value and "=" not in word.text and own != "bind" and self._words:
                self._words.pop(0)
            text = f"{word.text} is not a flag of this engine, but of Docker"
            if not own:
                self._remarks.warn(text, "leave it out: a kernel needs nothing for it", word.line)
                return None
            self._remarks.error(text, f"write --{own}", word.line)
            return self._own.find(own)
        near = self._own.find_near(name)
        hint = f"did you mean --{near}?" if near else "leave it out; `apptainer help exec` lists those that exist"
        self._remarks.error(f"there is no flag --{name}", hint, word.line)
        return self._own.find(near) if near else None

    def _read_short(self, word: Word) -> None:
        letters = word.text[1:]
        name, equals, value = letters.partition("=")
        if len(name) > 1 and (self._own.find(name) or name in _FOREIGN):
            if name in _FOREIGN and not self._own.find(name):
                self._read_long(name, value if equals else None, word)
                return
            self._remarks.error(
                f"-{name} has one dash: it is read as the flags {' '.join('-' + char for char in name)}",
                f"write --{name}",
                word.line,
            )
            self._read_long(name, value if equals else None, word)
            return
        while letters:
            flag = self._own.find_letter(letters[0])
            if flag is None and letters[0] in _FOREIGN_LETTERS:
                self._read_long(_FOREIGN_LETTERS[letters[0]], letters[1:].removeprefix("=") or None, word)
                return
            if flag is None:
                self._remarks.error(f"there is no flag -{letters[0]}", self._near_letter(letters), word.line)
                return
            rest = letters[1:]
            if flag.has_value:
                self._read_long(flag.name, rest.removeprefix("=") or None, word)
                return
            self._take(flag, "", word)
            letters = rest

    def _near_letter(self, letters: str) -> str:
        near = self._own.find_near(letters) if len(letters) > 1 else None
        near = near or (flag.name if (flag := self._own.find_letter(letters[0].swapcase())) else None)
        return f"did you mean --{near}?" if near else "leave it out"

    # --- one flag

    def _take(self, flag: Flag, value: str, word: Word) -> None:
        handler = HANDLERS.get(flag.name)
        if handler and (flag.name != "env" or not self._takes_next(value, word)):
            if flag.name not in ("env", "pwd", "cwd"):
                self._reading.explain_unknown(word)
            handler(self._reading, value, word)
        elif handler or flag.name in _ALWAYS:
            return
        elif self._start.find(flag.name) is None:
            self._remarks.note(f"--{flag.name} is left out: a kernel's instance does not know it", line=word.line)
        else:
            self._reading.explain_unknown(word)
            shown = f"--{flag.name}={value}" if flag.has_value else f"--{flag.name}"
            self._reading.append("extra_flags", shown)

    def _takes_next(self, value: str, word: Word) -> bool:
        """`--env NAME VALUE`: take the next word for the value where it cannot be the image."""
        if "=" in value or not NAME.fullmatch(value) or len(self._words) < 2:
            return False
        following = self._words[0]
        if following.text.startswith("-") or looks_like_image(following.text, self._reading.cwd):
            return False
        self._words.pop(0)
        self._remarks.error(
            f"--env {value} {following.text}: a blank stands where = belongs",
            f"write --env {value}={following.text}",
            word.line,
        )
        if not following.unknown:
            self._reading.set_env(value, following.text)
        return True


def looks_like_image(text: str, cwd: str) -> bool:
    """Say whether a word names an image: by its ending, its scheme, or a file or folder of that name."""
    return bool(_IMAGE.search(text)) or "://" in text or os.path.exists(os.path.join(cwd, text))
