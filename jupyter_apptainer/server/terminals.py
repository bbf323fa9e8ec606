"""POST /terminals: a terminal of Jupyter's own whose shell runs in an image, or in the instance of a kernel.

The terminal's program is a list of words, so no path needs quoting. Where a server has no terminals there are none here either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from tornado import web

from ..engine.environment import is_bending
from ..engine.host.gpu import find_nvidia
from ..engine.locate import get_engine
from ..engine.options import Bind, ContainerOptions, build_shell
from ..images.identity import check_image
from ..kernels.gpu import plan_gpu
from .api import ApiHandler, Refusal
from .changes import find_entries
from .image import find_reachable_image
from .orders import Desk

# Else the engine's last words would go with the terminal.
_STAY = '"$@" || { printf "\\n[%s] " "the shell has ended with status $?; Enter closes this terminal"; read -r _; }'


class TerminalsHandler(ApiHandler):
    """A new terminal inside a container. Asks the authorizer for `terminals` as well, as Jupyter's own address does."""

    auth_resource = "jupyter_apptainer:terminals"

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.read_body("TerminalRequest")
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "write", "terminals")):
            raise Refusal(403, "terminals are not for this user")
        manager = self.settings.get("terminal_manager")
        if manager is None:
            raise Refusal(403, "this server has no terminals", hint="ServerApp.terminals_enabled switches them on")
        desk = Desk(self.places, self.app.settings_of_ours, self.app.root)
        if "image" in body:
            path = await find_reachable_image(self, body["image"])
            argv = await self.in_thread(plan_image_shell, desk, path)
        else:
            argv = await self.in_thread(plan_instance_shell, desk, body["instance"])
        terminal = manager.create(
            shell_command=["/bin/sh", "-c", _STAY, "sh", *argv], cwd=desk.root, extra_env=_list_removed(os.environ)
        )
        self.answer({"name": terminal["name"]}, 201)


def plan_image_shell(desk: Desk, path: str) -> tuple[str, ...]:
    """Return the words of a shell in an image, with the image's folder bound and as working directory. Raises what `check_image` does."""
    check_image(path)
    engine = get_engine(desk.settings.engine_path or None, places=desk.places)
    folder = os.path.dirname(path)
    binds = () if folder == "/" else (Bind(folder, folder, why="the image's folder"),)
    options = ContainerOptions(binds=binds, nv=plan_gpu("auto", find_nvidia()).nv)
    return build_shell(engine, path, options=options, cwd=folder)


def plan_instance_shell(desk: Desk, name: str) -> tuple[str, ...]:
    """Return the words of a shell in an instance of ours, where its notebook is. Raises InstanceNotFound."""
    entry = find_entries(desk.places, name)[0]
    engine = get_engine(desk.settings.engine_path or None, places=desk.places)
    folder = os.path.dirname(entry.label)
    return build_shell(engine, f"instance://{entry.instance_name}", cwd=folder if os.path.isabs(folder) else None)


def _list_removed(environ: Mapping[str, str]) -> dict[str, Any]:
    """What would bend the engine's command goes: None removes a variable."""
    return {name: None for name in environ if is_bending(name)}
