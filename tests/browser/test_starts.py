"""Starts as people see them: cancelled in the status bar, failed with what helps, mended by a click."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import open_page, serve
from tests.browser.test_labextension import run_cell, wait_idle
from tests.integration.server import Server
from tests.integration.test_clients import write_notebook

pytestmark = pytest.mark.user
SLEEPER = ["sh", "-c", "echo asleep; sleep 600; echo {connection_file}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("starts")


@pytest.fixture(scope="module")
def server(folder: Path, labextension: Path, starter_image: Path) -> Iterator[Server]:
    with serve(folder, labextension, "jupyterlab") as server:
        add_kernels(server, folder, starter_image)
        yield server
        remove_kernels(server)


def add_kernels(server: Server, folder: Path, image: Path) -> None:
    """One that waits for ever, and one that wants a folder which is not there."""
    for name, config in (("sleeper", {"command": SLEEPER}), ("wants", {"binds": [f"{folder}/lacking:/data"]})):
        body = {"name": name, "config": {"image": str(image), **config}, "display_name": name.title(), "check": False}
        assert server.ask("POST", "jupyter-apptainer/v1/kernelspecs", body)[0] == 201


def remove_kernels(server: Server) -> None:
    for name in ("sleeper", "wants"):
        server.ask("DELETE", f"jupyter-apptainer/v1/kernelspecs/{name}")


def check_access(page: Page, *where: list[str]) -> None:
    for theme in ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"):
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        expect(page.locator(f"body[data-jp-theme-name='{theme}']")).to_be_attached()
        found = Axe().run(page, context={"include": list(where)}).response["violations"]
        assert not [rule for rule in found if rule["impact"] in ("serious", "critical")], found


def test_start_is_cancelled_and_the_notebook_says_so(server: Server, browser: Browser, folder: Path) -> None:
    write_notebook(folder / "asleep.ipynb", "1", kernel="sleeper")
    with open_page(browser, server, "lab/tree/asleep.ipynb?reset") as page:
        status = page.locator(".jp-apptainer-status")
        expect(status).to_contain_text(re.compile(r"^sleeper: connecting to the kernel \d+\.\d s"))
        page.get_by_role("button", name="Cancel the start of sleeper").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("the start of this kernel was cancelled")
        expect(status).to_be_hidden()
        dialog.get_by_role("button", name="Close").click()
        # Jupyter's own dialog about it does not follow.
        expect(page.get_by_role("dialog")).to_have_count(0)
    assert server.ask("GET", "jupyter-apptainer/v1/instances")[1] == []


def test_failed_start_is_mended_by_a_click(server: Server, browser: Browser, folder: Path) -> None:
    write_notebook(folder / "wants.ipynb", "import os; os.listdir('/data')", kernel="wants")
    with open_page(browser, server, "lab/tree/wants.ipynb?reset") as page:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("“Wants” did not start")
        expect(dialog).to_contain_text(f"the folder to bind does not exist: {folder}/lacking")
        check_access(page, [".jp-Dialog"], [".jp-apptainer-status"])
        dialog.get_by_role("button", name="Close").click()
        # It can be had again.
        page.get_by_role("button", name=re.compile("^wants: start failed")).click()
        dialog.get_by_role("button", name="Make the folder lacking").click()
        wait_idle(page)
        assert run_cell(page).strip() == "[]"
        expect(page.get_by_role("dialog")).to_have_count(0)
    (folder / "lacking").rmdir()


@pytest.mark.usefixtures("server")
def test_jupyter_notebook_cancels_and_mends(browser: Browser, folder: Path, labextension: Path) -> None:
    write_notebook(folder / "asleep.ipynb", "1", kernel="sleeper")
    with (
        serve(folder, labextension, "notebook") as server,
        open_page(browser, server, "notebooks/asleep.ipynb") as page,
    ):
        toast = page.get_by_role("alert").filter(has_text="connecting to the kernel")
        toast.get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("the start of this kernel was cancelled")
        dialog.get_by_role("button", name="Another kernel…").click()
        dialog.get_by_role("combobox").select_option(label="Wants — starter.sif · cannot start")
        dialog.get_by_role("button", name="Select").click()
        dialog.get_by_role("button", name="Make the folder lacking").click()
        wait_idle(page)
    (folder / "lacking").rmdir()


def test_kernels_and_containers_are_shown_where_they_are_looked_for(
    server: Server, browser: Browser, folder: Path, starter_kernel: str
) -> None:
    write_notebook(folder / "shown.ipynb", "1", kernel=starter_kernel)
    asked: list[str] = []
    with open_page(browser, server, "lab?reset") as page:
        launcher = page.locator(".jp-Launcher-body")
        card = launcher.get_by_role("button", name=re.compile(r"^Wants — starter\.sif · cannot start"))
        expect(card).to_have_attribute("title", f"{folder}/lacking does not exist")
        check_access(page, [".jp-Launcher-body [data-category=Apptainer]"])
        launcher.locator("[data-category=Apptainer]").get_by_text("(starter.sif)").click()
        wait_idle(page)
        expect(page.locator(".jp-apptainer-status")).to_be_hidden()
        front = page.locator(".jp-apptainer-front")
        expect(front).to_contain_text(re.compile(r"^starter\.sif · \d+(\.\d)? MiB$"))

        page.locator(".jp-Toolbar-kernelName").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("combobox").select_option(label="Wants — starter.sif · cannot start")
        expect(dialog.get_by_role("status")).to_have_text(f"{folder}/lacking does not exist")
        check_access(page, [".jp-Dialog"], [".jp-apptainer-front"])
        dialog.get_by_role("button", name="Cancel").click()

        front.get_by_role("button").click()
        expect(page.locator(".jp-apptainer-panel .jp-apptainer-facts").first).to_contain_text("starter.sif")
        page.evaluate("jupyterapp.shell.activateById('jp-running-sessions')")
        items = page.locator("#jp-running-sessions .jp-RunningSessions-item")
        running = items.filter(has_text=re.compile(r"starter\.sif · "))
        expect(running).to_have_count(1)
        # Ours, by the instance's name: those of Jupyter's kernels beside it have pictures without a text.
        check_access(page, [".jp-RunningSessions-item:has([title*='jpa-'])"])
        page.on("request", lambda request: asked.append(request.url) if "/jupyter-apptainer/" in request.url else None)
        page.evaluate("void jupyterapp.commands.execute('launcher:create')")
        expect(front).to_be_hidden()
        page.wait_for_timeout(500)
        asked.clear()
        # Longer than the interval of what the status bar asks.
        page.wait_for_timeout(3500)
        assert asked == []
        running.hover()
        running.get_by_title("Shut down").click()
        expect(running).to_have_count(0)
    assert server.ask("GET", "jupyter-apptainer/v1/instances")[1] == []
