"""Images of a library server: `library://` and `Bootstrap: library`."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.errors import ApptainerError
from jupyter_apptainer.images.build import build_image
from jupyter_apptainer.images.catalogue import load_image
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.images.records import remove_record
from jupyter_apptainer.images.transfer import pull_image
from tests.laboratory import Lab
from tests.library import serve_library

pytestmark = pytest.mark.user  # the same for root


def test_image_of_a_library_is_pulled_and_built_upon(lab: Lab, small_sif: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    environ = {**lab.environ, "APPTAINER_CONFIGDIR": str(config), "APPTAINER_CACHEDIR": str(tmp_path / "cache")}
    lab = Lab(lab.engine, lab.places, environ)
    definition = tmp_path / "recipe.def"
    definition.write_text("Bootstrap: library\nFrom: lab/things/tool:1\n\n%labels\n    made upon\n")
    with serve_library(small_sif, "lab/things/tool:1", config):
        target = tmp_path / "tool.sif"
        pull_image(lab.engine, lab.places, "library://lab/things/tool:1", target, settings=lab.settings())
        built = build_image(lab.engine, lab.places, load_recipe("def", definition), tmp_path / "b.sif", environ=environ)
        with pytest.raises(ApptainerError, match="library://lab/things/other:1"):
            pull_image(
                lab.engine,
                lab.places,
                "library://lab/things/other:1",
                tmp_path / "other.sif",
                settings=lab.settings(),
            )
    assert target.read_bytes() == small_sif.read_bytes()
    assert load_image(lab.places, str(target)).origin == "library://lab/things/tool:1"
    labels = load_image(lab.places, str(built.path)).content.labels
    assert labels["made"] == "upon"
    assert labels["org.label-schema.usage.singularity.deffile.bootstrap"] == "library"
    remove_record(lab.places, str(target))
