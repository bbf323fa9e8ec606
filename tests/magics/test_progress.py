"""The engine's bars in a cell: one line, drawn again and again, in whatever pieces they come."""

from __future__ import annotations

import pytest

from jupyter_apptainer.engine.bars import Bar
from jupyter_apptainer.magics.progress import OneBar, render_bar

_MIB = 2**20
# Recorded from Apptainer 1.4.5, some frames left out: the first layer of two is there before the other.
_PULL = (
    "\x1b[34mINFO:   \x1b[0m Fetching OCI image...\r\n"
    "1.0MiB / 4.0MiB [=>-----------------------------------------------------------] 4 % 930.3 KiB/s 4s\r\n"
    "\x1b[1A\x1b[J2.0MiB / 4.0MiB [========================>-----------------------] 50 % 1.1 MiB/s 2s\r\n"
    "1.0MiB / 4.0MiB [========================>-----------------------] 25 % 1.1 MiB/s 2s\r\n"
    "\x1b[2A\x1b[J4.0MiB / 4.0MiB [====================================] 100 % 1.2 MiB/s 0s\r\n"
    "4.0MiB / 4.0MiB [========================================] 100 % 1.2 MiB/s 0s\r\n"
    "\r\n"
    "\x1b[34mINFO:   \x1b[0m Extracting OCI image...\r\n"
    "1/3 files\rdone     \r\n"
)
_HEAD, _TAIL = (
    "\x1b[34mINFO:   \x1b[0m Fetching OCI image...\n",
    "\n\x1b[34mINFO:   \x1b[0m Extracting OCI image...\n1/3 files\rdone     \n",
)


def show(text: str, size: int) -> str:
    bar = OneBar()
    return "".join(bar.feed(text[start : start + size]) for start in range(0, len(text), size)) + bar.close()


def test_frames_become_a_line_that_is_drawn_again() -> None:
    # The engine writes a frame at once.
    bar = OneBar()
    frames = _PULL.replace("\x1b[1A", "|\x1b[1A").replace("\x1b[2A", "|\x1b[2A").split("|")
    shown = "".join(map(bar.feed, frames)) + bar.close()
    states = [Bar(1 * _MIB, 4 * _MIB, "bytes"), Bar(3 * _MIB, 8 * _MIB, "bytes"), Bar(8 * _MIB, 8 * _MIB, "bytes")]
    assert shown == _HEAD + "".join("\r" + render_bar(state) for state in states) + _TAIL


@pytest.mark.parametrize("size", [1, 7, 64])
def test_in_any_pieces_messages_stay_and_bars_have_one_line(size: int) -> None:
    shown = show(_PULL, size)
    assert shown.startswith(_HEAD)
    assert shown.endswith(render_bar(Bar(8 * _MIB, 8 * _MIB, "bytes")) + _TAIL)
    assert shown.count("\n") == 4


def test_a_bar_that_was_broken_off_ends_its_line() -> None:
    assert show("[==>-----] 20 % 6s\r\n", 100) == "\r" + render_bar(Bar(20, 100, "percent")) + "\n"
    assert show("a question? ", 100) == "a question? "


@pytest.mark.parametrize(
    ("bar", "line"),
    [
        (Bar(64 * _MIB, 169 * _MIB, "bytes"), "[===========                   ]  38 %       64.0 of 169.0 MiB"),
        (Bar(100, 100, "percent"), "[==============================] 100 %                        "),
        (Bar(120, 240, "items"), "[===============               ]  50 %              120 of 240"),
        (Bar(0, 0, "bytes"), "[                              ]   0 %          0.0 of 0.0 MiB"),
    ],
    ids=["bytes", "percent", "items", "nothing"],
)
def test_all_lines_of_a_bar_are_as_long(bar: Bar, line: str) -> None:
    assert render_bar(bar) == line
