"""A layered build: each step is found or made, then all are packed into one ordinary image.

What a step has made is kept as soon as it is whole, so a build that fails later begins there the next time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from ...engine.command import Command
from ...engine.layering import Room, build_look, build_post, build_step, build_unpack, find_room
from ...engine.step import StepError
from ...errors import BuildError, CommandError, DiskFull, ReadOnlyFilesystem
from ...places import Places
from ..build_log import BuildLog
from ..ingredients import BaseDigests
from ..pinned import restore_text
from ..recipes.definition import Definition, Stage, parse_definition, resolve
from ..recipes.recipe import name_lines
from . import copy_files, find_secrets
from .finish import APPS_PHASES, build_apps_command, finish
from .keys import Unlayerable, compute_base_key, compute_key
from .metadata import (
    build_base_definition,
    clean_apps,
    clean_base,
    render_kept,
)
from .order import Order
from .parts import State, build_script, parse_state
from .plan import Step, check_stages, describe_surroundings, plan_steps
from .store import About, Held, Layer, Store, find_store, read_changes, write_linked

Steps = Generator[Command[None], CommandError | None, None]
# An overlay cannot rename folders of the layers below.
_BEGUN = "Step: "
_CROSS_DEVICE = ("Invalid cross-device link", "EXDEV", "ross-device link")


@dataclass(frozen=True)
class _Stage:
    """A stage and the steps that build it. origin: what `From:` means just now."""

    source: Stage
    base_key: str
    origin: str
    steps: tuple[Step, ...]


class LayeredBuild:
    """One build. `iter_steps` yields commands, each of which is answered with the error that it ended with."""

    def __init__(self, order: Order, bases: BaseDigests, places: Places, log: BuildLog) -> None:
        self._order = order
        self._bases = bases
        self._log = log
        self._store: Store = find_store(places)
        self._held = Held()
        self._room: Room
        self._stages: tuple[_Stage, ...] = ()
        self._done: dict[str, Layer] = {}

    def prepare(self) -> None:
        """Raise Unlayerable where this recipe cannot be built in layers, or not here."""
        order = self._order
        arguments = {**order.recipe.build_args, **order.recipe.secret_args}
        if order.engine.flavour != "apptainer":
            raise Unlayerable(f"{order.engine.flavour} cannot")
        if order.epoch is not None and order.epoch > time.time():
            raise Unlayerable("its time has not come yet")
        resolved = resolve(parse_definition(order.recipe.definition), arguments)
        # What the image says about itself: as it was before a lock has replaced its bases.
        self._text = restore_text(order.recipe.definition, order.recipe.pinned)
        self._definition = parse_definition(self._text)
        self._last = resolve(self._definition, arguments).stages[-1]
        check_stages(resolved)
        self._stages = self._plan(resolved)
        try:
            self._store.prepare()
            self._room = find_room(self._store.folder)
        except (StepError, OSError) as error:
            raise Unlayerable(f"layers cannot be kept in {self._store.folder}: {error}") from error

    def iter_steps(self) -> Steps:
        """Find or make the layers, and pack them."""
        for stage in self._stages:
            layer = yield from self._build_stage(stage)
            self._done.setdefault(stage.source.name, layer)
        path = self._store.begin(self._held)
        kept = render_kept(self._text, self._order.recipe.build_args, self._definition)
        yield from finish(self._order, self._room, self._log, layer, path, self._last, kept)

    def release(self, limit_bytes: int) -> None:
        """Let go of all layers; remove what was not finished, and the oldest layers beyond the limit."""
        self._held.release()
        self._store.prune(limit_bytes)

    def _plan(self, definition: Definition) -> tuple[_Stage, ...]:
        order = self._order
        surroundings = describe_surroundings(order.env, order.binds)
        secrets = [value for value in order.recipe.secret_args.values() if value]
        stages: list[_Stage] = []
        ends: dict[str, str] = {}
        for source in definition.stages:
            key, origin = compute_base_key(self._bases, source, order.recipe.folder)
            if order.epoch is not None:
                # All in its layers is later than the epoch, and becomes it; for a later one that might not be so.
                key = compute_key("epoch", key, order.epoch)
            steps = plan_steps(source, key, order.recipe.folder, surroundings, ends)
            steps = tuple(replace(step, title=_hide(step.title, secrets)) for step in steps)
            stages.append(_Stage(source, key, origin, steps))
            ends.setdefault(source.name, steps[-1].key if steps else key)
        return tuple(stages)

    def _build_stage(self, stage: _Stage) -> Generator[Command[None], CommandError | None, Layer]:
        layer = yield from self._get_base(stage)
        state: State | None = None
        is_over = False
        for number, step in enumerate(stage.steps, 1):
            if is_over and step.kind == "post":
                continue
            found = self._find(step.key)
            if found:
                name = f" of {stage.source.name}" if len(self._stages) > 1 and stage.source.name else ""
                self._note(f"Step {number} of {len(stage.steps)}{name} is unchanged: {step.title}")
                layer = found
            else:
                layer = yield from self._make(step, layer, state, is_only=len(stage.steps) < 3)
            if step.is_remembered:
                state = self._load_state(layer)
                # A script that has ended early has ended for good.
                is_over = state is None
        if state and state.status:
            raise self._build_error(stage.steps[-1], f"it ended with exit status {state.status}")
        return layer

    def _find(self, key: str) -> Layer | None:
        return self._store.find(key, self._held) if self._order.uses_layers else None

    def _get_base(self, stage: _Stage) -> Generator[Command[None], CommandError | None, Layer]:
        found = self._find(stage.base_key)
        if found:
            self._note("The base is unchanged")
            return found
        path = self._store.begin(self._held)
        order = self._order
        definition = order.scratch / "base.def"
        definition.write_text(build_base_definition(stage.source, stage.origin), encoding="utf-8")
        definition.chmod(0o600)
        folder = str(order.recipe.folder)
        command = build_unpack(
            order.engine, self._room, path.name, str(definition), order.env, cwd=folder, no_https=order.no_https
        )
        error = yield replace(command, subject=str(order.recipe.source))
        if error:
            raise error
        clean_base(path / "tree")
        changes = read_changes(path, ())
        title = f"{stage.source.agent} {stage.origin}".strip()
        about = About(title, 0, changes.size_bytes, True, (), changes.linked)
        return self._keep(stage.base_key, path, about)

    def _make(
        self, step: Step, below: Layer, state: State | None, *, is_only: bool
    ) -> Generator[Command[None], CommandError | None, Layer]:
        if step.kind == "post" and not step.is_announced:
            self._log.begin("Running %post" if is_only else step.title)
        path = self._store.begin(self._held)
        self._note(f"{_BEGUN}{step.title}")
        # Of definitions of ours.
        self._log.hidden = APPS_PHASES if step.kind == "apps" else frozenset()
        error = yield self._build_command(step, below, path, state)
        changes = None if error else read_changes(path, below.about.linked)
        is_copied = bool(changes and changes.torn) or self._is_cross_device()
        if is_copied:
            # Rare: a file with several names was written to, or a folder of the base renamed. In a whole copy both work.
            self._note(f"Once more in a copy of the layers below, for an overlay cannot do this: {step.title}")
            path = self._store.begin(self._held)
            error = yield self._build_command(step, below, path, state, is_copied=True)
            changes = None if error else read_changes(path, ())
        if error or changes is None:
            raise self._explain(step, error)
        if step.is_remembered:
            self._check_state(step, path)
        if step.kind == "apps":
            clean_apps(path / "tree")
        # It has run; what it was made of may be secret.
        (path / "script").unlink(missing_ok=True)
        about = About(step.title, below.about.depth + 1, changes.size_bytes, is_copied, below.stack, changes.linked)
        has_secret = yield from self._search(path)
        if has_secret:
            self._note(f"A secret is in what this step has left, so it is not kept for later builds: {step.title}")
        return self._keep(step.key, path, about) if below.is_kept and not has_secret else self._store.lend(path, about)

    def _search(self, path: Path) -> Generator[Command[None], CommandError | None, bool]:
        """Say whether a layer has a secret in it."""
        order = self._order
        if not order.needles:
            return False
        program = (sys.executable, "-I", "-S", find_secrets.__file__, str(path))
        needles = "".join(f"{needle.hex()}\n" for needle in order.needles)
        error = yield build_look(self._room, program, order.env, title="look for secrets", stdin=needles)
        if error and error.returncode != find_secrets.FOUND:
            raise error
        return error is not None

    def _keep(self, key: str, path: Path, about: About) -> Layer:
        return self._store.keep(key, path, about, self._held, is_shared=self._order.uses_layers)

    def _build_command(
        self, step: Step, below: Layer, path: Path, state: State | None, *, is_copied: bool = False
    ) -> Command[None]:
        order = self._order
        if not is_copied:
            write_linked(path, below.about.linked)
        if step.kind == "apps":
            return build_apps_command(order, self._room, below, path, step)
        if step.kind == "files":
            listing = order.scratch / "files.json"
            listing.write_text(json.dumps([[copy.source, copy.destination] for copy in step.files]), encoding="utf-8")
            roots = [str(path / "root"), *([str(path / "from")] if step.stage else [])]
            program = [sys.executable, "-I", "-S", copy_files.__file__, str(listing), *roots]
            return build_step(
                self._room,
                below.stack,
                path.name,
                program,
                order.env,
                title=f"copy {step.title}",
                cwd=str(order.recipe.folder),
                is_copied=is_copied,
                source=self._done[step.stage].stack if step.stage else (),
            )
        assert step.part is not None
        text = build_script(step.part, state) if step.is_remembered else step.part.text
        (path / "script").write_text(text, encoding="utf-8", errors="surrogateescape")
        (path / "shell").write_text(step.shell, encoding="utf-8")
        command = build_post(
            order.engine, self._room, below.stack, path.name, order.env, order.binds, is_copied=is_copied
        )
        return replace(command, subject=str(order.recipe.source))

    def _check_state(self, step: Step, path: Path) -> None:
        state = self._read_state(path / "state")
        if state and state.leftover:
            raise BuildError(
                f"{self._name_lines(step)}: what stands above a mark `# layer` leaves {state.leftover}, which a later part "
                "would not have",
                hint="remove the mark below it, or write what is needed into each part",
            )

    def _load_state(self, layer: Layer) -> State | None:
        return self._read_state(layer.path / "state")

    def _read_state(self, path: Path) -> State | None:
        hidden = [name.removeprefix("APPTAINERENV_") for name in self._order.env if name.startswith("APPTAINERENV_")]
        return parse_state(path.read_bytes(), hidden) if path.is_file() else None

    def _is_cross_device(self) -> bool:
        """Say whether the last step has met it; it may have gone on all the same, with something else left undone."""
        lines = takewhile(lambda line: not line.startswith(_BEGUN), reversed(self._log.tail))
        return any(mark in line for line in lines for mark in _CROSS_DEVICE)

    def _explain(self, step: Step, error: CommandError | None) -> CommandError:
        if isinstance(error, (DiskFull, ReadOnlyFilesystem)):
            return error
        return self._build_error(step, f"exit status {error.returncode}" if error else "it left nothing", error)

    def _build_error(self, step: Step, reason: str, error: CommandError | None = None) -> BuildError:
        return BuildError(
            f"{self._name_lines(step)}: could not run `{step.title}`: {reason}",
            hint="the steps before it are kept: the next build begins there",
            command=error.command if error else None,
            returncode=error.returncode if error else None,
            log_tail=error.log_tail if error else tuple(self._log.tail),
        )

    def _name_lines(self, step: Step) -> str:
        return name_lines(self._order.recipe, step.first_line, step.last_line)

    def _note(self, text: str) -> None:
        self._log.feed("stderr", f"{text}\n")


def _hide(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return text
