"""Services from cells: started, seen, read and stopped, on the real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from jupyter_apptainer.errors import InstanceExists, ServiceEnded
from jupyter_apptainer.magics import services as services_module
from tests.magics.conftest import Session

# The same for every user.
pytestmark = pytest.mark.user

PREFIX = f"magics-t{os.getpid()}"


# The starter image's runscript is its Python: with these words it is a service.
SERVE = "-c \"import sys, time; print('begin', sys.argv[1], flush=True); time.sleep(600)\""
BRIEF = "-c \"print('begin once more')\""
FAIL = "-c \"raise SystemExit('cannot open the port')\""


@pytest.fixture
def services(session: Session) -> Iterator[Session]:
    """A session with `name`, with which the names of instances begin; they end with the test."""
    session.variables["name"] = PREFIX
    yield session
    session.run(f"%apptainer --no-raise-error --quiet instance stop '{PREFIX}*'")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a program that ends at once takes its time to begin."""
    monkeypatch.setattr(services_module, "GRACE_S", 60.0)


def list_states(session: Session) -> dict[str, str]:
    rows = session.get(f"x = %apptainer instance list '{PREFIX}*'\nx")
    return {row.name.removeprefix(PREFIX): row.state for row in rows}


@pytest.mark.slow
def test_services_are_started_listed_and_stopped_by_pattern(services: Session) -> None:
    for letter in "ab":
        assert services.run(f"%apptainer instance run $image {{name}}{letter} {SERVE} {letter}").error is None
    assert list_states(services) == {"a": "running", "b": "running"}
    rows = services.get("x = %apptainer instance stats {name}*\nx")
    assert [row.processes >= 1 for row in rows] == [True, True]
    assert all(row.memory_mib > 0 for row in rows)
    assert services.run("%apptainer exec instance://{name}b cat /proc/1/comm").out == "appinit\n"
    assert isinstance(services.run(f"%apptainer instance run $image {{name}}a {SERVE} a").error, InstanceExists)

    services.get("%apptainer instance stop {name}[a]")
    assert list_states(services) == {"b": "running"}


@pytest.mark.slow
def test_a_service_that_ends_at_once_is_reported_with_its_own_log(services: Session, patient: None) -> None:
    outcome = services.run(f"%apptainer instance run $image {{name}}x {FAIL}")
    assert isinstance(outcome.error, ServiceEnded)
    # In the cell once, whether it came while the engine was still starting, or with the error.
    assert (outcome.out + outcome.err).count("cannot open the port") == 1
    assert list_states(services) == {"x": "empty"}
    services.get("%apptainer instance stop {name}x")

    # The engine appends to the same log; what the first start has printed is not the second's.
    assert isinstance(services.run(f"%apptainer instance run $image {{name}}x {BRIEF}").error, ServiceEnded)
    logs = services.run("%apptainer instance logs {name}x")
    assert (logs.out, logs.err) == ("begin once more\n", "")


def test_an_image_without_a_service_is_no_failure(services: Session, patient: None) -> None:
    assert services.run("%apptainer instance start $image {name}i").error is None
    assert list_states(services) == {"i": "empty"}
