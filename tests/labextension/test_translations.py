"""The catalogues of the JupyterLab extension have every text that its source shows, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCES = ROOT / "labextension" / "src"
CATALOGUES = sorted((ROOT / "jupyter_apptainer" / "locale").glob("*/LC_MESSAGES/jupyter_apptainer.json"))
SHOWN = re.compile(r"""\btrans\.(__|_n|_p|_np)\(\s*(['"`])((?:(?!\2)[^\\]|\\.)*)\2\s*[,)]""")
PLACEHOLDER = re.compile(r"%\d")


def list_texts() -> set[str]:
    texts: set[str] = set()
    for path in SOURCES.rglob("*.ts*"):
        source = path.read_text()
        found = list(SHOWN.finditer(source))
        assert len(found) == len(re.findall(r"\btrans\.(?:__|_n|_p|_np)\(", source)), f"{path}: a text is not a literal"
        for call in found:
            assert call[1] == "__", f"{path}: {call[1]} is not known to this test"
            texts.add(call[3].replace("\\'", "'"))
    return texts


def test_french_and_korean_are_there() -> None:
    assert [path.parts[-3] for path in CATALOGUES] == ["fr_FR", "ko_KR"]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: str(Path(path).parts[-3]))
def test_a_catalogue_is_complete(path: Path) -> None:
    catalogue = json.loads(path.read_text())
    header = catalogue.pop("")
    assert header["domain"] == "jupyter_apptainer"
    # JupyterLab finds nothing in a catalogue that names its language as the folder does.
    assert header["language"] == path.parts[-3].replace("_", "-")
    assert set(catalogue) == list_texts()
    for text, translations in catalogue.items():
        assert all(translations), text
        for translation in translations:
            assert sorted(PLACEHOLDER.findall(translation)) == sorted(PLACEHOLDER.findall(text))
