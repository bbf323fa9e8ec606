"""A real server whose REST interface is asked, and what its description says of the answers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from jsonschema import Draft202012Validator

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.places import Places
from jupyter_apptainer.server.openapi import load_openapi
from jupyter_apptainer.tasks.stop import cancel_task
from jupyter_apptainer.tasks.store import clean_tasks, iter_tasks
from tests.integration.conftest import TIMEOUT_S
from tests.integration.server import TOKEN, Server

BASE = "jupyter-apptainer/v1"
METHODS = ("get", "post", "put", "patch", "delete")


def list_operations() -> list[tuple[str, str, str]]:
    """Return method, path and resource of all that openapi.yaml describes."""
    return [
        (method, path, operation["x-resource"])
        for path, operations in load_openapi()["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    ]


def fill(path: str) -> str:
    return path.replace("{id}", "0123abcd").replace("{name}", "jpa-none").replace("{kernel_id}", "no-kernel")


class Api:
    """Asks a server, and holds each answer against openapi.yaml."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        found, answer = self.server.ask(method, f"{BASE}{path}", body)
        assert found == status, answer
        if answer is not None:
            validate(method, path.partition("?")[0], found, answer)
        return answer

    def refuse(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Ask for what is not given; returns status and code."""
        found, answer = self.server.ask(method, f"{BASE}{path}", body)
        assert found >= 400, answer
        check(answer, "Error")
        return found, str(answer["error"]["code"])

    def wait_for_task(self, task_id: str) -> Any:
        """Wait until a task is over, by the server's own events; returns it."""
        with self.subscribe() as events:
            while True:
                task = self("GET", f"/tasks/{task_id}")
                if task["state"] not in ("queued", "running"):
                    return task
                self("GET", "/tasks")
                events.receive("task")

    def subscribe(self) -> Events:
        return Events(self.server)


class Events:
    """The server's event bus, as a front end holds it."""

    def __init__(self, server: Server) -> None:
        self._socket = websocket.create_connection(
            f"ws://{server.address}/api/events/subscribe",
            header=[f"Authorization: token {TOKEN}"],
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def receive(self, noun: str) -> Any:
        """Wait for the next event about a noun."""
        while True:
            event = json.loads(self._socket.recv())
            if event["schema_id"] == f"https://events.jupyter.org/jupyter_apptainer/{noun}/v1":
                return event


def check(answer: object, schema: str) -> None:
    document = {"$ref": f"#/components/schemas/{schema}", "components": load_openapi()["components"]}
    Draft202012Validator(document).validate(answer)


def validate(method: str, path: str, status: int, answer: object) -> None:
    """Hold an answer against what openapi.yaml says of it."""
    operation = next(
        operations[method.lower()]
        for template, operations in load_openapi()["paths"].items()
        if _fits(template, path) and method.lower() in operations
    )
    name = operation["responses"][str(status)]["$ref"].rpartition("/")[2]
    components = load_openapi()["components"]
    schema = components["responses"][name]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": components}).validate(answer)


def _fits(template: str, path: str) -> bool:
    ours, theirs = template.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(a == b or a.startswith("{") for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(scope="module")
def shared_server(desk: Path, engine: EngineInfo, places: Places) -> Iterator[Server]:
    server = Server(desk, "--ApptainerExtension.max_tasks=1", "--ApptainerExtension.max_queued_tasks=3")
    yield server
    server.end()


@pytest.fixture
def api(shared_server: Server, places: Places) -> Iterator[Api]:
    """The server's interface; tasks of a test end with it."""
    clean_tasks(places, older_than_s=0)
    yield Api(shared_server)
    for task in iter_tasks(places):
        cancel_task(places, task.id)
    clean_tasks(places, older_than_s=0)


def open_plain(server: Server, method: str, path: str, **headers: str) -> Any:
    """Send a request without the token; returns urllib's response. Raises HTTPError for a status of 400 and above."""
    request = urllib.request.Request(f"http://{server.address}/{path}", method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)
