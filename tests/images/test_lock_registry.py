"""A base in a registry whose tag has moved since: the lock takes the image that it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.content import read_content
from jupyter_apptainer.images.digest import compute_digest
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.lock import make_lock
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.images.work import RecipeSource
from tests.laboratory import Lab
from tests.registry import Registry, make_oci_image, make_root


@pytest.mark.user
def test_tag_that_has_moved_is_pinned(lab: Lab, registry: Registry, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make_root(root)
    first = make_oci_image(root)
    first.push(registry, "lab/moving", "1")
    recipe = tmp_path / "a.def"
    recipe.write_text(f"Bootstrap: docker\nFrom: {registry.host}/lab/moving:1\n\n%labels\n    of test\n")
    options = BuildOptions(epoch=1700000000, no_https=("*",))
    built = build_image(lab.engine, lab.places, load_definition(recipe), tmp_path / "one.sif", options)
    lock = make_lock(lab.engine, lab.places, str(built.path))
    assert lock.build.bases == {f"docker:{registry.host}/lab/moving:1": first.manifest}
    (root / "etc/newer").write_text("newer\n")
    make_oci_image(root).push(registry, "lab/moving", "1")
    (tmp_path / "lock.json").write_text(json.dumps(lock.to_json()))
    again = RecipeSource("lock", str(tmp_path / "lock.json")).load()
    assert f"From: {registry.host}/lab/moving@{first.manifest}" in again.definition
    rebuilt = build_image(lab.engine, lab.places, again, tmp_path / "two.sif", options)
    definition = read_content(check_image(str(rebuilt.path))).definition
    assert definition is not None
    assert f"From: {registry.host}/lab/moving:1" in definition
    assert compute_digest(str(rebuilt.path), lab.places) == lock.image.sha256
