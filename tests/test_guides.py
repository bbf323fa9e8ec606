"""The guides in notebooks/ that show `%apptainer`: each is executed in a kernel on the host, and has its checks inside.

In both accounts, but for those whose images take their time.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from tests.examples import FOLDER, BuildExample
from tests.laboratory import Lab
from tests.registry import PASSWORD, USER, Registry

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
_CELL_DEADLINE_S = 200
# Some build an image before, with packages that have to be fetched.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RunGuide = Callable[..., str]


@pytest.fixture
def run_guide(lab: Lab, tmp_path: Path) -> Iterator[RunGuide]:
    """Execute a notebook as its reader would, and return all text that it shows.

    parameters: instead of the values in its cell of that name. answer: what is typed where a cell asks. authority: the file of
    a registry's certificates.
    """
    kernels: list[tuple[Any, BlockingKernelClient]] = []
    # Instances and keys of its own, which no other test sees.
    own = dict.fromkeys(("APPTAINER_CONFIGDIR", "SINGULARITY_CONFIGDIR"), str(tmp_path / "engine"))
    environ = {**lab.environ, **own, "TMPDIR": str(tmp_path)}

    def run(name: str, answer: str = "", authority: Path | None = None, **parameters: object) -> str:
        trusted = {"SSL_CERT_FILE": str(authority)} if authority else {}
        cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
        kernels.append(start_new_kernel(kernel_name="python3", env={**environ, **trusted}, cwd=str(tmp_path)))
        _, client = kernels[-1]
        return "".join(run_cell(client, cell, parameters, answer) for cell in cells if cell["cell_type"] == "code")

    yield run
    for manager, client in kernels:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    # Left where a cell has failed.
    subprocess.run([lab.engine.path, "-q", "instance", "stop", "--all"], env=environ, capture_output=True, check=False)


def run_cell(client: BlockingKernelClient, cell: dict[str, Any], parameters: dict[str, object], answer: str) -> str:
    source = "".join(cell["source"])
    if "parameters" in cell["metadata"].get("tags", ()):
        source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    shown: list[str] = []

    def collect(message: dict[str, Any]) -> None:
        content = message["content"]
        shown.append(content.get("text", "") + content.get("data", {}).get("text/plain", ""))
        shown.append("\n".join(content.get("traceback", ())))

    reply = client.execute_interactive(
        source,
        allow_stdin=True,
        stdin_hook=lambda _: client.input(answer),
        output_hook=collect,
        timeout=_CELL_DEADLINE_S,
    )
    text = "".join(shown)
    assert reply["content"]["status"] == "ok", f"{cell['id']}:\n{source}\n\n{text}"
    return text


def test_cheat_sheet(run_guide: RunGuide, small_image: Path, closed_registry: Registry) -> None:
    text = run_guide(
        "cheat-sheet.ipynb",
        answer=PASSWORD,
        authority=closed_registry.certificate,
        image=str(small_image),
        registry=closed_registry.host,
        user=USER,
    )
    assert "harbour, tide: 3.2 m" in text
    assert PASSWORD not in text


def test_options_of_exec(run_guide: RunGuide, starter_image: Path) -> None:
    assert "harbour 320.0 cm" in run_guide("exec-options.ipynb", image=str(starter_image))


def test_registries(run_guide: RunGuide, small_sif: Path, registry: Registry) -> None:
    text = run_guide("registries.ipynb", image=str(small_sif), registry=registry.host)
    assert "hello from under-another-name.sif" in text


def test_services(run_guide: RunGuide, starter_image: Path, build_example: BuildExample) -> None:
    images = {"nginx": str(build_example("nginx")), "pdf": str(build_example("url-to-pdf"))}
    text = run_guide("services.ipynb", examples=str(FOLDER), base=str(starter_image), **images)
    assert "[emerg]" in text


def test_mpi(run_guide: RunGuide, starter_image: Path, build_example: BuildExample) -> None:
    text = run_guide("mpi.ipynb", example=str(FOLDER / "mpi"), image=str(build_example("mpi")), base=str(starter_image))
    assert "ranks: 2," in text
