"""/starts: kernels that are starting, which can be cancelled, and starts that failed, with what may help."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from ..errors import ApptainerError
from ..kernels.repairs import Repair, do_repair, find_repairs
from ..kernels.starts import STARTS, Start
from ..places import Places
from .api import ApiHandler, Refusal
from .changes import end_instances
from .orders import Desk
from .shelf import to_json
from .tasks import OrderHandler


class StartsHandler(ApiHandler):
    """Starts under way, and the newest that failed."""

    auth_resource = "jupyter_apptainer:starts"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.answer(await self.in_thread(_list, self.places, STARTS.list()))


class StartHandler(ApiHandler):
    """One start. DELETE cancels it and returns when nothing of it is left."""

    auth_resource = "jupyter_apptainer:starts"

    @web.authenticated
    @authorized
    async def delete(self, kernel_id: str) -> None:
        start = STARTS.find(kernel_id)
        if start is None or not start.is_under_way:
            raise Refusal(404, "no kernel with this id is starting")
        await start.cancel()
        self.set_status(204)
        self.finish()


class RepairsHandler(OrderHandler):
    """What was offered for a start that failed is done; the start itself is for the client to repeat."""

    auth_resource = "jupyter_apptainer:starts"

    @web.authenticated
    @authorized
    async def post(self, kernel_id: str) -> None:
        body = self.read_body("RepairRequest")
        start = STARTS.find(kernel_id)
        offered = await self.in_thread(_find_repairs, self.places, start) if start else ()
        repair = next((each for each in offered if each.kind == body["kind"]), None)
        if repair is None:
            raise Refusal(404, "this does not help the start any more", hint="start the kernel again")
        self.answer({"task": await self._repair(repair)})

    async def _repair(self, repair: Repair) -> dict[str, Any] | None:
        """Do it; returns the task that it has become, if it takes long."""
        settings = self.app.settings_of_ours
        match repair.kind:
            case "pull-image":
                target = {"target": repair.subject} if repair.subject else {}
                order = {"kind": "image-pull", "args": {"uri": repair.source, "force": bool(repair.subject), **target}}
            case "install-engine":
                order = {"kind": "engine-install"}
            case "end-holder":
                await end_instances(self.kernel_manager, self.places, repair.subject)
                return None
            case _:
                engine = settings.engine_path or None
                await self.in_thread(do_repair, repair, self.places, os.environ, engine_path=engine)
                return None
        self.app.events.look("task")
        started = await self.in_thread(self.order, Desk(self.places, settings, self.app.root), order)
        return to_json(started.task)


def _list(places: Places, starts: list[Start]) -> list[dict[str, Any]]:
    return [_describe(places, start) for start in starts]


def _describe(places: Places, start: Start) -> dict[str, Any]:
    error = start.error
    return {
        "kernel_id": start.kernel_id,
        "kernelspec": start.kernelspec,
        "label": start.label,
        "state": "starting" if error is None else "failed",
        "error": error
        and {"code": error.code, "message": error.message, "hint": error.hint or "", "log_tail": list(error.log_tail)},
        "age_s": 0.0 if error is None else round(time.monotonic() - start.failed_at, 3),
        "repairs": [asdict(repair) for repair in _find_repairs(places, start)],
    }


def _find_repairs(places: Places, start: Start) -> tuple[Repair, ...]:
    if start.error is None:
        return ()
    try:
        wish = start.read_wish() if start.read_wish else None
    except ApptainerError:
        # What is asked for is itself what is wrong.
        wish = None
    return find_repairs(start.error, wish, places)
