"""One build of an image: checked, in layers or as a whole, named when it is finished, and gone without a trace where it is not.

Who runs it gets the engine's commands one after the other, and answers with how each has ended.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.command import Command
from ..engine.locate import EngineInfo
from ..engine.options import build_image_build
from ..errors import BuildError, CommandError, SpecError
from ..places import Places, make_private_dir
from ..tasks.report import Report
from .build_log import BuildLog, OnProgress
from .build_options import COMPRESSIONS, BuildOptions
from .build_secrets import Secrets
from .host_apt import AptRoom
from .host_settings import find_ca_bundle
from .ingredients import BaseDigests, is_plain_http, make_record
from .inventory import find_in_files
from .layering.build import LayeredBuild
from .layering.keys import Unlayerable
from .layering.order import Order
from .pack import Packing
from .pinned import restore_folder, restore_text
from .preflight import check_build, find_scratch, raise_for_errors
from .recipes.findings import Finding
from .recipes.recipe import Recipe
from .reproducible import load_epoch
from .sif_write import Text, append_text
from .starter import remove_build_folder, scrub_sandbox
from .surroundings import Surroundings

_FAKED_LIBRARY = re.compile(
    r"version `GLIBC_[\d.]+' not found.*\b(?:faked|fakeroot|libfakeroot)|\b(?:faked|libfakeroot)\S*.*`GLIBC_"
)
Steps = Generator[Command[None], CommandError | None, None]


@dataclass(frozen=True)
class BuiltImage:
    """What a build has made. log: the file with all that was printed."""

    path: Path
    definition: str
    findings: tuple[Finding, ...]
    log: Path
    size_bytes: int
    duration_s: float


class Build:
    """One build: its scratch folder, its log, its commands."""

    def __init__(
        self,
        engine: EngineInfo,
        places: Places,
        recipe: Recipe,
        target: Path,
        options: BuildOptions,
        on_progress: OnProgress,
        environ: Mapping[str, str] | None,
        report: Report | None = None,
    ) -> None:
        self._engine = engine
        self._places = places
        self._recipe = recipe
        self._target = Path(os.path.abspath(target))
        self._options = options
        self._environ = os.environ if environ is None else environ
        self._epoch = load_epoch(self._environ) if self._options.epoch is None else self._options.epoch
        self._secrets = Secrets(self._options.secrets, places, self._environ)
        self._needs_folder = bool(recipe.secret_args) or self._epoch is not None or bool(self._secrets)
        # Named before they are made, so that an interrupt at any moment finds them.
        self._scratch = find_scratch(places, self._environ) / f"build-{secrets.token_hex(4)}"
        self._fresh = self._target.with_name(f".{self._target.name}.{secrets.token_hex(4)}")
        bundle = options.ca_bundle or find_ca_bundle(self._environ)
        self._bases = BaseDigests(engine, places, self._environ, str(bundle) if bundle else None, options.no_https)
        self._findings: tuple[Finding, ...] = ()
        self._texts: tuple[Text, ...] = ()
        self._started = time.monotonic()
        self._report = report
        self.log = BuildLog(places.cache / "builds", self._target.stem, on_progress, report, self._secrets.redact)
        self._layered: LayeredBuild | None = None
        self._apt_room = AptRoom(self._scratch / "apt", places.cache)

    def clean_up(self) -> None:
        """Remove all that is not the finished image or the log."""
        self.log.close()
        self._fresh.unlink(missing_ok=True)
        self._secrets.remove()
        self._apt_room.keep()
        remove_build_folder(self._scratch)
        if self._layered:
            self._layered.release(self._options.layers_bytes)

    def iter_steps(self) -> Steps:
        """Check, and yield the commands one after the other; each is answered with the error that it ended with."""
        if self._options.compression not in COMPRESSIONS:
            known = ", ".join(COMPRESSIONS)
            raise SpecError(f"compression: {self._options.compression!r} is unknown; expected one of {known}")
        self._findings = check_build(self._recipe, self._target, self._places, self._options, self._environ)
        raise_for_errors(self._findings, self._recipe.source)
        self.log.open()
        if self._report:
            self._report.will_make(self._scratch, self._fresh)
        self._texts = (self._make_record(),)
        env, binds = self._prepare()
        self._layered = self._plan_layers(env, binds)
        if self._layered:
            yield from self._build_layers(self._layered)
            return
        first = self._build_first(env, binds)
        error = yield first
        if error and _FAKED_LIBRARY.search("\n".join(self.log.tail)):
            self.log.begin("The host's fakeroot does not fit into this image: trying again without it")
            error = yield replace(first, argv=_insert_flag(first.argv, "--ignore-fakeroot-command"))
        if error:
            raise self._explain(error)
        if self._needs_folder:
            yield from self._pack(env)

    def conclude(self) -> BuiltImage:
        """Give the image its name. Raises BuildError where a secret is in it."""
        for text in () if self._needs_folder or self._layered else self._texts:
            append_text(self._fresh, text)
        self._check_secrets()
        self._fresh.replace(self._target)
        return BuiltImage(
            path=self._target,
            definition=self._recipe.definition,
            findings=self._findings,
            log=self.log.path,
            size_bytes=self._target.stat().st_size,
            duration_s=time.monotonic() - self._started,
        )

    def _prepare(self) -> tuple[dict[str, str], tuple[str, ...]]:
        temporary, settings_folder = self._scratch / "tmp", self._scratch / "settings"
        if self._scratch.parent == self._places.scratch:
            make_private_dir(self._scratch.parent)
        make_private_dir(self._scratch)
        temporary.mkdir()
        settings_folder.mkdir()
        (self._scratch / "recipe.def").write_text(self._recipe.definition, encoding="utf-8")
        surroundings = Surroundings(
            self._engine,
            self._recipe,
            self._environ,
            self._secrets,
            self._epoch,
            self._options.has_host_settings,
            self._options.ca_bundle,
            self._apt_room,
        )
        env, binds = surroundings.write(settings_folder)
        return env | {"APPTAINER_TMPDIR": str(temporary)}, binds

    def _plan_layers(self, env: Mapping[str, str], binds: tuple[str, ...]) -> LayeredBuild | None:
        """Return the build in layers; None where it has to be built as a whole."""
        order = Order(
            engine=self._engine,
            recipe=self._recipe,
            target=self._fresh,
            scratch=self._scratch,
            env=env,
            binds=binds,
            mksquashfs_args=tuple(COMPRESSIONS[self._options.compression].split()),
            # A step that has fetched apt's lists is no use without them.
            uses_layers=self._options.uses_layers and not self._apt_room.lacks_lists,
            no_https=is_plain_http(self._recipe, self._options.no_https),
            epoch=self._epoch,
            needles=tuple(self._secrets.list_needles()),
            texts=self._texts,
        )
        build = LayeredBuild(order, self._bases, self._places, self.log)
        try:
            if not self._options.layers_bytes:
                raise Unlayerable("no disk is granted to them")
            build.prepare()
        except Unlayerable as reason:
            self.log.feed("stderr", f"Built as a whole, not in layers: {reason}\n")
            return None
        return build

    def _build_layers(self, layered: LayeredBuild) -> Steps:
        try:
            yield from layered.iter_steps()
        except CommandError as error:
            raise self._explain(error) from None

    def _build_first(self, env: Mapping[str, str], binds: tuple[str, ...]) -> Command[None]:
        source = str(self._scratch / "recipe.def")
        if not self._needs_folder:
            return self._build_command(source, env, binds)
        # What must not stay is removed from a folder, before it becomes an image.
        return self._build_command(source, env, binds, sandbox=str(self._scratch / "image"))

    def _build_command(
        self, source: str, env: Mapping[str, str], binds: tuple[str, ...] = (), sandbox: str = ""
    ) -> Command[None]:
        is_first = source.endswith("recipe.def")
        command = build_image_build(
            self._engine,
            sandbox or str(self._fresh),
            source,
            env,
            build_args={**self._recipe.build_args, **self._recipe.secret_args} if is_first else None,
            mksquashfs_args=None if sandbox else COMPRESSIONS[self._options.compression],
            binds=binds,
            is_sandbox=bool(sandbox),
            # Nothing is there to be replaced but the base image's labels and help, and without this they would win.
            is_forced=True,
            no_https=is_first and is_plain_http(self._recipe, self._options.no_https),
        )
        return replace(
            command,
            title=f"build {self._target.name}",
            subject=str(self._recipe.source),
            cwd=str(self._recipe.folder if is_first else self._scratch),
        )

    def _pack(self, env: Mapping[str, str]) -> Steps:
        """Make the image of the folder, when all is removed from it that must not stay."""
        folder = self._scratch / "image"
        if self._recipe.secret_args:
            scrub_sandbox(folder, restore_text(self._recipe.definition, self._recipe.pinned))
        restore_folder(folder, self._recipe.pinned)
        packing = Packing(self._engine, folder, self._fresh, env, epoch=self._epoch, texts=self._texts)
        self.log.begin("Compressing")
        error = yield packing.build_command(COMPRESSIONS[self._options.compression])
        if error:
            raise self._explain(error)
        packing.conclude()

    def _check_secrets(self) -> None:
        """Raise BuildError where a script has left a secret in the image, which is not kept then."""
        needles = self._secrets.list_needles()
        found = find_in_files(self._engine, str(self._fresh), needles) if needles else []
        if found:
            shown = ", ".join(f"{name} in {'/' + path if path else 'its definition'}" for name, path in found[:5])
            raise BuildError(
                f"{self._target} was not kept, for a secret has stayed in it: {shown}",
                hint="read the file where the secret is needed, and remove what a program has written it to",
            )

    def _make_record(self) -> Text:
        return make_record(
            self._recipe,
            self._bases,
            compression=self._options.compression,
            epoch=self._epoch,
            has_host_settings=self._options.has_host_settings,
        ).to_text()

    def _explain(self, error: CommandError) -> CommandError:
        self.log.close()
        redact = self._secrets.redact
        error.log_tail = tuple(map(redact, error.log_tail))
        if type(error) not in (CommandError, BuildError):
            # Its own message and hint say more: no space, no user namespaces, no such image in the registry, …
            return error
        return BuildError(
            redact(error.message.replace(str(self._scratch / "recipe.def"), str(self._recipe.source))),
            hint=f"{error.hint + '; ' if error.hint else ''}the whole log is in {self.log.path}",
            command=error.command,
            returncode=error.returncode,
            log_tail=error.log_tail,
        )


def _insert_flag(argv: tuple[str, ...], flag: str) -> tuple[str, ...]:
    at = argv.index("build") + 1
    return (*argv[:at], flag, *argv[at:])
