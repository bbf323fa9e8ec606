"""Secrets of builds: scripts can read them, and afterwards they are nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.packing import build_namespace
from jupyter_apptainer.errors import BuildError, SpecError
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.build_secrets import SecretSource, parse_secret
from jupyter_apptainer.images.cleaning import clean_images
from jupyter_apptainer.images.inventory import find_in_files, read_inventory
from jupyter_apptainer.images.recipes.dockerfile.secret_mount import parse_secret_mount
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.places import Places
from tests.images.conftest import Ask

VALUE = "s3cret-of-the-test"
DOCKERFILE = """\
FROM localimage:{image}
RUN --mount=type=secret,id=token cat /run/secrets/token && cp /run/secrets/token /tmp/copy && rm /tmp/copy
RUN --mount=type=secret,id=token,env=TOKEN,required test "$TOKEN" = "{start}"-of-the-test && echo "it is $TOKEN"
RUN test ! -e /run/secrets && test -z "$TOKEN" && test -z "$WORD"
RUN --mount=type=secret,id=other,target=/opt/other test ! -e /opt/other
RUN --mount=type=secret,id=word,target=/opt/word cat /opt/word | sed 's/^.*$/read/' >/opt/seen
"""


def list_files_with(value: str, *folders: Path) -> list[str]:
    """Read all files, those of a build's other users included."""
    argv = [*build_namespace(), "grep", "-rlF", "--devices=skip", "-e", value, *map(str, folders)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert not done.stderr
    return done.stdout.splitlines()


def test_secret_is_read_and_stays_nowhere(
    engine: EngineInfo,
    small_image: Path,
    places: Places,
    tmp_path: Path,
    ask: Ask,
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(image=small_image, start=VALUE.partition("-")[0]))
    (tmp_path / "token").write_text(VALUE + "\n")
    out = tmp_path / "out"
    out.mkdir()
    argv = [sys.executable, "-m", "jupyter_apptainer.cli.main", "image", "build", str(out / "a.sif")]
    argv += ["--dockerfile", str(tmp_path / "Dockerfile"), "--secret", f"id=token,src={tmp_path}/token"]
    argv += ["--secret", "id=word,env=WORD"]
    environ = os.environ | {"WORD": f"a-{VALUE}"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ask(out / "a.sif", "cat", "/opt/seen") == "read"
    assert VALUE not in done.stdout + done.stderr
    assert list_files_with(VALUE, places.data, places.cache, places.runtime, places.scratch, out) == []
    assert find_in_files(engine, str(out / "a.sif"), {VALUE.encode(): "token"}) == []
    assert "opt/word" not in read_inventory(engine, str(out / "a.sif")).files
    # The scripts have shown it, and the log has a dot in its place.
    logs = [path.read_text() for path in places.tasks.rglob("log")]
    assert any("it is …" in log for log in logs)


@pytest.mark.user
@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("cp /mnt/secrets/token /opt/.netrc", "token in /opt/.netrc"),
        ("{ cat /bin/ls; cat /mnt/secrets/token; } >/opt/big", "token in /opt/big"),
        ("echo czNjcmV0LW9mLXRoZS10ZXN0 >/opt/coded", "token in /opt/coded"),
    ],
    ids=["copy", "within", "base64"],
)
def test_image_with_a_secret_in_it_is_not_kept(
    engine: EngineInfo,
    small_image: Path,
    places: Places,
    tmp_path: Path,
    script: str,
    where: str,
) -> None:
    (tmp_path / "a.def").write_text(f"Bootstrap: localimage\nFrom: {small_image}\n\n%post\n    {script}\n")
    (tmp_path / "token").write_text(VALUE)
    secret = SecretSource("token", path=str(tmp_path / "token"))
    recipe = load_definition(tmp_path / "a.def")
    with pytest.raises(BuildError, match="a secret has stayed in it") as caught:
        build_image(engine, places, recipe, tmp_path / "a.sif", BuildOptions(secrets=(secret,)))
    assert where in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.def", "token"]
    assert list(places.runtime.glob("secrets-*")) == []


@pytest.mark.user
def test_steps_that_read_a_secret_are_layers_and_none_has_it(
    engine: EngineInfo, small_image: Path, places: Places, tmp_path: Path
) -> None:
    """As with Docker, another value runs nothing again; a step that leaves the value lying about is run each time."""
    definition, token = tmp_path / "a.def", tmp_path / "token"
    token.write_text(VALUE)
    definition.write_text(
        f"Bootstrap: localimage\nFrom: {small_image}\n\n%post\n    echo '== read'; test -s /mnt/secrets/token && echo there >/opt/there\n"
        "    # layer\n    echo '== kept'; cat /mnt/secrets/token >/opt/kept\n    # layer\n    echo '== cleaned'; rm /opt/kept\n"
    )

    def run(name: str = "token") -> list[str]:
        told: list[str] = []
        options = BuildOptions(is_forced=True, secrets=(SecretSource(name, path=str(token)),))
        recipe = load_definition(definition)
        build_image(engine, places, recipe, tmp_path / "a.sif", options, on_progress=told.append)
        assert list_files_with(token.read_text(), places.data, places.cache, places.runtime, places.scratch) == []
        return [word for word in told if word in ("read", "kept", "cleaned")]

    assert run() == ["read", "kept", "cleaned"]
    assert run() == ["kept", "cleaned"]
    token.write_text(f"another-{VALUE}")
    assert run() == ["kept", "cleaned"]
    definition.write_text(definition.read_text().replace("cat /mnt/secrets/token", "ls /mnt/secrets"))
    assert run() == ["kept", "cleaned"]
    assert run() == []
    # Under another name it is another one.
    definition.write_text(definition.read_text().replace("secrets/token", "secrets/other"))
    assert run("other") == ["read", "kept", "cleaned"]


def test_failure_does_not_show_the_secret(
    engine: EngineInfo,
    small_image: Path,
    places: Places,
    tmp_path: Path,
) -> None:
    (tmp_path / "a.def").write_text(
        f"Bootstrap: localimage\nFrom: {small_image}\n\n%post\n    cat /mnt/secrets/token >&2; exit 3\n"
    )
    secret = SecretSource("token", variable="TOKEN")
    options, recipe = BuildOptions(secrets=(secret,)), load_definition(tmp_path / "a.def")
    with pytest.raises(BuildError) as caught:
        build_image(engine, places, recipe, tmp_path / "a.sif", options, environ={**os.environ, "TOKEN": VALUE})
    assert VALUE not in str(caught.value.to_json())
    assert any("…" in line for line in caught.value.log_tail)
    with pytest.raises(SpecError, match="the variable TOKEN is not set"):
        build_image(engine, places, recipe, tmp_path / "a.sif", options)


def test_secrets_of_a_killed_build_are_found(places: Places) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    left, ours = (places.runtime / f"secrets-{pid}-1a" for pid in (gone.pid, os.getpid()))
    for folder in (left, ours):
        folder.mkdir(parents=True)
    assert [each.path for each in clean_images(places, []) if "secrets" in each.why] == [str(left)]
    assert not left.exists()
    ours.rmdir()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=a,src=/x", SecretSource("a", path="/x")),
        ("type=file,id=a,source=/x", SecretSource("a", path="/x")),
        ("id=a,env=B", SecretSource("a", variable="B")),
        ("id=A", SecretSource("A", variable="A")),
    ],
)
def test_secret_is_parsed(text: str, expected: SecretSource) -> None:
    assert parse_secret(text) == expected


@pytest.mark.parametrize(
    "text", [VALUE, f"{VALUE},x=1", "id=../a,src=/x", "id=a,src=/x,env=B", "id=a,type=file", "src=/x"]
)
def test_secret_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_secret(text)
    assert VALUE not in caught.value.render()


@pytest.mark.parametrize(
    "value", ["type=ssh", "type=secret", "type=secret,id=a b", "type=secret,id=a,env=1", "type=secret,id=a,size=1"]
)
def test_mount_without_counterpart_is_left_out(value: str) -> None:
    assert parse_secret_mount(value) is None


@pytest.mark.user
def test_passwords_of_host_settings_stay_nowhere(
    engine: EngineInfo,
    small_image: Path,
    places: Places,
    tmp_path: Path,
) -> None:
    """Scripts see the proxy, the index and the certificates of the host; log and image have none of them."""
    proxy, index, bundle = "proxy-passw0rd", "index-passw0rd", "certificate-of-the-test"
    (tmp_path / "ca.pem").write_text(f"{bundle}\n")
    environ = {
        **os.environ,
        "https_proxy": f"http://me:{proxy}@127.0.0.1:9",
        "PIP_INDEX_URL": f"https://me:{index}@127.0.0.1:9/simple",
    }
    head = f"Bootstrap: localimage\nFrom: {small_image}\n\n%post\n    "
    (tmp_path / "a.def").write_text(head + "env; cat /mnt/pip.conf /mnt/ca.crt /mnt/settings.sh >/dev/null\n")
    options = BuildOptions(has_host_settings=True, ca_bundle=tmp_path / "ca.pem", is_forced=True)
    recipe = load_definition(tmp_path / "a.def")
    built = build_image(engine, places, recipe, tmp_path / "a.sif", options, environ=environ)
    log = built.log.read_text()
    assert "https_proxy=http://me:…@127.0.0.1:9" in log
    for value in (proxy, index, bundle):
        assert list_files_with(value, places.data, places.cache, places.runtime, places.scratch) == []
        assert find_in_files(engine, str(built.path), {value.encode(): ""}) == []
    (tmp_path / "a.def").write_text(head + "cp /mnt/pip.conf /opt/pip.conf\n")
    leaking = load_definition(tmp_path / "a.def")
    with pytest.raises(BuildError, match=r"settings.* in /opt/pip\.conf"):
        build_image(engine, places, leaking, tmp_path / "a.sif", options, environ=environ)
