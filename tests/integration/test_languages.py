"""Kernels of other languages, from Debian (R's IRkernel) and PyPI (bash_kernel), discovered in a real image and used.

The image is made once, on top of the starter image.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from jupyter_apptainer.cli.main import main
from jupyter_apptainer.engine.apt import find_http_uri, find_mirror
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.host_settings import load_host_settings, write_build_settings
from jupyter_apptainer.images.starter import remove_build_folder
from jupyter_apptainer.instances.table import ProcessTable
from jupyter_apptainer.kernels.kernelspecs import remove_kernelspec
from jupyter_apptainer.places import Places
from tests.integration.conftest import Reply, RunningKernel, StartKernel

DEFINITION = """\
Bootstrap: localimage
From: {starter}

%post
    set +x
    . /mnt/settings.sh
    pip install --no-cache-dir --quiet bash_kernel
    python -m bash_kernel.install --sys-prefix
    . /etc/os-release
    echo "deb $MIRROR $VERSION_CODENAME main" >/etc/apt/sources.list
    apt-get -qq -o APT::Sandbox::User=root update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o APT::Sandbox::User=root --no-install-recommends \\
        install r-cran-irkernel >/dev/null
"""

pytestmark = [pytest.mark.slow, pytest.mark.user]


@pytest.fixture(scope="module")
def image(engine: EngineInfo, starter_image: Path, places: Places) -> Iterator[Path]:
    """A sandbox with Python, R and bash, each with a Jupyter kernel."""
    folder = places.scratch.parent / "languages"
    for part in ("settings", "tmp"):
        (folder / part).mkdir(parents=True)
    definition = folder / "languages.def"
    definition.write_text(DEFINITION.format(starter=starter_image))
    settings = load_host_settings(os.environ)
    binds = write_build_settings(settings, folder / "settings", {"MIRROR": find_http_uri(find_mirror())})
    env = build_engine_environment({**settings.proxies, **os.environ}) | {"APPTAINER_TMPDIR": str(folder / "tmp")}
    sandbox = folder / "polyglot"
    try:
        Runner().run(build_image_build(engine, str(sandbox), str(definition), env, binds=binds, is_sandbox=True))
        yield sandbox
    finally:
        remove_build_folder(folder)


@pytest.fixture(scope="module")
def kernels(image: Path) -> Iterator[None]:
    """Container kernels of all that is in the image, as `kernel discover --add` makes them."""
    assert main(["kernel", "discover", str(image), "--add"]) == 0
    yield
    for name in ("ir", "bash", "python3"):
        remove_kernelspec(f"polyglot-{name}")


@dataclass(frozen=True)
class Language:
    """How one says things in a language. counted: print "begun", go on until interrupted, print "hits" and how often that was."""

    kernel: str
    name: str
    display_name: str
    set_x: str
    show_x: str
    counted: str
    child: str


LANGUAGES = [
    Language(
        kernel="polyglot-ir",
        name="R",
        display_name="R (polyglot)",
        set_x="x <- 41",
        show_x="cat(x + 1)",
        counted=(
            "hits <- 0; hit <- function(e) hits <<- hits + 1\n"
            'tryCatch({ cat("begun\\n"); flush.console(); repeat Sys.sleep(0.01) }, interrupt = hit)\n'
            "tryCatch(Sys.sleep(0.3), interrupt = hit)\n"
            'cat("hits", hits)'
        ),
        # R drops an interrupt between "begun" and the start of its child: its system() does.
        child='cat("begun\\n"); flush.console(); invisible(system("sleep 600"))',
    ),
    Language(
        kernel="polyglot-bash",
        name="bash",
        display_name="Bash (polyglot)",
        set_x="x=41",
        show_x="echo $((x + 1))",
        counted="bash -c 'trap \"n=\\$((n + 1))\" INT; echo begun; while [ -z $n ]; do sleep 0.01; done; sleep 0.3; echo hits $n'",
        child="sh -c 'echo begun; exec sleep 600'",
    ),
]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_discovered_kernel_interrupts_restarts_and_shuts_down(
    kernels: None, start_kernel: StartKernel, language: Language
) -> None:
    found = KernelSpecManager().get_kernel_spec(language.kernel)
    assert (found.language, found.display_name) == (language.name, language.display_name)
    assert (Path(found.resource_dir) / "logo-svg.svg").stat().st_size > 0

    kernel = start_kernel(name=language.kernel)
    instance = kernel.instance
    kernel.run(language.set_x)
    assert kernel.run(language.show_x).text.strip() == "42"

    assert "hits 1" in interrupt(kernel, language.counted).text
    assert kernel.run(language.show_x).text.strip() == "42", "the interrupt has cost the state"

    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.run(language.show_x).text.strip() != "42"
    assert kernel.instance == instance
    interrupt(kernel, language.child, child="sleep")
    assert not list_children(kernel, "sleep")

    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert not instance.init.is_alive()


def interrupt(kernel: RunningKernel, code: str, child: str = "") -> Reply:
    """Begin a cell, press stop once it has printed "begun" and its child is there, and wait for its end."""
    cell = kernel.begin(code)
    kernel.wait_text(cell, "begun")
    deadline = time.monotonic() + 60
    while child and not list_children(kernel, child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kernel.manager.interrupt_kernel()
    return kernel.finish(cell)


def list_children(kernel: RunningKernel, program: str) -> list[int]:
    """Return the processes of that name below the kernel."""
    assert kernel.provisioner.kernel is not None
    own = kernel.provisioner.kernel.find_kernel()
    assert own is not None
    return [stat.pid for stat in ProcessTable.read().find_descendants(own.pid) if stat.comm == program]
