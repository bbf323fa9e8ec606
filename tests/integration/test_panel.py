"""The panel beside real kernels: what one sees of the host, and what a click brings about."""

from __future__ import annotations

import os
import queue
import re
from pathlib import Path

import pytest

from jupyter_apptainer.instances.binds import list_binds, sees_folder
from jupyter_apptainer.instances.ledger import iter_entries
from jupyter_apptainer.kernels.kernelspecs import get_kernelspec
from jupyter_apptainer.places import Places
from jupyter_apptainer.widgets.commands import Commands
from jupyter_apptainer.widgets.context import find_context
from jupyter_apptainer.widgets.front.model import Section
from jupyter_apptainer.widgets.front.source import Outcome
from jupyter_apptainer.widgets.sections.instances import load_instances
from jupyter_apptainer.widgets.sections.kernel import load_kernel
from tests.cli.conftest import StartServer, start_server  # noqa: F401  # a fixture
from tests.integration.conftest import TIMEOUT_S

# Slow, and the same for all.
pytestmark = pytest.mark.root


@pytest.fixture
def commands() -> Commands:
    return Commands()


def run(commands: Commands, words: tuple[str, ...]) -> Outcome:
    outcomes: queue.Queue[Outcome] = queue.Queue()
    commands.start(words, outcomes.put).join(TIMEOUT_S)
    return outcomes.get_nowait()


def find_facts(section: Section, key: str) -> dict[str, list[str]]:
    row = section.find_row(key)
    assert row is not None
    facts: dict[str, list[str]] = {}
    for name, value in row.facts:
        facts.setdefault(name, []).append(value)
    return facts


def test_a_kernel_is_seen_changed_and_stopped(
    start_server: StartServer,  # noqa: F811
    places: Places,
    tmp_path: Path,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    starter_kernel: str,
) -> None:
    notebook, data = tmp_path / "work.ipynb", tmp_path.parent / "panel data"
    data.mkdir()
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook))
    server = start_server()
    entry = server.entry
    assert entry.kernel is not None
    # The engine shows it what the plan has said; the folder that is bound next is not among that.
    assert sees_folder(entry.kernel.pid, str(tmp_path))
    assert str(tmp_path) in {bind.destination for bind in list_binds(entry.kernel.pid)}

    context = find_context()
    section = load_kernel(context)
    facts = find_facts(section, entry.name)
    assert facts["notebook"] == [str(notebook)]
    assert facts["notebook's folder"] == ["✓ the same inside"]
    assert any(text.startswith(f"{tmp_path} → {tmp_path} (read and write)") for text in facts["sees"])

    assert re.fullmatch(r"image \d+\.\d\d s, instance .* s, connect .* s", facts["start"][0])
    assert facts["of its own"] == ["/tmp, /var/tmp"]
    assert not [text for text in facts["sees"] if entry.directories[0] in text]

    bind = next(form for form in section.forms if form.label == "Bind a folder")
    words = bind.build({"source": str(data), "target": "/data", "ro": True, "now": False}, entry.name)
    try:
        assert run(commands, words).is_ok
        assert get_kernelspec(starter_kernel).config["binds"] == [f"{data}:/data:ro"]
        assert find_facts(load_kernel(context), entry.name)["from the next start"] == [f"{data} → /data"]
        # A second one is added to the first.
        assert (
            bind.build({"source": str(tmp_path), "target": "", "ro": False, "now": False}, entry.name)[-1]
            == f"{tmp_path}:{tmp_path}"
        )
    finally:
        run(commands, ("kernel", "edit", starter_kernel, "--unset", "binds"))

    load_instances(context)
    (row,) = load_instances(context).rows
    assert " %, " in row.cells[5]
    assert (row.label, row.cells[1]) == ("work.ipynb", "running")
    log, stop = row.actions
    assert run(commands, log.words).is_ok
    outcome = run(commands, stop.words)
    assert (outcome.is_ok, outcome.output) == (True, f"ended {entry.kernel_id} work.ipynb\n")
    assert not entry.kernel.is_alive()
    assert not load_instances(context).rows
    assert not list(iter_entries(places))


def test_what_fails_says_so_in_the_words_of_the_command_line(commands: Commands) -> None:
    outcome = run(commands, ("instance", "stop", "jpa-nobody"))
    assert not outcome.is_ok
    assert outcome.message.startswith("no instance of ours is named 'jpa-nobody'")
    assert "Hint: " in outcome.message


def test_a_closed_panel_ends_its_commands_and_says_nothing(tmp_path: Path) -> None:
    # The command waits for a reader: a pipe that nobody opens.
    os.mkfifo(tmp_path / "pipe.def")
    commands = Commands()
    said: list[Outcome] = []
    thread = commands.start(
        ("image", "build", str(tmp_path / "a.sif"), "--def", str(tmp_path / "pipe.def")), said.append
    )
    commands.close()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert not said
    commands.start(("instance", "list"), said.append).join(TIMEOUT_S)
    assert not said
