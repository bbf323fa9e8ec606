"""Lines on the real engine: what they print, return, set and raise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.magics import main
from jupyter_apptainer.errors import CommandError, ImageNotFound, ProgramNotFound
from jupyter_apptainer.magics.jobs import Job
from jupyter_apptainer.magics.values import Result
from tests.magics.conftest import Session


def test_a_program_prints_into_the_cell(session: Session) -> None:
    outcome = session.run(
        "%apptainer exec $image python3 -c \"import sys; print('out'); print('err', file=sys.stderr)\""
    )
    assert (outcome.error, outcome.out, outcome.err) == (None, "out\n", "err\n")


def test_an_assigned_line_gives_what_was_printed(session: Session) -> None:
    result = session.get("x = %apptainer exec {image} echo $HOME\nx")
    assert isinstance(result, Result)
    assert (result.returncode, result.stdout) == (0, os.environ["HOME"] + "\n")


def test_outputs_go_into_variables(session: Session) -> None:
    outcome = session.run("%apptainer --out o --err e --proc p exec $image sh -c 'echo a; echo b >&2'")
    assert (outcome.out, outcome.err) == ("", "")
    assert session.variables["o"] == "a\n"
    assert session.variables["e"].endswith("b\n")
    assert session.variables["p"].returncode == 0


def test_a_variable_that_a_cell_has_set_comes_along(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDE", "high")
    session.get("%apptainer --out text exec $image sh -c 'echo $TIDE'")
    assert session.variables["text"] == "high\n"


def test_a_failure_is_raised_with_its_own_words(session: Session) -> None:
    outcome = session.run("%apptainer exec $image sh -c 'echo working; exit 3'")
    assert isinstance(outcome.error, CommandError)
    assert outcome.error.message == f"sh in {Path(session.variables['image']).name} ended with exit status 3"
    assert outcome.out.startswith("working\n")
    assert "Traceback" not in outcome.out + outcome.err

    result = session.get("r = %apptainer --no-raise-error --quiet exec $image false\nr")
    assert result.returncode == 1
    assert isinstance(result.error, CommandError)

    assert isinstance(session.run("%apptainer exec $image nosuchprogram").error, ProgramNotFound)
    assert isinstance(session.run("%apptainer inspect nosuch.sif").error, ImageNotFound)


def test_a_file_that_only_the_host_has_is_told_from_one_that_nobody_has(session: Session, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    script = tmp_path / "hidden/work.py"
    script.write_text("print(1)")
    run = "%apptainer exec --contain --no-mount cwd $image python3"
    outcome = session.run(f"{run} {script}")
    assert isinstance(outcome.error, CommandError)
    assert (
        outcome.error.hint
        == f"{script} exists on the host, but the container does not see it: add `--bind {script.parent}`"
    )
    outcome = session.run(f"{run} /no/such/file.py")
    assert isinstance(outcome.error, CommandError)
    assert not outcome.error.hint
    assert session.run(f"%apptainer exec --contain --bind {script.parent} $image python3 {script}").out == "1\n"


def test_json_is_plain_python(session: Session) -> None:
    labels = session.get("x = %apptainer inspect --json $image\nx")
    assert type(labels) is dict
    assert labels["type"] == "container"
    images = session.get("%apptainer image list --json")
    assert type(images) is list
    assert all(type(image) is dict for image in images)


def test_answers_are_objects_that_show_themselves(session: Session) -> None:
    record = session.get("%apptainer inspect $image")
    assert record["org.label-schema.build-arch"] in repr(record)
    assert "<table>" in record._repr_html_()
    images = session.get("t = %apptainer image list {image.rpartition('/')[0]}\nt")
    (row,) = [row for row in images if row.path == session.variables["image"]]
    assert row.size_mib > 10
    assert str(images).splitlines()[0].split() == ["IMAGE", "SIZE", "MiB", "PYTHON", "IPYKERNEL", "KERNELS", "ORIGIN"]
    assert row.path in images._repr_html_()


def test_status_and_help(session: Session) -> None:
    status = session.get("%apptainer")
    assert "in no container" in status.kernel
    assert status.engine.startswith(("apptainer", "singularity"))
    help_text = session.run("%apptainer help").out
    assert "exec " in help_text
    assert "doctor " in help_text
    assert "--bind" in session.run("%apptainer help exec").out
    # Nothing is made by them, so nothing is removed after them.
    assert all(session.run(f"%apptainer help {word}").error is None for word in ("build", "pull", "overlay create"))
    assert "jupyter apptainer kernel add" in session.run("%apptainer help kernel add").out


def test_a_background_command_is_waited_for_and_stopped(session: Session) -> None:
    session.get("%apptainer --bg --proc job --out o exec $image sh -c 'echo done'")
    job = session.variables["job"]
    assert isinstance(job, Job)
    assert job.wait(60) == 0
    assert (job.stdout, session.variables["o"]) == ("done\n", "done\n")

    job = session.get("job = %apptainer --bg exec $image sleep 600\njob")
    assert "runs" in repr(job)
    job.stop()
    assert job.wait(60) != 0
    assert "interrupted" in str(job.error)


def test_what_is_not_finished_is_removed(session: Session, tmp_path: Path) -> None:
    (tmp_path / "kept.sif").write_text("no image")
    assert session.run("%apptainer build --sandbox new nosuch.sif").error
    assert session.run("%apptainer pull new.sif docker://127.0.0.1:1/a").error
    assert session.run("%apptainer pull kept.sif docker://127.0.0.1:1/a").error
    assert [path.name for path in tmp_path.iterdir()] == ["kept.sif"]


def test_nobody_can_be_asked_for_a_password(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(prompt: str) -> str:
        asked.append(prompt)
        raise EOFError

    monkeypatch.setattr("getpass.getpass", refuse)
    outcome = session.run("%apptainer registry login -u ada docker://127.0.0.1:1")
    assert "nobody to ask" in str(outcome.error)
    assert asked == ["Password for docker://127.0.0.1:1: "]


def test_the_benchmark_measures(session: Session, tmp_path: Path) -> None:
    """No duration is looked at."""
    assert main(["--image", session.variables["image"], "--rounds", "1", "--json", str(tmp_path / "figures")]) == 0
    assert set(json.loads((tmp_path / "figures").read_text())) == {"exec", "load"}
