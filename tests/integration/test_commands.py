"""Kernels whose command has more than `python -m`: options of the interpreter, a module glued to them, code."""

from __future__ import annotations

import pytest

from tests.integration.conftest import StartKernel

_CODE = "import sys; from ipykernel import kernelapp; sys.argv = ['k', '-f', '{connection_file}']; kernelapp.launch_new_instance()"


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        pytest.param(["python", "-X", "utf8", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "utf8_mode", id="X"),
        pytest.param(["python", "-W", "ignore", "-Bm", "ipykernel_launcher", "-f", "{connection_file}"], "dont_write_bytecode", id="W-and-glued-m"),
        pytest.param(["python", "-B", "-c", _CODE], "dont_write_bytecode", id="code"),
    ],
)  # fmt: skip
def test_options_of_the_interpreter_reach_it(start_kernel: StartKernel, command: list[str], flag: str) -> None:
    kernel = start_kernel({"command": command})
    assert kernel.value(f"__import__('sys').flags.{flag}") == 1
    # A session of its own: an interrupt then reaches the children of a cell too.
    assert kernel.value("__import__('os').getsid(0) == __import__('os').getpid()") is True
