"""What the scripts of a build find around them: settings of the host, versions of a lock, secrets, a fixed time.

All of it is in files that are mounted over /mnt, and in variables; none of it stays in the image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from .build_secrets import Secrets
from .host_apt import AptRoom, find_apt_sources, write_apt_settings
from .host_settings import MOUNT_POINT, build_variables, load_host_settings, write_build_settings
from .pins import write_pins
from .recipes.definition import parse_definition, resolve
from .recipes.recipe import Recipe
from .reproducible import build_epoch_variables


@dataclass(frozen=True)
class Surroundings:
    """Those of one build. environ: of this process. epoch: None where times are not fixed. ca_bundle: for the host's settings."""

    engine: EngineInfo
    recipe: Recipe
    environ: Mapping[str, str]
    secrets: Secrets
    epoch: int | None
    has_host_settings: bool
    ca_bundle: Path | None
    apt_room: AptRoom

    def write(self, folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
        """Write the files to an empty folder; return the engine's variables and the binds for the build."""
        environ = {name: value for name, value in self.environ.items() if name not in self.secrets.variables}
        shown = (self.secrets.write(),) if self.secrets else ()
        if shown:
            (folder / "secrets").mkdir()
        fixed = build_epoch_variables(self.epoch) if self.epoch is not None else {}
        if not self.has_host_settings:
            fixed |= self._write_pins(folder, {})
            binds = (f"{folder}:{MOUNT_POINT}",) if self.recipe.pins or shown else ()
            return build_engine_environment(environ, fixed), (*binds, *shown)
        settings = load_host_settings(self.environ, self.ca_bundle)
        self.secrets.hide_passwords([*settings.proxies.values(), *settings.pip.values()])
        apt, rooms = self._write_apt_settings(folder, has_certificates=bool(settings.ca_bundle))
        fixed |= self._write_pins(folder, apt)
        variables = {name: _escape(value) for name, value in (build_variables(settings) | apt).items()} | fixed
        env = build_engine_environment({**settings.proxies, **environ}, variables)
        if settings.ca_bundle:
            env["SSL_CERT_FILE"] = str(settings.ca_bundle)
        return env, (*write_build_settings(settings, folder, apt), *rooms, *shown)

    def _write_apt_settings(self, folder: Path, *, has_certificates: bool) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return the variables for apt, and the bind for what it writes."""
        recipe = self.recipe
        definition = resolve(parse_definition(recipe.definition), {**recipe.build_args, **recipe.secret_args})
        sources = find_apt_sources(self.engine, definition, recipe.folder, build_engine_environment(self.environ))
        if not sources:
            return {}, ()
        apt, inside = write_apt_settings(folder, MOUNT_POINT, sources, has_certificates=has_certificates)
        self.apt_room.open(sources)
        return apt, (f"{self.apt_room.folder}:{inside}",)

    def _write_pins(self, folder: Path, apt: Mapping[str, str]) -> dict[str, str]:
        """Write the versions that a lock asks for. apt: the variables of a configuration of apt that is there already."""
        if not self.recipe.pins:
            return {}
        found = write_pins(self.recipe.pins, folder / "pins", f"{MOUNT_POINT}/pins")
        if apt and found.pop("APT_CONFIG", ""):
            with (folder / "apt.conf").open("a", encoding="utf-8") as stream:
                stream.write((folder / "pins/apt.conf").read_text(encoding="utf-8"))
        return found


def _escape(value: str) -> str:
    """Keep the engine, which reads these values through a shell, from evaluating them."""
    return re.sub(r'([\\"$`])', r"\\\1", value)
