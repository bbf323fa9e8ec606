"""%post in parts: run one after the other, each in a shell of its own, they do what the whole does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.images.layering.parts import (
    STATE_FILE,
    Part,
    build_script,
    find_names,
    join_parts,
    parse_state,
    split_post,
)
from jupyter_apptainer.images.recipes.definition import Section, parse_definition


def parse_post(script: str, argument: str = "") -> Section:
    return parse_definition(f"Bootstrap: scratch\n%post {argument}\n{script}").stages[0].sections[0]


def is_program(text: str) -> bool:
    return subprocess.run(["sh", "-n"], input=text.encode(), capture_output=True, check=False).returncode == 0


def run_whole(script: str, folder: Path) -> tuple[int, str]:
    done = run_shell(script, folder)
    return done.returncode, done.stdout


def run_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "script"
    path.write_text(script, errors="surrogateescape")
    env = {"PATH": os.environ["PATH"], "HERE": str(folder), "GIVEN": "given"}
    return subprocess.run(["sh", "-e", str(path)], cwd=folder, env=env, capture_output=True, text=True, check=False)


def run_parts(script: str, folder: Path) -> tuple[int, str]:
    state, shown = None, ""
    place = folder / "state"
    for part in join_parts(split_post(parse_post(script)), is_program):
        done = run_shell(build_script(part, state).replace(STATE_FILE, str(place)), folder)
        shown += done.stdout
        if done.returncode or not place.exists():
            return done.returncode, shown
        state = parse_state(place.read_bytes())
        place.unlink()
        assert state is not None
    return (state.status if state else 0), shown


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("A=1 B='two  words'\n# layer\necho \"$A$B\"", id="variables"),
        pytest.param('A="it\'s\n\\n $HOME "\n# layer\necho "[$A]"', id="quotes and line ends"),
        pytest.param("export A=1; A=2\n# layer\nsh -c 'echo $A'", id="exported"),
        pytest.param("A=1\n# layer\nsh -c 'echo [$A]'", id="not exported"),
        pytest.param('unset GIVEN\n# layer\necho "[${GIVEN-gone}]"', id="unset"),
        pytest.param('A=\n# layer\necho "[${A+set}]"', id="set and empty"),
        pytest.param("mkdir -p 'a b'; cd 'a b'\n# layer\nbasename \"$PWD\"; cd ..; rmdir 'a b'", id="folder"),
        pytest.param("umask 027\n# layer\numask", id="umask"),
        pytest.param("set +e\n# layer\nfalse; echo on", id="option off"),
        pytest.param('set -u\n# layer\nset +e; (echo "$NONE") 2>/dev/null || echo unset', id="option on"),
        pytest.param("set -f\n# layer\necho *", id="no globs"),
        pytest.param("IFS=:\n# layer\nA=1:2; for a in $A; do echo $a; done", id="separators"),
        pytest.param("for a in 1 2; do :; done\n# layer\necho $a", id="loop variable"),
        pytest.param('echo x | { read B; echo $B; }; read A <script\n# layer\necho "${A:+read}"', id="read"),
        pytest.param("echo 1\nexit 0\n# layer\necho never", id="early end"),
        pytest.param("echo 1\n# layer\nexit 3\n# layer\necho never", id="early failure"),
        pytest.param("false || A=1\n# layer\necho $A\nfalse && true\n", id="last status"),
        pytest.param("if true; then\n# layer\necho in\nfi\n# layer\necho out", id="mark in a block"),
        pytest.param("cat <<END\n# layer\nEND\n# layer\necho out", id="mark in a here-document"),
        pytest.param("echo 'a\n# layer\nb'\n# layer\necho out", id="mark in quotes"),
        pytest.param("export E='é ü'\n# layer\n# layer\necho $E", id="empty part"),
    ],
)
def test_parts_do_what_the_whole_does(script: str, tmp_path: Path) -> None:
    one, other = tmp_path / "whole", tmp_path / "parts"
    one.mkdir()
    other.mkdir()
    assert run_parts(script, other) == run_whole(script, one)


@pytest.mark.parametrize(
    ("script", "argument", "lines"),
    [
        pytest.param("true", "", [(3, 3)], id="no mark"),
        pytest.param("a\n# layer\nb\nc", "", [(3, 3), (5, 6)], id="two parts"),
        pytest.param("a\n  # layer  \n# layer\nb", "", [(3, 3), (6, 6)], id="nothing between marks"),
        pytest.param("a\n# layers\nb", "", [(3, 5)], id="another comment"),
        pytest.param("a\n# layer\nb", "-c /bin/bash", [(3, 5)], id="a shell of its own"),
        pytest.param("a \\\n# layer\nb", "", [(3, 5)], id="continued line"),
        pytest.param("a\n# layer\nb \\", "", [(3, 5)], id="open end"),
    ],
)
def test_parts_know_their_lines(script: str, argument: str, lines: list[tuple[int, int]]) -> None:
    parts = split_post(parse_post(script, argument))
    assert [(part.first_line, part.last_line) for part in parts] == lines


def test_files_of_a_mark_are_its_paths() -> None:
    parts = split_post(parse_post("a\n# layer: /opt/a /opt/b\nb"))
    assert [part.paths for part in parts] == [(), ("/opt/a", "/opt/b")]
    assert isinstance(parts[0], Part)


def test_names_are_found_and_own_ones_left() -> None:
    text = 'A=1 export B\nfor C in x; do :; done\nread -r D E\n: "${F:=1}"\nPWD=/x; BASH_ENV=y; a --opt=G\n'
    assert find_names(text) == ["A", "B", "C", "D", "E", "F"]


def test_hidden_variables_are_not_remembered() -> None:
    content = b"0\0options:ex\0" + b"0002\0/\0left:\0A=1\0B\0\0A=1\0TOKEN=x\0KEPT=y\0"
    state = parse_state(content, ["TOKEN"])
    assert state is not None
    assert (state.variables, state.environment) == ({"A": "1", "B": None}, {"A": "1", "KEPT": "y"})
    assert parse_state(content[:12]) is None
