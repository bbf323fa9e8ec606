"""What the JupyterLab extension adds to JupyterLab's start: from the page's request until JupyterLab has restored itself.

python -m benchmarks.lab_start --rounds 15

Two pages of one server in turns, one with our extension switched off, in a fresh memory each: so nothing is cached for either, and
what else the machine does strikes both. Needs chromium, Playwright and the built extension (`make labextension`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Route, sync_playwright

from .options import add_rounds, build_parser

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "jupyter_apptainer" / "labextension"
# Milliseconds at most, the median of the differences.
TARGET_MS = 50.0
_TIMEOUT_MS = 60_000
_CONFIG = re.compile(r'(<script id="jupyter-config-data"[^>]*>)(.*?)(</script>)', re.S)
_RESTORED = """async () => {
    while (!window.jupyterapp) await new Promise(resolve => requestAnimationFrame(resolve));
    await window.jupyterapp.restored;
    return performance.now();
}"""


def measure(rounds: int) -> tuple[float, float]:
    """Return the median start with the extension and the median difference that it makes, in milliseconds."""
    program = shutil.which("chromium")
    if program is None or not (BUILT / "package.json").exists():
        raise SystemExit("this needs chromium, and the extension built: make labextension")
    with _serve() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        # The first of each has warmed up the server.
        pairs = [(_time(browser, address, True), _time(browser, address, False)) for _ in range(rounds + 1)][1:]
        browser.close()
    return statistics.median(with_it for with_it, _ in pairs), statistics.median(a - b for a, b in pairs)


def _time(browser: Browser, address: str, is_on: bool) -> float:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MS)
    # Both pages take the same detour.
    page.route(re.compile(r"/lab\?"), lambda route: _write(route, is_on))
    page.goto(f"{address}/lab?reset")
    took = float(page.evaluate(_RESTORED))
    context.close()
    return took


def _write(route: Route, is_on: bool) -> None:
    """Answer with the page; off: our extension is taken out of its list, and JupyterLab's own dialogs are back."""
    response = route.fetch()

    def change(found: re.Match[str]) -> str:
        config = json.loads(found[2])
        extensions = config["federated_extensions"]
        if not is_on:
            config["federated_extensions"] = [each for each in extensions if each["name"] != "jupyter-apptainer"]
            config["disabledExtensions"] = []
        return found[1] + json.dumps(config) + found[3]

    route.fulfill(response=response, body=_CONFIG.sub(change, response.text()))


@contextmanager
def _serve() -> Iterator[str]:
    """A JupyterLab of its own with our extension, and no kernels but what the account has."""
    with tempfile.TemporaryDirectory(prefix="jpa-bench-") as folder:
        extensions = Path(folder, "labextensions")
        extensions.mkdir()
        (extensions / "jupyter-apptainer").symlink_to(BUILT)
        own = {name: f"{folder}/{name.lower()}" for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--port=0",
                "--ip=127.0.0.1",
                "--IdentityProvider.token=",
                "--expose-app-in-browser",
                f"--ServerApp.root_dir={folder}",
                f"--LabApp.extra_labextensions_path={extensions}",
            ],
            env=os.environ | own,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stderr is not None
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        finally:
            server.kill()
            server.communicate()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and report. Returns the exit status: 1 where it is slower than promised."""
    parser = build_parser("benchmarks.lab_start", __doc__)
    add_rounds(parser)
    options = parser.parse_args(argv)
    start_ms, difference_ms = measure(options.rounds)
    if options.json:
        options.json.write_text(json.dumps({"start": start_ms, "difference": difference_ms}), encoding="utf-8")
    print(f"JupyterLab's start: {start_ms:.0f} ms; the extension adds {difference_ms:.0f} ms (at most {TARGET_MS:.0f})")
    return 0 if difference_ms <= TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
