"""The magic `apptainer`, for lines and for cells."""

# ruff: noqa: UP006, UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

import getpass
import os
import re
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .call import Answer, ApptainerError, Call, SpecError
from .expand import expand
from .front import panel
from .job import Job
from .options import MagicOptions, take_options
from .questions import ask_password
from .screen import Screen
from .values import Status, build_value
from .words import split_words

HINTS = "JUPYTER_APPTAINER_HINTS"
_COMPLETE_S = 5.0
_ENDS_WITH_MAGIC = re.compile(r"(?:^|\n)[ \t]*%?%apptainer[^\n]*\s*\Z")


class Magics:
    """The magics of one IPython shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell

    def apptainer(self, line: str, cell: Optional[str] = None, local_ns: Optional[Dict[str, Any]] = None) -> Any:
        """Apptainer on the host of this kernel, as far as the kernel's bridge admits.

        %apptainer                              what this kernel runs in
        %apptainer panel                        kernels, images, GPUs, ... of the host, with buttons
        %apptainer [OPTIONS] COMMAND...         any command line of apptainer; images, ps, kernel list, image list, ... are ours
        %%apptainer [OPTIONS] build IMAGE       the cell is a definition file (--dockerfile, --environment, --requirements: one of these)
        %%apptainer [OPTIONS] exec IMAGE [CMD]  the cell is CMD's standard input (default: sh)

        OPTIONS: --bg  --out NAME  --err NAME  --proc NAME  --var NAME  --no-raise-error  --quiet
        """
        namespace = {**self.shell.user_ns, **(local_ns or {})}
        options, words = take_options(split_words(expand(line, namespace), os.environ))
        if words == ("panel",) and cell is None:
            return panel()
        if (not words or words == ("status",)) and cell is None:
            return Status(Call("status").finish().check().value or {})
        answered = ask_password(words, getpass.getpass) if cell is None else None
        call = self._call(*(answered or (words, cell)), options)
        if options.is_background:
            job = Job(call, " ".join(words), lambda answer: self._set_outputs(options, answer))
            if options.proc is None:
                return job
            self.shell.user_ns[options.proc] = job
            return None
        answer = self._finish(call, options)
        if options.out:
            return None
        if answer.value is None:
            return None if cell is not None or self._is_last_in_cell() else answer
        return None if options.is_quiet and self._is_last_in_cell() else build_value(answer.value)

    def _call(self, words: Sequence[str], body: Optional[str], options: MagicOptions) -> Call:
        if any(form == "pickle" for _, form in options.variables):
            raise SpecError(
                "no pickle crosses the bridge, because loading one runs code",
                hint="leave `:pickle` out: the variable travels as JSON",
            )
        space, wanted = self.shell.user_ns, [name for name, _ in options.variables]
        given = {name: space[name] for name in wanted if name in space}
        try:
            return Call("run", words=words, stdin=body, cwd=os.getcwd(), wanted=wanted, given=given)
        except (TypeError, ValueError) as error:
            raise SpecError(f"--var: {error}", hint="what travels has to be JSON") from None

    def _is_last_in_cell(self) -> bool:
        """Say whether the cell ends with the magic itself: then nobody takes its result."""
        raw = getattr(self.shell.history_manager, "input_hist_raw", None)
        return bool(raw and _ENDS_WITH_MAGIC.search(raw[-1]))

    # Read by IPython: names are replaced here, as on the host, and not before; those of a function count as well.
    apptainer._ipython_magic_no_var_expand = apptainer.needs_local_scope = True  # type: ignore[attr-defined]

    def _finish(self, call: Call, options: MagicOptions) -> Answer:
        hidden = {"stdout"} if options.out or options.is_quiet else set()
        hidden |= {"stderr"} if options.err or options.is_quiet else set()
        screen = Screen(
            hidden,
            is_terminal=not hasattr(self.shell, "kernel"),
        )
        try:
            answer = call.finish(screen.feed)
        finally:
            screen.close()
        space, wanted = self.shell.user_ns, {name for name, _ in options.variables}
        space.update((name, value) for name, value in answer.variables.items() if name in wanted)
        self._set_outputs(options, answer)
        if options.proc:
            space[options.proc] = answer
        if options.raises:
            answer.check()
        elif answer.error and not options.is_quiet:
            print(answer.error, file=sys.stderr)
        return answer

    def _set_outputs(self, options: MagicOptions, answer: Answer) -> None:
        for name, text in ((options.out, answer.stdout), (options.err, answer.stderr)):
            if name:
                self.shell.user_ns[name] = text

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
