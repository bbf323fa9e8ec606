"""A plan that is written down comes back as it was; a phase that fails says why."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.errors import AttachError, ImageNotFound
from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.kernels.plan import LaunchPlan, build_launch_plan
from jupyter_apptainer.kernels.progress import PhaseEvent, Progress
from jupyter_apptainer.kernels.resume import find_kept_dir, load_plan, save_plan
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.places import Places, find_places
from tests.kernels.plans import CONTEXT


@pytest.fixture
def own(tmp_path: Path) -> Places:
    """Folders of this test alone."""
    return replace(find_places({"HOME": str(tmp_path)}), runtime=tmp_path / "run")


def build_plan(**config: object) -> LaunchPlan:
    return build_launch_plan(parse_container_spec({"image": "/i.sif", **config}), CONTEXT)


def build_entry(plan: LaunchPlan) -> LedgerEntry:
    return LedgerEntry(plan.entry_name, plan.image, ProcessIdentity.current(), plan.kernel_id, "", 1.0, "/r", "/l")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="plain"),
        pytest.param({"persist": "8h", "env": {"A": "x,\u00fc\n"}, "binds": ["/a:/b:ro"], "home": "none"}, id="rich"),
        pytest.param({"persist": True, "instance": "shared:lab", "overlays": ["/o,dd.img"], "nv": True}, id="shared"),
    ],
)
def test_a_plan_that_is_written_down_comes_back(own: Places, config: dict[str, object]) -> None:
    plan = build_plan(**config)
    save_plan(own, plan)
    assert load_plan(own, build_entry(plan)) == plan
    (path,) = Path(find_kept_dir(own, plan.entry_name)).iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.is_relative_to(plan.instance_dir), "the container must not be able to change it"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"engine": 3}'])
def test_a_plan_that_cannot_be_read_is_refused_with_a_way_out(own: Places, content: str | None) -> None:
    plan = build_plan()
    if content is not None:
        save_plan(own, plan)
        Path(find_kept_dir(own, plan.entry_name), "plan.json").write_text(content)
    with pytest.raises(AttachError, match="kernel stop"):
        load_plan(own, build_entry(plan))


def test_phases_tell_how_they_end() -> None:
    events: list[PhaseEvent] = []
    progress = Progress(events.append)
    with progress.phase("image"):
        pass
    with progress.phase("overlay", is_shown=False):
        pass
    with pytest.raises(ImageNotFound), progress.phase("instance"):
        raise ImageNotFound("there is no image", hint="fetch it")
    with pytest.raises(asyncio.CancelledError), progress.phase("connect"):
        raise asyncio.CancelledError
    assert [(event.phase, event.status) for event in events] == [
        ("image", "started"),
        ("image", "done"),
        ("instance", "started"),
        ("instance", "failed"),
        ("connect", "started"),
        ("connect", "failed"),
    ]
    assert (events[3].message, events[3].hint) == ("there is no image", "fetch it")
    assert events[5].message == "the start of this kernel was cancelled"
    assert set(progress.seconds) == {"image"}
