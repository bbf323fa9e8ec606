"""Modules from one file: the same as from their own files, and only while those are the same."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import jupyter_apptainer.images.probe as probe_module
from jupyter_apptainer.kernels.inside.module_bundle import Bundle, BundledLoader

SCRIPT = Path(probe_module.__file__).with_name("probe_script.py")
NAMES = ("bundled_one", "bundled_pack", "bundled_pack.inner")


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    def clear() -> None:
        for name in NAMES:
            sys.modules.pop(name, None)

    yield clear
    clear()


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> Bundle:
    """A bundle of a module and a package, which are found in the second of two folders."""
    early, late = tmp_path / "early", tmp_path / "late"
    early.mkdir()
    (late / "bundled_pack").mkdir(parents=True)
    (late / "bundled_one.py").write_text("VALUE = 1\ndef where(): return __file__\n")
    (late / "bundled_pack/__init__.py").write_text("from .inner import VALUE\n")
    (late / "bundled_pack/inner.py").write_text("VALUE = 2\n")
    monkeypatch.setattr(sys, "path", [str(early), str(late), *sys.path])
    importlib.invalidate_caches()
    for name in NAMES:
        __import__(name)
    load_script().write_bundle(str(tmp_path / "modules"), list(sys.path))
    forget()
    return Bundle(str(tmp_path / "modules"))


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("probe_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def load(bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "meta_path", [bundle, *sys.meta_path])
        return importlib.import_module(name)


def test_a_module_is_what_it_is_without_a_bundle(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    assert bundle.is_fit()
    found = {name: load(bundle, name, monkeypatch) for name in NAMES}
    assert all(isinstance(module.__loader__, BundledLoader) for module in found.values())
    forget()
    for name, module in found.items():
        plain = importlib.import_module(name)
        assert (module.__file__, module.__cached__, module.__package__) == (
            plain.__file__,
            plain.__cached__,
            plain.__package__,
        )
        assert getattr(module, "__path__", None) == getattr(plain, "__path__", None)
        assert inspect.getsource(module) == inspect.getsource(plain)
        assert vars(module).get("VALUE") == vars(plain).get("VALUE")
    assert found["bundled_one"].where.__code__.co_filename == found["bundled_one"].__file__


def test_other_folders_do_not_fit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/elsewhere", *sys.path])
    assert not bundle.is_fit()


def test_what_was_changed_is_left_out(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late/bundled_pack/inner.py").write_text("VALUE = 'changed'\n")
    os.unlink(tmp_path / "late/bundled_one.py")
    bundle.drop_changed()
    assert load(bundle, "bundled_pack", monkeypatch).VALUE == "changed"
    with pytest.raises(ModuleNotFoundError):
        load(bundle, "bundled_one", monkeypatch)


def test_a_folder_that_is_known_to_be_the_images_is_not_looked_into(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = tmp_path / "late"
    assert bundle.plain >= {str(late), str(late / "bundled_pack")}
    before = (late / "bundled_one.py").stat()
    for name in ("bundled_one.py", "bundled_pack/inner.py"):
        (late / name).write_text("VALUE = 'changed'\n")
    bundle.drop_changed([str(late)])
    assert load(bundle, "bundled_one", monkeypatch).VALUE == 1
    assert load(bundle, "bundled_pack", monkeypatch).VALUE == "changed"
    assert bundle.list_stamps([str(late)]) == {str(late / "bundled_one.py"): (before.st_size, before.st_mtime)}


def test_a_folder_behind_a_link_can_change_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plain", "real", "mixed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"linked_{name}.py").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "mixed/linked_file.py").symlink_to("../real/linked_real.py")
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("plain", "link", "mixed")] + sys.path)
    importlib.invalidate_caches()
    names = ("linked_plain", "linked_real", "linked_mixed", "linked_file")
    for name in names:
        __import__(name)
    try:
        plain = load_script().write_bundle(str(tmp_path / "modules"), list(sys.path))
    finally:
        for name in names:
            del sys.modules[name]
    assert [folder for folder in plain if folder.startswith(str(tmp_path))] == [str(tmp_path / "plain")]


@pytest.mark.parametrize("name", ["bundled_pack.py", "bundled_pack/__init__.py"], ids=["module", "package"])
def test_what_an_earlier_folder_has_is_left_out(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "early" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("VALUE = 'other'\n")
    importlib.invalidate_caches()
    bundle.drop_changed()
    assert load(bundle, "bundled_pack", monkeypatch).VALUE == "other"
    assert load(bundle, "bundled_one", monkeypatch).VALUE == 1
