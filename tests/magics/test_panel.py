"""`%apptainer panel` and `%apptainer gpu`."""

from __future__ import annotations

import pytest

from tests.gpu.world import World, make_card
from tests.magics.conftest import Session


def test_the_panel_is_the_cells_value(session: Session) -> None:
    shown = session.get("%apptainer panel")
    # In a terminal there are no widgets.
    assert "Images\n======" in repr(shown)
    assert "panel" in session.run("%apptainer help").out
    assert "buttons" in session.run("%apptainer help panel").out


@pytest.mark.parametrize("line", ["%apptainer panel now", "%%apptainer panel\nls"], ids=["a word too many", "a body"])
def test_a_line_that_is_no_panel_is_an_error(session: Session, line: str) -> None:
    assert session.run(line).error is not None


def test_gpus_are_read_in_a_cell(session: Session, world: World) -> None:
    world.show(make_card(0, utilisation=43))
    assert session.get("%apptainer gpu --json")["devices"][0]["utilisation_percent"] == 43
    assert "43 %" in session.run("%apptainer gpu").out
