"""What the package costs programs that only import it, and people who ask the command line for help."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

_SCRIPTS = Path(sysconfig.get_path("scripts"))


def measure_commands() -> dict[str, tuple[float, float]]:
    """Return the seconds of one run of each: of Python alone, and of what is measured."""
    python = [sys.executable, "-c"]
    bare_s = _time([*python, "pass"])
    return {
        "import": (bare_s, _time([*python, "import jupyter_apptainer"])),
        "help": (bare_s, _time([str(_SCRIPTS / "jupyter"), "apptainer", "--help"])),
    }


def _time(argv: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - began
