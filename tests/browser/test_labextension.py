"""The JupyterLab extension as people see it, in JupyterLab and in Jupyter Notebook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import ROOT, TIMEOUT_MS, hide_news, open_page, serve
from tests.integration.server import Server
from tests.integration.test_clients import write_notebook

# What a person sees does not depend on who the person is.
pytestmark = pytest.mark.user

DEFINITION = """\
Bootstrap: docker
From: debian:12  # the base
%arguments
    WORD=hello
%post
    # as root
    echo "{{ WORD }} $HOME"
    echo a#b {{ WORD }} > /etc/word
"""
WRITE = "open('/opt/written', 'w').write('here')"
TRANSLATION = "lab/api/settings/@jupyterlab/translation-extension:plugin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(folder: Path, labextension: Path, starter_kernel: str) -> Iterator[Server]:
    with serve(folder, labextension, "jupyterlab") as server:
        yield server


def coloured(page: Page, text: str) -> None:
    """The word is a token of its own, with a colour of its own."""
    token = page.locator(".cm-line span", has_text=re.compile(f"^{re.escape(text)}$")).first
    expect(token).to_be_visible()
    assert token.get_attribute("class"), text


def run_cell(page: Page) -> str:
    """Run the first cell; returns what is shown below it."""
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").first).to_have_text(re.compile(r"\[\d+\]:"))
    return page.locator(".jp-CodeCell .jp-OutputArea-output").first.inner_text()


def wait_idle(page: Page) -> str:
    """Wait until the notebook's kernel can take a cell; returns its id."""
    page.wait_for_function(
        """() => {
            const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
            return session?.kernel?.connectionStatus === 'connected' && session.kernel.status === 'idle';
        }"""
    )
    return str(page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"))


def test_definition_files_and_cells_that_build_are_coloured(
    lab: Server, browser: Browser, folder: Path, starter_kernel: str
) -> None:
    (folder / "box.def").write_text(DEFINITION)
    write_notebook(
        folder / "build.ipynb", f"%%apptainer build box.sif\n{DEFINITION}", "x = 1 % 2", kernel=starter_kernel
    )
    with open_page(browser, lab, "lab/tree/box.def?reset") as page:
        for word in ("Bootstrap", "From", "%post", "{{ WORD }}", "# as root", "# the base"):
            coloured(page, word)
        expect(page.locator(".cm-line span", has_text="#b")).to_have_count(0)
    with open_page(browser, lab, "lab/tree/build.ipynb?reset") as page:
        wait_idle(page)
        for word in ("Bootstrap", "%post", "{{ WORD }}"):
            coloured(page, word)
        # As soon as it builds no more, it is Python again.
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Home")
        page.keyboard.type("#")
        expect(page.locator(".cm-line span", has_text=re.compile("^%post$"))).to_have_count(0)


def test_the_environment_form_changes_the_container_and_the_notebook(
    lab: Server, browser: Browser, folder: Path, starter_kernel: str
) -> None:
    path = folder / "environment.ipynb"
    write_notebook(path, WRITE, kernel=starter_kernel)
    with open_page(browser, lab, "lab/tree/environment.ipynb?reset") as page:
        before = wait_idle(page)
        assert re.search("Read-only file system|Permission denied", run_cell(page))
        page.get_by_role("button", name="Environment", exact=True).click()
        form = page.get_by_role("dialog")
        expect(form.get_by_label("Image", exact=True)).to_be_focused()
        form.get_by_label("NVIDIA GPU").select_option("no")
        form.get_by_label("Overlays", exact=True).fill("tmpfs\n")
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
            expect(page.locator(f"body[data-jp-theme-name='{theme}']")).to_be_attached()
            found = Axe().run(page, context=".jp-apptainer-form").response["violations"]
            assert not [rule for rule in found if rule["impact"] in ("serious", "critical")], found
        form.get_by_role("button", name="Save and start anew").click()
        page.wait_for_function(
            "id => { const s = jupyterapp.shell.currentWidget.sessionContext.session; return s?.kernel && s.kernel.id !== id; }",
            arg=before,
        )
        assert wait_idle(page) != before
        assert run_cell(page).strip() == "4"
    assert json.loads(path.read_text())["metadata"]["apptainer"] == {"nv": False, "overlays": ["tmpfs"]}


def test_the_extension_speaks_french(lab: Server, browser: Browser, folder: Path, starter_kernel: str) -> None:
    write_notebook(folder / "french.ipynb", "1", kernel=starter_kernel)
    lab.ask("PUT", TRANSLATION, {"raw": json.dumps({"locale": "fr_FR"})})
    try:
        with open_page(browser, lab, "lab/tree/french.ipynb?reset") as page:
            page.get_by_role("button", name="Environnement").click()
            form = page.get_by_role("dialog")
            expect(form.get_by_label("Dossiers à monter")).to_be_visible()
            expect(form.get_by_role("button", name="Enregistrer et redémarrer")).to_be_visible()
            form.get_by_role("button", name="Annuler").click()
            expect(form).to_be_hidden()
    finally:
        lab.ask("PUT", TRANSLATION, {"raw": "{}"})


def test_a_wheel_brings_the_built_extension(tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built as PyPI's would be, and used in an environment of its own: what else it needs is that of the tests, and there is no node."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
        timeout=TIMEOUT_MS / 1000 * 4,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name in names if "node_modules" in name or name.startswith("labextension/")]
    python = make_environment(tmp_path / "clean", wheel)
    monkeypatch.setenv("PATH", str(python.parent))
    monkeypatch.setenv("JUPYTERLAB_DIR", str(Path(sys.prefix, "share/jupyter/lab")))
    listed = subprocess.run(
        [python, "-m", "jupyterlab.labextensions", "list"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_MS / 1000,
        check=True,
    ).stderr
    assert re.search(r"jupyter-apptainer v\S+ \S*enabled\S* \S*OK", listed), listed
    installed = tmp_path / "clean/share/jupyter/labextensions/jupyter-apptainer"
    assert (installed / "install.json").exists()
    assert sum(path.stat().st_size for path in (installed / "static").iterdir()) < 300_000
    hide_news()
    (tmp_path / "work").mkdir()
    server = Server(tmp_path / "work", "--expose-app-in-browser", module="jupyterlab", python=str(python))
    try:
        with open_page(browser, server, "lab?reset") as page:
            page.wait_for_function("window.jupyterapp?.commands.hasCommand('apptainer:open-panel')")
            page.evaluate("jupyterapp.restored.then(() => true)")
            page.evaluate("jupyterapp.commands.execute('apptainer:open-panel')")
            expect(page.locator(".jp-apptainer-panel").get_by_text("Images", exact=True)).to_be_visible()
    finally:
        server.end()


def make_environment(folder: Path, wheel: Path) -> Path:
    """Install a wheel alone; returns the environment's Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, timeout=TIMEOUT_MS / 1000)
    (library,) = folder.glob("lib/python*/site-packages")
    (library / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
