"""Programs that run notebooks without a person: nbclient, papermill, `jupyter execute`, nbconvert."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, list_entries

INSIDE = "import os; print(os.path.isdir('/.singularity.d'), os.getcwd())"


def build_notebook(*cells: str, kernel: str = "") -> NotebookNode:
    notebook: NotebookNode = new_notebook(cells=[new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]  # nbformat's functions are annotated in part
    if kernel:
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    return notebook


def write_notebook(path: Path, *cells: str, kernel: str) -> Path:
    path.write_text(nbformat.writes(build_notebook(*cells, kernel=kernel)))  # type: ignore[no-untyped-call]  # as above
    return path


def read_outputs(path: Path) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # as above
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def read_text(path: Path) -> str:
    return "".join(output.get("text", "") for output in read_outputs(path))


def execute(notebook: NotebookNode, kernel: str, cwd: Path, **options: Any) -> None:
    options = {"timeout": int(TIMEOUT_S), **options}
    NotebookClient(notebook, kernel_name=kernel, resources={"metadata": {"path": str(cwd)}}, **options).execute()


@pytest.fixture(autouse=True)
def nothing_runs_afterwards(places: Places) -> Any:
    """Each of these programs ends the kernels that it started."""
    yield
    assert list_entries(places) == []


# --- nbclient


def test_nbclient_runs_a_notebook_in_the_container(starter_kernel: str, tmp_path: Path) -> None:
    notebook = build_notebook(INSIDE, "value = 6 * 7", "value")
    execute(notebook, starter_kernel, tmp_path)
    assert notebook.cells[0].outputs[0].text == f"True {tmp_path}\n"
    assert notebook.cells[2].outputs[0].data["text/plain"] == "42"


def test_nbclient_stops_at_a_cell_that_fails(starter_kernel: str, tmp_path: Path) -> None:
    notebook = build_notebook("1 / 0", "print('never')")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(notebook, starter_kernel, tmp_path)
    assert notebook.cells[1].outputs == []


def test_nbclient_interrupts_a_cell_that_takes_too_long(starter_kernel: str, tmp_path: Path) -> None:
    notebook = build_notebook("kept = 1\nimport time; time.sleep(60)", "print('kept', kept)")
    execute(notebook, starter_kernel, tmp_path, timeout=1, interrupt_on_timeout=True, allow_errors=True)
    assert notebook.cells[0].outputs[0].ename == "KeyboardInterrupt"
    assert notebook.cells[1].outputs[0].text == "kept 1\n"


def test_nbclient_gives_up_a_cell_that_takes_too_long(starter_kernel: str, tmp_path: Path) -> None:
    with pytest.raises(CellTimeoutError):
        execute(build_notebook("import time; time.sleep(60)"), starter_kernel, tmp_path, timeout=1)


def test_nbclient_sees_that_a_kernel_died(starter_kernel: str, tmp_path: Path) -> None:
    with pytest.raises(DeadKernelError):
        execute(build_notebook("import os; os.kill(os.getpid(), 9)"), starter_kernel, tmp_path)


def test_nbclient_says_why_a_kernel_does_not_start(make_kernelspec: MakeKernelspec, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)nosuch\.sif.*Hint: "):
        execute(build_notebook("1"), make_kernelspec({"image": "/nosuch.sif"}), tmp_path)


# --- papermill


def test_papermill_passes_parameters(starter_kernel: str, tmp_path: Path) -> None:
    notebook = build_notebook("alpha = 1\nname = ''", INSIDE, "print(alpha, name)", kernel=starter_kernel)
    notebook.cells[0].metadata["tags"] = ["parameters"]
    source, target = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    source.write_text(nbformat.writes(notebook))  # type: ignore[no-untyped-call]  # as above
    papermill.execute_notebook(
        source, target, parameters={"alpha": 0.5, "name": "Zoë, 'x'"}, cwd=tmp_path, progress_bar=False
    )
    assert read_text(target) == f"True {tmp_path}\n0.5 Zoë, 'x'\n"


def test_papermill_keeps_the_notebook_that_failed(starter_kernel: str, tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "in.ipynb", "print('before')", "raise ValueError('why')", kernel=starter_kernel)
    with pytest.raises(papermill.PapermillExecutionError, match="ValueError: why"):
        papermill.execute_notebook(source, tmp_path / "out.ipynb", cwd=tmp_path, progress_bar=False)
    names = [output.get("ename") for output in read_outputs(tmp_path / "out.ipynb")]
    assert "ValueError" in names


# --- command lines


def run_program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / words[0]
    return subprocess.run([program, *words[1:]], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


def test_jupyter_execute(starter_kernel: str, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "book.ipynb", INSIDE, kernel=starter_kernel)
    done = run_program("jupyter-execute", path, "--inplace")
    assert done.returncode == 0, done.stderr
    assert read_text(path) == f"True {tmp_path}\n"


def test_nbconvert_executes_and_shows(starter_kernel: str, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "book.ipynb", INSIDE, kernel=starter_kernel)
    done = run_program("jupyter-nbconvert", path, "--to", "markdown", "--execute", "--stdout")
    assert done.returncode == 0, done.stderr
    assert f"True {tmp_path}" in done.stdout


def test_a_start_that_fails_is_told_on_the_terminal(make_kernelspec: MakeKernelspec, tmp_path: Path) -> None:
    kernel = make_kernelspec({"image": "/nosuch.sif"})
    done = run_program("jupyter-execute", write_notebook(tmp_path / "book.ipynb", "1", kernel=kernel))
    assert done.returncode != 0
    assert ": there is no image /nosuch.sif\nHint: " in done.stderr
