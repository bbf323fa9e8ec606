"""The side of the container, as far as it works without one: lines, output, tables."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from jupyter_apptainer.bridge import lent
from jupyter_apptainer.bridge.lent.call import ApptainerError
from jupyter_apptainer.bridge.lent.line import Options, split_line
from jupyter_apptainer.bridge.lent.values import build_value

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


def test_values_show_themselves() -> None:
    rows = [{"name": "a", "size": 1, "deep": {}}, {"name": "bcd", "size": None}]
    table = build_value({"kind": "table", "data": rows, "columns": [["name", "NAME"], ["size", "SIZE"]]})
    assert repr(table) == "NAME  SIZE\na     1\nbcd   -"
    assert table[0].name == "a"
    assert "<td>bcd</td>" in table._repr_html_()
    hostile = build_value({"kind": "table", "data": [{"x": "<b>"}], "columns": [["x", "X"]]})
    assert "&lt;b&gt;" in hostile._repr_html_()
    assert repr(build_value({"kind": "record", "data": {"a": 1, "bc": True}, "columns": []})) == "a   1\nbc  yes"
    assert build_value({"kind": "plain", "data": [1], "columns": []}) == [1]
    assert build_value(None) is None


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--out", "needs the name"),
        ("--out 1x exec", "no name of a variable"),
        ("--var x:pickle exec i.sif python", "no pickle crosses"),
    ],
)
def test_wrong_options_are_named(line: str, text: str) -> None:
    with pytest.raises(ApptainerError, match=text):
        Options(split_line(line))


def test_it_needs_nothing_but_the_standard_library_and_old_python_reads_it() -> None:
    """It is lent to images whose Python is older than ours, and that have nothing of ours."""
    names = set()
    for path in Path(lent.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 7))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # Of the folder's own: all that is lent.
                assert node.level <= 1
                names |= {node.module or ""} if node.level == 0 else set()
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"IPython", "ipywidgets"}
