"""Machines other than this one: a child that has been given less, and folders that look like another root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from jupyter_apptainer.engine.host import Probe

ROOT = Path(__file__).resolve().parents[2]
# A child that is started in another way than by installing finds the package, and what the tests were given.
PYTHONPATH = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
UNSHARED = ("unshare", "--user", "--map-root-user", "--mount")


def probe_in_child(expression: str, *prefix: str, script: str = "true", timeout_s: float = 60) -> Probe:
    """Evaluate an expression over `host` in a Python started by `prefix`, after the shell commands of `script`."""
    code = f"import json, os\nfrom jupyter_apptainer.engine import host\nprint(json.dumps(({expression}).to_json()))"
    shell = ("sh", "-c", f'{script} && exec "$@"', "sh")
    done = subprocess.run(
        [*prefix, *shell, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return Probe(**json.loads(done.stdout))


def make_tree(root: Path, files: dict[str, str]) -> Path:
    """Write files that only another machine would have."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
