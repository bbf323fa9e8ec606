"""One image over REST: what it says, what is in it, who may not be asked, and a terminal inside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websocket

from tests.integration.server import TOKEN, Server
from tests.server.conftest import Api

pytestmark = pytest.mark.user


class Terminal:
    """The websocket of a terminal, as a front end holds it."""

    def __init__(self, server: Server, name: str) -> None:
        self._socket = websocket.create_connection(
            f"ws://{server.address}/terminals/websocket/{name}",
            header=[f"Authorization: token {TOKEN}"],
            timeout=60,
        )
        self.text = ""

    def type(self, text: str) -> None:
        self._socket.send(json.dumps(["stdin", text]))

    def wait(self, text: str) -> None:
        while text not in self.text:
            message = json.loads(self._socket.recv())
            self.text += message[1] if message[0] == "stdout" else ""

    def close(self) -> None:
        self._socket.close()


@contextmanager
def open_terminal(api: Api, body: object) -> Iterator[Terminal]:
    name = api("POST", "/terminals", body, status=201)["name"]
    terminal = Terminal(api.server, name)
    try:
        yield terminal
    finally:
        terminal.close()
        api.server.ask("DELETE", f"api/terminals/{name}")


@pytest.fixture(scope="module")
def linked(desk: Path, starter_image: Path) -> Path:
    """An image in the server's folder, with a name that a shell would not take as it is."""
    path = desk / "a folder & more" / "it's $HOME.sif"
    path.parent.mkdir()
    path.symlink_to(starter_image)
    return path


def test_image_says_what_it_is_and_what_is_in_it(api: Api, linked: Path, desk: Path) -> None:
    query = "/image?path=a%20folder%20%26%20more/it%27s%20%24HOME.sif"
    image = api("GET", query)
    assert (image["path"], image["kind"]) == (str(desk.resolve() / linked.relative_to(desk)), "sif")
    assert image["size_bytes"] == linked.stat().st_size
    assert image["compression"] in ("gzip", "lz4", "zstd")
    assert image["definition"].lower().startswith("bootstrap:")
    content = api("GET", query.replace("?", "/content?"))
    assert {"numpy", "ipykernel"} <= {package["name"] for package in content["packages"]}
    assert len(content["sha256"]) == 64


def test_unpacked_image_is_an_image_too(api: Api, desk: Path) -> None:
    folder = desk / "unpacked"
    (folder / ".singularity.d").mkdir(parents=True)
    (folder / ".singularity.d" / "labels.json").write_text('{"Maker": "me"}')
    image = api("GET", "/image?path=unpacked")
    assert (image["kind"], image["labels"]) == ("sandbox", {"Maker": "me"})
    shutil.rmtree(folder)


def test_only_images_that_are_shown_can_be_asked_for(api: Api, desk: Path, small_sif: Path) -> None:
    hidden = desk / ".hidden" / "x.sif"
    hidden.parent.mkdir()
    shutil.copy(small_sif, hidden)
    os.mkfifo(desk / "pipe.sif")
    (desk / "notes.sif").write_text("no image")
    try:
        for path, code in (
            (".hidden/x.sif", "not-found"),
            (str(small_sif), "not-found"),
            ("pipe.sif", "image-invalid"),
            ("notes.sif", "image-invalid"),
            ("missing.sif", "image-not-found"),
        ):
            assert api.refuse("GET", f"/image?path={path}")[1] == code, path
            assert api.refuse("POST", "/terminals", {"image": path})[1] == code, path
        # As soon as a kernel names it, it is in the list of images.
        api("POST", "/kernelspecs", {"name": "small", "config": {"image": str(small_sif)}, "check": False}, status=201)
        assert api("GET", f"/image?path={small_sif}")["kernels"] == ["small"]
        api("DELETE", "/kernelspecs/small", status=204)
    finally:
        shutil.rmtree(hidden.parent)
        (desk / "pipe.sif").unlink()
        (desk / "notes.sif").unlink()


def test_terminal_is_a_shell_in_the_image(api: Api, linked: Path) -> None:
    with open_terminal(api, {"image": str(linked.relative_to(linked.parents[1]))}) as terminal:
        terminal.type("echo in:$APPTAINER_NAME: at:$PWD:\n")
        terminal.wait(f"at:{linked.parent}:")
        assert "in:starter.sif:" in terminal.text or f"in:{linked.name}:" in terminal.text


def test_terminal_of_a_shell_that_cannot_start_stays_to_be_read(api: Api, desk: Path) -> None:
    (desk / "empty" / ".singularity.d").mkdir(parents=True)
    try:
        with open_terminal(api, {"image": "empty"}) as terminal:
            terminal.wait("Enter closes this terminal")
            assert "/bin/sh" in terminal.text
    finally:
        shutil.rmtree(desk / "empty")


def test_server_without_terminals_has_none_in_images(desk: Path, linked: Path) -> None:
    server = Server(desk, "--ServerApp.terminals_enabled=False")
    try:
        status, code = Api(server).refuse("POST", "/terminals", {"image": str(linked.relative_to(desk))})
        assert (status, code) == (403, "forbidden")
    finally:
        server.end()
