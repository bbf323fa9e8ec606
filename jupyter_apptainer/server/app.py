"""The server extension `jupyter_apptainer`: makes our events known, and brings back kernels that have outlived a server.

Sessions are brought back too, under their own ids, so that a notebook that is still open in a browser finds its kernel again. For
that the server's list of sessions, by default in memory, is kept in a file that goes with the server.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.extension.application import ExtensionApp

from ..kernels.events import register_schema
from .reattach import leave_persistent, reattach_all
from .sessions import keep_sessions


class ApptainerExtension(ExtensionApp):
    """Loaded by every Jupyter server of an environment where this package is installed."""

    name = "jupyter_apptainer"

    def initialize_settings(self) -> None:
        """Called before the server serves."""
        assert self.serverapp is not None
        register_schema(self.serverapp.event_logger)
        keep_sessions(self.serverapp)

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Called when the server's loop runs."""
        await reattach_all(serverapp, self.log)

    async def stop_extension(self) -> None:
        """Called at the server's end, before its kernels are shut down."""
        await leave_persistent(self.serverapp, self.log)
