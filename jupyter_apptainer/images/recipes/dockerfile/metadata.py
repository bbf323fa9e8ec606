"""Instructions that run nothing: variables, folders, users, labels, and what the finished image says of itself."""

from __future__ import annotations

from collections.abc import Callable

from .instructions import Instruction
from .state import StageState, join_path
from .words import Word


def set_environment(state: StageState, instruction: Instruction) -> None:
    """ENV: for what follows, and for the finished image."""
    # All words of one ENV see the values from before it.
    pairs = zip(instruction.words[::2], instruction.words[1::2], strict=False)
    for name, word in [(state.expand(name).shown, state.expand(value)) for name, value in pairs]:
        state.arguments.discard(name)
        state.set_variable(name, word, is_environment=True)


def enter_folder(state: StageState, instruction: Instruction) -> None:
    """WORKDIR: made if it is not there."""
    state.workdir = join_path(state.workdir, state.expand(" ".join(instruction.words)))
    if state.has_shell:
        state.add(f"mkdir -p {state.workdir.shell}")


def set_user(state: StageState, instruction: Instruction) -> None:
    """USER: there is one user in a build, and another at run time."""
    name = state.expand(instruction.words[0]).known if instruction.words else ""
    user = (name or "").split(":")[0]
    if user in ("root", "0"):
        if state.user and state.has_shell:
            state.add("export HOME=/root")
        state.user = ""
        return
    state.user = user or instruction.words[0]
    if user and state.has_shell:
        # Everything runs as root, but what the user's commands leave "at home" should be found there.
        field = f"[^:]*:[^:]*:{user}" if user.isdigit() else f"{user}:[^:]*:[^:]*"
        state.add(f"export HOME=\"$(sed -n 's/^{field}:[^:]*:[^:]*:\\([^:]*\\):.*/\\1/p' /etc/passwd)\"")
    state.report(
        instruction,
        "warning",
        "user",
        f"USER {state.user}: what follows runs as root here, and the container as whoever starts it",
        "what the commands leave in /root can be read by nobody else",
    )


def set_labels(state: StageState, instruction: Instruction) -> None:
    """LABEL."""
    for name, value in zip(instruction.words[::2], instruction.words[1::2], strict=False):
        key, text = state.expand(name).shown, state.expand(value).shown
        if "\n" in text:
            state.report(instruction, "note", "label-lines", f"the label {key} is put into one line")
        state.draft.labels[key.replace(" ", "-")] = " ".join(text.split("\n"))


def set_maintainer(state: StageState, instruction: Instruction) -> None:
    """MAINTAINER, which is a label by now."""
    state.draft.labels["maintainer"] = " ".join(instruction.words)


def set_entrypoint(state: StageState, instruction: Instruction) -> None:
    """ENTRYPOINT."""
    state.entrypoint = instruction
    if not state.is_command_own:
        # A new entry point takes the arguments of what the stage begins with away.
        state.command = None


def set_command(state: StageState, instruction: Instruction) -> None:
    """CMD."""
    state.command = instruction
    state.is_command_own = True


def set_shell(state: StageState, instruction: Instruction) -> None:
    """SHELL: for RUN, CMD and ENTRYPOINT in shell form."""
    state.shell = instruction.words


def report_ports(state: StageState, instruction: Instruction) -> None:
    """EXPOSE."""
    ports = " ".join(state.expand(word).shown for word in instruction.words)
    state.report(instruction, "note", "expose", f"EXPOSE {ports}: a container shares the host's network")


def make_volumes(state: StageState, instruction: Instruction) -> None:
    """VOLUME: a folder to bind one to."""
    for word in instruction.words:
        folder = state.expand(word) if not instruction.is_json else Word((word,))
        if state.has_shell:
            state.add(f"mkdir -p {folder.shell}")
        state.report(
            instruction,
            "note",
            "volume",
            f"VOLUME {folder.shown}: an image is read-only, bind a folder there at run time",
            f"`--bind FOLDER:{folder.shown}`",
        )


def leave_out(code: str, reason: str) -> Callable[[StageState, Instruction], None]:
    """Return what says that an instruction has no counterpart."""

    def report(state: StageState, instruction: Instruction) -> None:
        if instruction.words[:1] != ("NONE",):
            state.report(instruction, "warning" if code == "onbuild" else "note", code, reason)

    return report
