"""`jupyter apptainer kernel …` with the real engine, image and Jupyter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager

from jupyter_apptainer.cli.main import main
from jupyter_apptainer.engine.locate import EngineInfo

# Without the packages of the image, and written in a way that none can be lent to.
NO_IPYKERNEL = "python -I -S -Em ipykernel_launcher -f {connection_file}"


class Cli:
    """Runs a command line and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main(["kernel", *map(str, words)])
        self.out, self.err = self._capsys.readouterr()
        assert found == code, (found, self.out, self.err)
        return self.out

    def json(self, *words: str | Path, code: int = 0) -> Any:
        return json.loads(self(*words, "--json", code=code))


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def read_config(name: str) -> dict[str, Any]:
    metadata = KernelSpecManager().get_kernel_spec(name).metadata
    config: dict[str, Any] = metadata["kernel_provisioner"]["config"]
    return config


def test_add_asks_the_image_and_tells_jupyter(
    cli: Cli, engine: EngineInfo, starter_image: Path, data_dir: Path
) -> None:
    assert cli("add", "lab", starter_image) == f"{data_dir}/kernels/lab\n"
    found = KernelSpecManager().get_kernel_spec("lab")
    assert found.display_name.startswith("Python 3.")
    assert found.display_name.endswith(f"({starter_image.name})")
    assert found.display_name in cli.err
    assert found.metadata["supported_encryption"] == ["curve"]
    assert read_config("lab") == {"image": str(starter_image)}


def test_add_takes_every_setting(cli: Cli, tmp_path: Path) -> None:
    cli(
        *("add", "lab", "images/lab.sif", "--no-check", "--nv", "true", "--rocm"),
        *("-B", "d:/d:ro", "--bind", "~/e", "-B", "/a\\:b:/c", "--overlay", "o.img", "--overlay", "/p.img:ro"),
        *("--env", "A=x=y, z", "--env", "B=", "--inherit-env", "SLURM_*", "--home", "./h", "--isolation", "contain"),
        *("--network", "none", "--extra-flag=--hostname=x", "--extra-flag=--no-init", "--display-name", "My lab"),
        *("--memory", "4G", "--cpus", "2", "--pids", "512"),
        *("--command", "R -e 'f(1)' --args {connection_file}", "--language", "R"),
    )
    assert read_config("lab") == {
        "image": f"{tmp_path}/images/lab.sif",
        "nv": True,
        "rocm": True,
        "binds": [f"{tmp_path}/d:/d:ro", "~/e", "/a\\:b:/c"],
        "overlays": [f"{tmp_path}/o.img", "/p.img:ro"],
        "env": {"A": "x=y, z", "B": ""},
        "inherit_env": ["SLURM_*"],
        "home": f"{tmp_path}/h",
        "isolation": "contain",
        "command": ["R", "-e", "f(1)", "--args", "{connection_file}"],
        "resources": {"cpus": 2, "memory": "4G", "pids": 512},
        "network": "none",
        "extra_flags": ["--hostname=x", "--no-init"],
    }
    found = KernelSpecManager().get_kernel_spec("lab")
    assert (found.display_name, found.language, found.metadata.get("debugger")) == ("My lab", "R", None)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lab", "no.sif"], 1, "no.sif"),
        (["lab", "docker://python:3.12"], 1, "apptainer image pull"),
        (["a b", "IMAGE"], 2, "cannot be the name"),
        (["lab", "IMAGE", "-B", "/a:b:c"], 2, 'binds[0]: "/a:b:c"'),
        (["lab", "IMAGE", "-B", "/no/such/folder"], 1, "/no/such/folder"),
        (["lab", "IMAGE", "--overlay", "no.img"], 1, "no.img"),
        (["lab", "IMAGE", "--env", "A"], 2, "--inherit-env A"),
        (["lab", "IMAGE", "--memory", "lots"], 2, 'resources.memory: "lots"'),
        (["lab", "IMAGE", "--cpus", "-1"], 2, "resources.cpus: -1"),
        (["lab", "IMAGE", "--pids", "many"], 2, 'resources.pids: "many"'),
        (["lab", "IMAGE", "--command", "python 'x"], 2, "cannot be split"),
        (["lab", "IMAGE", "--command", "python -m ipykernel_launcher"], 2, "{connection_file}"),
        (["lab", "IMAGE", "--command", "python9 {connection_file}"], 1, "there is no python9"),
        (["lab", "IMAGE", "--command", NO_IPYKERNEL], 1, "no ipykernel"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_add_refuses_what_could_not_start(
    cli: Cli, engine: EngineInfo, starter_image: Path, data_dir: Path, words: list[str], code: int, message: str
) -> None:
    cli("add", *(str(starter_image) if word == "IMAGE" else word for word in words), code=code)
    assert message in cli.err
    assert cli.out == ""
    assert not (data_dir / "kernels").exists()


def test_replace_is_asked_for(cli: Cli) -> None:
    cli("add", "lab", "a.sif", "--no-check")
    cli("add", "lab", "b.sif", "--no-check", code=2)
    assert "--replace" in cli.err
    cli("add", "lab", "b.sif", "--no-check", "--replace")
    assert read_config("lab")["image"].endswith("/b.sif")


def test_prefix_that_jupyter_does_not_know_is_mentioned(cli: Cli, tmp_path: Path) -> None:
    cli("add", "lab", "a.sif", "--no-check", "--prefix", "p")
    assert cli.out == f"{tmp_path}/p/share/jupyter/kernels/lab\n"
    assert "does not look there" in cli.err


def test_list_marks_what_could_start(cli: Cli, engine: EngineInfo, starter_image: Path) -> None:
    assert cli("list") == ""
    assert "kernel add NAME IMAGE" in cli.err
    cli("add", "ready", starter_image)
    cli(
        "add", "unknown", starter_image, "--no-check", "--command", "python3 -m ipykernel_launcher -f {connection_file}"
    )
    cli("add", "broken", "gone.sif", "--no-check")
    states = {line.split()[0]: line for line in cli("list").splitlines()}
    assert states["ready"].endswith("✓ ready")
    assert "? kernel: the image was not asked yet" in states["unknown"]
    assert "✗ image: there is no image" in states["broken"]
    found = {kernel["name"]: kernel for kernel in cli.json("list")}
    assert {name: kernel["is_ready"] for name, kernel in found.items()} == {
        "ready": True,
        "unknown": False,
        "broken": False,
    }
    assert {finding["topic"] for finding in found["ready"]["findings"]} == {
        "configuration",
        "image",
        "overlay",
        "engine",
        "kernel",
    }


def test_list_without_an_engine(cli: Cli, starter_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("add", "lab", starter_image, "--no-check")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JUPYTER_APPTAINER_HOME", str(tmp_path / "h"))
    (kernel,) = cli.json("list")
    failed = {finding["topic"]: finding["hint"] for finding in kernel["findings"] if finding["status"] == "fail"}
    assert list(failed) == ["engine"]
    assert "engine install" in failed["engine"]


def test_show_hides_secrets(cli: Cli, starter_image: Path) -> None:
    cli("add", "lab", starter_image, "--no-check", "--env", "API_TOKEN=hush", "--env", "A=1", "--nv", "false")
    shown = cli("show", "lab")
    assert "hush" not in shown
    assert "A=1" in shown
    assert "nv        false" in shown
    document = cli.json("show", "lab")
    assert document["config"]["env"] == {"API_TOKEN": "…", "A": "1"}


def test_check_says_all_that_is_missing_and_the_fix(cli: Cli, engine: EngineInfo, starter_image: Path) -> None:
    cli("add", "lab", starter_image)
    assert "ipykernel 7" in cli("check", "lab")
    cli("edit", "lab", "--command", NO_IPYKERNEL, "--no-check")
    assert "pip install ipykernel" in cli("check", "lab", code=1)
    cli("edit", "lab", "-B", "/no/such/folder", "--overlay", "no.img", "--home", "/no/home", "--no-check")
    findings = cli.json("check", "lab", code=1)["findings"]
    assert [finding["topic"] for finding in findings if finding["status"] == "fail"] == ["overlay", "bind", "home"]
    assert all(finding["hint"] for finding in findings if finding["status"] == "fail")


def test_edit_changes_settings(cli: Cli, starter_image: Path, engine: EngineInfo) -> None:
    cli("add", "lab", "old.sif", "--no-check", "--env", "A=1", "--env", "B=2", "-B", "/a", "-B", "/b", "--nv", "true")
    cli("edit", "lab", "--image", starter_image, "--env", "B=3", "--bind", "/tmp", "--unset", "nv")
    assert read_config("lab") == {"image": str(starter_image), "env": {"A": "1", "B": "3"}, "binds": ["/tmp"]}
    found = KernelSpecManager().get_kernel_spec("lab")
    assert starter_image.name in found.display_name
    cli("edit", "lab", "--display-name", "Mine", "--unset", "env")
    assert "env" not in read_config("lab")
    assert KernelSpecManager().get_kernel_spec("lab").display_name == "Mine"
    cli("edit", "lab", "--unset", "image", code=2)
    cli("edit", "lab", "--home", "hots", "--overlay", "a", "--overlay", "b", code=2)
    assert "overlays" in cli.err


def test_edit_changes_one_limit_and_leaves_the_others(cli: Cli) -> None:
    cli("add", "lab", "lab.sif", "--no-check", "--memory", "4G", "--cpus", "1.5")
    cli("edit", "lab", "--memory", "8G", "--pids", "512")
    assert read_config("lab")["resources"] == {"memory": "8G", "cpus": 1.5, "pids": 512}
    cli("edit", "lab", "--unset", "resources")
    assert "resources" not in read_config("lab")


def test_explain_says_how_limits_will_hold_and_what_was_found_of_a_gpu(
    cli: Cli, engine: EngineInfo, starter_image: Path
) -> None:
    cli("add", "lab", starter_image, "--no-check", "--memory", "4G", "--pids", "512", "--nv", "true")
    script = cli("explain", "lab")
    report = cli.json("explain", "lab")
    assert report["resources"]["memory_bytes"] == 4 << 30
    assert len(report["resources"]["notes"]) == 3
    for note in (*report["resources"]["notes"], report["gpu"]["note"]):
        assert note in script
    if not Path("/run/systemd/system").exists():
        assert "no cgroup for this kernel: systemd does not run this machine" in script
        assert ("RLIMIT_NPROC" in script) is (os.getuid() != 0)
    assert "device files: " in script


def test_remove_asks_first(cli: Cli, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        cli("add", name, "i.sif", "--no-check")
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115  # closed by the interpreter; pytest's own refuses to be read
    cli("remove", "a", "b", code=1)
    assert "-y" in cli.err
    cli("remove", "a", "nosuch", "-y", code=2)
    assert (data_dir / "kernels/a").exists()
    cli("remove", "a", "b", "-y")
    assert list((data_dir / "kernels").iterdir()) == []


def test_explain_names_each_variable_and_path_and_hides_secrets(
    cli: Cli, engine: EngineInfo, starter_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPTAINER_BIND", "/evil")
    (tmp_path / "d").mkdir()
    cli("add", "lab", starter_image, "-B", "d:/data:ro", "--env", "A=it's $HOME\n2", "--env", "MY_TOKEN=hush")
    script = cli("explain", "lab", "--cwd", "d")
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert "unset APPTAINER_BIND" in script
    assert "hush" not in script
    assert '"${MY_TOKEN-}"' in script
    assert f"/data is {tmp_path}/d (ro): " in script
    assert f"{engine.path} instance start" in script
    report = cli.json("explain", "lab")
    assert {entry["name"]: entry["value"] for entry in report["env"]}["MY_TOKEN"] == "…"
    assert all(entry["why"] for entry in report["env"])
    assert all(bind["why"] for bind in report["options"]["binds"])
    assert report["instance_argv"][0] == engine.path


def test_explained_start_works_when_run_by_hand(
    cli: Cli, engine: EngineInfo, starter_image: Path, tmp_path: Path
) -> None:
    cli("add", "lab", starter_image, "--env", "A=it's $HOME")
    report = cli.json("explain", "lab")
    script = tmp_path / "start.sh"
    script.write_text(cli("explain", "lab"))
    text = script.read_text()
    connection_file = text.partition("--existing ")[2].splitlines()[0]
    assert Path(connection_file).name == Path(report["connection_file"]).name
    process = subprocess.Popen(
        ["sh", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        # ipykernel says so once the connection file is written.
        assert process.stdout is not None
        seen = next((line for line in process.stdout if "--existing" in line), "")
        assert connection_file in seen
        client = BlockingKernelClient(connection_file=connection_file)
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(
            "pass", user_expressions={"a": "__import__('os').environ['A']"}, timeout=60, store_history=False
        )
        assert reply["content"]["user_expressions"]["a"]["data"]["text/plain"] == repr("it's $HOME")
        client.shutdown()
        client.stop_channels()
        process.stdout.read()
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        if process.stdout:
            process.stdout.close()
    assert not Path(connection_file).parent.exists()
