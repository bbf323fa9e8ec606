"""A wheel carries the built JupyterLab extension, so that installing it needs no node. An editable install does without: `make labextension`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "jupyter_apptainer/labextension"


class LabextensionHook(BuildHookInterface):
    """Builds what is out of date."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before files are collected; `version` is "standard" or "editable"."""
        if version == "editable":
            return
        subprocess.run([str(Path(self.root, "tools/build-labextension.sh")), sys.executable], check=True)
        build_data["shared_data"][BUILT] = "share/jupyter/labextensions/jupyter-apptainer"
