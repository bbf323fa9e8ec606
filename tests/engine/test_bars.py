"""Bars that the engine draws, told apart from its messages, in whatever pieces they come."""

from __future__ import annotations

import pytest

from jupyter_apptainer.engine.bars import Bar, BarReader, parse_bar, strip_bars

# Recorded from Apptainer 1.4.5 on a terminal of 100 columns, some frames left out.
_PULL = (
    "\x1b[34mINFO:   \x1b[0m Fetching OCI image...\r\n"
    "144.0KiB / 3.9MiB [=>-----------------------------------------------------------] 4 % 930.3 KiB/s 4s\r\n"
    "\x1b[1A\x1b[J1.5MiB / 3.9MiB [========================>---------------------------------------] 39 % 1.1 MiB/s 2s\r\n"
    "\x1b[1A\x1b[J3.9MiB / 3.9MiB [===============================================================] 100 % 1.2 MiB/s 0s\r\n"
    "\x1b[34mINFO:   \x1b[0m Extracting OCI image...\r\n"
    "[-------------------------------------------------------------------------------------------] 0 % 0s\r\n"
    "\x1b[1A\x1b[J[=================>------------------------------------------------------------------------] 20 % 6s\r\n"
    "\x1b[34mINFO:   \x1b[0m Build complete: a.sif\r\n"
)
_KIB, _MIB = 2**10, 2**20


def read(text: str, size: int) -> list[str | Bar]:
    heard: list[str | Bar] = []
    reader = BarReader(heard.append, heard.append)
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    reader.close()
    return heard


@pytest.mark.parametrize("size", [1, 7, 64])
def test_bars_and_lines_are_told_apart_in_any_pieces(size: int) -> None:
    assert read(_PULL, size) == [
        "INFO:    Fetching OCI image...",
        Bar(144 * _KIB, round(3.9 * _MIB), "bytes"),
        Bar(round(1.5 * _MIB), round(3.9 * _MIB), "bytes"),
        Bar(round(3.9 * _MIB), round(3.9 * _MIB), "bytes"),
        "INFO:    Extracting OCI image...",
        Bar(0, 100, "percent"),
        Bar(20, 100, "percent"),
        "INFO:    Build complete: a.sif",
    ]


def test_bars_of_one_frame_are_summed() -> None:
    frame = "1.0MiB / 2.0MiB [==>--] 50 % 1s\r\n3.0MiB / 3.0MiB [=====] 100 % 0s\r\n"
    heard: list[object] = []
    reader = BarReader(heard.append, heard.append)
    for text in (frame, "\x1b[2A\x1b[J" + frame):
        reader.feed(text)
    assert heard == [Bar(4 * _MIB, 5 * _MIB, "bytes")] * 2


def test_bar_that_is_drawn_on_one_line_is_not_summed() -> None:
    drawn = "".join(f"\r[====|    ] {count}/240  50%" for count in (0, 120, 240)) + "\r\n"
    assert read(drawn, len(drawn) // 3) == [Bar(0, 240, "items"), Bar(120, 240, "items"), Bar(240, 240, "items")]


@pytest.mark.parametrize(
    ("line", "bar"),
    [
        pytest.param("[=====|    ] 120/240  50%", Bar(120, 240, "items"), id="mksquashfs"),
        pytest.param("12.0b / 1.5GiB [>-----] 0 % 0s", Bar(12, round(1.5 * 2**30), "bytes"), id="bytes"),
        pytest.param("[notice] 50 % of it", None, id="words"),
        pytest.param("[---]", None, id="no-number"),
        pytest.param("100 %", None, id="no-bar"),
    ],
)
def test_only_bars_are_bars(line: str, bar: Bar | None) -> None:
    assert parse_bar(line) == bar


def test_what_is_kept_has_no_bars() -> None:
    assert strip_bars(_PULL).splitlines() == [
        "INFO:    Fetching OCI image...",
        "INFO:    Extracting OCI image...",
        "INFO:    Build complete: a.sif",
    ]
    assert strip_bars("\rhalf\rwhole\n\nlast") == "half\nwhole\n\nlast\n"
