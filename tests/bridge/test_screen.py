"""What is drawn again and again is one output; everything else is text as it came. Of the host's cells as well."""

from __future__ import annotations

from typing import Any

import IPython.display
import pytest

from jupyter_apptainer.bridge.lent.screen import Screen


@pytest.mark.parametrize(
    ("pieces", "text", "drawn"),
    [
        pytest.param(["a\n", "b", "c\n"], "a\nbc\n", [], id="text"),
        pytest.param(["a\n1 %\r2 %", "\r3", " %\nb\n"], "a\nb\n", ["3 %"], id="carriage returns, in pieces"),
        pytest.param(["\r1 %", "\r", "2 %\r", "\n"], "", ["2 %"], id="a return at the end"),
        pytest.param(["\x1b[2K1 %", "\x1b[1A\x1b[J2 %\nx\n"], "x\n", ["2 %"], id="a line that is cleared"),
        pytest.param(["\r1\n", "between\n", "\r2\n"], "between\n", ["1", "2"], id="two after each other"),
        pytest.param(["windows\r\n"], "windows\n", [], id="line ends of a terminal"),
    ],
)
def test_lines(
    pieces: list[str],
    text: str,
    drawn: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states: list[list[str]] = []

    class Handle:
        def update(self, content: Any) -> None:
            states[-1].append(repr(content))

    def display(content: Any, display_id: bool) -> Handle:
        assert display_id
        states.append([repr(content)])
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    screen = Screen()
    for piece in pieces:
        screen.feed("stderr", piece)
    screen.close()
    assert capsys.readouterr().err == text
    assert [state[-1] for state in states] == drawn
