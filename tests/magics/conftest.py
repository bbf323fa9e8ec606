"""A real IPython in this process, with the extension loaded, as a kernel on the host has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from jupyter_apptainer.engine.locate import EngineInfo


@dataclass
class Outcome:
    """What a cell gave: its value, the error that was raised, and what was printed."""

    value: Any
    error: BaseException | None
    out: str
    err: str


class Session:
    """Runs cells."""

    def __init__(self, shell: InteractiveShell, capture: pytest.CaptureFixture[str]) -> None:
        self.shell = shell
        self._capture = capture

    @property
    def variables(self) -> dict[str, Any]:
        found: dict[str, Any] = self.shell.user_ns
        return found

    def run(self, code: str) -> Outcome:
        """Run a cell to its end."""
        self._capture.readouterr()
        result = self.shell.run_cell(code, store_history=True)  # type: ignore[no-untyped-call]  # IPython's own
        out, err = self._capture.readouterr()
        return Outcome(result.result, result.error_in_exec or result.error_before_exec, out, err)

    def get(self, code: str) -> Any:
        """Run a cell that must succeed, and return its value."""
        outcome = self.run(code)
        assert outcome.error is None, outcome
        return outcome.value


@pytest.fixture(scope="session")
def shell(engine: EngineInfo, starter_image: Path) -> Iterator[InteractiveShell]:
    """One for all tests: it is a singleton."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    found = InteractiveShell.instance(config=config)
    found.run_line_magic("load_ext", "jupyter_apptainer")
    yield found
    InteractiveShell.clear_instance()


@pytest.fixture
def session(
    shell: InteractiveShell,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    starter_image: Path,
) -> Iterator[Session]:
    """The shell in an empty folder, with `image`, a variable that names the starter image."""
    monkeypatch.chdir(tmp_path)
    names = set(shell.user_ns)
    shell.user_ns["image"] = str(starter_image)
    yield Session(shell, capsys)
    for name in set(shell.user_ns) - names:
        del shell.user_ns[name]
