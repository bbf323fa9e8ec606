"""Starts of kernels over REST: cancelled half-way, and failed ones that are mended by what the server offers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer import errors
from jupyter_apptainer.images.records import build_record, save_record
from jupyter_apptainer.images.reference import parse_reference
from jupyter_apptainer.instances.ledger import iter_entries
from jupyter_apptainer.kernels.repairs import find_repairs
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S
from tests.server.conftest import Api

pytestmark = pytest.mark.user
SLEEPER = ["sh", "-c", "echo asleep; sleep 600; echo {connection_file}"]
MakeKernel = Callable[[dict[str, object]], str]


@pytest.fixture
def make_kernel(api: Api, starter_image: Path) -> Iterator[MakeKernel]:
    """Makes a kernel that is not looked at before it starts."""

    def make(config: dict[str, object]) -> str:
        body = {"name": "starts", "config": {"image": str(starter_image), **config}, "check": False}
        api("POST", "/kernelspecs", body, status=201)
        return "starts"

    yield make
    api("DELETE", "/kernelspecs/starts", status=204)


def start(api: Api, name: str) -> tuple[int, Any]:
    return api.server.ask("POST", "api/kernels", {"name": name})


def find_start(api: Api, state: str) -> Any:
    """Return the newest."""
    return next(each for each in api("GET", "/starts") if each["state"] == state)


def test_start_is_cancelled_and_leaves_nothing(api: Api, make_kernel: MakeKernel, places: Places) -> None:
    name = make_kernel({"command": SLEEPER})
    with ThreadPoolExecutor(1) as pool, api.subscribe() as events:
        answer: Future[tuple[int, Any]] = pool.submit(start, api, name)
        event = events.receive("kernel_start")
        while (event["phase"], event["status"]) != ("connect", "started"):
            event = events.receive("kernel_start")
        kernel_id = event["kernel_id"]
        assert find_start(api, "starting")["kernel_id"] == kernel_id
        api("DELETE", f"/starts/{kernel_id}", status=204)
        assert [entry for entry in iter_entries(places) if entry.kernel_id == kernel_id] == []
        status, content = answer.result(TIMEOUT_S)
        event = events.receive("kernel_start")
    assert (event["status"], event["code"]) == ("failed", "start-cancelled")
    assert status == 500
    assert "was cancelled" in content["message"]
    assert find_start(api, "failed")["error"]["code"] == "start-cancelled"
    assert api.refuse("DELETE", f"/starts/{kernel_id}") == (404, "not-found")


def test_every_failure_is_told(api: Api, make_kernel: MakeKernel) -> None:
    """Also one that comes before the first phase."""
    name = make_kernel({"command": SLEEPER})
    with api.subscribe() as events:
        spec = Path(os.environ["JUPYTER_DATA_DIR"], "kernels", name, "kernel.json")
        spec.write_text(spec.read_text().replace('"image"', '"imgae"'))
        assert start(api, name)[0] == 500
        event = events.receive("kernel_start")
    assert (event["status"], event["code"]) == ("failed", "spec-invalid")


def test_failed_start_is_mended_by_what_is_offered(api: Api, make_kernel: MakeKernel, tmp_path: Path) -> None:
    folder, overlay = tmp_path / "data", tmp_path / "work.img"
    name = make_kernel({"binds": [str(folder)], "overlays": [str(overlay)]})
    for kind, subject in (("make-folder", folder), ("create-overlay", overlay)):
        assert start(api, name)[0] == 500
        failed = find_start(api, "failed")
        offered = [(each["kind"], each["subject"]) for each in failed["repairs"]]
        assert offered == [(kind, str(subject))], failed
        path = f"/starts/{failed['kernel_id']}/repairs"
        assert api.refuse("POST", path, {"kind": "pull-image"}) == (404, "not-found")
        assert api("POST", path, {"kind": kind}) == {"task": None}
        assert subject.exists()
        # It would not help a second time.
        assert api.refuse("POST", path, {"kind": kind})[0] == 404
    kernel_id = api.server.start_kernel(name)
    assert [each for each in api("GET", "/starts") if each["kernel_id"] == kernel_id] == []
    # Another kernel cannot have the overlay, unless the one that has it ends.
    assert start(api, name)[0] == 500
    failed = find_start(api, "failed")
    assert (failed["error"]["code"], [each["kind"] for each in failed["repairs"]]) == ("overlay-busy", ["end-holder"])
    api("POST", f"/starts/{failed['kernel_id']}/repairs", {"kind": "end-holder"})
    assert api.server.ask("GET", f"api/kernels/{kernel_id}")[0] == 404
    again = api.server.start_kernel(name)
    assert api.server.ask("DELETE", f"api/kernels/{again}")[0] == 204


def test_image_that_is_not_here_is_pulled_by_a_task(api: Api, make_kernel: MakeKernel) -> None:
    uri = "docker://127.0.0.1:9/lab/none:1"
    assert start(api, make_kernel({"image": uri}))[0] == 500
    failed = find_start(api, "failed")
    assert [(each["kind"], each["source"]) for each in failed["repairs"]] == [("pull-image", uri)]
    task = api("POST", f"/starts/{failed['kernel_id']}/repairs", {"kind": "pull-image"})["task"]
    assert (task["kind"], task["args"]["uri"]) == ("image-pull", uri)
    # Nobody listens there.
    assert api.wait_for_task(task["id"])["state"] == "failed"


def test_image_that_was_pulled_is_pulled_again(tmp_path: Path, places: Places) -> None:
    image = tmp_path / "gone.sif"
    image.write_bytes(b"x")
    uri = "docker://registry.example/lab/gone:1"
    save_record(places, build_record(parse_reference(uri), "", str(image), 1.0))
    image.unlink()
    (repair,) = find_repairs(errors.ImageNotFound("gone"), parse_container_spec({"image": str(image)}), places)
    assert (repair.kind, repair.subject, repair.source) == ("pull-image", str(image), uri)
    (repair,) = find_repairs(errors.ImageNotFound("x"), parse_container_spec({"image": uri}), places)
    assert (repair.kind, repair.subject, repair.source) == ("pull-image", "", uri)
    (repair,) = find_repairs(errors.EngineNotFound("x"), None, places)
    assert repair.kind == "install-engine"
    assert find_repairs(errors.SpecError("x"), None, places) == ()
