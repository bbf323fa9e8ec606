"""From a Dockerfile to a definition file.

Every step runs where Docker would run it and sees what Docker would show it; what the engine has no counterpart for is said in
a comment of the definition and in a finding.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..base import parse_base
from ..findings import Finding, find_nearest, sort_findings
from ..write import StageDraft, render_definition
from .context import Context
from .copies import add_copy
from .entry import finish_entry
from .instructions import Instruction, parse_dockerfile
from .metadata import (
    enter_folder,
    leave_out,
    make_volumes,
    report_ports,
    set_command,
    set_entrypoint,
    set_environment,
    set_labels,
    set_maintainer,
    set_shell,
    set_user,
)
from .run import add_run
from .state import STAGING, StageState
from .words import Word, expand

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
# Images of these names have no shell: nothing can run in a stage of them.
_SHELLLESS = ("scratch", "distroless", "/static", "static-debian")


@dataclass(frozen=True)
class Translation:
    """definition: the text, "" where an error keeps it from being made."""

    definition: str
    findings: tuple[Finding, ...]


def translate_dockerfile(
    text: str, context: Context, *, build_args: Mapping[str, str] | None = None, base: str = "", target: str = ""
) -> Translation:
    """Translate a Dockerfile.

    context: the folder that COPY takes from. base: an image instead of the one that the last stage begins with.
    target: the stage to end with, by default the last one.
    """
    parsed = parse_dockerfile(text)
    translator = _Translator(context, dict(build_args or {}), base, target, parsed.escape)
    if not any(finding.severity == "error" for finding in parsed.findings):
        for instruction in parsed.instructions:
            translator.add(instruction)
        translator.finish()
    findings = sort_findings([*parsed.findings, *translator.findings])
    if any(finding.severity == "error" for finding in findings):
        return Translation("", findings)
    return Translation(render_definition(translator.choose_stages()), findings)


class _Translator:
    def __init__(self, context: Context, build_args: dict[str, str], base: str, target: str, escape: str) -> None:
        self.findings: list[Finding] = []
        self._context = context
        self._build_args = build_args
        self._base = base
        self._target = target
        self._escape = escape
        self._globals: dict[str, str | None] = dict(_find_platform())
        self._declared: set[str] = set()
        self._stages: list[StageState] = []
        self._external: dict[str, StageDraft] = {}
        self._is_done = False
        self._handlers: Mapping[str, Callable[[StageState, Instruction], None]] = {
            "RUN": add_run,
            "COPY": self._copy,
            "ADD": self._copy,
            "ENV": set_environment,
            "ARG": self._declare,
            "WORKDIR": enter_folder,
            "USER": set_user,
            "LABEL": set_labels,
            "MAINTAINER": set_maintainer,
            "ENTRYPOINT": set_entrypoint,
            "CMD": set_command,
            "SHELL": set_shell,
            "EXPOSE": report_ports,
            "VOLUME": make_volumes,
            "HEALTHCHECK": leave_out("healthcheck", "HEALTHCHECK has no counterpart and is left out"),
            "STOPSIGNAL": leave_out("stopsignal", "STOPSIGNAL has no counterpart and is left out"),
            "ONBUILD": leave_out("onbuild", "ONBUILD has no counterpart and is left out"),
        }

    def add(self, instruction: Instruction) -> None:
        """Translate one instruction."""
        if self._is_done:
            return
        if instruction.keyword == "FROM":
            self._is_done = bool(self._target and self._stages and self._stages[-1].alias == self._target)
            if not self._is_done:
                self._begin(instruction)
        elif not self._stages:
            self._declare_global(instruction)
        else:
            self._handlers[instruction.keyword](self._stages[-1], instruction)

    def finish(self) -> None:
        """End the stages, and say what was not used."""
        if self._target and (not self._stages or self._stages[-1].alias != self._target):
            names = [state.alias for state in self._stages if state.alias]
            near = find_nearest(self._target, names)
            self.findings.append(
                Finding(
                    0,
                    "error",
                    "target-missing",
                    f"there is no stage {self._target}",
                    f"did you mean {near}?" if near else f"there are: {', '.join(names) or 'none with a name'}",
                )
            )
        if self._base and self._stages:
            # A stage that begins with another one has that one's origin in its draft.
            last = self._stages[-1].draft
            last.agent, last.origin = parse_base(self._base).agent, parse_base(self._base).reference
        for state in self._stages:
            _finish_stage(state)
            self.findings += state.findings
        for name in sorted(set(self._build_args) - self._declared):
            near = find_nearest(name, sorted(self._declared))
            hint = f"did you mean {near}?" if near else f"write `ARG {name}` where it is needed"
            self.findings.append(
                Finding(
                    0, "error", "argument-unused", f"--build-arg {name} is declared nowhere in the Dockerfile", hint
                )
            )

    def choose_stages(self) -> list[StageDraft]:
        """Return the stages that the last one needs, in order."""
        drafts = [*self._external.values(), *(state.draft for state in self._stages)]
        needed = {len(drafts) - 1}
        for index in range(len(drafts) - 1, -1, -1):
            names = {stage for _, _, stage in drafts[index].files if stage} if index in needed else set()
            needed |= {at for at, draft in enumerate(drafts) if draft.name in names}
        chosen = [draft for index, draft in enumerate(drafts) if index in needed]
        named = {stage for draft in chosen for _, _, stage in draft.files}
        for draft in chosen:
            draft.name = draft.name if draft.name in named else ""
        return chosen

    def _begin(self, instruction: Instruction) -> None:
        words = [expand(word, self._globals, self._escape) for word in instruction.words]
        alias = words[2].shown.lower() if len(words) == 3 and words[1].shown.upper() == "AS" else ""
        name = words[0].known
        parent = self._find_stage(name or "")
        if parent is not None:
            self._stages.append(parent.fork(alias or f"stage-{len(self._stages)}"))
        else:
            self._stages.append(self._open(instruction, words[0], alias))
        state = self._stages[-1]
        if len(words) not in (1, 3) or (len(words) == 3 and not alias):
            state.report(instruction, "error", "from-words", "FROM: expected `FROM IMAGE` or `FROM IMAGE AS NAME`")
        if not name:
            state.report(
                instruction,
                "error",
                "from-unknown",
                f"FROM {words[0].shown}: its value is not known",
                "give it with --build-arg, or a default in an ARG above the first FROM",
            )
        self._check_platform(state, instruction)

    def _open(self, instruction: Instruction, image: Word, alias: str) -> StageState:
        name = image.known or image.shown
        origin = parse_base(name)
        draft = StageDraft(origin.agent, origin.reference, name=alias or f"stage-{len(self._stages)}")
        state = StageState(draft, self._escape, alias)
        state.has_shell = not any(mark in origin.reference or mark == origin.agent for mark in _SHELLLESS)
        if name.startswith("localhost/") and not self._base:
            state.report(
                instruction,
                "warning",
                "local-docker",
                f"{name} seems to live only in a local Docker or Podman, and a build asks a registry",
                "`docker save -o FILE.tar IMAGE`, then `--base docker-archive:FILE.tar`",
            )
        return state

    def _check_platform(self, state: StageState, instruction: Instruction) -> None:
        wanted = expand(instruction.get_flag("platform"), self._globals, self._escape).shown
        own = self._globals["TARGETARCH"]
        if wanted and own and wanted.split("/")[1:2] != [own]:
            state.report(
                instruction,
                "warning",
                "platform",
                f"--platform={wanted} is left out: the image will be for this machine's {own}",
            )

    def _find_stage(self, name: str) -> StageState | None:
        if name.isdigit() and int(name) < len(self._stages):
            return self._stages[int(name)]
        return next((state for state in reversed(self._stages) if state.alias and state.alias == name.lower()), None)

    def _declare_global(self, instruction: Instruction) -> None:
        for word in instruction.words:
            name, equals, value = word.partition("=")
            self._declared.add(name)
            if name in self._build_args:
                self._globals[name] = self._build_args[name]
            elif equals:
                self._globals[name] = expand(value, self._globals, self._escape).known

    def _declare(self, state: StageState, instruction: Instruction) -> None:
        for word in instruction.words:
            name, equals, value = word.partition("=")
            self._declared.add(name)
            state.arguments.add(name)
            if name in self._build_args:
                found = Word((self._build_args[name],))
            elif equals:
                found = state.expand(value)
            elif isinstance(self._globals.get(name), str):
                found = Word((str(self._globals[name]),))
            else:
                state.values[name] = ""
                continue
            state.set_variable(name, found, is_environment=False)

    def _copy(self, state: StageState, instruction: Instruction) -> None:
        origin = expand(instruction.get_flag("from"), {**self._globals, **state.values}, self._escape).shown
        if not origin:
            add_copy(state, instruction, self._context, "")
            return
        stage = self._find_stage(origin)
        if stage is state:
            state.report(instruction, "error", "copy-self", f"COPY --from={origin}: a stage cannot copy from itself")
        elif stage is not None:
            add_copy(state, instruction, self._context, stage.draft.name)
        elif origin.isdigit():
            state.report(instruction, "error", "stage-missing", f"COPY --from={origin}: there is no such stage above")
        else:
            self._report_near(state, instruction, origin)
            base = parse_base(origin)
            draft = self._external.setdefault(
                origin, StageDraft(base.agent, base.reference, name=f"image-{len(self._external)}")
            )
            add_copy(state, instruction, self._context, draft.name)

    def _report_near(self, state: StageState, instruction: Instruction, origin: str) -> None:
        near = find_nearest(origin, [each.alias for each in self._stages if each.alias])
        if near:
            state.report(
                instruction,
                "warning",
                "stage-near",
                f"COPY --from={origin}: there is no such stage, so it is taken for an image",
                f"did you mean {near}?",
            )


def _finish_stage(state: StageState) -> None:
    finish_entry(state)
    if state.command and not state.entrypoint and state.has_shell:
        state.report(
            state.command,
            "note",
            "base-entrypoint",
            "CMD stands alone: should the base image have an ENTRYPOINT, that is not in front of it here",
            "if it has one, repeat it in the Dockerfile",
        )
    if state.copies and any(target.startswith(STAGING) for _, target, _ in state.draft.files):
        state.add("", f"rm -rf {STAGING}")


def _find_platform() -> dict[str, str]:
    machine = platform.machine()
    own = _ARCHITECTURES.get(machine, machine)
    names = {"PLATFORM": f"linux/{own}", "OS": "linux", "ARCH": own, "VARIANT": ""}
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in names.items()}
