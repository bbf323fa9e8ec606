"""`%apptainer` typed into JupyterLab, in a kernel on the host and in one in a container. No front-end extension is needed, and none is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import open_page, serve
from tests.browser.test_labextension import wait_idle
from tests.integration.server import Server
from tests.integration.test_clients import write_notebook

# What a person sees does not depend on who the person is.
pytestmark = pytest.mark.user


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def plain_lab(folder: Path, tmp_path_factory: pytest.TempPathFactory, starter_kernel: str) -> Iterator[Server]:
    """JupyterLab without our extension."""
    with serve(folder, tmp_path_factory.mktemp("none"), "jupyterlab") as server:
        yield server


def type_cell(page: Page, text: str) -> Locator:
    """Type into the last cell, and return it."""
    cell = page.locator(".jp-CodeCell").last
    cell.locator(".cm-content").click()
    # As it stands: no indentation of the editor's own.
    page.keyboard.insert_text(text)
    return cell


def run_cell(page: Page, text: str) -> Locator:
    """Type a cell and run it to its end; return its output."""
    cell = type_cell(page, text)
    page.keyboard.press("Shift+Enter")
    return wait_done(page, cell)


def wait_done(page: Page, cell: Locator) -> Locator:
    # The next one has come below it.
    done = page.locator(".jp-CodeCell").nth(page.locator(".jp-CodeCell").count() - 2)
    expect(done.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))
    return done.locator(".jp-OutputArea-output")


def complete(page: Page, begun: str, *offered: str) -> None:
    """Type the beginning of a line, press Tab, and see what is offered."""
    cell = type_cell(page, begun)
    page.keyboard.press("Tab")
    for word in offered:
        item = page.locator(".jp-Completer-item").filter(has=page.get_by_text(word, exact=True))
        expect(item.first).to_be_visible()
    page.keyboard.press("Escape")
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")


def test_in_a_kernel_on_the_host(
    plain_lab: Server, browser: Browser, folder: Path, starter_image: Path, root: Path
) -> None:
    write_notebook(folder / "host.ipynb", "", kernel="python3")
    with open_page(browser, plain_lab, "lab/tree/host.ipynb?reset") as page:
        wait_idle(page)
        run_cell(page, f"%load_ext jupyter_apptainer\nimage = '{starter_image}'")
        expect(run_cell(page, "%apptainer exec $image sh -c 'echo $((6 * 7))'")).to_have_text("42")
        table = run_cell(page, "images = %apptainer image list {image.rpartition('/')[0]}\nimages").locator("table")
        expect(table.get_by_role("columnheader", name="IMAGE")).to_be_visible()
        expect(table.get_by_role("cell", name=str(starter_image), exact=True)).to_be_visible()
        complete(page, "%apptainer instance st", "start", "stats", "stop")
        complete(page, "%%apptainer build x.sif\nBootstrap: docker\nFrom: a\n%p", "%post", "%pre")
        error = run_cell(page, "%apptainer exce $image true")
        expect(error).to_contain_text("there is no command 'exce'")
        expect(error).to_contain_text("did you mean `exec`?")
        expect(run_cell(page, "%apptainer shell $image")).to_contain_text("File > New > Terminal")

        slow = f"Bootstrap: localimage\nFrom: {root}\n%post\n    while :; do :; done"
        cell = type_cell(page, f"%%apptainer build new.sif\n{slow}")
        page.keyboard.press("Shift+Enter")
        expect(page.get_by_text("Running %post")).to_be_visible()
        page.get_by_role("button", name="Interrupt the kernel").click()
        expect(wait_done(page, cell).last).to_have_text("KeyboardInterrupt")
        assert [path.name for path in folder.iterdir() if path.name != ".ipynb_checkpoints"] == ["host.ipynb"]


def test_in_a_kernel_in_a_container(plain_lab: Server, browser: Browser, folder: Path, starter_kernel: str) -> None:
    write_notebook(folder / "inside.ipynb", "", kernel=starter_kernel)
    with open_page(browser, plain_lab, "lab/tree/inside.ipynb?reset") as page:
        wait_idle(page)
        run_cell(page, "%load_ext jupyter_apptainer")
        expect(run_cell(page, "%apptainer")).to_contain_text(f"{starter_kernel}")
        table = run_cell(page, "%apptainer instance list").locator("table")
        expect(table.get_by_role("cell", name="inside.ipynb", exact=True)).to_be_visible()
        complete(page, "%apptainer instance list --j", "--json")
        error = run_cell(page, "%apptainer exec instance://this true")
        expect(error).to_contain_text("is refused: the bridge of this kernel is `read`")
        expect(error).to_contain_text("Hint: who trusts the code in this kernel can open it")
