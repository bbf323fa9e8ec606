"""What people write into %post and the engine cannot mean: words of Dockerfiles, questions nobody answers, bash in sh."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .definition import Line, Section, Stage
from .findings import Finding

_SCRIPTS = (
    "post",
    "setup",
    "pre",
    "test",
    "runscript",
    "startscript",
    "environment",
    "appinstall",
    "apprun",
    "appstart",
)
_DOCKER_WORD = re.compile(
    r"^\s*(?P<word>FROM|RUN|COPY|ADD|ENV|ARG|WORKDIR|CMD|ENTRYPOINT|LABEL|EXPOSE|USER|VOLUME|SHELL|HEALTHCHECK)\s+\S"
)
_WAYS: dict[str, str] = {
    "COPY": "put the line into %files",
    "ADD": "put files into %files; fetch addresses with curl in %post",
    "RUN": "leave the word RUN out",
    "ENV": "`export NAME=VALUE` here, and in %environment for the finished image",
    "ARG": "put NAME=VALUE into %arguments and write {{ NAME }}",
    "WORKDIR": "`mkdir -p DIR && cd DIR`",
    "CMD": "put it into %runscript",
    "ENTRYPOINT": "put it into %runscript",
    "LABEL": "put it into %labels",
    "FROM": "`Bootstrap: docker` and `From:` begin a stage",
    "USER": "leave it out: a container runs as whoever starts it",
    "EXPOSE": "leave it out: a container shares the host's network",
    "VOLUME": "leave it out, and bind a folder at run time",
    "SHELL": "`%post -c /bin/bash` chooses the shell",
    "HEALTHCHECK": "leave it out",
}
_HEREDOC = re.compile(r"<<-?\s*(?P<quote>['\"]?)(?P<name>\w+)(?P=quote)")
_APT_INSTALL = re.compile(r"\bapt(?:-get)?\b(?P<before>[^;&|]*)\s(?:install|upgrade|dist-upgrade)\b(?P<after>[^;&|]*)")
_APT_YES = re.compile(r"(?:^|\s)(?:-[a-zA-Z]*y[a-zA-Z]*|--yes|--assume-yes|-qq)(?:\s|$)")
_SUDO = re.compile(r"^\s*sudo\s")
_SOURCE = re.compile(r"^\s*source\s+\S")


def check_scripts(stage: Stage) -> Iterator[Finding]:
    """Yield what is wrong in the scripts of one stage."""
    for section in stage.sections:
        if section.name in _SCRIPTS:
            for line in iter_commands(section):
                yield from _check_line(section, line)


def iter_commands(section: Section) -> Iterator[Line]:
    """Yield the lines that begin a command: no comments, no continuations, nothing in a here-document."""
    terminator = ""
    is_continued = False
    for line in section.lines:
        if terminator:
            if line.text.strip() == terminator:
                terminator = ""
            continue
        text = line.text.strip()
        if text and not text.startswith("#") and not is_continued:
            yield line
        is_continued = text.endswith("\\") and not text.startswith("#")
        match = _HEREDOC.search(text) if not text.startswith("#") else None
        terminator = match["name"] if match else ""


def _check_line(section: Section, line: Line) -> Iterator[Finding]:
    match = _DOCKER_WORD.match(line.text)
    if match:
        word = match["word"]
        yield Finding(
            line.number,
            "error",
            "dockerfile-word",
            f"{word} is a word of Dockerfiles: in %{section.name} the shell looks for a program of that name",
            _WAYS[word],
        )
    if section.name not in ("post", "appinstall"):
        return
    install = _APT_INSTALL.search(line.text)
    # What a continued line has further down is not looked at.
    is_whole = not line.text.rstrip().endswith("\\")
    if install and is_whole and not _APT_YES.search(f"{install['before']} {install['after']}"):
        yield Finding(
            line.number,
            "warning",
            "apt-asks",
            "apt asks before it installs, and nobody answers during a build",
            "add -y",
        )
    if _SUDO.match(line.text):
        yield Finding(
            line.number,
            "warning",
            "sudo",
            f"%{section.name} runs as root already, and sudo may not be there",
            "leave sudo out",
        )
    if _SOURCE.match(line.text) and "-c" not in section.argument:
        yield Finding(
            line.number,
            "warning",
            "source-in-sh",
            f"%{section.name} runs in /bin/sh, which has no `source` on many systems",
            "write `. FILE` (with ./ or a whole path), or `%post -c /bin/bash`",
        )
