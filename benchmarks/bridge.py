"""What the bridge costs: `%apptainer exec IMAGE true` in a container kernel, over the same line in a kernel on the host.

python -m benchmarks.bridge --rounds 15
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from jupyter_apptainer.kernels.kernelspecs import PROVISIONER

from .magics import open_shell
from .options import add_image, add_rounds, build_parser

# Milliseconds at most, the median of the differences.
TARGET_MS = 15.0
TIMEOUT_S = 120.0


def measure(image: Path, rounds: int) -> float:
    """Return the difference in milliseconds. Both ways in turns, so that what else the machine does strikes both."""
    line = f"--quiet exec '{image}' true"
    with open_shell() as shell, tempfile.TemporaryDirectory(prefix="jpa-bench-") as folder:
        manager = _build_manager(Path(folder), image)
        manager.start_kernel(cwd=folder)
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=TIMEOUT_S)
            _run(client, "import time; get_ipython().run_line_magic('load_ext', 'jupyter_apptainer')")
            differences = [_time_inside(client, line) - _time(shell, line) for _ in range(rounds + 1)]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    # The first has started what serves the others.
    return 1000 * statistics.median(differences[1:])


def _build_manager(folder: Path, image: Path) -> KernelManager:
    config = {"image": str(image), "bridge": "full"}
    spec = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "bridge",
        "language": "python",
        "metadata": {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config}},
    }
    (folder / "bridge").mkdir()
    (folder / "bridge/kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return KernelManager(kernel_name="bridge", kernel_spec_manager=specs)


def _time(shell: InteractiveShell, line: str) -> float:
    began = time.perf_counter()
    shell.run_line_magic("apptainer", line)
    return time.perf_counter() - began


def _time_inside(client: BlockingKernelClient, line: str) -> float:
    """Measured in the kernel: the way of a cell to it is the same for every kernel."""
    return float(
        _run(
            client,
            f"began = time.perf_counter(); get_ipython().run_line_magic('apptainer', {line!r})\n"
            "print(time.perf_counter() - began)",
        )
    )


def _run(client: BlockingKernelClient, code: str) -> str:
    printed: list[str] = []

    def keep(message: dict[str, object]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and isinstance(content, dict):
            printed.append(content["text"])

    reply = client.execute_interactive(code, output_hook=keep, timeout=TIMEOUT_S)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"a cell failed: {reply['content'].get('evalue')}")
    return "".join(printed)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a line. Returns the exit status: 0 measured."""
    parser = build_parser("benchmarks.bridge", __doc__)
    add_image(parser, "a SIF with ipykernel")
    add_rounds(parser)
    options = parser.parse_args(argv)
    value = measure(options.image, options.rounds)
    verdict = "met" if value <= TARGET_MS else "missed"
    print(f"the bridge, for `%apptainer exec IMAGE true`: {value:.1f} ms, at most {TARGET_MS:.0f} ms {verdict}")
    if options.json:
        options.json.write_text(json.dumps({"bridge": value}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
