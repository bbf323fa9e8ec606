"""Real front ends in a real browser, against real servers: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.integration.server import TOKEN, Server

ROOT = Path(__file__).resolve().parents[2]
LABEXTENSION = ROOT / "jupyter_apptainer" / "labextension"
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for a module; each page has a context, and so a memory, of its own.

    Not for longer: while Playwright runs, its event loop counts as running in this thread, and no test could use another.
    """
    program = shutil.which("chromium", path="/usr/bin:/usr/local/bin:" + os.environ["PATH"])
    assert program, "there is no chromium: tools/setup-machine.sh tests"
    expect.set_options(timeout=TIMEOUT_MS)
    own = str(tmp_path_factory.mktemp("chromium"))
    with sync_playwright() as playwright:
        # Root's chromium has no sandbox; /dev/shm is small in many containers.
        chromium = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--lang=en-US"],
            env={"HOME": own, "XDG_RUNTIME_DIR": own, "TMPDIR": own, "PATH": os.environ["PATH"]},
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def labextension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which servers find the built extension."""
    assert (LABEXTENSION / "package.json").exists(), "the JupyterLab extension is not built: make labextension"
    folder = tmp_path_factory.mktemp("labextensions")
    (folder / "jupyter-apptainer").symlink_to(LABEXTENSION)
    return folder


@contextmanager
def serve(root: Path, labextension: Path, module: str, *options: str) -> Iterator[Server]:
    """JupyterLab or Jupyter Notebook with our extension."""
    hide_news()
    server = Server(
        root,
        "--expose-app-in-browser",
        f"--LabServerApp.extra_labextensions_path={labextension}",
        f"--JupyterNotebookApp.extra_labextensions_path={labextension}",
        f"--LabApp.extra_labextensions_path={labextension}",
        "--IdentityProvider.token=" + TOKEN,
        *options,
        module=module,
    )
    try:
        yield server
    finally:
        server.end()


def hide_news() -> None:
    # The news would lie above what has to be clicked.
    overrides = Path(os.environ["JUPYTER_CONFIG_DIR"], "labconfig", "default_setting_overrides.json")
    overrides.parent.mkdir(parents=True, exist_ok=True)
    news = {"fetchNews": "false", "checkForUpdates": False}
    overrides.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": news}))


@contextmanager
def open_page(browser: Browser, server: Server, path: str) -> Iterator[Page]:
    """A page of the server; errors of our plugins on its console fail the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "apptainer" in message.text:
            errors.append(message.text)

    page.on("console", note)
    separator = "&" if "?" in path else "?"
    page.goto(f"http://{server.address}/{path}{separator}token={TOKEN}")
    try:
        yield page
        assert not errors
    finally:
        context.close()
        for session in server.ask("GET", "api/sessions")[1]:
            server.ask("DELETE", f"api/sessions/{session['id']}")
