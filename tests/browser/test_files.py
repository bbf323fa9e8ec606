"""Images in the file browser: opened, started, and looked into from a terminal; with and without the server's part."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import open_page, serve
from tests.browser.test_labextension import run_cell, wait_idle
from tests.integration.server import Server

pytestmark = pytest.mark.user
IMAGE = "course image.sif"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, starter_image: Path) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "week 1").mkdir()
    # Another name of the same file would be known by the kernel that the tests share.
    try:
        os.link(starter_image, folder / "week 1" / IMAGE)
    except OSError:
        shutil.copy(starter_image, folder / "week 1" / IMAGE)
    (folder / "week 1" / "notes.txt").touch()
    (folder / "week 1" / "environment.yml").write_text("dependencies: [python]\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, labextension: Path, starter_kernel: str) -> Iterator[Server]:
    with serve(folder, labextension, "jupyterlab") as running:
        yield running


def choose(page: Page, name: str, item: str) -> None:
    """Choose from the context menu of a file."""
    page.locator(".jp-DirListing-item", has_text=name).click(button="right")
    page.get_by_role("menuitem", name=item, exact=True).click()


def open_folder(page: Page) -> None:
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate("jupyterapp.restored.then(() => true)")
    page.evaluate("jupyterapp.commands.execute('filebrowser:open-path', {path: 'week 1'})")


def type_into_terminal(page: Page, command: str, made: str) -> None:
    """Type into the terminal in front until a file is there: its shell may not read yet when the terminal is shown."""
    page.wait_for_function("jupyterapp.shell.currentWidget?.content?.session?.connectionStatus === 'connected'")
    page.locator(".jp-Terminal:visible").click()
    page.keyboard.type(command + "\n")
    page.wait_for_function(
        "async made => (await jupyterapp.serviceManager.contents.get('week 1')).content.some(file => file.name === made)",
        arg=made,
    )


def test_image_is_opened_without_its_bytes_and_used(server: Server, browser: Browser, folder: Path) -> None:
    asked: list[str] = []
    with open_page(browser, server, "lab?reset") as page:
        page.on("request", lambda request: asked.append(f"{request.method} {unquote(request.url)}"))
        open_folder(page)
        page.locator(".jp-DirListing-item", has_text=IMAGE).dblclick()
        view = page.get_by_role("article", name=IMAGE)
        expect(view.locator("dl").first).to_contain_text("Compression")
        expect(view.get_by_label("Recipe")).to_contain_text(re.compile("bootstrap:", re.I))
        view.get_by_role("button", name="Read all files").click()
        view.get_by_role("searchbox", name="Show packages with…").fill("numpy")
        expect(view.get_by_role("table").get_by_role("row")).to_have_count(2)
        for theme in ("JupyterLab Dark High Contrast", "JupyterLab Dark", "JupyterLab Light"):
            page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
            expect(page.locator(f"body[data-jp-theme-name='{theme}']")).to_be_attached()
            found = Axe().run(page, context=".jp-apptainer-image").response["violations"]
            assert not [rule for rule in found if rule["impact"] in ("serious", "critical")], found
        fetched = [line for line in asked if re.search(f"/api/contents/week 1/{IMAGE}", line)]
        assert [line for line in fetched if "content=0" in line]
        # A checkpoint would be a second copy of it.
        assert all(re.match(r"GET .*(content=0|/checkpoints\?\d+$)", line) for line in fetched), fetched

        view.get_by_role("button", name="New notebook in it").click()
        wait_idle(page)
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.type("import os; os.environ['APPTAINER_NAME'], os.getcwd()")
        assert str(folder / "week 1") in run_cell(page)
        specs = server.ask("GET", "api/kernelspecs")[1]["kernelspecs"]
        assert specs["course-image"]["spec"]["display_name"] == "course image"
        server.ask("DELETE", "jupyter-apptainer/v1/kernelspecs/course-image")


def test_context_menu_opens_a_terminal_in_an_image_and_builds_recipes(
    server: Server, browser: Browser, folder: Path
) -> None:
    with open_page(browser, server, "lab?reset") as page:
        open_folder(page)
        choose(page, IMAGE, "Terminal in an image")
        type_into_terminal(page, "touch $(basename $APPTAINER_CONTAINER).txt", f"{IMAGE}.txt")
        page.locator(".jp-DirListing-item", has_text="notes.txt").click(button="right")
        expect(page.get_by_role("menuitem", name="Rename")).to_be_visible()
        expect(page.get_by_role("menuitem", name="Build an image…")).to_have_count(0)
        page.keyboard.press("Escape")
        choose(page, "environment.yml", "Build an image…")
        form = page.get_by_role("dialog")
        expect(form.get_by_label("Recipe", exact=True)).to_have_value("week 1/environment.yml")
        expect(form.get_by_label("Kind of recipe")).to_have_value("environment")
        form.get_by_role("button", name="Cancel").click()
    for terminal in server.ask("GET", "api/terminals")[1]:
        server.ask("DELETE", f"api/terminals/{terminal['name']}")


def test_a_server_without_our_part_is_left_alone(browser: Browser, folder: Path, labextension: Path) -> None:
    without = "--ServerApp.jpserver_extensions={'jupyter_apptainer': False}"
    with (
        serve(folder, labextension, "jupyterlab", without) as server,
        open_page(browser, server, "lab?reset") as page,
    ):
        open_folder(page)
        page.locator(".jp-DirListing-item", has_text=IMAGE).dblclick()
        expect(page.get_by_text("This server cannot look into images.")).to_be_visible()
        assert page.evaluate("jupyterapp.commands.isVisible('apptainer:new-notebook-in-image')") is False
        for said in (".jp-apptainer-panel", ".jp-Dialog", ".Toastify__toast"):
            expect(page.locator(said)).to_have_count(0)
