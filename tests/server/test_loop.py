"""The REST interface in this very process (pytest-jupyter), where one can see what its event loop does."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.auth import Authorizer

# Fixtures count where they are imported: as a plugin they would be in every test of the suite.
from pytest_jupyter.jupyter_server import (  # noqa: F401
    http_server,
    http_server_client,
    http_server_port,
    jp_argv,
    jp_asyncio_loop,
    jp_auth_header,
    jp_base_url,
    jp_configurable_serverapp,
    jp_fetch,
    jp_http_port,
    jp_logging_stream,
    jp_root_dir,
    jp_server_cleanup,
    jp_serverapp,
    jp_web_app,
)
from traitlets.config import Config

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import TaskFailed
from jupyter_apptainer.places import Places
from jupyter_apptainer.server.events import SCHEMAS
from jupyter_apptainer.server.openapi import load_openapi
from jupyter_apptainer.server.reading import Looks
from jupyter_apptainer.tasks.follow import wait_for_task_async
from jupyter_apptainer.tasks.model import Task, TaskSpec
from jupyter_apptainer.tasks.start import start_task_async
from jupyter_apptainer.tasks.store import LOG_FILE, find_folder, forget_task, save_task
from tests.server.conftest import BASE, fill, list_operations

pytestmark = pytest.mark.user  # the same for everybody
Fetch = Callable[..., Awaitable[Any]]
# Of sys.addaudithook: what reads disks, looks up names or starts programs.
_BLOCKING: tuple[str, ...] = (
    "open",
    "os.listdir",
    "os.scandir",
    "subprocess.Popen",
    "os.fork",
    "os.posix_spawn",
    "os.system",
)
_BLOCKING += ("sqlite3.connect", "socket.getaddrinfo", "socket.gethostbyname", "shutil.rmtree")
_TASK_ID = "0123abcd"


class _Witness:
    """Notes what one thread does that may block. A hook stays for ever, so it is one for all tests."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen: list[tuple[str, str]] = []
        self._is_hooked = False

    def _note(self, event: str, args: tuple[object, ...]) -> None:
        if self.thread is not None and event in _BLOCKING and threading.get_ident() == self.thread:
            self.seen.append((event, repr(args[:1])))

    @contextmanager
    def watch(self) -> Iterator[list[tuple[str, str]]]:
        """Watch the thread that calls."""
        if not self._is_hooked:
            sys.addaudithook(self._note)
            self._is_hooked = True
        self.seen, self.thread = [], threading.get_ident()
        try:
            yield self.seen
        finally:
            self.thread = None


WITNESS = _Witness()


@pytest.fixture
def jp_environ() -> None:
    """The suite has folders of its own already."""


@pytest.fixture
def jp_nbconvert_templates() -> None:
    """Not needed here."""


@pytest.fixture
def jp_server_config(tmp_path: Path) -> Config:
    return Config(
        {
            "ServerApp": {"jpserver_extensions": {"jupyter_apptainer": True}},
            "SessionManager": {"database_filepath": str(tmp_path / "sessions.db")},
        }
    )


@pytest.fixture
def task(places: Places) -> Iterator[Task]:
    """One that is over."""
    spec = TaskSpec(kind="test", title="nothing", work="nothing:at_all", args={})
    made = Task(id=_TASK_ID, spec=spec, state="done", ended_at=1.0)
    folder = find_folder(places, made.id)
    folder.mkdir(parents=True, mode=0o700)
    save_task(places, made)
    (folder / LOG_FILE).write_text("said\n")
    yield made
    forget_task(places, made.id)


def test_no_reading_route_blocks_the_loop(
    jp_fetch: Fetch,  # noqa: F811
    jp_asyncio_loop: asyncio.AbstractEventLoop,  # noqa: F811
    task: Task,
    engine: EngineInfo,
    starter_image: Path,
    starter_kernel: str,
) -> None:
    async def read_all() -> None:
        for path, operations in load_openapi()["paths"].items():
            if "get" in operations:
                query = {"path": str(starter_image)} if path.startswith("/image/") or path == "/image" else {}
                with WITNESS.watch() as seen:
                    response = await jp_fetch(f"{BASE}{path.replace('{id}', task.id)}", params=query)
                assert json.loads(response.body) is not None
                assert seen == [], path

    jp_asyncio_loop.run_until_complete(asyncio.wait_for(read_all(), 120))


class Nobody(Authorizer):
    """Lets nobody do anything of ours."""

    def is_authorized(self, handler: object, user: object, action: str, resource: str) -> bool:
        return not resource.startswith("jupyter_apptainer")


@pytest.mark.parametrize("jp_argv", [[f"--ServerApp.authorizer_class={__name__}.Nobody"]], ids=["nobody"])
def test_authorizer_is_asked_about_each_noun(
    jp_fetch: Fetch,  # noqa: F811
    jp_asyncio_loop: asyncio.AbstractEventLoop,  # noqa: F811
) -> None:
    async def try_all() -> None:
        for method, path, resource in list_operations():
            response = await jp_fetch(
                f"{BASE}{fill(path)}",
                method=method.upper(),
                raise_error=False,
                allow_nonstandard_methods=True,
            )
            action = "read" if method == "get" else "write"
            error = json.loads(response.body)["error"]
            assert (response.code, error["code"]) == (403, "forbidden")
            assert f"not authorized to {action} on resource: {resource}." in error["message"]

    jp_asyncio_loop.run_until_complete(asyncio.wait_for(try_all(), 120))


def test_nobody_is_told_of_tasks_unless_somebody_looks(
    jp_serverapp: Any,  # noqa: F811
    jp_fetch: Fetch,  # noqa: F811
    jp_asyncio_loop: asyncio.AbstractEventLoop,  # noqa: F811
    places: Places,
) -> None:
    heard: dict[str, list[str]] = {}
    is_over = asyncio.Event()

    async def listen(logger: object, schema_id: str, data: Mapping[str, str]) -> None:
        heard.setdefault(data["task_id"], []).append(data["state"])
        if data["state"] == "failed":
            is_over.set()

    async def do_nothing() -> str:
        """Run a task, to its end; returns its id."""
        spec = TaskSpec(kind="test", title="nothing", work="jupyter_apptainer.errors:nothing", args={})
        started = await start_task_async(places, spec)
        with pytest.raises(TaskFailed):
            await wait_for_task_async(places, started.task.id)
        return started.task.id

    async def do_both() -> None:
        jp_serverapp.event_logger.add_listener(schema_id=SCHEMAS["task"], listener=listen)
        first = await do_nothing()
        await jp_fetch(f"{BASE}/tasks")
        second = await do_nothing()
        await is_over.wait()
        assert list(heard) == [second]
        for each in (first, second):
            forget_task(places, each)

    jp_asyncio_loop.run_until_complete(asyncio.wait_for(do_both(), 120))


def test_the_witness_sees_what_blocks() -> None:
    with WITNESS.watch() as seen:
        Path(__file__).read_text()
        thread = threading.Thread(target=Path(__file__).read_text, daemon=True)
        thread.start()
        thread.join(60)
    assert [event for event, _ in seen] == ["open"]


def test_many_viewers_share_one_look_and_none_sees_what_was_before_it_asked() -> None:
    looked: list[int] = []
    begun, gate = threading.Event(), threading.Event()

    def look() -> str:
        looked.append(len(looked))
        number = looked[-1]
        begun.set()
        assert gate.wait(60)
        return f"look {number}"

    async def ask_often() -> list[str]:
        looks = Looks()
        first = asyncio.ensure_future(looks.share("noun", look))
        assert await asyncio.to_thread(begun.wait, 60)
        # These came while somebody was looking, and may know of something newer.
        others = [asyncio.ensure_future(looks.share("noun", look)) for _ in range(20)]
        await asyncio.sleep(0)
        # One goes away, which is nothing to the others.
        others.pop().cancel()
        gate.set()
        return await asyncio.wait_for(asyncio.gather(first, *others), 60)

    assert asyncio.run(ask_often()) == ["look 0"] + ["look 1"] * 19
    assert looked == [0, 1]
