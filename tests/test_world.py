"""The checks of the test suite notice what they are there to notice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import world

# The same for every user.
pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parent.parent


def test_daemon_with_new_parent_and_empty_environment_is_found() -> None:
    script = 'env -i setsid sh -c "sleep 60 >/dev/null & echo \\$!"'
    pid = int(subprocess.check_output(["sh", "-c", script], text=True))
    try:
        (found,) = [process for process in world.iter_tagged(world.get_tag()) if process.pid == pid]
        assert "sleep 60" in found.command
        assert found in world.find_leftovers(lambda: world.iter_tagged(world.get_tag()), grace_s=0)
    finally:
        os.kill(pid, signal.SIGKILL)
    world.wait_until_gone([found], timeout_s=5)


def test_process_of_another_session_is_not_ours() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "from tests import world; world.set_tag(world.new_tag()); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert other.stdout
    other.stdout.readline()
    assert other.pid not in {process.pid for process in world.iter_tagged(world.get_tag())}
    other.communicate(b"\n", timeout=10)


def test_ending_process_is_waited_for() -> None:
    def iter_ours() -> Iterator[world.Process]:
        return world.iter_tagged(world.get_tag())

    # A registry, for one, serves all tests.
    before = list(iter_ours())
    subprocess.Popen(["sleep", "0.2"])
    assert world.find_leftovers(iter_ours, before) == []


def run_inner_pytest(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test_inner.py"
    path.write_text(source)
    places = (f"--rootdir={folder}", f"--basetemp={folder / 'tmp'}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, *places, path, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import pytest\ndef test_it(): pytest.skip('why')\n", id="in a test"),
        pytest.param("import pytest\n@pytest.mark.skip(reason='why')\ndef test_it(): pass\n", id="by mark"),
        pytest.param("import pytest\npytest.skip('why', allow_module_level=True)\n", id="in a module"),
    ],
)
def test_skip_fails_with_no_skips(tmp_path: Path, source: str) -> None:
    answer = run_inner_pytest(tmp_path, source, "--no-skips")
    assert answer.returncode != 0
    assert "why" in answer.stdout


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        pytest.param("import os\ndef test_it(): os.environ['LEFT'] = '1'\n", "changed os.environ", id="variable"),
        pytest.param(
            "import subprocess\ndef test_it(): subprocess.run('setsid sleep 60 >/dev/null 2>&1 &', shell=True)\n",
            "left behind by the tests",
            id="process",
        ),
    ],
)
def test_trace_of_a_test_fails_the_run(tmp_path: Path, source: str, complaint: str) -> None:
    answer = run_inner_pytest(tmp_path, source)
    for name in re.findall(r"(\d+) \(parent \d+\): sleep", answer.stdout):
        os.kill(int(name), signal.SIGKILL)
    assert answer.returncode != 0
    assert complaint in answer.stdout


def test_a_child_or_a_thread_that_never_ends_does_not_keep_a_run_from_ending(tmp_path: Path) -> None:
    source = """
import subprocess, threading
from tests import watchdog

watchdog._LIMIT_S = watchdog._GRACE_S = watchdog._AGAIN_S = watchdog._EXIT_S = 0.5

def test_it():
    threading.Thread(target=threading.Event().wait, name="the-waiting-one").start()
    with subprocess.Popen(["sleep", "600"]):
        assert False, "leaves a block that waits for a child"
"""
    answer = run_inner_pytest(tmp_path, source)
    assert answer.returncode != 0
    assert "leaves a block" in answer.stdout
    assert "the-waiting-one" in answer.stderr
