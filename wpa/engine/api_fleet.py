"""The verbs about what starts by itself, and about who works: schedules and workers."""

from __future__ import annotations

from typing import Any, Protocol

from wpa.engine.api_common import Body, Handler, new_execution_of, workflow_of
from wpa.engine.crew import Roster
from wpa.engine.pages import page_by_key
from wpa.errors import TaskRejected
from wpa.kernel.program import Program

__all__ = ["FleetVerbs", "Roster", "Schedules"]


class Schedules(Protocol):
    """What starts by itself. Those that name a workflow raise NotFound where it has no schedule."""

    async def deployed(self, tenant: str, program: Program) -> None:
        """A version was deployed: set, replace or remove the schedule. Idempotent."""
        ...

    async def list(self, tenant: str) -> list[dict[str, Any]]:
        """Every schedule of a tenant."""
        ...

    async def pause(self, tenant: str, workflow: str) -> dict[str, Any]:
        """Start nothing by itself until it is resumed; the schedule as it is then."""
        ...

    async def resume(self, tenant: str, workflow: str) -> dict[str, Any]:
        """End a pause; the schedule as it is then."""
        ...

    async def trigger(self, tenant: str, workflow: str, execution: str = "") -> dict[str, Any]:
        """Start now what is scheduled, under a name of its own where none is given; ``workflow_id`` and
        ``execution_id`` of it."""
        ...

    async def delete(self, tenant: str, workflow: str) -> dict[str, Any]:
        """Forget a schedule; the schedule as it was."""
        ...


class FleetVerbs:
    """Shows and steers schedules; shows workers. ``answer_bytes_max``: as in the limits."""

    def __init__(self, schedules: Schedules | None, roster: Roster | None, answer_bytes_max: int) -> None:
        self._answer_bytes_max = answer_bytes_max
        self._schedules = schedules
        self._roster = roster

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {
            "schedule_list": self.list_schedules,
            "schedule_pause": self.pause,
            "schedule_resume": self.resume,
            "schedule_trigger": self.trigger,
            "schedule_delete": self.delete,
            "workers": self.workers,
        }

    async def list_schedules(self, tenant: str, body: Body) -> Body:
        found = ((str(row["workflow_id"]), row) for row in await self._found().list(tenant))
        rows, where = page_by_key(found, body, self._answer_bytes_max)
        return {"schedules": rows, **where}

    async def pause(self, tenant: str, body: Body) -> Body:
        workflow = workflow_of(body)
        return {"schedule": await self._found().pause(tenant, workflow)}

    async def resume(self, tenant: str, body: Body) -> Body:
        workflow = workflow_of(body)
        return {"schedule": await self._found().resume(tenant, workflow)}

    async def trigger(self, tenant: str, body: Body) -> Body:
        return await self._found().trigger(tenant, workflow_of(body), new_execution_of(body))

    async def delete(self, tenant: str, body: Body) -> Body:
        workflow = workflow_of(body)
        return {"schedule": await self._found().delete(tenant, workflow)}

    def _found(self) -> Schedules:
        if self._schedules is None:
            raise TaskRejected("not_served", "the worker that answered keeps no schedules; ask another")
        return self._schedules

    async def workers(self, tenant: str, body: Body) -> Body:
        if self._roster is None:
            raise TaskRejected("not_served", "the worker that answered knows of no others; ask another")
        found = ((str(row.get("worker")), row) for row in await self._roster())
        rows, where = page_by_key(found, body, self._answer_bytes_max)
        return {"workers": rows, **where}
