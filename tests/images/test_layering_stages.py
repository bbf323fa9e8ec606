"""Definitions of several stages in layers: each stage has its own, and what one takes from another is part of what it depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.places import Places
from tests.images.conftest import Ask
from tests.images.test_layering import build, read_texts, unpack

# What copying from a stage does in ways of its own: links, owners, modes, files with several names, folders that are there already.
# (Only the engine takes the set-user-ID bit from a file of several names.)
_DEFINITION = """\
Bootstrap: localimage
From: {image}
Stage: first

%arguments
    WHO=somebody
%post
    mkdir -p /opt/made/inner /opt/other; echo {{{{ WHO }}}} >/opt/made/inner/who
    echo x >/opt/made/x; ln /opt/made/x /opt/made/y; ln -s inner/who /opt/made/link; ln -s /opt/made /opt/short
    chown 1234:56 /opt/made /opt/made/x; chmod 2711 /opt/made; chmod 640 /opt/made/x; touch /opt/made/set; chmod 6755 /opt/made/set; chmod 700 /opt/made/inner
    echo "export NOT_SEEN=1" >>$APPTAINER_ENVIRONMENT
    # layer
    echo late >/opt/other/late

# Between two stages.
Bootstrap: localimage
From: {image}
Stage: second

%files from first
    /opt/other /opt/other
%post
    cat /opt/other/late >/opt/there

Bootstrap: localimage
From: {image}

%arguments
    WHO=anybody
%files
    host.txt /opt/there/host.txt
%files from first
    /opt/made
    /opt/made/ /opt/folder/
    /opt/short /opt/as
    /opt/made/link /opt/file
    /opt/made/i* /opt/as/
    /opt/short/x /opt/there/
%files from second
    /opt/there /opt/there/
%post
    ls /opt >/opt/list
%labels
    who {{{{ WHO }}}}
%test
    test -e /opt/as/link
"""


@pytest.mark.user  # the same for root, and slow
def test_image_is_that_of_a_plain_build(engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path) -> None:
    (tmp_path / "host.txt").write_text("of the host\n")
    definition = tmp_path / "stages.def"
    definition.write_text(_DEFINITION.format(image=small_image))
    plain = build(engine, places, definition, "plain.sif", layers_bytes=0)
    layered = build(engine, places, definition, "layered.sif")
    again = build(engine, places, definition, "again.sif")
    log = again.log.read_text()
    assert "as a whole" not in log
    assert log.count("is unchanged") == 11
    expected = unpack(engine, plain.path, tmp_path / "plain")
    expected.pop(".singularity.d/labels.json")
    for image in (layered.path, again.path):
        found = unpack(engine, image, tmp_path / image.stem)
        found.pop(".singularity.d/labels.json")
        assert found == expected
        assert read_texts(image) == read_texts(plain.path)


@pytest.mark.user
def test_a_change_in_a_stage_reaches_only_what_is_made_of_it(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "source.txt").write_text("1\n")
    path = tmp_path / "Dockerfile"
    base = f"localimage:{small_image}"
    path.write_text(
        f"FROM {base} AS tool\nCOPY source.txt /opt/\nRUN cat /opt/source.txt >/opt/tool\n"
        f"FROM {base}\nRUN echo before >/opt/before\nCOPY --from=tool /opt/tool /opt/bin/\nRUN ls /opt/bin >/opt/after\n"
    )

    def run() -> list[str]:
        told: list[str] = []
        recipe = load_recipe("dockerfile", path)
        options = BuildOptions(is_forced=True)
        build_image(engine, places, recipe, tmp_path / "out.sif", options, on_progress=told.append)
        return [word.split()[1] for word in told if word.startswith("RUN")]

    assert run() == ["cat", "echo", "ls"]
    assert run() == []
    (tmp_path / "source.txt").write_text("2\n")
    assert run() == ["cat", "ls"]
    assert ask(tmp_path / "out.sif", "cat", "/opt/bin/tool", "/opt/before", "/opt/after") == "2\nbefore\ntool"


@pytest.mark.parametrize(
    ("source", "first"),
    [
        pytest.param("/", "", id="all of a stage"),
        pytest.param("/.singularity.d/labels.json /opt/", "", id="what the engine notes down"),
        pytest.param("/opt /opt", "%test\n    true\n", id="a test in an earlier stage"),
    ],
)
def test_what_layers_of_a_stage_lack_is_built_as_a_whole(
    source: str, first: str, engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path
) -> None:
    definition = tmp_path / "whole.def"
    head = f"Bootstrap: localimage\nFrom: {small_image}\n"
    definition.write_text(f"{head}Stage: one\n%post\n    true\n{first}\n{head}%files from one\n    {source}\n")
    assert "Built as a whole, not in layers: " in build(engine, places, definition, "a.sif").log.read_text()
