"""The benchmarks run on the real engine and report everything that they promise. No duration is looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import rest
from benchmarks.__main__ import main
from benchmarks.builds import build_rows
from benchmarks.machine import describe_image
from benchmarks.report import BEGIN, END, LENT, MEASURES, Target, write_readme
from benchmarks.rest_meter import LOOP, PROCESSOR
from benchmarks.rest_world import Mark
from benchmarks.starts import ROWS, Row
from benchmarks.timeline import PHASES, Timeline, render_page, render_timelines
from jupyter_apptainer.engine.locate import EngineInfo


@pytest.mark.user  # the same for every user
@pytest.mark.slow
def test_one_round_fills_every_row(
    engine: EngineInfo, starter_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, readme = tmp_path / "figures.json", tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nto be replaced\n{END}\nafter\n")
    options = ["--image", str(starter_image), "--engine", engine.path, "--rounds", "1", "--force"]
    assert main([*options, "--json", str(figures), "--write-readme", "--readme", str(readme)]) == 0

    report = json.loads(figures.read_text())
    rows = {row["key"]: row for row in report["rows"]}
    assert set(rows) == {"interrupt_right", LENT.key, *(measure.key for measure in MEASURES)}
    assert all(local and container for local, container, *_ in (row["cells"] for row in rows.values()))
    assert rows["interrupt_right"]["is_met"] is True
    assert {key for key, row in rows.items() if row["cells"][4]} == {"start", "restart"}

    table = capsys.readouterr().out
    text = readme.read_text()
    for row in rows.values():
        assert row["title"] in table
        assert row["title"].strip() in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "to be replaced" not in text
    assert str(tmp_path) not in text
    assert str(starter_image) not in text


def test_a_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing to fill\n")
    with pytest.raises(ValueError, match="no place"):
        write_readme(readme, "figures")
    assert readme.read_text() == "nothing to fill\n"


@pytest.mark.parametrize(
    ("target", "local", "container", "is_met"),
    [
        pytest.param(Target("ratio at most", 2.0), 1.0, 2.0, True, id="just as slow as allowed"),
        pytest.param(Target("ratio at most", 2.0), 1.0, 2.1, False, id="too slow"),
        pytest.param(Target("ratio at least", 1.2), 100.0, 119.0, False, id="too few"),
        pytest.param(Target("difference at most", 0.5), 0.25, 0.75, True, id="within the difference"),
    ],
)
def test_targets_compare_the_medians(target: Target, local: float, container: float, is_met: bool) -> None:
    assert target.is_met(local, container) is is_met


def test_the_image_is_described_by_its_compression(starter_image: Path, tmp_path: Path) -> None:
    assert describe_image(starter_image).endswith(" SIF")
    assert describe_image(tmp_path) == "sandbox"


@pytest.mark.user  # the same for every user
@pytest.mark.slow
def test_every_reading_route_is_measured_with_instances_and_builds(
    engine: EngineInfo, starter_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    options = ["--image", str(starter_image), "--engine", engine.path, "--instances", "1", "--builds", "1"]
    assert rest.main([*options, "--seconds", "2", "--force", "--json", str(figures)]) == 0
    phases = json.loads(figures.read_text())
    measured = {phase: {row["path"] for row in rows} for phase, rows in phases.items()}
    of_tasks = {"/tasks/{id}", "/tasks/{id}/log"}
    assert measured["builds"] - measured["idle"] == of_tasks
    assert measured["idle"] == {rest.REFERENCE, LOOP, PROCESSOR, *(f"/{noun}" for noun in rest.NOUNS)}
    assert "1 instances, 1 builds" in capsys.readouterr().out


def test_percentiles_are_readings_and_no_averages() -> None:
    marks = [Mark("/tasks/0123abcd/log", 200, float(number)) for number in range(1, 201)]
    (row,) = rest.build_rows(marks)
    assert row.render() == "| /tasks/{id}/log | 200 | 100.0 | 198.0 | 200.0 | ✗ |"


def test_builds_are_compared_by_their_medians() -> None:
    samples = {
        "plain": [100.0, 90.0, 500.0],
        "first": [50.0],
        "last": [16.0],
        "middle": [30.0],
        "changed first": [60.0],
    }
    starts = {"plain start": [1.4], "exec start": [0.8], "gzip start": [1.0], "start": [0.7], "copy start": [0.5]}
    cold = {"cold plain start": [2.0], "cold exec start": [1.6], "cold gzip start": [1.5], "cold start": [1.5]}
    rows = build_rows({**samples, **starts, **cold})
    assert [row.render() for row in rows] == [
        "| first build | 100.0 s | 50.0 s | 0.50 | ≤ 0.6 ✓ |",
        "| last step changed | 100.0 s | 16.0 s | 0.16 | ≤ 0.15 ✗ |",
        "| a middle step changed | 100.0 s | 30.0 s | 0.30 |  |",
        "| first step changed | 100.0 s | 60.0 s | 0.60 |  |",
        "| start of a kernel, with `apptainer exec` in both images | 1.4 s | 0.8 s | 0.57 | ≤ 0.7 ✓ |",
        "| the same, with `apptainer exec` there and our start here | 1.4 s | 0.7 s | 0.50 | ≤ 0.7 ✓ |",
        "| the same, with our start in both images | 1.0 s | 0.7 s | 0.70 |  |",
        "| start of a kernel, the image not in the page cache, with `apptainer exec` in both images | 2.0 s | 1.6 s | 0.80 | ≤ 0.7 ✗ |",
        "| the same, with `apptainer exec` there and our start here | 2.0 s | 1.5 s | 0.75 | ≤ 0.7 ✗ |",
        "| the same, with our start in both images | 1.5 s | 1.5 s | 1.00 |  |",
        "| our start in both images, of which ours is unpacked (`unpacked_images`) | 1.0 s | 0.5 s | 0.50 |  |",
    ]


def test_the_phases_of_a_timeline_add_up_to_the_whole() -> None:
    forked = Timeline({"plan": 0.03, "mount": 0.1, "interpreter": 0.09, "imports": 0.3, "kernel": 0.35, "answer": 0.4})
    durations = forked.durations()
    assert list(durations) == list(PHASES)
    assert sum(durations.values()) == pytest.approx(0.4)
    # What was not seen, and what a coarse clock has seen too early, took no time.
    assert durations["engine"] == durations["interpreter"] == 0
    local = Timeline({"kernel": 0.15, "answer": 0.2})
    rows = [line.split() for line in render_timelines({"local": [local], "lz4": [forked]}).splitlines()]
    assert rows[1][-2:] == ["200", "1.00×"]
    assert rows[2][-2:] == ["400", "2.00×"]
    head, rule, *lines = render_page({"local": [local], "lz4": [forked]}, "on this machine").splitlines()
    assert head.count("|") == rule.count("|") == len(PHASES) + 4
    assert lines[1].endswith("| 400 | 2.00× |")
    assert lines[-1] == "on this machine"


def test_a_row_of_starts_is_a_share_of_local_ones() -> None:
    samples = {"local": [0.2, 0.4, 0.3], "warm": [0.1, 0.5, 0.09]}
    row = Row("start, warm", "warm", "local", 0.4)
    assert row.render(samples) == "| start, warm | 0.30 s | 0.10 s | 0.33× | ≤ 0.4× ✓ |"
    assert "✗" in replace(row, limit=0.3).render(samples)
    assert {each.key for each in ROWS} & {each.local for each in ROWS} == set()
