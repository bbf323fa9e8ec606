"""Pull and push through a real registry on the loopback: plain, with TLS, with a password, and one that breaks off."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import run_flags
from jupyter_apptainer.errors import ApptainerError, ImageInvalid, ImageNotFound, RegistryError, SpecError
from jupyter_apptainer.images.catalogue import load_image
from jupyter_apptainer.images.cleaning import clean_images
from jupyter_apptainer.images.login import log_in, log_out
from jupyter_apptainer.images.records import find_pulled, find_record, iter_records, remove_record
from jupyter_apptainer.images.transfer import PART_PREFIX, Progress, Pulled, Settings, pull_image, push_image
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.model import Task
from jupyter_apptainer.tasks.stop import cancel_task, end_strays
from jupyter_apptainer.tasks.store import get_task, iter_tasks
from tests.laboratory import Lab
from tests.registry import PASSWORD, USER, BreakingProxy, OciImage, Registry, make_oci_image

# The same for every user.
pytestmark = pytest.mark.user

PROGRAM = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"


@pytest.fixture(autouse=True)
def forgotten(places: Places) -> Iterator[None]:
    """What one test has pulled is not there for the next."""
    yield
    for record in iter_records(places):
        remove_record(places, record.path)


def pull(lab: Lab, uri: str, target: Path, settings: Settings | None = None, *, is_forced: bool = False) -> Pulled:
    return pull_image(lab.engine, lab.places, uri, target, settings=settings or lab.settings(), is_forced=is_forced)


def run_in(lab: Lab, image: Path, script: str) -> str:
    argv = [lab.engine.path, "-q", "exec", *run_flags(lab.engine), "--cleanenv", str(image), "sh", "-c", script]
    answer = subprocess.run(argv, env=lab.environ, capture_output=True, text=True, check=True, cwd="/")
    return answer.stdout.strip()


def test_docker_image_is_pinned_converted_and_found_by_its_name(
    lab: Lab, registry: Registry, oci_image: OciImage, tmp_path: Path
) -> None:
    uri, target = f"docker://{registry.host}/lab/tiny:1", tmp_path / "tiny.sif"
    pulled = pull(lab, uri, target)
    assert pulled == Pulled(str(target), uri, oci_image.manifest, "downloaded")
    assert run_in(lab, target, 'echo "$WHO"') == "tide"
    image = load_image(lab.places, str(target))
    assert (image.origin, image.digest, image.content.compression) == (uri, oci_image.manifest, "lz4")
    assert image.content.labels["org.example.title"] == "tiny"
    assert f"lab/tiny@{oci_image.manifest}" in (image.content.definition or "")

    pinned = f"docker://{registry.host}/lab/tiny@{oci_image.manifest}"
    for name in (uri, pinned):
        record = find_pulled(lab.places, name)
        assert record
        assert record.path == str(target)
    assert find_pulled(lab.places, f"docker://{registry.host}/lab/tiny:2") is None
    assert pull(lab, uri, target).how == "kept"
    # Another tag of the same image is another name of the file.
    oci_image.push(registry, "lab/tiny", "one")
    assert pull(lab, f"docker://{registry.host}/lab/tiny:one", target).how == "kept"
    for tag in ("1", "one"):
        assert find_pulled(lab.places, f"docker://{registry.host}/lab/tiny:{tag}")
    assert pull(lab, pinned, tmp_path / "pinned.sif").how == "copied"
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.sif", "pinned.sif"}


def test_pushed_image_comes_back_byte_for_byte_with_progress(
    lab: Lab, registry: Registry, small_sif: Path, tmp_path: Path
) -> None:
    uri = f"oras://{registry.host}/lab/small:1.0"
    digest = push_image(lab.engine, small_sif, uri, settings=lab.settings())
    seen: list[Progress] = []
    target = tmp_path / "back.sif"
    with BreakingProxy(registry.port, limit=400_000, is_stalling=True) as proxy:
        # The download hangs half-way, until the display has seen it grow.
        name = uri.replace(registry.host, proxy.host)

        def note(progress: Progress) -> None:
            seen.append(progress)
            if progress.done:
                proxy.end()

        # The engine may try once more, and then nobody listens.
        with pytest.raises(RegistryError, match=r"broke off|cannot be reached"):
            pull_image(lab.engine, lab.places, name, target, settings=lab.settings(), on_progress=note)
    grown = [each for each in seen if each.done]
    assert grown
    assert {each.total for each in grown} == {small_sif.stat().st_size}
    assert not list(tmp_path.iterdir())
    assert pull(lab, uri, target) == Pulled(str(target), uri, digest, "downloaded")
    assert target.read_bytes() == small_sif.read_bytes()


@dataclass(frozen=True)
class Refusal:
    """What is asked for, with HOST in place of a registry's, and what the error says and advises."""

    uri: str
    says: str
    advises: str
    error: type[ApptainerError] = RegistryError


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Refusal("docker://HOST/lab/tiny:nope", "has no .*nope", "tag"), id="no-such-tag"),
        pytest.param(Refusal("oras://HOST/lab/nothing:1", "has no ", "tag"), id="no-such-name"),
        pytest.param(Refusal("docker://HOST/lab/sif:1", "is a SIF file", "oras://"), id="sif-as-docker"),
        pytest.param(Refusal("oras://HOST/lab/tiny:1", "is an OCI image", "docker://"), id="docker-as-sif"),
        pytest.param(
            Refusal("oci-archive:/no/such.tar", "no file /no/such.tar", "", ImageNotFound), id="no-such-archive"
        ),
        pytest.param(Refusal("docker://HOST/lab/Tiny:1", "no name", "small letters", SpecError), id="capitals"),
        pytest.param(Refusal("ftp://HOST/tiny", "not the name", "docker://", SpecError), id="unknown-scheme"),
    ],
)
def test_refused_pull_says_why_and_leaves_nothing(
    case: Refusal, lab: Lab, registry: Registry, oci_image: OciImage, small_sif: Path, tmp_path: Path
) -> None:
    if "/sif:" in case.uri:
        push_image(lab.engine, small_sif, f"oras://{registry.host}/lab/sif:1", settings=lab.settings())
    with pytest.raises(case.error, match=case.says) as caught:
        pull(lab, case.uri.replace("HOST", registry.host), tmp_path / "x.sif")
    assert case.advises in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_registry_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RegistryError, match="refused"):
        pull(lab, f"docker://127.0.0.1:{port}/lab/tiny:1", tmp_path / "x.sif")


@pytest.mark.parametrize("scheme", ["docker", "oras"])
def test_connection_that_breaks_off_leaves_nothing(
    scheme: str, lab: Lab, registry: Registry, oci_image: OciImage, small_sif: Path, tmp_path: Path
) -> None:
    # Layers of other tests must not be in the engine's cache.
    lab = Lab(lab.engine, lab.places, {**lab.environ, "APPTAINER_CACHEDIR": str(tmp_path / "cache")})
    push_image(lab.engine, small_sif, f"oras://{registry.host}/lab/cut:1", settings=lab.settings())
    name = {"docker": "tiny:1", "oras": "cut:1"}[scheme]
    folder = tmp_path / "images"
    folder.mkdir()
    with (
        BreakingProxy(registry.port, limit=200_000) as proxy,
        pytest.raises(RegistryError, match="broke off") as caught,
    ):
        pull(lab, f"{scheme}://{proxy.host}/lab/{name}", folder / "x.sif")
    assert "try again" in (caught.value.hint or "")
    assert not list(folder.iterdir())
    assert not list(iter_records(lab.places))


@pytest.mark.user  # the engine's own, and the same for root
def test_layers_that_had_arrived_are_not_fetched_again(
    lab: Lab, registry: Registry, root: Path, tmp_path: Path
) -> None:
    """The engine asks for them, and reads no further when it sees that it has them: of a small one all is sent by then."""
    lab = Lab(lab.engine, lab.places, {**lab.environ, "APPTAINER_CACHEDIR": str(tmp_path / "cache")})
    sizes = {"first": 20_000_000, "second": 24_000_000}
    for name, size in sizes.items():
        (tmp_path / name / "opt").mkdir(parents=True)
        (tmp_path / name / "opt" / name).write_bytes(os.urandom(size))
    image = make_oci_image(root, tmp_path / "first", tmp_path / "second")
    image.push(registry, "lab/two", "1")
    # The second layer alone is too large, if each has a connection of its own; else it is where the connection breaks off.
    with BreakingProxy(registry.port, limit=23_500_000) as proxy, pytest.raises(RegistryError):
        pull(lab, f"docker://{proxy.host}/lab/two:1", tmp_path / "two.sif")
    with BreakingProxy(registry.port, limit=1 << 40) as proxy:
        pull(lab, f"docker://{proxy.host}/lab/two:1", tmp_path / "two.sif")
        assert proxy.answered < sum(sizes.values()) - sizes["first"] / 2


def test_certificates_and_password(
    lab: Lab, registry: Registry, closed_registry: Registry, oci_image: OciImage, small_sif: Path, tmp_path: Path
) -> None:
    docker, oras = (
        f"{scheme}://{closed_registry.host}/lab/{name}" for scheme, name in (("docker", "tiny:1"), ("oras", "closed:1"))
    )
    trusting = lab.settings(closed_registry)
    with pytest.raises(RegistryError, match="certificate is not trusted here: certificate signed by") as caught:
        pull(lab, docker, tmp_path / "x.sif", lab.settings(closed_registry, is_plain=False, trusts=False))
    assert "ca_bundle" in (caught.value.hint or "")
    for attempt in (
        lambda: pull(lab, docker, tmp_path / "x.sif", trusting),
        lambda: push_image(lab.engine, small_sif, oras, settings=trusting),
    ):
        with pytest.raises(RegistryError, match="does not let us have") as caught:
            attempt()
        assert "jupyter apptainer registry login" in (caught.value.hint or "")
    with pytest.raises(RegistryError, match=f"does not accept this password of {USER}"):
        log_in(lab.engine, closed_registry.host, USER, "wrong", trusting)
    with pytest.raises(RegistryError, match="does not let us have"):
        pull(lab, docker, tmp_path / "x.sif", trusting)
    assert not list(tmp_path.iterdir())

    log_in(lab.engine, closed_registry.host, USER, PASSWORD, trusting)
    assert pull(lab, docker, tmp_path / "x.sif", trusting).digest == oci_image.manifest
    digest = push_image(lab.engine, small_sif, oras, settings=trusting)
    assert pull(lab, f"{oras}@{digest}", tmp_path / "y.sif", trusting).digest == digest
    for _ in range(2):
        log_out(lab.engine, closed_registry.host, trusting)
    with pytest.raises(RegistryError, match="does not let us have"):
        pull(lab, docker, tmp_path / "z.sif", trusting)


def test_plain_http_has_to_be_allowed_for_the_host(
    lab: Lab, registry: Registry, oci_image: OciImage, tmp_path: Path
) -> None:
    # The engine itself allows it on the loopback, where nobody listens in.
    uri = f"docker://{registry.host}/lab/tiny:1"
    for settings in (lab.settings(is_plain=False), Settings(no_https=(registry.host,), environ=lab.environ)):
        assert pull(lab, uri, tmp_path / "tiny.sif", settings).digest == oci_image.manifest


def test_pulls_of_one_image_at_once_share_one_download(
    lab: Lab, registry: Registry, oci_image: OciImage, tmp_path: Path
) -> None:
    uri = f"docker://{registry.host}/lab/tiny:1"
    targets = [tmp_path / name for name in ("a.sif", "a.sif", "b.sif", "c.sif")]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda target: pull(lab, uri, target), targets))
    assert sorted(result.how for result in results) in (
        ["copied", "copied", "downloaded", "kept"],
        ["copied", "copied", "copied", "downloaded"],
    )
    assert len({target.read_bytes() for target in targets}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.sif", "b.sif", "c.sif"}


def test_file_that_is_another_image_is_kept_unless_forced(
    lab: Lab, registry: Registry, oci_image: OciImage, small_sif: Path, tmp_path: Path
) -> None:
    uri, target = f"docker://{registry.host}/lab/tiny:1", tmp_path / "mine.sif"
    target.write_bytes(small_sif.read_bytes())
    with pytest.raises(RegistryError, match="exists already"):
        pull(lab, uri, target)
    assert target.read_bytes() == small_sif.read_bytes()
    with pytest.raises(RegistryError, match="has no"):
        pull(lab, uri + "-nope", target, is_forced=True)
    assert target.read_bytes() == small_sif.read_bytes()
    assert pull(lab, uri, target, is_forced=True).how == "downloaded"
    # Changed behind our back, it is not what was pulled any more.
    target.write_bytes(small_sif.read_bytes())
    assert find_pulled(lab.places, uri) is None
    assert find_record(lab.places, str(target)) is None


@dataclass(frozen=True)
class StalledPull:
    """`jupyter apptainer image pull` of an image that does not come, and its task."""

    process: subprocess.Popen[str]
    task: Task


@pytest.fixture
def stalled_pull(lab: Lab, registry: Registry, small_sif: Path, tmp_path: Path) -> Iterator[StalledPull]:
    push_image(lab.engine, small_sif, f"oras://{registry.host}/lab/ended:1", settings=lab.settings())
    with BreakingProxy(registry.port, limit=400_000, is_stalling=True) as proxy:
        words = ["image", "pull", f"oras://{proxy.host}/lab/ended:1", str(tmp_path / "x.sif"), "--no-https"]
        process = subprocess.Popen(
            [PROGRAM, *words], env=lab.environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert proxy.stalled.acquire(timeout=60)
        (task,) = [task for task in iter_tasks(lab.places) if not task.is_over]
        yield StalledPull(process, task)
        process.communicate(timeout=60)
        cancel_task(lab.places, task.id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_interrupted_pull_leaves_nothing(
    number: signal.Signals, stalled_pull: StalledPull, lab: Lab, tmp_path: Path
) -> None:
    stalled_pull.process.send_signal(number)
    output, log = stalled_pull.process.communicate(timeout=60)
    assert stalled_pull.process.returncode == 130, log
    assert not output
    assert get_task(lab.places, stalled_pull.task.id).state == "cancelled"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_pull_goes_on_when_its_terminal_is_gone(
    number: signal.Signals, stalled_pull: StalledPull, lab: Lab, tmp_path: Path
) -> None:
    stalled_pull.process.send_signal(number)
    stalled_pull.process.communicate(timeout=60)
    assert get_task(lab.places, stalled_pull.task.id).state == "running"
    assert cancel_task(lab.places, stalled_pull.task.id).state == "cancelled"
    assert not list(tmp_path.iterdir())


def test_pull_whose_process_is_killed_leaves_nothing_under_the_images_name(
    stalled_pull: StalledPull, lab: Lab, tmp_path: Path
) -> None:
    worker = stalled_pull.task.worker
    assert worker
    worker.send_signal(signal.SIGKILL)
    _, log = stalled_pull.process.communicate(timeout=60)
    assert stalled_pull.process.returncode == 1
    assert "is gone" in log
    assert all(process.wait_gone(60) for process in end_strays(lab.places))
    left = list(tmp_path.iterdir())
    assert all(path.name.startswith(PART_PREFIX) for path in left)
    clean_images(lab.places, [tmp_path])
    assert not list(tmp_path.iterdir())


def test_what_a_killed_pull_left_is_found_and_removed(lab: Lab, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    mine, theirs, elsewhere = (
        tmp_path / f"{PART_PREFIX}{name}-0123" for name in (f"{host}.{os.getpid()}", f"{host}.{dead.pid}", "other.1")
    )
    for path in (mine, theirs, elsewhere):
        path.write_bytes(b"half")
    assert str(theirs) in [leftover.path for leftover in clean_images(lab.places, [tmp_path], is_dry=True)]
    assert theirs.exists()
    clean_images(lab.places, [tmp_path])
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, elsewhere.name}


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "sandbox", "sif"])
def test_image_from_a_file_or_folder_of_this_machine(
    kind: str, lab: Lab, oci_image: OciImage, root: Path, small_sif: Path, tmp_path: Path
) -> None:
    match kind:
        case "oci-archive":
            source = f"oci-archive:{oci_image.save_oci(tmp_path / 'a.tar')}"
        case "docker-archive":
            source = f"docker-archive:{oci_image.save_docker(tmp_path / 'a.tar')}"
        case "sandbox":
            source = str(root)
        case _:
            source = str(small_sif)
    target = tmp_path / "x.sif"
    assert pull(lab, source, target).how == "downloaded"
    assert run_in(lab, target, 'echo "${WHO:-nobody}"') == ("tide" if "archive" in kind else "nobody")
    assert load_image(lab.places, str(target)).content.compression == ("zstd" if kind == "sif" else "lz4")


def test_what_is_no_sif_cannot_be_pushed(lab: Lab, root: Path, small_sif: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no SIF"):
        push_image(lab.engine, root, "oras://localhost:1/x:1", settings=lab.settings())
    with pytest.raises(SpecError, match="cannot be pushed to docker://"):
        push_image(lab.engine, small_sif, "docker://localhost:1/x:1", settings=lab.settings())
    (tmp_path / "text").write_text("x")
    with pytest.raises(ImageInvalid):
        push_image(lab.engine, tmp_path / "text", "oras://localhost:1/x:1", settings=lab.settings())


def test_folder_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound, match="folder") as caught:
        pull(lab, "docker://localhost:1/x:1", tmp_path / "no/x.sif")
    assert "mkdir" in (caught.value.hint or "")


def test_waiting_pull_says_so(lab: Lab, registry: Registry, oci_image: OciImage, tmp_path: Path) -> None:
    uri = f"docker://{registry.host}/lab/tiny:1"
    is_waiting = threading.Event()

    def note(progress: Progress) -> None:
        if progress.phase.startswith("Waiting"):
            is_waiting.set()

    def pull_second() -> Pulled:
        return pull_image(lab.engine, lab.places, uri, tmp_path / "x.sif", settings=lab.settings(), on_progress=note)

    with ThreadPoolExecutor(1) as pool:
        second = None

        def begin(progress: Progress) -> None:
            nonlocal second
            if second is None:
                second = pool.submit(pull_second)
                assert is_waiting.wait(60)

        pull_image(lab.engine, lab.places, uri, tmp_path / "x.sif", settings=lab.settings(), on_progress=begin)
        assert second is not None
        assert second.result(60).how == "kept"
