"""/tasks: order long work, look at it, read its log, cancel and repeat it. It goes on when the server ends."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.utils import url_path_join
from tornado import web

from ..places import Places
from ..tasks.model import Task
from ..tasks.start import Started, retry_task, start_task
from ..tasks.stop import cancel_task
from ..tasks.store import forget_task, get_task, read_log
from .api import ApiHandler, Refusal
from .orders import ORDERS, Desk
from .shelf import to_json


class OrderHandler(ApiHandler):
    """What takes orders of long work."""

    def order(self, desk: Desk, body: Any) -> Started:
        """Start the task that an `Order` asks for, or join it. Blocking."""
        spec = ORDERS[body["kind"]](desk, body.get("args", {}))
        return start_task(
            desk.places,
            spec,
            limit=self.app.max_tasks,
            queue_limit=self.app.max_queued_tasks,
            settings=desk.settings,
        )


class _TaskHandler(OrderHandler):
    auth_resource = "jupyter_apptainer:tasks"

    def answer_started(self, started: Started) -> None:
        """Accepted: where to look, and whether it was under way already."""
        location = url_path_join(self.base_url, "jupyter-apptainer/v1/tasks", started.task.id)
        self.set_header("Location", location)
        self.answer({**to_json(started.task), "is_joined": started.is_joined}, 202)


class TasksHandler(_TaskHandler):
    """All tasks of this host, newest first; a new one."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.app.events.look("task")
        self.answer_text(await self.app.looks.share("tasks", self.app.shelf.encode_all))

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.read_body("Order")
        desk = Desk(self.places, self.app.settings_of_ours, self.app.root)
        self.app.events.look("task")
        self.answer_started(await self.in_thread(self.order, desk, body))


class TaskHandler(_TaskHandler):
    """One task. DELETE cancels it, and forgets it where it is over."""

    @web.authenticated
    @authorized
    async def get(self, task_id: str) -> None:
        self.answer(to_json(await self.in_thread(get_task, self.places, task_id)))

    @web.authenticated
    @authorized
    async def delete(self, task_id: str) -> None:
        task = await self.in_thread(_end, self.places, task_id)
        if task is None:
            self.set_status(204)
            self.finish()
        else:
            self.answer(to_json(task))


class TaskLogHandler(_TaskHandler):
    """Some of what a task has printed."""

    @web.authenticated
    @authorized
    async def get(self, task_id: str) -> None:
        offset = self.get_query_argument("offset", "0")
        if not offset.isascii() or not offset.isdigit() or len(offset) > 15:
            raise Refusal(400, "offset: expected a number of bytes from the beginning")
        self.answer(await self.in_thread(_read_log, self.places, task_id, int(offset)))


class TaskRetryHandler(_TaskHandler):
    """Once more what a task did."""

    @web.authenticated
    @authorized
    async def post(self, task_id: str) -> None:
        started = await self.in_thread(
            retry_task,
            self.places,
            task_id,
            limit=self.app.max_tasks,
            queue_limit=self.app.max_queued_tasks,
            settings=self.app.settings_of_ours,
        )
        self.answer_started(started)


def _read_log(places: Places, task_id: str, offset: int) -> dict[str, Any]:
    # In this order: one that is over has printed all.
    task = get_task(places, task_id)
    part = read_log(places, task.id, offset)
    return {"text": part.text, "next_offset": part.next_offset, "is_over": task.is_over}


def _end(places: Places, task_id: str) -> Task | None:
    if get_task(places, task_id).is_over:
        forget_task(places, task_id)
        return None
    return cancel_task(places, task_id)
