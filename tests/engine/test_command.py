"""A command as a value: how it is shown to people, and what counts as a message of the engine."""

from __future__ import annotations

import pytest

from jupyter_apptainer.engine.command import (
    REDACTED,
    Command,
    Completed,
    LogLine,
    is_secret_name,
    parse_log_lines,
    redact_argv,
    returns_nothing,
    strip_ansi,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("FATAL:   no such image", [LogLine("FATAL", "no such image")], id="go"),
        pytest.param("INFO:    Mounting image", [LogLine("INFO", "Mounting image")], id="go-info"),
        pytest.param("WARNING: skipped", [LogLine("WARNING", "skipped")], id="go-warning"),
        pytest.param("ERROR  : Failed to unshare", [LogLine("ERROR", "Failed to unshare")], id="c-starter"),
        pytest.param(
            "\x1b[31mERROR  : Failed to unshare\x1b[0m", [LogLine("ERROR", "Failed to unshare")], id="c-starter-ansi"
        ),
        pytest.param("\x1b[34mINFO:   \x1b[0m Cleaning up", [LogLine("INFO", "Cleaning up")], id="go-ansi"),
        pytest.param(
            "DEBUG   [U=0,P=1234]       persistentPreRun()            Apptainer version: 1.4.5",
            [LogLine("DEBUG", "Apptainer version: 1.4.5")],
            id="debug-with-ids",
        ),
        pytest.param(
            "VERBOSE [U=1000,P=7]  main()  Set messagelevel", [LogLine("VERBOSE", "Set messagelevel")], id="verbose"
        ),
        pytest.param(
            "FATAL   [U=0,P=1] Master() container creation failed: x",
            [LogLine("FATAL", "container creation failed: x")],
            id="fatal-with-ids",
        ),
        pytest.param("ABRT   : Terminated", [LogLine("ABRT", "Terminated")], id="abort"),
        pytest.param("hello\nFATAL: x\nbye", [LogLine("FATAL", "x")], id="between-other-lines"),
        pytest.param("FATALITY: of a game", [], id="a-longer-word"),
        pytest.param("  ERROR: indented", [], id="indented"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_log_lines_are_told_from_a_programs_output(text: str, expected: list[LogLine]) -> None:
    assert list(parse_log_lines(text)) == expected


def test_messages_come_from_both_streams() -> None:
    completed = Completed(("e",), 0, "\x1b[34mINFO:    from the C part\x1b[0m\n", "WARNING: from the Go part")
    assert [line.message for line in completed.log_lines] == ["from the Go part", "from the C part"]


def test_control_sequences_are_removed() -> None:
    assert strip_ansi("\x1b[1;31mred\x1b[0m \x1b[?25lbar\x1b[2K") == "red bar"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param(["a", "--password", "s3"], ["a", "--password", REDACTED], id="option-and-word"),
        pytest.param(["a", "--password=s3"], ["a", f"--password={REDACTED}"], id="option-equals"),
        pytest.param(["a", "--docker-password", "s3", "b"], ["a", "--docker-password", REDACTED, "b"], id="prefixed"),
        pytest.param(["a", "--passphrase", "s3"], ["a", "--passphrase", REDACTED], id="passphrase"),
        pytest.param(["a", "--password-stdin", "uri"], ["a", "--password-stdin", "uri"], id="from-stdin-is-no-secret"),
        pytest.param(["a", "--authfile", "f.json"], ["a", "--authfile", "f.json"], id="a-file-is-no-secret"),
        pytest.param(["a", "HF_TOKEN=s3"], ["a", f"HF_TOKEN={REDACTED}"], id="variable"),
        pytest.param(["a", "--env=HF_TOKEN=s3"], ["a", f"--env=HF_TOKEN={REDACTED}"], id="option-with-variable"),
        pytest.param(
            ["a", "--env", "A=1,MY_TOKEN=s3"], ["a", "--env", f"A=1,MY_TOKEN={REDACTED}"], id="second-in-list"
        ),
        pytest.param(["a", "--env=A=1,MY_TOKEN=s3"], ["a", f"--env=A=1,MY_TOKEN={REDACTED}"], id="second-after-equals"),
        pytest.param(
            ["pull", "docker://me:s3@reg.example/i"], ["pull", f"docker://me:{REDACTED}@reg.example/i"], id="url"
        ),
        pytest.param(
            ["pull", "https://me:s3@s3@reg.example/i"], ["pull", f"https://me:{REDACTED}@reg.example/i"], id="at-sign"
        ),
        pytest.param(["a", "--env=--MY_TOKEN=s3,s3"], ["a", f"--env=--MY_TOKEN={REDACTED}"], id="a-comma-in-it"),
        pytest.param(["x", "https://reg.example/i@sha256:00"], ["x", "https://reg.example/i@sha256:00"], id="digest"),
        pytest.param(["x", "docker://reg.example:5000/i"], ["x", "docker://reg.example:5000/i"], id="port"),
        pytest.param(["a", "N=1", "--nv"], ["a", "N=1", "--nv"], id="nothing-secret"),
    ],
)
def test_secrets_are_left_out(argv: list[str], expected: list[str]) -> None:
    assert redact_argv(argv) == expected
    assert "s3" not in " ".join(redact_argv(argv))


def test_a_command_is_shown_as_a_shell_would_take_it() -> None:
    command = Command(("engine", "exec", "a b.sif", "--password", "x"), {}, returns_nothing, "run")
    assert command.render() == f"engine exec 'a b.sif' --password '{REDACTED}'"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("HF_TOKEN", True), ("AWS_SECRET_ACCESS_KEY", True), ("MyPassword", True), ("API_KEY", True), ("LANG", False)],
)
def test_names_of_secrets_are_known(name: str, expected: bool) -> None:
    assert is_secret_name(name) is expected
