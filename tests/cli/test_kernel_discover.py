"""`kernel discover`, and `kernel add` from another kernel, a pasted command or a script, as people run them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from jupyter_apptainer.cli.main import main
from jupyter_apptainer.engine.locate import EngineInfo

# The same for every user.
pytestmark = pytest.mark.user

IR = {"argv": ["/usr/bin/R", "-e", "x", "{connection_file}"], "display_name": "R", "language": "R"}


@dataclass
class Answer:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `jupyter apptainer WORDS…` in this process."""

    def run(*words: str | Path) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer with two kernels: one whose program only the layer has, and one that is wrong."""
    for name, argv in (("shell", ["my-shell", "{connection_file}"]), ("wrong", ["my-shell"])):
        folder = tmp_path / "layer/upper/usr/share/jupyter/kernels" / name
        folder.mkdir(parents=True)
        document = {"argv": argv, "display_name": name.title(), "language": "sh"}
        (folder / "kernel.json").write_text(json.dumps(document))
        (folder / "logo-svg.svg").write_text(f"<svg>{name}</svg>")
    (tmp_path / "layer/work").mkdir()
    return tmp_path / "layer"


def read_config(name: str) -> dict[str, Any]:
    metadata = KernelSpecManager().get_kernel_spec(name).metadata
    config: dict[str, Any] = metadata["kernel_provisioner"]["config"]
    return config


def write_installed(data_dir: Path, name: str, document: dict[str, Any]) -> None:
    folder = data_dir / "kernels" / name
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(document))
    (folder / "logo-svg.svg").write_text("<svg/>")


def test_discover_lists_and_adds_nothing(
    run: Run, starter_image: Path, engine: EngineInfo, layer: Path, data_dir: Path
) -> None:
    shown = run("kernel", "discover", starter_image, "--overlay", f"{layer}:ro")
    assert shown.returncode == 0
    stem = starter_image.stem
    assert [line.split()[:3] for line in shown.stdout.splitlines()[1:]] == [
        [f"{stem}-python3", "python3", "python"],
        [f"{stem}-shell", "shell", "sh"],
        [f"{stem}-wrong", "wrong", "sh"],
    ]
    rows = json.loads(run("kernel", "discover", starter_image, "--json").stdout)
    assert [(row["name"], row["is_added"]) for row in rows] == [(f"{stem}-python3", False)]
    assert not data_dir.exists()


def test_discover_adds_what_is_named(
    run: Run, starter_image: Path, engine: EngineInfo, layer: Path, data_dir: Path
) -> None:
    added = run(
        "kernel", "discover", starter_image, "--overlay", f"{layer}:ro", "--add", "shell", "python3", "--nv", "false"
    )
    assert added.returncode == 0, added.stderr
    stem = starter_image.stem
    assert sorted(added.stdout.split()) == sorted(f"{data_dir}/kernels/{stem}-{name}" for name in ("python3", "shell"))
    assert read_config(f"{stem}-shell") == {
        "image": str(starter_image),
        "nv": False,
        "overlays": [f"{layer}:ro"],
        "command": ["my-shell", "{connection_file}"],
    }
    found = KernelSpecManager().get_kernel_spec(f"{stem}-shell")
    assert (found.display_name, found.language, found.interrupt_mode) == (
        f"Shell ({starter_image.name})",
        "sh",
        "signal",
    )
    assert (data_dir / f"kernels/{stem}-shell/logo-svg.svg").read_text() == "<svg>shell</svg>"
    python = KernelSpecManager().get_kernel_spec(f"{stem}-python3")
    assert python.metadata["debugger"] is True
    assert python.display_name.startswith("Python 3.")


def test_discover_goes_on_behind_a_kernel_that_cannot_be_added(
    run: Run, starter_image: Path, engine: EngineInfo, layer: Path, data_dir: Path
) -> None:
    added = run("kernel", "discover", starter_image, "--overlay", f"{layer}:ro", "--add", "--json")
    assert added.returncode == 1
    rows = {row["image_name"]: row for row in json.loads(added.stdout)}
    assert {name: row["is_added"] for name, row in rows.items()} == {"python3": True, "shell": True, "wrong": False}
    assert "{connection_file}" in rows["wrong"]["error"]["message"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--add", "julia"], 2, "there are python3"),
        (["--command", "x {connection_file}"], 2, "kernel add NAME IMAGE --command"),
    ],
)
def test_wrong_request_says_what_is_there(
    run: Run, starter_image: Path, engine: EngineInfo, words: list[str], code: int, text: str
) -> None:
    answer = run("kernel", "discover", starter_image, *words)
    assert (answer.returncode, text in answer.stderr) == (code, True), answer.stderr


def test_installed_kernel_is_wrapped(run: Run, data_dir: Path, tmp_path: Path) -> None:
    write_installed(data_dir, "ir", {**IR, "env": {"A": "1"}})
    added = run("kernel", "add", "box", "--like", "ir", "box.sif", "--env", "B=2", "--no-check")
    assert added.returncode == 0, added.stderr
    assert "/usr/bin/R is a path of this host" in added.stderr
    assert read_config("box") == {
        "image": f"{tmp_path}/box.sif",
        "command": ["R", "-e", "x", "{connection_file}"],
        "env": {"A": "1", "B": "2"},
    }
    found = KernelSpecManager().get_kernel_spec("box")
    assert (found.display_name, found.language, found.interrupt_mode) == ("R (box.sif)", "R", "signal")
    assert (data_dir / "kernels/box/logo-svg.svg").read_text() == "<svg/>"


def test_container_kernel_is_copied_with_its_image(run: Run, data_dir: Path, tmp_path: Path) -> None:
    assert run("kernel", "add", "a", "x.sif", "-B", "/usr", "--nv", "true", "--no-check").returncode == 0
    assert run("kernel", "add", "b", "--like", "a", "--nv", "false", "--no-check").returncode == 0
    assert read_config("b") == {"image": f"{tmp_path}/x.sif", "nv": False, "binds": ["/usr"]}


def test_kernelspec_that_runs_the_engine_becomes_a_container_kernel(
    run: Run, engine: EngineInfo, starter_image: Path, data_dir: Path
) -> None:
    argv = ["apptainer", "exec", "--nv", str(starter_image), "python", "-m", "ipykernel", "-f", "{connection_file}"]
    write_installed(data_dir, "old", {"argv": argv, "display_name": "Old", "language": "python"})
    added = run("kernel", "add", "new", "--like", "old")
    assert added.returncode == 0, added.stderr
    assert read_config("new") == {
        "image": str(starter_image),
        "nv": True,
        "command": ["python", "-m", "ipykernel", "-f", "{connection_file}"],
    }


def test_pasted_command_becomes_a_kernel(run: Run, engine: EngineInfo, starter_image: Path) -> None:
    line = f"apptainer exec --nv -B /usr:/host --env A=1 {starter_image} python train.py"
    added = run("kernel", "add", "work", "--from-command", line, "--nv", "false")
    assert added.returncode == 0, added.stderr
    assert "note: python train.py" in added.stderr
    assert read_config("work") == {
        "image": str(starter_image),
        "nv": False,
        "binds": ["/usr:/host"],
        "env": {"A": "1"},
    }


@pytest.fixture
def script(tmp_path: Path, starter_image: Path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(
        f"#!/bin/bash\nexport API_TOKEN=hush\napptainer exec --nvv \\\n  --env HF_HOME {starter_image} python x.py\n"
    )
    return path


def test_script_with_mistakes_adds_nothing(run: Run, engine: EngineInfo, script: Path, data_dir: Path) -> None:
    answer = run("kernel", "add", "job", "--from-script", script)
    assert (answer.returncode, answer.stdout) == (2, "")
    lines = answer.stderr.splitlines()
    assert f"{script}:3: error: there is no flag --nvv" in lines
    assert f"{script}:4: error: --env HF_HOME has no value" in lines
    assert "not added, because of 2 mistakes" in lines[-1]
    assert not data_dir.exists()


def test_script_with_mistakes_is_added_by_those_who_insist(
    run: Run, engine: EngineInfo, script: Path, starter_image: Path
) -> None:
    answer = run("kernel", "add", "job", "--from-script", script, "--force", "--json")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert report["config"] == {"nv": True, "image": str(starter_image), "env": {"API_TOKEN": "…"}}
    assert [(row["line"], row["level"]) for row in report["remarks"] if row["level"] == "error"] == [
        (3, "error"),
        (4, "error"),
    ]
    assert read_config("job")["env"] == {"API_TOKEN": "hush"}


def test_dry_run_shows_and_adds_nothing(run: Run, engine: EngineInfo, script: Path, data_dir: Path) -> None:
    script.write_text(script.read_text().replace("--nvv", "--nv").replace("HF_HOME", "HF_HOME=/x"))
    answer = run("kernel", "add", "job", "--from-script", script, "--dry-run")
    assert (answer.returncode, "HF_HOME=/x" in answer.stdout, "hush" in answer.stdout) == (0, True, False)
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["x"], "no IMAGE was given"),
        (["x", "--like", "no-such-kernel", "x.sif"], "no kernel no-such-kernel on this host"),
        (["x", "--from-command", "docker run x"], "no apptainer or singularity command"),
        (["x", "--from-script", os.fspath("/bin/sh")], "is not a text"),
        (["x", "--like", "y", "--from-command", "z"], "not allowed with argument"),
    ],
)
def test_wrong_source_is_refused(run: Run, engine: EngineInfo, words: list[str], text: str) -> None:
    answer = run("kernel", "add", *words)
    assert (answer.returncode, text in answer.stderr) == (2, True), answer.stderr


def test_words_of_a_script_do_not_steer_the_terminal(run: Run, engine: EngineInfo, tmp_path: Path) -> None:
    answer = run("kernel", "add", "x", "--from-command", "apptainer exec --\x1b[2J img.sif sh")
    assert "there is no flag --�[2J" in answer.stderr
    assert "\x1b" not in answer.stderr
