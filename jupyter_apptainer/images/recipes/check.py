"""What the engine would refuse in a definition file, some of it only after a long build, and what it would take but not mean.

`check_definition` looks at the text alone; `check_files` and `check_scripts` are its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .check_scripts import check_scripts
from .definition import APP_SECTIONS, SECTIONS, Definition, Section, Stage, find_values, parse_definition, resolve
from .findings import Finding, find_nearest, sort_findings

HEADERS = (
    "bootstrap",
    "from",
    "includecmd",
    "mirrorurl",
    "updateurl",
    "osversion",
    "include",
    "library",
    "registry",
    "namespace",
    "stage",
    "product",
    "user",
    "regcode",
    "productpgp",
    "registerurl",
    "modules",
    "fingerprints",
    "confurl",
    "setopt",
)
# What each agent cannot do without.
AGENTS: Mapping[str, tuple[str, ...]] = {
    "docker": ("from",),
    "docker-archive": ("from",),
    "docker-daemon": ("from",),
    "oci": ("from",),
    "oci-archive": ("from",),
    "oras": ("from",),
    "library": ("from",),
    "shub": ("from",),
    "localimage": ("from",),
    "debootstrap": ("mirrorurl", "osversion"),
    "yum": ("mirrorurl",),
    "dnf": ("mirrorurl",),
    "busybox": ("mirrorurl",),
    "zypper": (),
    "arch": (),
    "scratch": (),
}
_DOCKERFILE = re.compile(r"^(FROM|RUN|COPY|ADD|ENV|ARG|WORKDIR|CMD|ENTRYPOINT|LABEL|EXPOSE|USER)\s", re.IGNORECASE)
_NUMBERED = re.compile(r"^otherurl\d+$")


def check_definition(text: str, build_args: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Check a definition file without looking at any other file. build_args: as given with --build-arg."""
    given = dict(build_args or {})
    written = parse_definition(text)
    if not written.stages:
        return (Finding(1, "error", "empty", "the definition file is empty", "begin it with `Bootstrap: docker`"),)
    return sort_findings(
        [
            *_check_arguments(written, given),
            *check_resolved(resolve(written, given)),
            *_check_arguments_section(written),
        ]
    )


def check_resolved(definition: Definition) -> Iterator[Finding]:
    """Yield what is wrong in a definition whose arguments are replaced."""
    names: dict[str, int] = {}
    for stage in definition.stages:
        yield from _check_headers(stage)
        for section in stage.sections:
            yield from _check_section(section)
        yield from _check_stage_copies(definition, stage, names)
        yield from check_scripts(stage)
        if stage.name in names:
            yield Finding(
                stage.line,
                "error",
                "stage-twice",
                f"there are two stages named {stage.name}",
                f"%files takes the first one, of line {names[stage.name]}: rename one",
            )
        if stage.name:
            names.setdefault(stage.name, stage.line)


def _check_headers(stage: Stage) -> Iterator[Finding]:
    for line in stage.stray:
        yield _describe_stray(stage, line.number, line.text.strip())
    for header in stage.headers:
        first, space, rest = header.key.partition(" ")
        if space and (first in HEADERS or _DOCKERFILE.match(header.key)):
            # `From debian:12` has a colon too, in the wrong place.
            yield _describe_stray(stage, header.line, f"{first.upper()} {rest}:{header.value}")
        elif header.key not in HEADERS and not _NUMBERED.match(header.key):
            near = find_nearest(header.key, HEADERS)
            yield Finding(
                header.line,
                "error",
                "header-unknown",
                f"unknown header {header.key}",
                f"did you mean {near.capitalize()}?" if near else "a script belongs into a section, such as %post",
            )
        counting = stage.get_header(header.key)
        if counting and counting.line != header.line:
            yield Finding(
                header.line, "warning", "header-twice", f"{header.key} is given again in line {counting.line}"
            )
    yield from _check_agent(stage)


def _describe_stray(stage: Stage, number: int, text: str) -> Finding:
    word = text.split()[0]
    if _DOCKERFILE.match(text + " ") and not stage.agent:
        return Finding(
            number,
            "error",
            "dockerfile",
            f"{word} is a word of Dockerfiles, not of definition files",
            "if all of it is a Dockerfile, build it with --dockerfile",
        )
    return Finding(number, "error", "header-no-colon", f"no header: {text!r}", "write `Key: value`")


def _check_agent(stage: Stage) -> Iterator[Finding]:
    bootstrap = stage.get_header("bootstrap")
    if bootstrap is None:
        yield Finding(
            stage.line,
            "error",
            "no-bootstrap",
            "there is no `Bootstrap:` line above the first section",
            "begin with `Bootstrap: docker` and `From: debian:12`, for example",
        )
        return
    if stage.agent not in AGENTS:
        near = find_nearest(stage.agent, tuple(AGENTS))
        yield Finding(
            bootstrap.line,
            "error",
            "agent-unknown",
            f"unknown bootstrap agent {bootstrap.value!r}",
            f"did you mean {near}?" if near else f"known: {', '.join(AGENTS)}",
        )
        return
    for key in AGENTS[stage.agent]:
        found = stage.get_header(key)
        if found is None or not found.value:
            # Without From, localimage packs the folder that the build runs in.
            name = {"from": "From", "mirrorurl": "MirrorURL", "osversion": "OSVersion"}[key]
            yield Finding(
                bootstrap.line, "error", "header-missing", f"Bootstrap: {stage.agent} needs a line `{name}: …`"
            )
    yield from _check_from(stage)


def _check_from(stage: Stage) -> Iterator[Finding]:
    origin = stage.get_header("from")
    if origin is None:
        return
    scheme, colon, rest = origin.value.partition("://")
    if colon and stage.agent in AGENTS and stage.agent not in ("scratch", "localimage"):
        yield Finding(
            origin.line,
            "error",
            "from-scheme",
            f"From: has {scheme}:// in it, which the engine takes for a host's name",
            f"write `Bootstrap: {scheme}` and `From: {rest}`",
        )
    if colon and stage.agent == "localimage":
        yield Finding(
            origin.line,
            "error",
            "from-scheme",
            f"{origin.value} is not a file of this machine, which localimage needs",
            f"write `Bootstrap: {scheme}` and `From: {rest}`",
        )
    if stage.agent == "docker" and not colon and origin.value.startswith("localhost/"):
        yield Finding(
            origin.line,
            "warning",
            "local-docker",
            f"{origin.value} seems to live only in a local Docker or Podman, and a build asks a registry",
            "`docker save -o FILE.tar IMAGE`, then `Bootstrap: docker-archive` and `From: FILE.tar`",
        )


def _check_section(section: Section) -> Iterator[Finding]:
    if section.name == "":
        yield Finding(
            section.line,
            "error",
            "section-indented",
            "a line that begins with a per cent sign, even behind spaces, begins a section",
            "put a quote or a command before the sign, or remove the spaces if it is meant to be a section",
        )
    elif section.name in APP_SECTIONS and not section.app:
        yield Finding(
            section.line,
            "error",
            "app-without-name",
            f"%{section.name} needs the name of its app",
            f"write `%{section.name} NAME`",
        )
    elif section.name not in SECTIONS + APP_SECTIONS:
        near = find_nearest(section.name, SECTIONS + APP_SECTIONS)
        yield Finding(
            section.line,
            "error",
            "section-unknown",
            f"unknown section %{section.name}",
            f"did you mean %{near}?" if near else f"known: %{', %'.join(SECTIONS)}",
        )
    elif section.name == "files":
        words = section.argument.split("#")[0].split()
        if words and (words[0] != "from" or len(words) != 2):
            yield Finding(
                section.line,
                "error",
                "files-argument",
                f"%files {section.argument}: expected `%files` or `%files from STAGE`",
                "" if len(words) == 2 else "the engine leaves such a section out without a word",
            )


def _check_stage_copies(definition: Definition, stage: Stage, before: Mapping[str, int]) -> Iterator[Finding]:
    later = [each.name for each in definition.stages if each.line >= stage.line]
    for section in stage.sections:
        words = section.argument.split("#")[0].split()
        if section.name != "files" or len(words) != 2 or words[0] != "from" or words[1] in before:
            continue
        if words[1] in later:
            yield Finding(
                section.line,
                "error",
                "stage-later",
                f"the stage {words[1]} is not built yet when this one copies from it",
                "put that stage above this one",
            )
            continue
        near = find_nearest(words[1], tuple(before))
        yield Finding(
            section.line,
            "error",
            "stage-missing",
            f"there is no stage {words[1]}",
            f"did you mean {near}?" if near else f"name it: a line `Stage: {words[1]}` below its `Bootstrap:`",
        )


def _check_arguments(definition: Definition, given: Mapping[str, str]) -> Iterator[Finding]:
    used = {use.name for use in definition.uses if use.is_replaced}
    for use in definition.uses:
        stage = definition.get_stage_of_line(use.line)
        values = find_values(definition, given, stage) if stage else dict(given)
        if use.is_replaced and use.name not in values:
            yield _describe_undefined(definition, use.name, use.line, values)
        elif not use.is_replaced and use.name in values and not _is_comment(definition, use.line):
            yield Finding(
                use.line,
                "warning",
                "argument-behind-hash",
                f"{{{{ {use.name} }}}} is not replaced, because there is a # before it on its line",
                "set a variable on a line of its own, and use that",
            )
    for name in sorted(set(given) - used):
        near = find_nearest(name, sorted(used))
        yield Finding(
            0,
            "error",
            "argument-unused",
            f"--build-arg {name} is not used in the definition file",
            f"did you mean {near}?" if near else f"write {{{{ {name} }}}} where it belongs, or leave it out",
        )


def _describe_undefined(definition: Definition, name: str, line: int, values: Mapping[str, str]) -> Finding:
    elsewhere = next((stage for stage in definition.stages if name in stage.get_arguments()), None)
    near = find_nearest(name, tuple(values))
    if elsewhere:
        hint = "%arguments count only in their own stage: repeat it in this one"
    elif near:
        hint = f"did you mean {near}?"
    else:
        hint = f"add --build-arg {name}=VALUE, or a line {name}=VALUE in %arguments"
    return Finding(line, "error", "argument-undefined", f"the argument {name} has no value here", hint)


def _check_arguments_section(definition: Definition) -> Iterator[Finding]:
    ends = [*(stage.line for stage in definition.stages[1:]), 10**9]
    for stage, end in zip(definition.stages, ends, strict=True):
        used = {use.name for use in definition.uses if use.is_replaced and stage.line <= use.line < end}
        for name, line in stage.get_arguments().items():
            if name not in used:
                yield Finding(line.number, "warning", "argument-idle", f"the argument {name} is used nowhere")
        for section in stage.sections:
            for line in section.lines if section.name == "arguments" else ():
                if line.text.strip() and not line.text.strip().startswith("#") and "=" not in line.text:
                    yield Finding(
                        line.number,
                        "error",
                        "argument-no-value",
                        f"{line.text.strip()!r} is left out: an argument needs a value",
                        "write NAME=VALUE",
                    )


def _is_comment(definition: Definition, number: int) -> bool:
    lines = (line for stage in definition.stages for section in stage.sections for line in section.lines)
    return all(line.text.lstrip().startswith("#") for line in lines if line.number == number)
