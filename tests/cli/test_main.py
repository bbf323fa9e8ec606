"""The frame of the command line: speed, help, exit codes, messages."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from jupyter_apptainer import __version__
from jupyter_apptainer.cli.main import COMMANDS, EXIT_CODES, find_exit_code, main
from jupyter_apptainer.errors import ApptainerError, ImageCorrupt, SpecError, iter_error_classes

SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]  # options of subprocess


def fake_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `gc` a command that fails with `error`."""

    class Module:
        @staticmethod
        def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            def fail(_: argparse.Namespace) -> int:
                raise error

            subparsers.add_parser("gc").set_defaults(func=fail)

    monkeypatch.setattr(importlib, "import_module", lambda name: Module)


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from jupyter_apptainer.cli.main import main; main(['--help']);"
        "print('LOADED', *sys.modules, file=sys.stderr)"
    )
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        done = run(sys.executable, "-c", code)
        durations.append(time.perf_counter() - started)
    loaded = {name.partition(".")[0] for name in done.stderr.partition("LOADED")[2].split()}
    assert not loaded & {
        "jupyter_core",
        "jupyter_client",
        "traitlets",
        "zmq",
        "tornado",
        "asyncio",
        "subprocess",
        "rich",
    }
    assert "examples:" in done.stdout
    bare = min(_time(sys.executable, "-c", "pass") for _ in range(3))
    assert min(durations) < bare + 0.15


def _time(*words: str) -> float:
    started = time.perf_counter()
    run(*words)
    return time.perf_counter() - started


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n    {name}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(f"jupyter_apptainer.cli.{COMMANDS[name].module}")
    assert main([name, "--help"]) == 0
    assert f"jupyter apptainer {name}" in capsys.readouterr().out


def test_works_through_jupyter_and_by_its_own_name() -> None:
    expected = f"jupyter-apptainer {__version__}\n"
    assert run(SCRIPTS / "jupyter-apptainer", "--version").stdout == expected
    assert run(sys.executable, "-m", "jupyter_apptainer.cli.main", "--version").stdout == expected
    path = {"PATH": f"{SCRIPTS}:/usr/bin:/bin"}
    assert run(sys.executable, "-m", "jupyter", "apptainer", "--version", env=path).stdout == expected


@pytest.mark.parametrize("words", [[], ["nonsense"], ["--nonsense"], ["kernel"], ["kernel", "show"]], ids=repr)
def test_usage_errors_are_2_and_leave_standard_output_alone(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: jupyter apptainer" in captured.err


def test_table_of_exit_codes_covers_every_error() -> None:
    for error in iter_error_classes():
        if error is not ApptainerError:
            assert any(cls in EXIT_CODES for cls in error.__mro__), error
            assert find_exit_code(error("x")) == (2 if issubclass(error, SpecError) else 1)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SpecError("no"), 2, "error: no\n"),
        (ImageCorrupt("x is 100% broken", hint="get it"), 1, "error: x is 100% broken\nHint: get it\n"),
        (ImageCorrupt("x", hint="y", log_tail=["FATAL: z"]), 1, "error: x\nHint: y\nLast lines:\n  FATAL: z\n"),
        (PermissionError(13, "Permission denied", "/root/x"), 1, "error: /root/x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["spec", "engine", "log tail", "file", "interrupt"],
)
def test_errors_become_messages_and_codes(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, error)
    assert main(["gc"]) == code
    captured = capsys.readouterr()
    assert captured.err == message
    assert captured.out == ""


def test_debug_shows_where_an_error_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, SpecError("no"))
    assert main(["--debug", "gc"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_faults_of_ours_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["gc"])


def test_closed_pipe_is_quiet() -> None:
    script = f"{sys.executable} -m jupyter_apptainer.cli.main kernel list --json | true; echo $?"
    done = run("bash", "-c", f"set -o pipefail; {script}")
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")
