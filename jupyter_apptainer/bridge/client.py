"""`%apptainer` and `%%apptainer` in a kernel inside a container, where no engine is: each line goes to the host and is judged there.

This file alone is lent to the container, read-only, and is `jupyter_apptainer` there. Standard library and IPython, Python 3.7 or later.
"""

# ruff: noqa: B905, UP006, UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

VERSION = 1
VARIABLE = "JUPYTER_APPTAINER_SOCK"
HINTS = "JUPYTER_APPTAINER_HINTS"
MAX_KEPT = 16 * 1024 * 1024
_CONNECT_S = 10
_COMPLETE_S = 5.0
# Often enough for the eye; each is a message to the front end.
_FLUSH_S = 0.2
# The engine goes up a line and draws its bar again; others return to the beginning of theirs.
_CURSOR = re.compile(r"(?:\x1b\[\d*[AGJK])+")
_BAR = re.compile(r"\[[-=>#. ]{10,}\] +\d+")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

OnText = Callable[[str, str], None]


class ApptainerError(Exception):
    """What went wrong, for people; `code` and `returncode` are for programs."""

    def __init__(
        self, message: str, hint: Optional[str] = None, code: str = "bridge-error", returncode: int = 1, log: Any = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.returncode = returncode
        self.log_tail = tuple(log)

    def __str__(self) -> str:
        return self.message + ("\nHint: " + self.hint if self.hint else "")

    def _render_traceback_(self) -> List[str]:
        """Called by IPython: where in this file it was raised helps nobody."""
        return [f"{type(self).__name__}: {self}"]


class Answer:
    """How a request ended. value: what it gave, None for text. variables: those that were asked for. stdout, stderr: what was
    printed, as far as it was kept."""

    def __init__(self, end: Dict[str, Any], stdout: str, stderr: str) -> None:
        self.returncode = int(end.get("code", 1))
        self.error: Optional[Dict[str, Any]] = end.get("error")
        self.value = end.get("value")
        self.variables: Dict[str, Any] = end.get("variables") or {}
        self.stdout = stdout
        self.stderr = stderr

    def check(self) -> Answer:
        """Raise what the host reports."""
        if self.error is not None:
            error = self.error
            raise ApptainerError(
                error["message"], error.get("hint"), error["code"], self.returncode, error.get("log_tail") or ()
            )
        return self


class Call:
    """One request on a connection of its own. `stop` may be called from another thread, or by an interrupt."""

    def __init__(self, ask: str, **fields: Any) -> None:
        path = os.environ.get(VARIABLE, "")
        if not path:
            raise ApptainerError(
                "this kernel has no bridge to the host", "its kernel.json, or a policy, says `bridge: off`"
            )
        line = json.dumps(dict(fields, version=VERSION, ask=ask)).encode() + b"\n"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._kept: Dict[str, List[str]] = {"stdout": [], "stderr": []}
        self._size = 0
        try:
            # A timeout of Python's own would make `connect` give up at once where many others wait.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _CONNECT_S, 0))
            self._socket.connect(path)
            # Who is refused at the door has an answer to read all the same.
            with contextlib.suppress(BrokenPipeError):
                self._socket.sendall(line)
        except BlockingIOError:
            self._socket.close()
            raise ApptainerError("the host does not answer", "is the Jupyter server stopped or very busy?") from None
        except OSError as error:
            self._socket.close()
            raise ApptainerError(
                f"the host is out of reach: {error}",
                "this kernel's server is gone; the bridge is back when a server has taken the kernel over",
            ) from None

    def stop(self) -> None:
        """Have the host stop what runs; the answer then comes as soon as that has ended."""
        # It may have ended already.
        with contextlib.suppress(OSError):
            self._socket.sendall(b'{"stop": true}\n')

    def finish(self, on_text: Optional[OnText] = None, timeout_s: Optional[float] = None) -> Answer:
        """Wait for the end. KeyboardInterrupt stops what runs, and is raised when that has ended."""
        is_interrupted = False
        lines = self._iter_records(timeout_s)
        while True:
            try:
                record = next(lines)
                if "end" in record:
                    answer = Answer(record["end"], "".join(self._kept["stdout"]), "".join(self._kept["stderr"]))
                    self._socket.close()
                    if is_interrupted:
                        raise KeyboardInterrupt
                    return answer
                for stream, text in record.items():
                    self._keep(stream, text)
                    if on_text is not None and not is_interrupted:
                        on_text(stream, text)
            except KeyboardInterrupt:
                if is_interrupted or self._socket.fileno() < 0:
                    # The second one, or the one that was raised above.
                    self._socket.close()
                    raise
                is_interrupted = True
                self.stop()
                # A generator that an exception went through is at its end.
                lines = self._iter_records(timeout_s)
            except BaseException:
                self._socket.close()
                raise

    _rest = b""

    def _iter_records(self, timeout_s: Optional[float]) -> Iterator[Dict[str, Any]]:
        while True:
            head, newline, tail = self._rest.partition(b"\n")
            if newline:
                self._rest = tail
                yield json.loads(head.decode())
                continue
            if not select.select([self._socket], [], [], timeout_s)[0]:
                raise ApptainerError("the host did not answer in time")
            data = self._socket.recv(65536)
            if not data:
                raise ApptainerError(
                    "the host has closed the connection", "the Jupyter server's log says why, if it is not gone"
                )
            self._rest += data

    def _keep(self, stream: str, text: str) -> None:
        self._size += len(text)
        if self._size <= MAX_KEPT and stream in self._kept:
            self._kept[stream].append(text)


class Writer:
    """Writes to the cell: a line that is drawn again and again comes as one that changes, a few times a second."""

    def __init__(self) -> None:
        self._rest = {"stdout": "", "stderr": ""}
        self._drawn = {"stdout": "", "stderr": ""}
        self._width = 0
        self._last = 0.0

    def __call__(self, stream: str, text: str) -> None:
        if stream not in self._rest:
            return
        whole = self._rest[stream] + _CURSOR.sub("\r", text.replace("\r\n", "\n"))
        *lines, rest = whole.split("\n")
        for line in lines:
            shown = line.rstrip("\r").rpartition("\r")[2]
            if _BAR.search(shown):
                self._draw(stream, shown)
            else:
                self._settle(stream, is_drawn_over="\r" in line)
                self._write(stream, shown + "\n")
        shown = rest.rstrip("\r").rpartition("\r")[2]
        if "\r" in rest or self._drawn[stream]:
            self._rest[stream] = rest
            if shown:
                self._draw(stream, shown)
        else:
            self._rest[stream] = ""
            self._write(stream, rest)

    def close(self) -> None:
        """Write what has been kept back."""
        for stream in self._rest:
            self._settle(stream, is_drawn_over=False)

    def _draw(self, stream: str, line: str) -> None:
        self._drawn[stream] = line
        if time.monotonic() - self._last > _FLUSH_S:
            self._last = time.monotonic()
            self._show(stream, line)

    def _settle(self, stream: str, is_drawn_over: bool) -> None:
        line, self._drawn[stream] = self._drawn[stream], ""
        if line:
            self._show(stream, "" if is_drawn_over else line)
            self._write(stream, "\r" if is_drawn_over else "\n")
            self._width = 0

    def _show(self, stream: str, line: str) -> None:
        self._write(stream, "\r" + line.ljust(self._width))
        self._width = len(line)

    def _write(self, stream: str, text: str) -> None:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.write(text)
        target.flush()


class Record(Dict[str, Any]):
    """An object of an answer: a dict whose keys are attributes as well, shown line by line."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; there are {', '.join(self)}") from None

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {_show(value)}" for name, value in self.items()) or "nothing"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython, which has a form of its own for every kind of dict."""
        printer.text(repr(self))


class Table(List[Any]):
    """A list of objects, shown with some of their fields as columns."""

    def __init__(self, rows: List[Any], columns: List[Tuple[str, str]]) -> None:
        super().__init__(Record(row) for row in rows)
        self._columns = columns

    def _build_cells(self) -> List[List[str]]:
        return [[_show(row.get(key)) for key, _ in self._columns] for row in self]

    def __repr__(self) -> str:
        if not self:
            return "none"
        lines = [[heading for _, heading in self._columns], *self._build_cells()]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython, which has a form of its own for every kind of list."""
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(heading)}</th>" for _, heading in self._columns)
        rows = ("".join(f"<td>{escape(word)}</td>" for word in row) for row in self._build_cells())
        return "<table><tr>{}</tr>{}</table>".format(head, "".join(f"<tr>{row}</tr>" for row in rows))


class Status(Dict[str, Any]):
    """What this kernel runs in, shown as text."""

    def __repr__(self) -> str:
        return str(self.get("text", "")).rstrip("\n")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython."""
        printer.text(repr(self))


def build_value(value: Optional[Dict[str, Any]]) -> Any:
    """Return what a command answered as Python."""
    if value is None:
        return None
    if value["kind"] == "table":
        return Table(value["data"], [tuple(column) for column in value["columns"]])
    return Record(value["data"]) if value["kind"] == "record" else value["data"]


class Job(threading.Thread):
    """A command in the background: `--bg`, `--proc NAME`."""

    def __init__(self, call: Call) -> None:
        super().__init__(name="apptainer-job", daemon=True)
        self._call = call
        self.answer: Optional[Answer] = None
        self.error: Optional[ApptainerError] = None
        self.start()

    def run(self) -> None:
        """The thread."""
        try:
            self.answer = self._call.finish()
        except ApptainerError as error:
            self.error = error

    @property
    def returncode(self) -> Optional[int]:
        """None while it runs."""
        return None if self.is_alive() or self.answer is None else self.answer.returncode

    def stop(self) -> None:
        """Have it stopped, and wait for its end."""
        self._call.stop()
        self.join()

    def wait(self) -> Answer:
        """Wait for the end and return it; raises what went wrong."""
        self.join()
        if self.error is not None or self.answer is None:
            raise self.error or ApptainerError("the command has no end")
        return self.answer.check()


class Options:
    """What stands before the command: as IPython's `%%script` has it."""

    def __init__(self, words: List[str]) -> None:
        self.is_background = self.is_quiet = self.raises = False
        self.names: Dict[str, str] = {}
        self.variables: List[str] = []
        self.raises = True
        self.words = list(words)
        while self.words and self.words[0].startswith("--"):
            name, equals, value = self.words[0][2:].partition("=")
            if name == "bg":
                self.is_background = True
            elif name == "quiet":
                self.is_quiet = True
            elif name == "no-raise-error":
                self.raises = False
            elif name in ("out", "err", "proc", "var"):
                if not equals:
                    if len(self.words) < 2:
                        raise ApptainerError(f"--{name} needs the name of a variable", code="spec-invalid")
                    del self.words[0]
                    value = self.words[0]
                if value.endswith(":pickle"):
                    raise ApptainerError(
                        f"--var {value}: no pickle crosses the bridge, because loading one runs code",
                        "leave `:pickle` out: the variable travels as JSON",
                        code="spec-invalid",
                    )
                if not value.isidentifier():
                    raise ApptainerError(f"--{name} {value!r}: this is no name of a variable", code="spec-invalid")
                if name == "var":
                    self.variables.append(value)
                else:
                    self.names[name] = value
            else:
                break
            del self.words[0]


def split_line(line: str, environ: Any = None) -> List[str]:
    """Split as a shell does, with `~` and variables outside single quotes, and nothing else of a shell."""
    env = os.environ if environ is None else environ
    words: List[str] = []
    word: Optional[str] = None
    quote = ""
    position = 0
    while position < len(line):
        char = line[position]
        position += 1
        if quote == "'":
            if char == "'":
                quote = ""
            else:
                word = (word or "") + char
        elif char == "\\" and position < len(line) and (not quote or line[position] in '"\\$`'):
            word = (word or "") + line[position]
            position += 1
        elif char == "$" and _VARIABLE.match(line, position - 1):
            match = _VARIABLE.match(line, position - 1)
            assert match is not None
            word = (word or "") + env.get(match.group(1) or match.group(2), match.group(0))
            position = match.end()
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif char == "~" and word is None and (position == len(line) or line[position] in "/ \t"):
            word = env.get("HOME", "~")
        else:
            word = (word or "") + char
    if quote:
        raise ApptainerError(f"a quote ({quote}) has no end", code="spec-invalid")
    return words if word is None else [*words, word]


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

        OPTIONS: --bg  --out NAME  --err NAME  --proc NAME  --no-raise-error  --quiet
        """
        options = Options(split_line(line))
        words = options.words
        if words == ["panel"]:
            return panel()
        if not words or words == ["status"]:
            return Status(Call("status").finish().check().value or {})
        space = self.shell.user_ns
        given = {name: space[name] for name in options.variables if name in space}
        try:
            call = Call("run", words=words, stdin=cell, cwd=os.getcwd(), wanted=options.variables, given=given)
        except (TypeError, ValueError) as error:
            raise ApptainerError(f"--var: {error}", "what travels has to be JSON", code="spec-invalid") from None
        if options.is_background:
            job = Job(call)
            if "proc" in options.names:
                space[options.names["proc"]] = job
            return job
        return self._finish(call, options)

    def _finish(self, call: Call, options: Options) -> Any:
        writer = Writer()

        def write(stream: str, text: str) -> None:
            if not options.is_quiet and ("out" if stream == "stdout" else "err") not in options.names:
                writer(stream, text)

        try:
            answer = call.finish(write)
        finally:
            writer.close()
        space = self.shell.user_ns
        space.update((name, value) for name, value in answer.variables.items() if name in options.variables)
        for name, result in (("out", answer.stdout), ("err", answer.stderr), ("proc", answer)):
            if name in options.names:
                space[options.names[name]] = result
        if options.raises:
            answer.check()
        elif answer.error and not options.is_quiet:
            print(ApptainerError(answer.error["message"], answer.error.get("hint")), file=sys.stderr)
        return build_value(answer.value)

    def complete(self, text: str) -> List[Tuple[str, str]]:
        """Return candidates for the last word of a line, with what they mean; files are the container's."""
        words = text.split()
        if not words or text[-1].isspace():
            words.append("")
        try:
            found = Call("complete", words=words).finish(timeout_s=_COMPLETE_S).check().value or []
        except ApptainerError:
            found = []
        return [(str(word), str(about)) for word, about in found] or (_list_files(words[-1]) if len(words) > 1 else [])

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


class Page:
    """The panel where no widgets can be shown: as it was when it was asked for."""

    def __init__(self, value: Dict[str, str]) -> None:
        self._value = value

    def __repr__(self) -> str:
        return self._value["text"]

    def _repr_html_(self) -> str:
        return self._value["html"]


def panel(*, pause_after_s: float = 600.0) -> Any:
    """Return the panel of the host, as far as this kernel's bridge admits it: `%apptainer panel`, `jupyter_apptainer.panel()`.

    With ipywidgets 8 in the image it can be clicked; else it is a page. pause_after_s: when nobody has touched it for so long, it rests.
    """
    if not _has_widgets():
        return Page(Call("panel", words=["page"], cwd=os.getcwd()).finish().check().value or {})
    return _load_front().open_panel(Call, ApptainerError, os.getcwd(), pause_after_s)


def _has_widgets() -> bool:
    ipython = sys.modules.get("IPython")
    if sys.version_info < (3, 9) or ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return False
    try:
        import ipywidgets
    except ImportError:
        return False
    return int(ipywidgets.__version__.split(".")[0]) >= 8


def _load_front() -> Any:
    """Return the module that shows the panel; its code comes from the host, so both are of one version."""
    import linecache
    import types

    package = __name__ + "_front"
    if package not in sys.modules:
        sources = Call("panel", words=["code"], cwd=os.getcwd()).finish().check().value or []
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = []
        for name, source in sources:
            file = f"<panel>/{name}.py"
            module = types.ModuleType(package + "." + name)
            module.__package__ = package
            sys.modules[module.__name__] = module
            # Tracebacks show lines of it.
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            exec(compile(source, file, "exec"), module.__dict__)
    return sys.modules[package + ".remote"]


def _list_files(begun: str) -> List[Tuple[str, str]]:
    """Return folders and files of the container that the word may become."""
    import glob

    found = sorted(glob.glob(glob.escape(os.path.expanduser(begun)) + "*"))[:200]
    return [(path + "/", "folder") if os.path.isdir(path) else (path, "file") for path in found]


def _show(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


_loaded: List[Tuple[Magics, Any]] = []


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext jupyter_apptainer`."""
    magics = Magics(shell)
    matcher = _build_matcher(magics)
    unload_ipython_extension(shell)
    shell.register_magic_function(magics.apptainer, "line_cell", "apptainer")
    shell.events.register("post_run_cell", magics.explain_missing)
    _get_matchers(shell).append(matcher)
    _loaded.append((magics, matcher))


def unload_ipython_extension(shell: Any) -> None:
    """Called by `%unload_ext jupyter_apptainer`."""
    while _loaded:
        magics, matcher = _loaded.pop()
        shell.events.unregister("post_run_cell", magics.explain_missing)
        matchers = _get_matchers(shell)
        matchers[:] = [each for each in matchers if each is not matcher]


def _get_matchers(shell: Any) -> Any:
    """Return the list to which completions are added; IPython before 8.6 has none."""
    return getattr(shell.Completer, "custom_matchers", [])


def _build_matcher(magics: Magics) -> Any:
    try:
        from IPython.core.completer import SimpleCompletion, context_matcher
    except ImportError:
        return None

    @context_matcher()  # type: ignore[untyped-decorator]  # IPython's own
    def match(context: Any) -> Any:
        begin = re.search(r"(?:^|[=(])\s*%?%apptainer[ \t]+([^\n]*)\Z", context.text_until_cursor)
        if not begin:
            return {"completions": []}
        words = magics.complete(begin.group(1))
        return {
            "completions": [SimpleCompletion(text=word, type=about[:70]) for word, about in words],
            "matched_fragment": (begin.group(1).split() or [""])[-1] if not begin.group(1)[-1:].isspace() else "",
            "suppress": True,
        }

    return match
