"""The guides in notebooks/ run, in a container, as a reader would run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def run_notebook(path: Path, kernel: str) -> list[dict[str, Any]]:
    """Execute a notebook in its own folder and return all outputs. Raises where a cell fails."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has annotations for a part of its functions only
    NotebookClient(
        notebook,
        kernel_name=kernel,
        timeout=120,
        startup_timeout=120,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
def test_quickstart_shows_what_it_promises(starter_kernel: str) -> None:
    outputs = run_notebook(NOTEBOOKS / "quickstart.ipynb", starter_kernel)
    text = "".join(output.get("text", "") for output in outputs)
    assert "operating system" in text
    assert f"{NOTEBOOKS}/data/planets.csv" in text
    assert "KeyboardInterrupt received: 1" in text
    assert "state: still here" in text
    assert "jupyter_server     not here" in text
    assert "cannot write into the image" in text
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_magics_work_in_a_kernel_on_the_host(starter_kernel: str) -> None:
    outputs = run_notebook(NOTEBOOKS / "magics.ipynb", "python3")
    text = "".join(output.get("text", "") for output in outputs)
    plain = "".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "in no container" in plain
    assert "of the image" in text
    assert "[1, 3, 6]" in plain
    assert "`exec` has no option --bidn" in text
    assert sum("<table>" in output.get("data", {}).get("text/html", "") for output in outputs) >= 4
