"""The magic `apptainer`, for lines and for cells."""

# ruff: noqa: UP006, UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

import os
import re
import sys
from typing import Any, List, Optional, Tuple

from .call import Answer, ApptainerError, Call
from .front import panel
from .job import Job
from .line import Options, ask_password, split_line
from .screen import Screen
from .values import Status, build_value

HINTS = "JUPYTER_APPTAINER_HINTS"
_COMPLETE_S = 5.0
_ENDS_WITH_MAGIC = re.compile(r"(?:^|\n)[ \t]*%?%apptainer[^\n]*\s*\Z")


class Magics:
    """The magics of one IPython shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell

    def apptainer(self, line: str, cell: Optional[str] = None) -> Any:
        """Apptainer on the host of this kernel, as far as the kernel's bridge admits.

        %apptainer                              what this kernel runs in
        %apptainer panel                        kernels, images, GPUs, ... of the host, with buttons
        %apptainer [OPTIONS] COMMAND...         any command line of apptainer; images, ps, kernel list, image list, ... are ours
        %%apptainer [OPTIONS] build IMAGE       the cell is a definition file (--dockerfile, --environment, --requirements: one of these)
        %%apptainer [OPTIONS] exec IMAGE [CMD]  the cell is CMD's standard input (default: sh)

        OPTIONS: --bg  --out NAME  --err NAME  --proc NAME  --var NAME  --no-raise-error  --quiet
        """
        options = Options(split_line(line))
        words = options.words
        if words == ["panel"]:
            return panel()
        if not words or words == ["status"]:
            return Status(Call("status").finish().check().value or {})
        if cell is None:
            words, cell = ask_password(words)
        space = self.shell.user_ns
        given = {name: space[name] for name in options.variables if name in space}
        try:
            call = Call("run", words=words, stdin=cell, cwd=os.getcwd(), wanted=options.variables, given=given)
        except (TypeError, ValueError) as error:
            raise ApptainerError(f"--var: {error}", "what travels has to be JSON", code="spec-invalid") from None
        if options.is_background:
            job = Job(call, " ".join(words), lambda answer: self._set_outputs(options, answer))
            if "proc" not in options.names:
                return job
            space[options.names["proc"]] = job
            return None
        answer = self._finish(call, options)
        if "out" in options.names:
            return None
        if answer.value is None:
            return None if cell is not None or self._is_last_in_cell() else answer
        return None if options.is_quiet and self._is_last_in_cell() else build_value(answer.value)

    def _is_last_in_cell(self) -> bool:
        """Say whether the cell ends with the magic itself: then nobody takes its result."""
        raw = getattr(self.shell.history_manager, "input_hist_raw", None)
        return bool(raw and _ENDS_WITH_MAGIC.search(raw[-1]))

    def _finish(self, call: Call, options: Options) -> Answer:
        hidden = {"out": "stdout", "err": "stderr"}
        screen = Screen(
            hidden.values() if options.is_quiet else {hidden[name] for name in options.names if name in hidden},
            is_terminal=not hasattr(self.shell, "kernel"),
        )
        try:
            answer = call.finish(screen.feed)
        finally:
            screen.close()
        space = self.shell.user_ns
        space.update((name, value) for name, value in answer.variables.items() if name in options.variables)
        self._set_outputs(options, answer)
        if "proc" in options.names:
            space[options.names["proc"]] = answer
        if options.raises:
            answer.check()
        elif answer.error and not options.is_quiet:
            print(answer.error, file=sys.stderr)
        return answer

    def _set_outputs(self, options: Options, answer: Answer) -> None:
        for name, text in (("out", answer.stdout), ("err", answer.stderr)):
            if name in options.names:
                self.shell.user_ns[options.names[name]] = text

    def complete(self, text: str) -> List[Tuple[str, str]]:
        """Return candidates for the last word of a line, with what they mean; files are the container's."""
        words = text.split()
        if not words or text[-1].isspace():
            words.append("")
        found = self._ask_words(words=words)
        return found or (_list_files(words[-1]) if len(words) > 1 else [])

    def complete_recipe(self, cell: str) -> List[Tuple[str, str]]:
        """Return what may stand at the end of a recipe: sections, and words of the header."""
        return self._ask_words(stdin=cell)

    def _ask_words(self, **fields: Any) -> List[Tuple[str, str]]:
        try:
            found = Call("complete", **fields).finish(timeout_s=_COMPLETE_S).check().value or []
        except ApptainerError:
            return []
        return [(str(word), str(about)) for word, about in found]

    def explain_missing(self, result: Any) -> None:
        """Called by IPython after each cell: a file that only the host has is a bind that is missing."""
        error = getattr(result, "error_in_exec", None)
        path = getattr(error, "filename", None)
        if not isinstance(error, FileNotFoundError) or os.environ.get(HINTS) == "0":
            return
        if isinstance(path, (str, bytes)):
            try:
                answer = Call("path", words=[os.fsdecode(path)], cwd=os.getcwd()).finish(timeout_s=_COMPLETE_S)
            except (ApptainerError, OSError):
                return
            if isinstance(answer.value, str):
                print("Hint: " + answer.value, file=sys.stderr)


def _list_files(begun: str) -> List[Tuple[str, str]]:
    """Return folders and files of the container that the word may become."""
    import glob

    found = sorted(glob.glob(glob.escape(os.path.expanduser(begun)) + "*"))[:200]
    return [(path + "/", "folder") if os.path.isdir(path) else (path, "file") for path in found]
