"""The side bar: from an empty server to a running notebook, without a typed command."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from jupyter_apptainer.places import find_places
from jupyter_apptainer.tasks.stop import cancel_task
from jupyter_apptainer.tasks.store import clean_tasks, iter_tasks
from tests.browser.conftest import TIMEOUT_MS, open_page, serve
from tests.browser.test_labextension import run_cell, wait_idle
from tests.gpu.world import GIB, STANDIN, World, make_card
from tests.integration.server import Server
from tests.laboratory import Lab
from tests.registry import OciImage, Registry

pytestmark = pytest.mark.user

BUILT = """\
Bootstrap: localimage
From: {image}

%post
    echo fresh > /opt/built
"""
SLOW = """\
Bootstrap: localimage
From: {image}

%post
    echo building slowly
    exec sleep 600
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bar")


@pytest.fixture(scope="module")
def server(folder: Path, labextension: Path, starter_kernel: str, starter_image: Path, lab: Lab) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("APPTAINER_CONFIGDIR", "APPTAINER_CACHEDIR"):
            patch.setenv(name, lab.environ[name])
        patch.setenv("JUPYTER_APPTAINER_HOME", str(folder.with_name(folder.name + "-own")))
        world = World(folder.with_name(folder.name + "-gpus.json"))
        world.show(make_card(0, utilisation=43, memory=[10 * GIB, 40 * GIB]))
        patch.setenv("JPA_TEST_GPUS", str(world.path))
        patch.setenv("PYTHONPATH", str(STANDIN))
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        places = find_places()
        running = serve(folder, labextension, "jupyterlab")
        found = running.__enter__()
    yield found
    running.__exit__(None, None, None)
    for task in list(iter_tasks(places)):
        cancel_task(places, task.id)
    clean_tasks(places, older_than_s=0)


def open_side_bar(page: Page) -> Locator:
    page.wait_for_function("window.jupyterapp?.commands.hasCommand('apptainer:open-panel')")
    # What was open before decides what is seen until then.
    page.evaluate("jupyterapp.restored.then(() => true)")
    # Jupyter Notebook folds its side bars whenever something is added to one, as other extensions do while the page loads.
    page.wait_for_function(
        """() => {
            const isSeen = Boolean(document.querySelector('.jp-apptainer-panel')?.offsetParent);
            if (!isSeen)
                void jupyterapp.commands.execute('apptainer:open-panel');
            return isSeen;
        }""",
        polling=500,
    )
    panel = page.locator(".jp-apptainer-panel")
    expect(panel).to_be_visible()
    return panel


def unfold(panel: Locator, section: str) -> None:
    """Open a section of the side bar, if it is not."""
    title = panel.locator(".jp-AccordionPanel-title, .lm-AccordionPanel-title").filter(
        has_text=re.compile(f"^{section}$", re.I)
    )
    if title.get_attribute("aria-expanded") != "true":
        title.click()
    expect(title).to_have_attribute("aria-expanded", "true")


def test_pull_make_a_kernel_use_it_and_stop_it(
    server: Server, browser: Browser, folder: Path, registry: Registry, oci_image: OciImage, starter_image: Path
) -> None:
    with open_page(browser, server, "lab?reset") as page:
        panel = open_side_bar(page)
        panel.get_by_role("button", name="Pull…").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Address", exact=True).fill(f"docker://{registry.host}/lab/tiny:1")
        form.get_by_label("File", exact=True).fill("pulled.sif")
        form.get_by_label("The registry speaks plain http").check()
        form.get_by_role("button", name="Pull").click()
        tasks = panel.get_by_role("list", name="Tasks")
        expect(tasks.get_by_role("listitem").first).to_contain_text("done")
        assert (folder / "pulled.sif").exists()

        panel.get_by_role("button", name=f"Make kernel…: {starter_image.name}").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Name that people see", exact=True).fill("From the side bar")
        form.get_by_label("Short name", exact=True).fill("side-bar")
        form.get_by_role("button", name="Make").click()
        unfold(panel, "Kernels")
        panel.get_by_role("button", name="New notebook: From the side bar").click()
        wait_idle(page)
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.type("import os; os.environ['APPTAINER_NAME']")
        assert run_cell(page).strip() == f"'{starter_image.name}'"

        open_side_bar(page)
        unfold(panel, "This notebook")
        expect(panel.locator(".jp-apptainer-facts").first).to_contain_text(starter_image.name)
        unfold(panel, "Instances")
        expect(panel.get_by_role("list", name="Instances").get_by_role("listitem")).to_have_count(1)
        for theme in ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"):
            page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
            expect(page.locator(f"body[data-jp-theme-name='{theme}']")).to_be_attached()
            found = Axe().run(page, context=".jp-apptainer-panel").response["violations"]
            assert not [rule for rule in found if rule["impact"] in ("serious", "critical")], found
        panel.get_by_role("button", name="Stop…: Untitled.ipynb").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        expect(panel.get_by_text("No container runs.")).to_be_visible()
        panel.get_by_role("button", name="Remove…: From the side bar").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(panel.get_by_text("From the side bar")).to_have_count(0)
    assert not Path(os.environ["JUPYTER_DATA_DIR"], "kernels", "side-bar").exists()


def build_and_open(page: Page, folder: Path, image: Path, name: str) -> Locator:
    """Build an image from the side bar; returns the button of the notification that opens a notebook in it."""
    (folder / f"{name}.def").write_text(BUILT.format(image=image))
    open_side_bar(page).get_by_role("button", name="Build…").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Recipe", exact=True).fill(f"{name}.def")
    form.get_by_label("Image", exact=True).fill(f"{name}.sif")
    form.get_by_role("button", name="Build").click()
    notice = page.locator(".Toastify__toast").filter(has_text=name)
    expect(notice.get_by_role("button", name="Log")).to_be_visible()
    start = notice.get_by_role("button", name="New notebook in it")
    expect(start).to_be_visible(timeout=3 * TIMEOUT_MS)
    return start


def read_what_was_built(page: Page) -> None:
    wait_idle(page)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.type("open('/opt/built').read()")
    assert run_cell(page).strip() == "'fresh\\n'"


def test_build_an_image_and_work_in_it(
    server: Server, browser: Browser, folder: Path, labextension: Path, starter_image: Path
) -> None:
    """In JupyterLab from an empty server on, then in Jupyter Notebook with the same image."""
    with open_page(browser, server, "lab?reset") as page:
        build_and_open(page, folder, starter_image, "fresh").click()
        read_what_was_built(page)
    with serve(folder, labextension, "notebook") as second, open_page(browser, second, "tree") as tree:
        open_side_bar(tree).get_by_role("button", name="Build…").click()
        tree.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        tree.locator(".jp-DirListing-item", has_text="fresh.sif").click(button="right")
        with tree.expect_popup() as opened:
            tree.get_by_role("menuitem", name="New notebook in an image").click()
        page = opened.value
        read_what_was_built(page)
        before = wait_idle(page)
        page.get_by_role("button", name="Environment").click()
        page.get_by_role("dialog").get_by_label("Overlays", exact=True).fill("tmpfs")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Save and start anew").press("Enter")
        page.wait_for_function(
            "id => { const s = jupyterapp.shell.currentWidget.sessionContext.session; return s?.kernel && s.kernel.id !== id; }",
            arg=before,
        )
        wait_idle(page)


def test_a_build_can_be_watched_and_cancelled(
    server: Server, browser: Browser, folder: Path, starter_image: Path
) -> None:
    (folder / "slow.def").write_text(SLOW.format(image=starter_image))
    with open_page(browser, server, "lab?reset") as page:
        panel = open_side_bar(page)
        panel.get_by_role("button", name="Build…").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Recipe", exact=True).fill("slow.def")
        form.get_by_label("Image", exact=True).fill("slow.sif")
        form.get_by_role("button", name="Build").click()
        task = panel.get_by_role("list", name="Tasks").get_by_role("listitem").filter(has_text="slow")
        expect(task.get_by_role("progressbar")).to_be_visible()
        task.get_by_role("button", name=re.compile("^Log")).click()
        log = page.get_by_role("log")
        expect(log).to_contain_text("building slowly")
        page.get_by_role("searchbox", name="Show lines with…").fill("slowly")
        expect(log).to_have_text(re.compile(r"^\s*(?:\S.*slowly\s*)+$"))
        task.get_by_role("button", name=re.compile("^Cancel")).click()
        expect(task).to_contain_text("cancelled")
    assert not list(folder.glob("slow*sif*"))


def test_a_failure_is_told_with_its_way_out(server: Server, browser: Browser, folder: Path) -> None:
    with open_page(browser, server, "lab?reset") as page:
        panel = open_side_bar(page)
        panel.get_by_role("button", name="Build…").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Recipe", exact=True).fill("missing.def")
        form.get_by_label("Image", exact=True).fill("missing.sif")
        form.get_by_role("button", name="Build").click()
        expect(page.get_by_role("dialog")).to_contain_text("missing.def")
        page.get_by_role("dialog").get_by_role("button").last.click()


def test_settings_open_sections_of_gpus_and_storage(server: Server, browser: Browser) -> None:
    settings = "lab/api/settings/jupyter-apptainer:panel"
    server.ask("PUT", settings, {"raw": json.dumps({"openSections": ["gpus", "storage"], "refreshSeconds": 1})})
    try:
        with open_page(browser, server, "lab?reset") as page:
            panel = open_side_bar(page)
            card = panel.get_by_role("list", name="GPUs").get_by_role("listitem")
            expect(card).to_contain_text("NVIDIA A100-SXM4-40GB")
            expect(card.get_by_role("progressbar", name="Use of GPU 0")).to_have_attribute("aria-valuenow", "43")
            expect(card.get_by_role("progressbar", name="Memory of GPU 0")).to_have_attribute("aria-valuenow", "25")
            disks = panel.get_by_role("list", name="Storage").get_by_role("progressbar")
            expect(disks.first).to_have_attribute("aria-valuetext", re.compile(r"free of \d"))
            expect(panel.get_by_role("button", name="Pull…")).to_be_hidden()
    finally:
        server.ask("PUT", settings, {"raw": "{}"})


def test_nothing_is_asked_while_the_side_bar_is_hidden(server: Server, browser: Browser) -> None:
    asked: list[str] = []
    with open_page(browser, server, "lab?reset") as page:
        panel = open_side_bar(page)
        page.on("request", lambda request: asked.append(request.url) if "/jupyter-apptainer/" in request.url else None)
        with page.expect_request(re.compile("/jupyter-apptainer/v1/tasks")):
            pass
        page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
        expect(panel).to_be_hidden()
        page.wait_for_timeout(500)
        asked.clear()
        # Longer than the shortest interval of the sections.
        page.wait_for_timeout(4000)
        assert asked == []
        open_side_bar(page)
        with page.expect_request(re.compile("/jupyter-apptainer/v1/tasks")):
            pass
