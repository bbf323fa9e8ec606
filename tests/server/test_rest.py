"""The REST interface of a real server: what it answers, whom it lets, what it refuses, and long work that outlives it."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from jupyter_apptainer import errors
from jupyter_apptainer.instances.janitor import remove_owner_dirs
from jupyter_apptainer.places import Places
from jupyter_apptainer.server.api import MAX_BODY_BYTES
from jupyter_apptainer.server.openapi import load_openapi
from jupyter_apptainer.server.orders import ORDERS
from jupyter_apptainer.server.routes import build_routes
from jupyter_apptainer.server.statuses import STATUSES, find_status
from jupyter_apptainer.tasks.store import get_task
from tests.integration.server import TOKEN, Channels, Server
from tests.laboratory import Lab
from tests.registry import PASSWORD, USER, OciImage, Registry
from tests.server.conftest import BASE, METHODS, Api, fill, list_operations, open_plain
from tests.server.test_image import open_terminal

pytestmark = pytest.mark.user


OPERATIONS = [pytest.param(*each, id=f"{each[0]}-{each[1]}") for each in list_operations()]


# --- the description


def test_description_has_exactly_what_the_handlers_do() -> None:
    described = {(method, fill(path), resource) for method, path, resource in list_operations()}
    done = set()
    for address, handler in build_routes()[:-1]:
        path = address.removeprefix(f"/{BASE}").replace(r"([0-9a-f]{1,8})", "0123abcd")
        path = path.replace("([A-Za-z0-9_-]{1,100})", "no-kernel")
        path = path.replace("(jpa-[A-Za-z0-9_.-]+)", "jpa-none").replace("([A-Za-z0-9_.-]+)", "jpa-none")
        own = [method for method in METHODS if any(method in vars(cls) for cls in handler.__mro__[:3])]
        done |= {(method, path, handler.auth_resource) for method in own}
    assert done == described


def test_description_is_sound() -> None:
    document = load_openapi()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    names = {name for kind in document["components"].values() for name in kind}
    assert {reference.split('"')[0] for reference in text.split("#/components/")[1:]} <= {
        f"{kind}/{name}" for kind, named in document["components"].items() for name in named
    }
    assert names
    assert set(document["components"]["schemas"]["Order"]["properties"]["kind"]["enum"]) == set(ORDERS)


@pytest.mark.parametrize("cls", list(errors.iter_error_classes()), ids=lambda cls: cls.__name__)
def test_every_error_has_a_status(cls: type[errors.ApptainerError]) -> None:
    assert 400 <= find_status(cls("x")) < 600
    # Below these, each class says itself what it means for a client.
    siblings = {errors.CommandError, errors.TaskError}
    if cls.__base__ in siblings and cls not in STATUSES:
        assert STATUSES[cls.__base__] == 500


# --- what there is


@pytest.mark.parametrize(
    "noun", ["status", "images", "instances", "kernels", "overlays", "gpus", "storage", "starts", "tasks"]
)
def test_answers_are_as_described(api: Api, noun: str) -> None:
    answer = api("GET", f"/{noun}")
    if noun == "status":
        assert answer["problem"] is None


def test_kernel_is_made_seen_and_ended(api: Api, starter_image: Path) -> None:
    api("POST", "/kernelspecs", {"name": "over-rest", "config": {"image": str(starter_image)}}, status=201)
    taken = api.refuse("POST", "/kernelspecs", {"name": "over-rest", "config": {"image": str(starter_image)}})
    assert taken == (400, "spec-invalid")
    (row,) = [row for row in api("GET", "/kernels")["kernelspecs"] if row["name"] == "over-rest"]
    assert row["is_ready"]
    with api.subscribe() as events:
        api("GET", "/instances")
        kernel_id = api.server.start_kernel("over-rest")
        begun = events.receive("instance")
        assert (begun["kernel_id"], begun["state"]) == (kernel_id, "started")
        with Channels(api.server, kernel_id) as channels:
            assert channels.run("print(6 * 7)") == ("ok", "42\n")
        (row,) = [row for row in api("GET", "/instances") if row["kernel_id"] == kernel_id]
        assert (row["state"], row["image"]) == ("running", str(starter_image))
        assert row["memory_bytes"] > 0
        assert [each["kernel_id"] for each in api("GET", "/kernels")["running"]] == [kernel_id]
        with open_terminal(api, {"instance": row["name"]}) as terminal:
            terminal.type("echo in:$APPTAINER_NAME:\n")
            terminal.wait(f"in:{starter_image.name}:")
        assert api.server.ask("DELETE", f"api/kernels/{kernel_id}")[0] == 204
        assert events.receive("instance")["state"] == "ended"
    assert api.refuse("DELETE", f"/instances/{row['name']}") == (404, "instance-not-found")
    api("DELETE", "/kernelspecs/over-rest", status=204)
    assert api.refuse("DELETE", "/kernelspecs/over-rest") == (404, "not-found")


def test_overlay_is_made_and_deleted(api: Api, desk: Path) -> None:
    made = api("POST", "/overlays", {"path": "work.img", "size_mib": 64}, status=201)
    path = desk.resolve() / "work.img"
    assert (made["path"], made["state"]) == (str(path), "ready")
    assert api.refuse("POST", "/overlays", {"path": "work.img", "size_mib": 64}) == (409, "overlay-create-error")
    (desk / "thesis.txt").write_text("years of work")
    assert api.refuse("DELETE", f"/overlays?path={desk.resolve()}/thesis.txt")[0] == 400
    assert (desk / "thesis.txt").exists()
    api("DELETE", f"/overlays?path={path}", status=204)
    assert not path.exists()


def test_overlay_is_made_copied_enlarged_and_checked_by_tasks(api: Api, desk: Path) -> None:
    def do(kind: str, **args: object) -> dict[str, object]:
        task = api.wait_for_task(api("POST", "/tasks", {"kind": f"overlay-{kind}", "args": args}, status=202)["id"])
        assert (task["state"], task["error"]) == ("done", None)
        result: dict[str, object] = task["result"]
        return result

    first, second = desk.resolve() / "first.img", desk.resolve() / "second.img"
    assert do("create", path="first.img", size_mib=64) == {"path": str(first)}
    assert do("copy", overlay="first.img", target="second.img") == {"path": str(second)}
    assert do("grow", overlay="second.img", size_mib=96) == {"path": str(second), "size_bytes": 96 * 2**20}
    assert do("check", overlay="second.img") == {"path": str(second), "was_clean": True}
    for path in (first, second):
        api("DELETE", f"/overlays?path={path}", status=204)


# --- long work


@dataclass(frozen=True)
class Build:
    """An order of a build that waits for its reader."""

    order: dict[str, object]
    image: Path
    pipe: Path

    def release(self) -> None:
        with self.pipe.open("w"):
            pass


def make_build(desk: Path, name: str) -> Build:
    # To standard error, as the engine's own words: of two streams nobody can tell which line came first.
    pipe, definition, image = desk / f"{name}.pipe", desk / f"{name}.def", desk.resolve() / f"{name}.sif"
    os.mkfifo(pipe)
    definition.write_text(f"Bootstrap: scratch\n\n%setup\n    echo '== Waiting' >&2\n    cat {pipe}\n")
    recipe = {"kind": "def", "path": definition.name}
    return Build({"kind": "image-build", "args": {"recipe": recipe, "target": image.name}}, image, pipe)


def test_build_is_ordered_joined_followed_and_forgotten(api: Api, desk: Path) -> None:
    build = make_build(desk, "followed")
    with api.subscribe() as events:
        task = api("POST", "/tasks", build.order, status=202)
        joined = api("POST", "/tasks", build.order, status=202)
        assert (task["is_joined"], joined["is_joined"], joined["id"]) == (False, True, task["id"])
        while events.receive("task")["phase"] != "Waiting":
            pass
        other = {**build.order, "args": {**build.order["args"], "compression": "gzip"}}  # type: ignore[dict-item]  # a dict, by the line above
        assert api.refuse("POST", "/tasks", other) == (409, "task-conflict")
        part = api("GET", f"/tasks/{task['id']}/log?offset=3")
        assert not part["is_over"]
        assert "== Waiting" in part["text"]
        build.release()
        while (event := events.receive("task"))["state"] != "done":
            assert event["task_id"] == task["id"]
    assert api("GET", f"/tasks/{task['id']}")["result"]["path"] == str(build.image)
    assert "Build complete" in api("GET", f"/tasks/{task['id']}/log?offset={part['next_offset']}")["text"]
    api("DELETE", f"/tasks/{task['id']}", status=204)
    assert api.refuse("GET", f"/tasks/{task['id']}") == (404, "task-not-found")
    # It exists now, so the same again fails; it is told why, and what to do.
    again = api.wait_for_task(api("POST", "/tasks", build.order, status=202)["id"])
    assert (again["state"], again["error"]["code"]) == ("failed", "recipe-invalid")


def test_orders_wait_in_line_and_are_limited(api: Api, desk: Path) -> None:
    builds = [make_build(desk, f"line{number}") for number in range(4)]
    with api.subscribe() as events:
        ids = [api("POST", "/tasks", build.order, status=202)["id"] for build in builds[:3]]
        left = set(ids[1:])
        while left:
            event = events.receive("task")
            if event["phase"] == "Waiting for other tasks to end":
                assert event["state"] == "queued"
                left.remove(event["task_id"])
    assert api.refuse("POST", "/tasks", builds[3].order) == (429, "too-many-tasks")
    assert [api("DELETE", f"/tasks/{each}")["state"] for each in reversed(ids)] == ["cancelled"] * 3
    assert not any(build.image.exists() for build in builds)


def test_task_outlives_its_server_and_is_cancelled_by_the_next(api: Api, desk: Path, places: Places) -> None:
    build = make_build(desk, "outlives")
    first = Server(desk)
    try:
        task_id = Api(first)("POST", "/tasks", build.order, status=202)["id"]
        first.process.send_signal(signal.SIGKILL)
    finally:
        first.wait()
        remove_owner_dirs(places)
    assert api("GET", f"/tasks/{task_id}")["state"] in ("queued", "running")
    worker = get_task(places, task_id).worker
    assert worker
    assert api("DELETE", f"/tasks/{task_id}")["state"] == "cancelled"
    assert not worker.is_alive()
    assert not build.image.exists()
    again = api("POST", f"/tasks/{task_id}/retry", status=202)
    assert again["retry_of"] == task_id
    build.release()
    assert api.wait_for_task(again["id"])["state"] == "done"


def test_pull_that_needs_a_password_is_repeated_after_login(
    desk: Path,
    lab: Lab,
    closed_registry: Registry,
    oci_image: OciImage,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APPTAINER_CONFIGDIR", str(desk / "engine"))
    monkeypatch.setenv("APPTAINER_CACHEDIR", lab.environ["APPTAINER_CACHEDIR"])
    server = Server(desk, f"--ApptainerConfig.ca_bundle={closed_registry.certificate}")
    try:
        api = Api(server)
        args = {"uri": f"docker://{closed_registry.host}/lab/tiny:1", "target": "tiny.sif"}
        task = api.wait_for_task(api("POST", "/tasks", {"kind": "image-pull", "args": args}, status=202)["id"])
        assert (task["state"], task["error"]["code"]) == ("needs-auth", "registry-auth")
        assert task["registry"] == closed_registry.host
        login = {"host": closed_registry.host, "username": USER, "password": "wrong-" + PASSWORD}
        assert api.refuse("POST", "/logins", login) == (401, "registry-auth")
        api("POST", "/logins", {**login, "password": PASSWORD}, status=204)
        again = api.wait_for_task(api("POST", f"/tasks/{task['id']}/retry", status=202)["id"])
        assert (again["state"], again["result"]["digest"]) == ("done", oci_image.manifest)
        api("DELETE", f"/logins?host={closed_registry.host}", status=204)
    finally:
        server.end()
    kept = [path for path in places.tasks.rglob("*") if path.is_file()]
    assert kept
    assert not any(PASSWORD in path.read_text() for path in kept)
    assert PASSWORD not in "".join(server.log)


# --- who may


@pytest.mark.parametrize(("method", "path", "resource"), OPERATIONS)
def test_nobody_without_the_token(api: Api, method: str, path: str, resource: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        open_plain(api.server, method.upper(), f"{BASE}{fill(path)}")
    assert caught.value.code == 403
    caught.value.close()


def test_cookie_alone_changes_nothing(api: Api) -> None:
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    address = f"http://{api.server.address}"
    opener.open(f"{address}/login?token={TOKEN}").close()
    opener.open(f"{address}/{BASE}/tasks").close()
    refused = urllib.request.Request(f"{address}/{BASE}/tasks", b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        opener.open(refused)
    assert "'_xsrf' argument missing" in caught.value.read().decode()
    (token,) = {cookie.value for cookie in jar if cookie.name.startswith("_xsrf")} or {""}
    accepted = urllib.request.Request(f"{address}/{BASE}/tasks", b"{}", {"X-XSRFToken": token or ""}, method="POST")
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        opener.open(accepted)
    caught.value.close()


def test_looking_is_no_activity(api: Api) -> None:
    def read_activity() -> object:
        return api.server.ask("GET", "api/status")[1]["last_activity"]

    before = read_activity()
    for noun in ("status", "images", "instances", "kernels", "overlays", "gpus", "storage", "tasks"):
        api("GET", f"/{noun}")
    assert read_activity() == before
    api.refuse("POST", "/tasks", {})
    assert read_activity() != before


# --- what nobody should send

_PULL = {"kind": "image-pull", "args": {"uri": "docker://x/y"}}
_SPEC = {"name": "x", "config": {"image": "/x.sif"}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", "/tasks/../../../../etc/passwd", None, id="traversal"),
        pytest.param("GET", "/tasks/..%2f..%2fetc%2fpasswd", None, id="traversal-quoted"),
        pytest.param("GET", "/tasks/%2e%2e/log", None, id="traversal-dots"),
        pytest.param("GET", "/tasks/0123ABCD", None, id="capital-id"),
        pytest.param("GET", "/tasks/012345678", None, id="long-id"),
        pytest.param("GET", "/tasks/0123abcd%00", None, id="nul-id"),
        pytest.param("GET", "/tasks/0123abcd/log?offset=-1", None, id="offset-negative"),
        pytest.param("GET", "/tasks/0123abcd/log?offset=" + "9" * 40, None, id="offset-huge"),
        pytest.param("GET", "/tasks/0123abcd/log?offset=1;ls", None, id="offset-words"),
        pytest.param("POST", "/tasks/0123abcd/retry", None, id="retry-of-nothing"),
        pytest.param("POST", "/tasks", None, id="no-body"),
        pytest.param("POST", "/tasks", [], id="list"),
        pytest.param("POST", "/tasks", {"kind": "os.system", "args": {}}, id="unknown-kind"),
        pytest.param("POST", "/tasks", {**_PULL, "work": "os:system"}, id="own-work"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": "--help"}}, id="option-as-uri"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": "docker://x/$(id)"}}, id="shell-in-uri"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": "docker://x/y\0z"}}, id="nul-in-uri"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": "gopher://x"}}, id="unknown-scheme"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": 7}}, id="number-as-uri"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": "x" * 5000}}, id="long-uri"),
        pytest.param("POST", "/tasks", {"kind": "image-pull", "args": {"uri": "x" * MAX_BODY_BYTES}}, id="oversize"),
        pytest.param(
            "POST",
            "/tasks",
            {"kind": "image-build", "args": {"recipe": {"kind": "def", "path": "/etc/shadow"}, "target": "x.sif"}},
            id="recipe-of-root",
        ),
        pytest.param(
            "POST",
            "/tasks",
            {
                "kind": "image-build",
                "args": {"recipe": {"kind": "def", "path": "x", "build_args": {"A; rm -rf /": "x"}}, "target": "x"},
            },
            id="shell-in-argument",
        ),
        pytest.param("POST", "/kernelspecs", {**_SPEC, "name": "../../x"}, id="kernel-traversal"),
        pytest.param("POST", "/kernelspecs", {**_SPEC, "name": ".."}, id="kernel-dots"),
        pytest.param("POST", "/kernelspecs", {**_SPEC, "config": {"image": "/x", "exec": "id"}}, id="unknown-field"),
        pytest.param("POST", "/kernelspecs", {**_SPEC, "config": {"image": "/no/such.sif"}}, id="no-image"),
        pytest.param("POST", "/kernelspecs", {**_SPEC, "scope": "/etc"}, id="kernel-elsewhere"),
        pytest.param("DELETE", "/kernelspecs/python3", None, id="kernel-of-others"),
        pytest.param("DELETE", "/kernelspecs/..", None, id="kernels-folder"),
        pytest.param("DELETE", "/instances/jpa-*", None, id="all-instances"),
        pytest.param("DELETE", "/instances/jpa-0000", None, id="foreign-instance"),
        pytest.param("DELETE", "/instances/database", None, id="instance-of-others"),
        pytest.param("DELETE", "/instances/--all", None, id="option-as-instance"),
        pytest.param("DELETE", "/overlays?path=/etc/passwd", None, id="overlay-of-root"),
        pytest.param("DELETE", "/overlays?path=../x.img", None, id="overlay-relative"),
        pytest.param("DELETE", "/overlays", None, id="overlay-unnamed"),
        pytest.param("POST", "/overlays", {"path": "/no/such/x.img", "size_mib": 64}, id="overlay-nowhere"),
        pytest.param("POST", "/overlays", {"path": "x.img", "size_mib": 1 << 40}, id="overlay-huge"),
        pytest.param("POST", "/logins", {"host": "x/../y", "username": "a", "password": "b"}, id="host-traversal"),
        pytest.param("POST", "/logins", {"host": "x", "username": "-u", "password": "b"}, id="option-as-user"),
        pytest.param("GET", "/image?path=/etc/passwd", None, id="image-elsewhere"),
        pytest.param("GET", "/image?path=../../../../../../etc/passwd", None, id="image-traversal"),
        pytest.param("GET", "/image?path=x.sif%00", None, id="nul-in-image"),
        pytest.param("GET", "/image", None, id="image-unnamed"),
        pytest.param("GET", "/image/content?path=" + "x" * 5000, None, id="long-image"),
        pytest.param("GET", "/image/content?path=/dev/zero", None, id="image-without-end"),
        pytest.param("POST", "/terminals", {"image": "/etc/passwd"}, id="terminal-elsewhere"),
        pytest.param("POST", "/terminals", {"image": "x.sif; id"}, id="shell-in-terminal"),
        pytest.param("POST", "/terminals", {"instance": "--help"}, id="option-as-terminal"),
        pytest.param("POST", "/terminals", {"instance": "jpa-0000"}, id="terminal-of-others"),
        pytest.param("POST", "/terminals", {"image": "x.sif", "shell_command": ["id"]}, id="own-command"),
        pytest.param("PUT", "/tasks", {}, id="unknown-method"),
        pytest.param("GET", "/", None, id="nothing-there"),
    ],
)
def test_hostile_request_is_refused_and_changes_nothing(
    api: Api, places: Places, desk: Path, method: str, path: str, body: object
) -> None:
    before = sorted(desk.rglob("*"))
    status, code = api.refuse(method, path, body)
    assert 400 <= status < 500, code
    assert api("GET", "/tasks") == []
    assert sorted(desk.rglob("*")) == before


def test_broken_json_is_refused(api: Api) -> None:
    for content in (b"{", b"[" * 100_000, b"\xff\xfe"):
        request = urllib.request.Request(
            f"http://{api.server.address}/{BASE}/tasks",
            content,
            {"Authorization": f"token {TOKEN}"},
            method="POST",
        )
        with pytest.raises(urllib.error.HTTPError, match="400") as caught:
            urllib.request.urlopen(request)
        assert json.loads(caught.value.read())["error"]["message"] == "the request is not JSON"
