"""What a definition file can begin with, each built once by the real engine from the same small system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.image_commands import build_push
from jupyter_apptainer.engine.options import build_exec
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.build import build_image
from jupyter_apptainer.images.catalogue import load_image
from jupyter_apptainer.images.ingredients import is_plain_http
from jupyter_apptainer.images.recipes.sources import load_recipe
from tests.laboratory import Lab
from tests.registry import OciImage, Registry

_DEFINITION = """\
Bootstrap: {agent}
From: {reference}

%post
    echo built >/opt/made
"""


@pytest.fixture
def find_source(
    lab: Lab, root: Path, small_sif: Path, oci_image: OciImage, registry: Registry, tmp_path: Path
) -> Callable[[str], str]:
    """Return where an agent finds the small system."""

    def find(agent: str) -> str:
        match agent:
            case "docker":
                return f"{registry.host}/lab/tiny:1"
            case "oras":
                uri = f"oras://{registry.host}/lab/sources:1"
                Runner().run(
                    build_push(lab.engine, str(small_sif), uri, build_engine_environment(lab.environ), no_https=True)
                )
                return uri.removeprefix("oras://")
            case "docker-archive":
                return str(oci_image.save_docker(tmp_path / "docker.tar"))
            case "oci-archive":
                return str(oci_image.save_oci(tmp_path / "oci.tar"))
            case "sandbox":
                return str(root)
            case _:
                return str(small_sif)

    return find


@pytest.mark.parametrize("agent", ["docker", "oras", "docker-archive", "oci-archive", "sandbox", "localimage"])
def test_image_is_built_from(agent: str, lab: Lab, find_source: Callable[[str], str], tmp_path: Path) -> None:
    definition = tmp_path / "recipe.def"
    name = "localimage" if agent == "sandbox" else agent
    definition.write_text(_DEFINITION.format(agent=name, reference=find_source(agent)))
    recipe = load_recipe("def", definition)
    assert not recipe.findings
    built = build_image(lab.engine, lab.places, recipe, tmp_path / "out.sif", environ=lab.environ)
    argv = ("sh", "-c", "read made </opt/made; echo $made $WHO")
    shown = Runner().run(build_exec(lab.engine, str(built.path), argv, build_engine_environment(os.environ))).stdout
    # What the image says of its environment arrives, whatever it came in.
    is_oci = agent.startswith(("docker", "oci"))
    assert shown.split() == ["built", "tide"] if is_oci else ["built"]


def test_recipe_wins_over_what_its_base_says_of_itself(lab: Lab, small_sif: Path, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f'FROM localimage:{small_sif}\nLABEL org.example.purpose="something else"\n')
    built = build_image(lab.engine, lab.places, load_recipe("dockerfile", dockerfile), tmp_path / "a.sif")
    assert load_image(lab.places, str(built.path)).content.labels["org.example.purpose"] == "something else"
    definition = tmp_path / "recipe.def"
    definition.write_text(f"Bootstrap: localimage\nFrom: {small_sif}\n\n%help\n    More than a shell.\n")
    built = build_image(lab.engine, lab.places, load_recipe("def", definition), tmp_path / "b.sif")
    assert (load_image(lab.places, str(built.path)).content.help or "").strip() == "More than a shell."


@pytest.mark.parametrize(
    ("begins", "no_https", "expected"),
    [
        pytest.param("docker\nFrom: harbor.lab:5000/team/tool:1", ("harbor.lab:5000",), True, id="named"),
        pytest.param("oras\nFrom: harbor.lab/team/tool:1", ("*",), True, id="all"),
        pytest.param("docker\nFrom: debian:12", ("harbor.lab:5000",), False, id="another"),
        pytest.param("docker\nFrom: harbor.lab/team/tool:1", (), False, id="none"),
        pytest.param("localimage\nFrom: harbor.lab/tool.sif", ("harbor.lab", "*"), False, id="file"),
    ],
)
def test_registry_is_asked_in_plain_http_where_the_settings_name_it(
    begins: str, no_https: tuple[str, ...], expected: bool, tmp_path: Path
) -> None:
    definition = tmp_path / "recipe.def"
    definition.write_text(f"Bootstrap: {begins}\n\n%labels\n    a b\n")
    assert is_plain_http(load_recipe("def", definition), no_https) == expected
