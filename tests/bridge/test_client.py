"""The side of the container, as far as it works without one: lines, output, tables."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from jupyter_apptainer.bridge import lent
from jupyter_apptainer.bridge.lent.values import build_value


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
