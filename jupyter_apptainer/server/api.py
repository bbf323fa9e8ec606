"""What all handlers of /jupyter-apptainer/v1 have in common: who may, what is accepted, how errors look, what counts as activity."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado import web

from ..errors import ApptainerError
from ..places import Places
from .openapi import get_validator
from .statuses import CODES, INTERNAL, find_status

if TYPE_CHECKING:
    from .app import ApptainerExtension

T = TypeVar("T")
BASE = r"/jupyter-apptainer/v1"
MAX_BODY_BYTES = 256 * 1024


@dataclass(frozen=True)
class Refusal(Exception):
    """A request that HTTP itself refuses. code: for programs."""

    status: int
    message: str
    hint: str = ""


class ApiHandler(ExtensionHandlerMixin, APIHandler):
    """One route. `auth_resource` is what an authorizer is asked about, with `read` for GET and `write` for all else."""

    auth_resource = "jupyter_apptainer"

    @property
    def app(self) -> ApptainerExtension:
        """The extension, with its settings."""
        return cast("ApptainerExtension", self.extensionapp)

    @property
    def places(self) -> Places:
        """Our folders."""
        return self.app.places

    @property
    def _track_activity(self) -> bool:
        """Read by jupyter_server: looking must not keep a server from being culled."""
        return self.request.method not in ("GET", "HEAD", "OPTIONS")

    @_track_activity.setter
    def _track_activity(self, _: bool) -> None:
        """Not for anybody to set."""

    async def in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run what looks at disks and processes without holding up the loop."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def read_body(self, schema: str) -> Any:
        """Return the request's body, which must be as the schema of this name in openapi.yaml says."""
        if len(self.request.body) > MAX_BODY_BYTES:
            raise Refusal(413, f"the request has more than {MAX_BODY_BYTES} bytes")
        try:
            body = json.loads(self.request.body or b"null")
        except (ValueError, RecursionError):
            raise Refusal(400, "the request is not JSON") from None
        error = next(get_validator(schema).iter_errors(body), None)
        if error is not None:
            where = "/".join(map(str, error.absolute_path)) or "the request"
            raise Refusal(400, f"{where}: {error.message[:300]}", hint="openapi.yaml says what is accepted")
        if _has_nul(body):
            raise Refusal(400, "a text has a NUL character in it")
        return body

    def answer(self, data: object, status: int = 200) -> None:
        """Send JSON."""
        self.answer_text(encode(data), status)

    def answer_text(self, text: str, status: int = 200) -> None:
        """Send what is JSON already."""
        self.set_status(status)
        self.finish(text)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by tornado for whatever a handler raises. A fault of ours shows nothing of itself: the log has it."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        self.clear()
        self.set_header("Content-Type", "application/json")
        if isinstance(error, ApptainerError):
            status = find_status(error)
            record = error.to_json()
            shown: Mapping[str, object] = {
                name: record[name] for name in ("code", "message", "hint", "log_tail") if record[name]
            }
        elif isinstance(error, Refusal):
            status, shown = error.status, _describe(error.status, error.message, error.hint)
        elif isinstance(error, web.HTTPError):
            status = error.status_code
            shown = _describe(status, error.log_message or error.reason or CODES.get(status, INTERNAL))
        else:
            status, shown = status_code, _describe(status_code, "an error of the server; its log says more")
        self.set_status(status)
        self.finish(json.dumps({"error": shown}))

    def log_exception(self, *args: Any) -> None:
        """Called by tornado. What a request is refused for is no news for the server's log."""
        if not isinstance(args[1], ApptainerError | Refusal):
            super().log_exception(*args)


class UnknownHandler(ApiHandler):
    """For addresses below ours that mean nothing."""

    @web.authenticated
    def prepare_answer(self) -> None:
        """Say so."""
        raise Refusal(404, "there is nothing at this address")

    get = post = delete = put = patch = head = prepare_answer


def encode(data: object) -> str:
    """Return it as JSON."""
    return json.dumps(data, ensure_ascii=False, default=str)


def _describe(status: int, message: str, hint: str = "") -> dict[str, object]:
    shown: dict[str, object] = {"code": CODES.get(status, INTERNAL), "message": message}
    return shown | ({"hint": hint} if hint else {})


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(each) for pair in value.items() for each in pair)
        case list():
            return any(map(_has_nul, value))
        case _:
            return False
