"""Log in to and out of registries. The engine keeps the passwords; whether one is right is asked here first."""

from __future__ import annotations

from ..engine.environment import build_engine_environment
from ..engine.image_commands import build_login, build_logout
from ..engine.locate import EngineInfo
from ..engine.runner import Runner
from .registry import Access, check_credentials
from .transfer import Settings, build_transfer_environment


def log_in(engine: EngineInfo, host: str, user: str, password: str, settings: Settings) -> None:
    """Have the engine remember the password. Raises RegistryError where the registry refuses it."""
    is_plain = "*" in settings.no_https or host in settings.no_https
    check_credentials(host, Access(is_plain, settings.ca_bundle, (user, password)))
    Runner().run(build_login(engine, host, user, password, build_transfer_environment(settings)))


def log_out(engine: EngineInfo, host: str, settings: Settings) -> None:
    """Have the engine forget the password. Logging out twice is no error."""
    Runner().run(build_logout(engine, host, build_engine_environment(settings.environ)))
