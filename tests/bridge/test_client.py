"""The side of the container, as far as it works without one: lines, output, tables."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest

from jupyter_apptainer.bridge import client
from jupyter_apptainer.bridge.client import ApptainerError, Rows, Writer, split_line

ENVIRON = {"HOME": "/home/u", "DATA": "/d ata"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("a  b\tc", ["a", "b", "c"]),
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("$DATA/x \"$DATA\" '$DATA'", ["/d ata/x", "/d ata", "$DATA"]),
        ("${DATA}x $NOPE", ["/d atax", "$NOPE"]),
        ("~ ~/x '~' a~ --b=~", ["/home/u", "/home/u/x", "~", "a~", "--b=~"]),
        (r"a\ b \$DATA \"", ["a b", "$DATA", '"']),
        ('"a\\"b" "\\n"', ['a"b', "\\n"]),
        ("''", [""]),
        ("a''b", ["ab"]),
        ("a;b | c > d *", ["a;b", "|", "c", ">", "d", "*"]),
    ],
)
def test_lines_are_split_as_a_shell_does(line: str, expected: list[str]) -> None:
    assert split_line(line, ENVIRON) == expected


def test_a_quote_without_an_end_is_an_error() -> None:
    with pytest.raises(ApptainerError, match="no end"):
        split_line("exec 'x", ENVIRON)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a\nb", "c\n"], "a\nbc\n"),
        (["10%\r", "20%\r", "30%\rdone\n"], "done\n"),
        (["x\r\ny\r\n"], "x\ny\n"),
        (["10%\r50%\r90%"], "\r90%"),
    ],
    ids=["plain", "one-line", "terminal", "unfinished"],
)
def test_progress_is_one_line(pieces: list[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    writer = Writer()
    for piece in pieces:
        writer("stdout", piece)
    # What was drawn for a moment is drawn over.
    seen = shown.getvalue()
    assert seen.count("%") <= 1 + expected.count("%")
    assert seen.endswith(expected)


def test_rows_are_a_table_without_what_does_not_fit() -> None:
    rows = Rows([{"name": "a", "size": 1, "deep": {}, "text": "x\ny"}, {"name": "bcd", "size": None}])
    assert repr(rows) == "name  size\na     1\nbcd"
    assert rows[0]["text"] == "x\ny"
    assert "<td>bcd</td>" in (rows._repr_html_() or "")
    assert "&lt;b&gt;" in (Rows([{"name": "<b>"}])._repr_html_() or "")


def test_it_needs_nothing_but_the_standard_library_and_old_python_reads_it() -> None:
    """It is lent to images whose Python is older than ours, and that have nothing of ours."""
    tree = ast.parse(Path(client.__file__).read_text(), feature_version=(3, 7))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if node.level == 0}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"IPython"}
