"""What the magics cost: `%apptainer exec` over the same command without them, and `%load_ext` over IPython.

python -m benchmarks.magics --rounds 15
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from jupyter_apptainer.engine.locate import get_engine, run_flags

from .options import add_image, add_rounds, build_parser

# Milliseconds at most, medians.
TARGETS = {"exec": 30.0, "load": 100.0}
TITLES = {"exec": "`%apptainer exec IMAGE true` over the plain command", "load": "`%load_ext jupyter_apptainer`"}
# In a process of its own: what an earlier measurement has imported would cost nothing.
_LOAD = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "autoreload")
shell.Completer
began = time.perf_counter()
shell.run_line_magic("load_ext", "jupyter_apptainer")
print(time.perf_counter() - began)
"""


def measure(image: Path, rounds: int) -> dict[str, float]:
    """Return the medians in milliseconds."""
    return {"exec": _measure_exec(image, rounds), "load": _measure_load(rounds)}


@contextmanager
def open_shell() -> Iterator[InteractiveShell]:
    """IPython in this process with our magics, or the one that is there already. It keeps no history."""
    is_ours = not InteractiveShell.initialized()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        shell.run_line_magic("load_ext", "jupyter_apptainer")
        yield shell
    finally:
        if is_ours:
            InteractiveShell.clear_instance()


def _measure_exec(image: Path, rounds: int) -> float:
    """The two ways in turns, so that what else the machine does strikes both."""
    engine = get_engine()
    argv = [engine.path, "exec", *run_flags(engine), str(image), "true"]
    line = f"--quiet exec '{image}' true"
    differences: list[float] = []
    with open_shell() as shell:
        shell.run_line_magic("apptainer", line)
        for _ in range(rounds):
            plain = _time(lambda: subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=True))
            differences.append(_time(lambda: shell.run_line_magic("apptainer", line)) - plain)
    return 1000 * statistics.median(differences)


def _measure_load(rounds: int) -> float:
    def load() -> float:
        return float(subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True).stdout)

    return 1000 * statistics.median(load() for _ in range(rounds))


def _time(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each figure. Returns the exit status: 0 measured."""
    parser = build_parser("benchmarks.magics", __doc__)
    add_image(parser)
    add_rounds(parser)
    options = parser.parse_args(argv)
    figures = measure(options.image, options.rounds)
    for name, value in figures.items():
        verdict = "met" if value <= TARGETS[name] else "missed"
        print(f"{TITLES[name]}: {value:.1f} ms, at most {TARGETS[name]:.0f} ms {verdict}")
    if options.json:
        options.json.write_text(json.dumps(figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
