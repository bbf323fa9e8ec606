"""The server extension `jupyter_apptainer`: a REST interface and events, and kernels that have outlived a server.

Sessions are brought back too, under their own ids, so that a notebook that is still open in a browser finds its kernel again. For
that the server's list of sessions, by default in memory, is kept in a file that goes with the server.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Int

from ..config import ApptainerConfig, load_config
from ..kernels.events import register_schema
from ..places import find_places
from .events import Broadcaster, register_schemas
from .openapi import load_openapi
from .reading import Looks, View
from .reattach import leave_persistent, reattach_all
from .routes import build_routes
from .sessions import keep_sessions
from .shelf import TaskShelf


class ApptainerExtension(ExtensionApp):
    """Loaded by every Jupyter server of an environment where this package is installed."""

    name = "jupyter_apptainer"

    max_tasks = Int(
        2,
        min=1,
        help="""How many tasks (builds, pulls, …) that were ordered through this server may be at work at once; others wait in line. Default: 2.""",
    ).tag(config=True)

    max_queued_tasks = Int(
        50,
        min=1,
        help="""How many tasks may be at work or wait in line before an order is refused. Default: 50.""",
    ).tag(config=True)

    def initialize_settings(self) -> None:
        """Called before the server serves."""
        assert self.serverapp is not None
        self.places = find_places()
        merged = load_config()
        merged.merge(self.serverapp.config)
        self.settings_of_ours = ApptainerConfig(config=merged)
        self.root = os.path.realpath(self.serverapp.root_dir)
        register_schema(self.serverapp.event_logger)
        register_schemas(self.serverapp.event_logger)
        self.events = Broadcaster(self.serverapp.event_logger, self.places, self.log)
        self.view = View(self.places, self.settings_of_ours)
        self.looks = Looks()
        self.shelf = TaskShelf(self.places)
        # JupyterLab and Notebook have it in their pages, so that our extension need not ask before it shows anything.
        self.serverapp.web_app.settings.setdefault("page_config_data", {})["apptainerServed"] = "true"
        keep_sessions(self.serverapp)

    def initialize_handlers(self) -> None:
        """Called before the server serves, after `initialize_settings`."""
        self.handlers.extend(build_routes())

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Called when the server's loop runs."""
        # Read ahead: it takes longer than a request should.
        await asyncio.to_thread(load_openapi)
        await reattach_all(serverapp, self.log)

    async def stop_extension(self) -> None:
        """Called at the server's end, before its kernels are shut down. Tasks go on."""
        await self.events.close()
        await leave_persistent(self.serverapp, self.log)
