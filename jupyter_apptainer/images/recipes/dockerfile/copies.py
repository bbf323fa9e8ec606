"""COPY and ADD. In a definition file %files comes before all scripts, so what Docker copies later waits in a folder for its turn.

Before the first script, and where nothing has to be changed, files go to their place at once.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

from ..write import build_print
from .context import Context, Selection
from .instructions import Heredoc, Instruction
from .state import STAGING, StageState, join_path
from .words import Word, expand

_ADDRESS = re.compile(r"^(https?|ftp)://")
_REPOSITORY = re.compile(r"^(git@|git://|https?://.+\.git(#.*)?$)")
_ARCHIVE = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tbz2?|tar\.xz|txz)$")

# Slim images have Python, and neither curl nor wget.
_FETCH = "import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])"


def add_copy(state: StageState, instruction: Instruction, context: Context, stage: str) -> None:
    """Translate one COPY or ADD. stage: the name of the stage that it copies from, "" for the build's folder."""
    words = [state.expand(word).shown for word in instruction.words]
    if len(words) < 2:
        state.report(instruction, "error", "copy-words", f"{instruction.keyword} needs a source and a destination")
        return
    *sources, last = words
    target = join_path(state.workdir, state.expand(instruction.words[-1]))
    is_folder = last.split("/")[-1] in ("", ".", "..") or len(sources) > 1
    task = _Task(state, instruction, target, is_folder=is_folder)
    documents = {f"<<{each.name}": each for each in instruction.heredocs}
    for source in sources:
        plain = re.sub(r"['\"]|(?<=<<)-", "", source)
        if plain in documents:
            task.add_text(documents[plain])
        elif instruction.keyword == "ADD" and _REPOSITORY.match(source):
            state.report(
                instruction,
                "error",
                "add-git",
                f"ADD of a repository has no counterpart: {source}",
                "RUN git clone, or clone it beside the Dockerfile and COPY it",
            )
        elif instruction.keyword == "ADD" and _ADDRESS.match(source):
            task.add_address(source)
        elif stage:
            task.add_from_stage(source, stage)
        else:
            task.add_from_context(source, context)
    task.finish()


class _Task:
    """One COPY: what waits in its folder, and the lines that put it to its place."""

    def __init__(self, state: StageState, instruction: Instruction, target: Word, *, is_folder: bool) -> None:
        self._state = state
        self._instruction = instruction
        self._target = target
        self._is_folder = is_folder
        self._owner = instruction.get_flag("chown")
        self._mode = instruction.get_flag("chmod")
        self._is_direct = not state.has_shell or not (state.is_scripted or self._owner or self._mode)
        self._folder = f"{STAGING}/{state.copies}"
        self._lines: list[str] = []
        self._waiting: list[str] = []

    def add_from_context(self, source: str, context: Context) -> None:
        if context.is_outside(source):
            self._fail("copy-outside", f"{source} is outside the folder of the build", "copy it into that folder first")
            return
        found = context.find(source)
        if not found:
            hint = "a line of .dockerignore leaves it out" if context.is_ignored(source.strip("/")) else ""
            self._fail("copy-missing", f"{source} is not in the folder of the build", hint)
            return
        self._is_folder = self._is_folder or len(found) > 1
        for path in found:
            if self._instruction.keyword == "ADD" and _ARCHIVE.search(path):
                self._add_archive(path)
            else:
                self._add_selection(context.select(path), path)

    def add_from_stage(self, source: str, stage: str) -> None:
        place = source if source.startswith("/") else f"/{source}"
        known = self._target.known
        if self._state.has_shell:
            self._wait(place, stage)
            return
        # Nothing can be moved later, so it must be right at once: a folder's content would need a look at it.
        name = PurePosixPath(place).name
        if known is None:
            self._fail("copy-unknown", f"the destination {self._target.shown} is not known here")
        else:
            self._state.draft.files.append((place, known + name if known.endswith("/") else known, stage))

    def add_text(self, document: Heredoc) -> None:
        content = document.content
        if document.is_expanded:
            content = expand(content, self._state.values, self._state.escape, is_text=True).shown
        if not self._state.has_shell:
            self._fail("no-shell", "a file cannot be written in this stage: its image has no shell")
            return
        path = self._build_place(document.name)
        first, *rest = build_print(content)
        self._state.is_scripted = True
        self._lines += [self._make_parent(path), first, *rest[:-1], f"{rest[-1]} >{path}", *self._change(path)]

    def add_address(self, address: str) -> None:
        name = PurePosixPath(address.split("?")[0]).name or "index"
        path = self._build_place(name)
        quoted = shlex.quote(address)
        self._state.is_scripted = True
        self._lines += [
            self._make_parent(path),
            f"if command -v curl >/dev/null; then curl -fsSLo {path} {quoted}",
            f"elif command -v wget >/dev/null; then wget -qO {path} {quoted}",
            f"else python3 -c {shlex.quote(_FETCH)} {quoted} {path}; fi",
            f"chmod {shlex.quote(self._mode or '600')} {path}",
            *([f"chown {shlex.quote(self._owner)} {path}"] if self._owner else []),
        ]

    def finish(self) -> None:
        if not self._lines and not self._waiting:
            return
        # What waits is copied when this layer is made, so that another file here does not change the layers before.
        mark = [f"# layer: {self._folder}"] if self._waiting else []
        self._state.add("", *mark, f"# Dockerfile line {self._instruction.line}", *self._lines)
        self._state.end_layer()
        self._state.copies += 1

    def _add_selection(self, selection: Selection, path: str) -> None:
        known = self._target.known
        if selection.is_folder:
            if self._is_direct and known is not None:
                base = known.rstrip("/")
                self._state.draft.files += [(name, f"{base}/{place}", "") for name, place in selection.files]
                self._link(selection, (base and f'"{base}"') or '""')
            else:
                self._wait_folder(selection)
        elif self._is_direct and known is not None:
            place = f"{known.rstrip('/')}/" if self._is_folder else known
            self._state.draft.files.append((path, place, ""))
        else:
            self._wait(path, "")

    def _link(self, selection: Selection, base: str) -> None:
        if not (selection.links or selection.folders):
            return
        if not self._state.has_shell:
            self._fail("no-shell", "links cannot be made in this stage: its image has no shell")
            return
        self._lines += [f"mkdir -p {base}/{shlex.quote(name)}" for name in selection.folders]
        for place, target in selection.links:
            parent = PurePosixPath(place).parent
            is_there = str(parent) in (".", *selection.folders)
            self._lines += [] if is_there else [f"mkdir -p {base}/{shlex.quote(str(parent))}"]
            self._lines.append(f"ln -sfn {shlex.quote(target)} {base}/{shlex.quote(place)}")

    def _wait_folder(self, selection: Selection) -> None:
        spot = self._next_spot()
        files = [(name, f"{spot}/{place}", "") for name, place in selection.files]
        self._state.draft.files += files
        if not files:
            self._lines.append(f"mkdir -p {spot}")
        self._link(selection, spot)
        self._place_content(spot)

    def _wait(self, source: str, stage: str) -> None:
        """Let one path wait; of another stage nobody knows yet whether it is a folder, or how many a wildcard finds."""
        name = PurePosixPath(source).name
        spot = self._next_spot()
        is_many = bool(re.search(r"[*?\[]", source)) and bool(stage)
        if is_many:
            self._state.draft.files.append((source, f"{spot}/", stage))
            self._place_content(spot)
            return
        held = f"{spot}/{name}" if name and name != "." else spot
        self._state.draft.files.append((source, held, stage))
        if stage:
            self._lines.append(f"if [ -d {shlex.quote(held)} ]; then")
            self._place_content(held)
            self._lines.append("else")
            self._place_file(held)
            self._lines.append("fi")
        else:
            self._place_file(held)

    def _add_archive(self, path: str) -> None:
        if not self._state.has_shell:
            self._fail("no-shell", "an archive cannot be unpacked in this stage: its image has no shell")
            return
        held = f"{self._next_spot()}/{PurePosixPath(path).name}"
        self._state.draft.files.append((path, held, ""))
        target = self._target.shell
        self._state.is_scripted = True
        self._lines += [f"mkdir -p {target}", f"tar -xf {shlex.quote(held)} -C {target}"]

    def _place_content(self, spot: str) -> None:
        quoted, target = shlex.quote(spot), self._target.shell
        self._lines += [*self._change(quoted), f"mkdir -p {target}", f"cp -a {quoted}/. {target}/"]
        self._state.is_scripted = True

    def _place_file(self, held: str) -> None:
        quoted, target = shlex.quote(held), self._target.shell
        made = f"mkdir -p {target}" if self._is_folder else f'mkdir -p "$(dirname {target})"'
        self._lines += [*self._change(quoted), made, f"cp -a {quoted} {target}{'/' if self._is_folder else ''}"]
        self._state.is_scripted = True

    def _change(self, path: str) -> list[str]:
        owner = [f"chown -R {shlex.quote(self._owner)} {path}"] if self._owner else []
        return owner + ([f"chmod -R {shlex.quote(self._mode)} {path}"] if self._mode else [])

    def _build_place(self, name: str) -> str:
        inside = Word((*self._target.parts, "" if self._ends_with_slash() else "/", name))
        return inside.shell if self._is_folder else self._target.shell

    def _ends_with_slash(self) -> bool:
        return self._target.shown.endswith("/")

    def _make_parent(self, path: str) -> str:
        return f'mkdir -p "$(dirname {path})"'

    def _next_spot(self) -> str:
        spot = f"{self._folder}/{len(self._waiting)}"
        self._waiting.append(spot)
        return spot

    def _fail(self, code: str, reason: str, hint: str = "") -> None:
        self._state.report(self._instruction, "error", code, reason, hint)
