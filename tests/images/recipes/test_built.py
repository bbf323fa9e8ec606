"""The definition files and Dockerfiles of the corpus, built by the real engine on a small image of this machine.

Left out are those whose last lines say `# needs: WHAT`: a mirror, a package index, or a program that the small image does not have.
The small image stands for images of registries that few machines can reach; what begins otherwise begins as it is written.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.catalogue import load_image
from jupyter_apptainer.images.recipes.recipe import Recipe
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.places import Places

FOLDER = Path(__file__).parent
_NEEDS = re.compile(r"^# needs: ", re.MULTILINE)
_ARGUMENTS = re.compile(r"^# args: (.*)$", re.MULTILINE)
_REMOTE = "docker-archive|docker-daemon|docker|library|localimage|oci-archive|oci|oras|shub"
_FILES = (
    "hello.txt",
    "other.txt",
    "with space.txt",
    "environment.yml",
    "run.sh",
    "secret.key",
    "src/a.c",
    "src/b.c",
    "src/a.h",
)


def list_corpus(name: str) -> list[Path]:
    paths = sorted((FOLDER / name).iterdir())
    return [path for path in paths if not _NEEDS.search(path.read_bytes().decode())]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the files of the corpus copy."""
    place = tmp_path / "context"
    for name in _FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"{name}\n")
    for name in ("folder", "linked"):
        (place / name).mkdir()
    (place / "linked/link").symlink_to("../hello.txt")
    (place / "link").symlink_to("run.sh")
    subprocess.run(["tar", "czf", "archive.tar.gz", "src"], cwd=place, check=True)
    monkeypatch.chdir(place)
    return place


def build(engine: EngineInfo, places: Places, recipe: Recipe, target: Path) -> None:
    built = build_image(engine, places, recipe, target, BuildOptions())
    # The recipe that is kept in it is what was built.
    assert load_image(places, str(built.path)).content.definition


@pytest.mark.root  # the same for every user, and slow
@pytest.mark.parametrize("path", list_corpus("definitions"), ids=lambda path: path.stem)
def test_definition_is_built(
    path: Path, engine: EngineInfo, places: Places, small_image: Path, folder: Path, tmp_path: Path
) -> None:
    text = path.read_bytes().decode()
    text = re.sub(rf"(?im)^(bootstrap:\s*)(?:{_REMOTE})\b", r"\1localimage", text)
    text = re.sub(r"(?im)^(from:\s*)[^\r\n]*", rf"\1{small_image}", text)
    (folder / "recipe.def").write_bytes(text.encode())
    build(engine, places, load_recipe("def", folder / "recipe.def"), tmp_path / "out.sif")


@pytest.mark.user  # the same for every user, and slow
@pytest.mark.parametrize("path", list_corpus("dockerfiles"), ids=lambda path: path.name)
def test_dockerfile_is_built(
    path: Path, engine: EngineInfo, places: Places, small_image: Path, folder: Path, tmp_path: Path
) -> None:
    text = path.read_text()
    own = {"scratch", *re.findall(r"(?im)^from\s.*\sas\s+(\S+)", text)}
    text = re.sub(
        r"(?im)^(from\s+(?:--platform=\S+\s+)?)(\S+)",
        lambda match: match[0] if match[2] in own else f"{match[1]}localimage:{small_image}",
        text,
    )
    (folder / "Dockerfile").write_text(text)
    arguments = dict(word.split("=") for words in _ARGUMENTS.findall(text) for word in words.split())
    build(engine, places, load_recipe("dockerfile", folder / "Dockerfile", build_args=arguments), tmp_path / "out.sif")
