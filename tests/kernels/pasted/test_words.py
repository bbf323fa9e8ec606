"""Words as bash has them, compared with bash itself."""

from __future__ import annotations

import os
import subprocess

import pytest

from jupyter_apptainer.kernels.pasted.words import UnclosedQuote, Word, WordReader

VARIABLES = {"HOME": "/home/ada", "A": "a value", "EMPTY": "", "PWD": "/", "PATH": os.defpath}


def read_words(text: str) -> list[Word]:
    return list(WordReader(text, [1] * (len(text) + 1), VARIABLES))


@pytest.mark.parametrize(
    "text",
    [
        "a b\tc",
        "'a b' \"c d\" e\\ f",
        "a'b'\"c\"d",
        '\'$A\' "$A" "${A}x" "\\$A" \'\\\'',
        '"${A:-b}" "${NONE:-b c}" "${NONE-b}" "${EMPTY-b}"',
        '"a\\b" "a\\"b" \'a"b\'',
        "a # a comment",
        "a#b '#' \\#",
        "~ ~/x a~ '~' ~/a:~/b --x=~",
        '"" a',
        '"$(pwd)" "`pwd`"',
        "--env 'A=x=y, z' -B=/a:/b,/c",
        "$ a$ $.",
        '"a\nb"',
        '"!" a!b',
    ],
)
def test_words_are_those_of_bash(text: str) -> None:
    script = f"set -- {text}\nprintf '%s\\0' \"$@\""
    answer = subprocess.run(
        ["bash", "-c", script], env=VARIABLES, cwd="/", capture_output=True, text=True, check=True, timeout=10
    )
    assert [word.text for word in read_words(text)] == answer.stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("$NONE", ["${NONE}"]),
        ('a"${NONE}/b"', ["${NONE}"]),
        ("$1", ["$1"]),
        ('"$@"', ["$@"]),
        ("$(date +%s)", ["$(date +%s)"]),
        ("$(echo ')' \")\" \\))", ["$(echo ')' \")\" \\))"]),
        ("`date`", ["`date`"]),
        ("${A%/*}", ["${A%/*}"]),
        ("${NONE:-$A}", ["${NONE:-$A}"]),
        ("'$NONE'", []),
        ("\\$NONE", []),
    ],
)
def test_what_only_a_shell_could_know_is_named_and_left(text: str, unknown: list[str]) -> None:
    (word,) = read_words(text)
    assert list(word.unknown) == unknown
    assert all(written in word.text for written in unknown)


@pytest.mark.parametrize("text", ["'a", '"a', "a $(b", "a `b", '"a\\"'])
def test_open_quote_is_an_error(text: str) -> None:
    with pytest.raises(UnclosedQuote):
        read_words(text)


def test_operators_are_told_from_words() -> None:
    words = read_words("a 2>&1 >b;c&&d|e '&&' 2 x2>y")
    assert [word.text for word in words if word.is_operator] == [">&", ">", ";", "&&", "|", ">"]
    assert [word.text for word in words if not word.is_operator] == ["a", "1", "b", "c", "d", "e", "&&", "2", "x2", "y"]
