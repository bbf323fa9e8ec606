"""The panel as people see it, in JupyterLab and in Jupyter Notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from jupyter_apptainer.images.transfer import push_image
from jupyter_apptainer.places import find_places
from tests.browser.conftest import TIMEOUT_MS, open_page, serve
from tests.browser.test_labextension import wait_idle
from tests.integration.server import Server
from tests.integration.test_clients import write_notebook
from tests.laboratory import Lab
from tests.registry import BreakingProxy, OciImage, Registry

# What a person sees does not depend on who the person is.
pytestmark = pytest.mark.user

OPEN = "import jupyter_apptainer\njupyter_apptainer.panel()"
expect.set_options(timeout=TIMEOUT_MS)
WAIT = """\
import threading
for each in threading.enumerate():
    if each.name == "jpa-gpu":
        each.join()
print("all", "have ended")"""
# Where pictures for the documents are kept; they are not made by ordinary runs.
PICTURES = os.environ.get("JPA_TEST_PICTURES")


@dataclass(frozen=True)
class Desk:
    """A server in folders of its own."""

    server: Server
    folder: Path
    images: Path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, starter_image: Path) -> Iterator[Path]:
    """A home with one image."""
    folder = tmp_path_factory.mktemp("ada")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("JUPYTER_APPTAINER_HOME", str(folder / "own"))
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
        patch.setenv("APPTAINER_CACHEDIR", str(folder / "cache"))
        images = find_places().images
        images.mkdir(parents=True)
        (images / "starter.sif").symlink_to(starter_image)
        (folder / "work").mkdir()
        yield folder


@pytest.fixture(scope="module")
def desk(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serve(home / "work", tmp_path_factory.mktemp("none"), "jupyterlab") as server:
        yield Desk(server, home / "work", find_places().images)


def open_panel(page: Page, index: int = 0) -> Locator:
    """Run the first cell of the notebook that is in front, and return the panel. index: how many other panels the page has."""
    wait_idle(page)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    panel = page.locator(".jpa-panel").nth(index)
    expect(panel.get_by_role("button", name="Kernel")).to_be_visible()
    return panel


def find_row(panel: Locator, name: str) -> Locator:
    """Return the row of a table by the name at its beginning."""
    return panel.get_by_role("row").filter(has=panel.page.get_by_role("rowheader", name=name, exact=True))


def open_tab(panel: Locator, title: str) -> None:
    panel.get_by_role("button", name=title, exact=True).click()
    expect(panel.get_by_role("button", name=f"▸ {title}")).to_be_visible()


def fill(panel: Locator, opener: str, label: str, **values: str) -> None:
    """Open a form, fill it in, and do it."""
    panel.get_by_role("button", name=f"{opener}…").click()
    for name, value in values.items():
        panel.get_by_label(name.replace("_", " "), exact=True).fill(value)
    panel.get_by_role("button", name=label, exact=True).click()


def pull(panel: Locator, name: str) -> None:
    panel.get_by_role("button", name="Pull…").click()
    panel.get_by_label("The registry speaks plain http").check()
    panel.get_by_label("Name", exact=True).fill(name)
    panel.get_by_role("button", name="Pull", exact=True).click()
    expect(panel.get_by_role("status").first).to_contain_text("It goes on as the task")


def wait_task(panel: Locator, title: str) -> None:
    open_tab(panel, "Tasks")
    expect(find_row(panel, title)).to_contain_text("done")


def open_notebook(page: Page, path: str) -> None:
    page.evaluate("path => { jupyterapp.commands.execute('docmanager:open', {path}); }", path)
    page.wait_for_function("path => jupyterapp.shell.currentWidget?.context?.path === path", arg=path)


def check_accessibility(page: Page) -> None:
    found = Axe().run(page, context=".jpa-panel").response["violations"]
    assert not [rule for rule in found if rule["impact"] in ("serious", "critical")], found


def set_theme(page: Page, name: str) -> None:
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
    expect(page.locator(f"body[data-jp-theme-name='{name}']")).to_be_attached()


def keep_picture(panel: Locator, name: str) -> None:
    if PICTURES:
        before = panel.page.viewport_size
        panel.page.set_viewport_size({"width": 1200, "height": 1500})
        panel.screenshot(path=str(Path(PICTURES, f"{name}.png")))
        assert before
        panel.page.set_viewport_size(before)


def test_from_an_image_in_a_registry_to_a_notebook_that_is_stopped(
    desk: Desk, browser: Browser, registry: Registry, oci_image: OciImage, lab: Lab, small_sif: Path
) -> None:
    push_image(lab.engine, small_sif, f"oras://{registry.host}/lab/panel:1", settings=lab.settings())
    write_notebook(desk.folder / "panel.ipynb", OPEN, kernel="python3")
    with open_page(browser, desk.server, "lab/tree/panel.ipynb?reset") as page:
        panel = open_panel(page)
        open_tab(panel, "Images")
        expect(find_row(panel, "starter.sif")).to_be_visible()

        with BreakingProxy(registry.port, limit=400_000, is_stalling=True) as proxy:
            # It hangs half-way, so that its progress can be seen, and a cancelled one leaves nothing.
            pull(panel, f"oras://{proxy.host}/lab/panel:1")
            open_tab(panel, "Tasks")
            expect(panel.get_by_role("img", name=re.compile(r"panel:1: .*\d %"))).to_be_visible()
            check_accessibility(page)
            keep_picture(panel, "panel-tasks-light")
            panel.get_by_role("button", name="Cancel").click()
            panel.get_by_role("button", name="Yes, cancel").click()
            expect(find_row(panel, f"pull oras://{proxy.host}/lab/panel:1")).to_contain_text("cancelled")
        assert os.listdir(desk.images) == ["starter.sif"]

        open_tab(panel, "Images")
        pull(panel, f"docker://{registry.host}/lab/tiny:1")
        wait_task(panel, f"pull docker://{registry.host}/lab/tiny:1")

        open_tab(panel, "Images")
        fill(
            panel,
            "Build",
            "Build",
            Recipe=f"Bootstrap: localimage\nFrom: {desk.images}/tiny_1.sif\n%labels\n    made here\n",
            New_image=str(desk.images / "built.sif"),
        )
        wait_task(panel, "build built.sif")

        open_tab(panel, "Images")
        panel.get_by_label("Image", exact=True).select_option("starter.sif")
        fill(panel, "Make a kernel", "Make a kernel", Name="mine")
        expect(find_row(panel, "starter.sif")).to_contain_text("mine")
        expect(panel.get_by_text("Remove: not possible, it is the image of the kernel mine")).to_be_visible()
        for theme in ("JupyterLab Dark High Contrast", "JupyterLab Dark", "JupyterLab Light"):
            set_theme(page, theme)
            check_accessibility(page)
            keep_picture(panel, f"panel-images-{'-'.join(theme.lower().split()[1:])}")

        write_notebook(desk.folder / "work.ipynb", "%load_ext jupyter_apptainer\n%apptainer panel", kernel="mine")
        # JupyterLab asks for new kernels once a minute.
        page.evaluate("() => jupyterapp.serviceManager.kernelspecs.refreshSpecs()")
        open_notebook(page, "work.ipynb")
        wait_idle(page)
        open_notebook(page, "panel.ipynb")
        open_tab(panel, "Instances")
        row = find_row(panel, "work.ipynb")
        expect(row).to_contain_text("running")
        expect(row).to_contain_text(re.compile(r"\d+(\.\d)? MiB"))
        open_tab(panel, "Kernel")
        expect(panel.get_by_text("✓ the same inside")).to_be_visible()
        keep_picture(panel, "panel-kernel-light")
        panel.get_by_role("button", name="Bind a folder…").click()
        panel.get_by_label("Folder", exact=True).fill(str(desk.folder.parent))
        panel.get_by_label("Folders there").select_option("data/")
        panel.get_by_role("button", name="Open the folder").click()
        expect(panel.get_by_label("Folder", exact=True)).to_have_value(str(desk.folder.parent / "data"))
        panel.get_by_label("As", exact=True).fill("/data")
        panel.get_by_label("For reading only").check()
        panel.get_by_label("Restart now").check()
        check_accessibility(page)
        keep_picture(panel, "panel-bind-light")
        panel.get_by_role("button", name="Bind a folder", exact=True).click()
        # JupyterLab says that the kernel of the other notebook is started anew.
        page.get_by_role("dialog").get_by_role("button", name="Ok", exact=True).click()
        expect(panel.get_by_text(f"{desk.folder.parent}/data → /data (read only)")).to_be_visible()

        panel.get_by_role("button", name="Command line", exact=True).click()
        expect(panel.get_by_label("Command line")).to_have_value(re.compile("instance start"))

        # The other notebook's kernel is in a container: its panel comes over the bridge, which only lets it read.
        open_notebook(page, "work.ipynb")
        inside = open_panel(page, 1)
        expect(find_row(inside, "work.ipynb")).to_be_visible()
        expect(inside.get_by_text("kernel edit mine --bridge full").first).to_be_visible()
        open_tab(inside, "Images")
        expect(find_row(inside, "starter.sif")).to_be_visible()
        expect(inside.get_by_role("button", name="Pull…")).to_be_disabled()
        inside.get_by_role("button", name="Inspect").click()
        expect(inside.get_by_role("region", name="Inspect")).to_contain_text("made: here")
        check_accessibility(page)
        keep_picture(inside, "panel-container-light")
        open_notebook(page, "panel.ipynb")

        panel.get_by_role("button", name="Stop", exact=True).click()
        panel.get_by_role("button", name="Yes, stop").click()
        expect(panel.get_by_text("No kernel runs in a container")).to_be_visible()
        open_tab(panel, "Instances")
        expect(panel.get_by_text("No kernel runs in a container")).to_be_visible()


@pytest.fixture(scope="module")
def seven(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Jupyter Notebook, with Voilà in it: that is installed apart from all else, for it changes every server that finds it."""
    voila = tmp_path_factory.mktemp("voila")
    own = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(voila), "voila>=0.5"]
    subprocess.run([*own, "websockets"], check=True, timeout=120)
    write_notebook(home / "work/seven.ipynb", OPEN, kernel="python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(voila))
        patch.setenv("JUPYTER_PATH", str(voila / "share/jupyter"))
        extension = "--ServerApp.jpserver_extensions=voila.server_extension=True"
        with serve(home / "work", tmp_path_factory.mktemp("none"), "notebook", extension) as server:
            yield server


def test_in_voila_it_is_shown_and_acts(seven: Server, browser: Browser) -> None:
    with open_page(browser, seven, "voila/render/seven.ipynb") as page:
        panel = page.locator(".jpa-panel")
        open_tab(panel, "Images")
        expect(find_row(panel, "starter.sif")).to_be_visible()
        panel.get_by_label("Image", exact=True).select_option("starter.sif")
        panel.get_by_role("button", name="Packages").click()
        expect(panel.get_by_role("region")).to_contain_text("ipykernel")


def test_in_jupyter_notebook_the_keyboard_is_enough(seven: Server, browser: Browser) -> None:
    with open_page(browser, seven, "notebooks/seven.ipynb") as page:
        panel = open_panel(page)
        panel.get_by_role("button", name="▸ Kernel").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(panel.get_by_role("button", name="▸ Images")).to_be_focused()
        expect(find_row(panel, "starter.sif")).to_be_visible()
        panel.get_by_role("button", name="Recipe").focus()
        page.keyboard.press("Enter")
        expect(panel.get_by_role("region")).to_contain_text("ootstrap:")
        check_accessibility(page)
        # Only what is seen looks: a cell that is cleared has nothing more to ask for.
        open_tab(panel, "GPU")
        expect(panel.get_by_text("No GPU")).to_be_visible()
        page.evaluate("() => { jupyterapp.commands.execute('notebook:clear-all-cell-outputs'); }")
        expect(page.locator(".jpa-panel")).to_have_count(0)
        page.locator(".jp-CodeCell .cm-content").first.fill(WAIT)
        page.keyboard.press("Control+Enter")
        expect(page.locator(".jp-OutputArea-output")).to_contain_text("all have ended")
