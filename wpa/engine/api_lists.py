"""The verbs that look over all executions of a tenant: list, approvals, events.

The first two look back along the journal, from who was active last to who has done nothing for long, and
pick. One request looks at a thousand executions at most, so that nobody else waits for it, and stops where
its answer is full; it says where the next one goes on. Only who asks until there is no ``more`` has seen all.

One execution may have more open approvals than an answer has room for: then it says how to ask for the rest.

``events`` reads the journals forward, as one: for those who listen and have missed something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, get_args

from wpa.engine.api_common import Body, Handler, execution_of, text, whole
from wpa.engine.api_executions import execution_behind
from wpa.engine.asks import find
from wpa.engine.loading import load
from wpa.engine.pages import Page
from wpa.engine.services import Services
from wpa.engine.status import open_approvals
from wpa.errors import TaskRejected
from wpa.kernel.fold import LEGAL
from wpa.kernel.waits import WAITING_FOR_SHOWN
from wpa.model import events as ev
from wpa.model.events import TERMINAL, Event
from wpa.model.state import State, Status
from wpa.ports.journal import EVERY, Stored

__all__ = ["ListVerbs"]

LIST_MAX = 1_000
LOOK_MAX = 1_000
"""So many executions one request looks at to pick some."""
LOADS_AT_ONCE = 32
EVENTS_MAX = 1_000
READ_AT_ONCE = 100
"""Events: a page of large ones has room for a few."""
STATUSES: Final = get_args(Status)

_AFTER: Final[dict[str, set[str]]] = {
    name: {status for (_, event), status in LEGAL.items() if event == name} for _, name in LEGAL
}
"""The statuses that an event may lead to: nearly always one."""

Look = Callable[[Event], Awaitable[list[Body]]]
"""What an execution, given by its last event, contributes to the answer."""


class ListVerbs:
    """Shows which executions there are, and which of them wait for somebody."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {"list": self.list_executions, "approvals": self.approvals, "events": self.events}

    async def list_executions(self, tenant: str, body: Body) -> Body:
        limit = whole(body, "limit", 20, 1, LIST_MAX)
        statuses, workflow = _statuses(body), text(body, "workflow_id")

        def may_fit(event: Event) -> bool:
            return workflow in ("", event.workflow_id) and not statuses.isdisjoint(_may_be(event))

        async def look(event: Event) -> list[Body]:
            status = await self._status_after(event)
            return [_row(event, status)] if status in statuses else []

        picks = workflow or len(statuses) < len(STATUSES)
        most = LOOK_MAX if picks else limit
        rows, where = await self._look_back(tenant, body, limit, most, may_fit, look)
        return {"executions": rows, **where}

    async def _status_after(self, event: Event) -> str:
        """The status that an execution's last event has led to."""
        possible = _may_be(event)
        if len(possible) == 1:
            return next(iter(possible))
        loaded = await load(self._services.ports, event.tenant_id, event.execution_id)
        return loaded.state.status if loaded is not None else "RUNNING"

    async def approvals(self, tenant: str, body: Body) -> Body:
        """What waits for somebody, the oldest first; of one execution, if one is named."""
        if "execution_id" in body:
            rows, where = await self._approvals_of(tenant, body)
        else:
            limit = whole(body, "limit", 100, 1, LIST_MAX)
            rows, where = await self._look_back(tenant, body, limit, LOOK_MAX, _may_ask, self._open_approvals)
        return {"approvals": sorted(rows, key=lambda row: str(row["since"])), **where}

    async def _approvals_of(self, tenant: str, body: Body) -> tuple[list[Body], Body]:
        state = (await find(self._services, tenant, execution_of(body))).state
        page = Page(self._services.limits.answer_bytes_max)
        told = await self._open_in(state, text(body, "after"))
        where: Body = {"more": False, "next": 0, "looked_at": 1}
        return page.rows, where | _rest(told, page.add_all(told))

    async def _open_approvals(self, event: Event) -> list[Body]:
        loaded = await load(self._services.ports, event.tenant_id, event.execution_id)
        return [] if loaded is None else await self._open_in(loaded.state)

    async def _open_in(self, state: State, after: str = "") -> list[Body]:
        """The open approvals of an execution, as they were opened; those after the slot ``after``."""
        if not any(state.slots[slot_id].kind == "approval" for slot_id in state.open):
            return []
        execution, _ = await execution_behind(self._services, state)
        about = {
            "execution_id": state.execution,
            "workflow_id": state.workflow,
            "status": state.status,
        }
        return [{**about, **shown} for shown in open_approvals(state, execution, after)]

    async def events(self, tenant: str, body: Body) -> Body:
        """What was stored past a position of the stream, in that order; without one, where its end is.

        There is ``more`` where the last event was not reached: the answer is full, or the replica that was
        read lags behind. A position past the last event is of a stream that was made anew since.
        """
        journal = self._services.ports.journal
        last = await journal.latest(tenant, EVERY)
        position = whole(body, "after", 0, 0, 1 << 53) if "after" in body else last
        if position >= last:
            return {"events": [], "more": False, "next": last}
        page = Page(self._services.limits.answer_bytes_max, EVENTS_MAX)
        while position < last and (stored := await journal.read(tenant, EVERY, position, READ_AT_ONCE)):
            for found, event in stored:
                if not page.add(event):
                    return {"events": page.rows, "more": True, "next": position}
                position = found
        return {"events": page.rows, "more": position < last, "next": position}

    # -- looking back ------------------------------------------------------------------------

    async def _look_back(
        self,
        tenant: str,
        body: Body,
        limit: int,
        most: int,
        may_fit: Callable[[Event], bool],
        look: Look,
    ) -> tuple[list[Body], Body]:
        """What executions contribute, who was active last first, as much as fits; and how far back that is.

        Args:
            limit: so many contributions are enough.
            most: so many executions are looked at for them.
            may_fit: whether an execution of this last event may contribute at all.
        """
        before = whole(body, "before", 0, 0, 1 << 53)
        met, following = await self._services.ports.journal.recent(tenant, most, before)
        fitting = [found for found in met if may_fit(found[1])]

        async def contribution(found: Stored) -> list[Body]:
            event = await self._last_of(found) if before else found[1]
            return await look(event) if may_fit(event) else []

        page = Page(self._services.limits.answer_bytes_max)
        for begin in range(0, len(fitting), LOADS_AT_ONCE):
            some = fitting[begin : begin + LOADS_AT_ONCE]
            for (position, _), told in zip(some, await asyncio.gather(*map(contribution, some)), strict=True):
                taken = page.add_all(told)
                if told and not taken:
                    return page.rows, _how_far(met, position + 1)
                if taken < len(told) or len(page.rows) >= limit:
                    is_last = position == met[-1][0]
                    where = _how_far(met, following if is_last else position)
                    return page.rows, where | _rest(told, taken)
        return page.rows, _how_far(met, following)

    async def _last_of(self, found: Stored) -> Event:
        """The last event of an execution that was met further back: it may have gone on since."""
        position, event = found
        journal = self._services.ports.journal
        last = await journal.latest(event.tenant_id, event.execution_id)
        if last <= position:
            return event
        stored = await journal.read(event.tenant_id, event.execution_id, last - 1, 1)
        return stored[0][1] if stored else event


def _how_far(met: list[Stored], following: int) -> Body:
    looked_at = sum(position >= following for position, _ in met)
    return {"more": following > 0, "next": following, "looked_at": looked_at}


def _rest(told: list[Body], taken: int) -> Body:
    """How to ask for the approvals of an execution that an answer had no room for."""
    if taken == len(told):
        return {}
    last = told[taken - 1]
    return {"rest": {"execution_id": last["execution_id"], "after": last["slot"]}}


def _statuses(body: Body) -> set[str]:
    """Those that are asked for: all where none is named."""
    named = {status.strip() for status in text(body, "status").upper().split(",")} - {""}
    for status in named.difference(STATUSES):
        raise TaskRejected("bad_request", f"$.status must be one of {', '.join(STATUSES)}, not {status!r}")
    return named or set(STATUSES)


def _may_be(event: Event) -> set[str]:
    if event.event == ev.WAITING:
        return {event.data.get("status", "WAITING")}
    return _AFTER[event.event]


def _may_ask(event: Event) -> bool:
    """Whether an approval may be open after an execution's last event."""
    if event.event in TERMINAL:
        return False
    if event.event != ev.WAITING:
        return True
    shown: list[Body] = event.data.get("waiting_for", [])
    # Not all are shown where there are many.
    return len(shown) >= WAITING_FOR_SHOWN or any(slot["kind"] == "approval" for slot in shown)


def _row(event: Event, status: str) -> Body:
    row: Body = {
        "execution_id": event.execution_id,
        "workflow_id": event.workflow_id,
        "status": status,
        "last_event": event.event,
        "timestamp": event.timestamp,
        "events": event.seq,
    }
    if event.event == ev.WAITING:
        row |= {name: event.data[name] for name in ("waiting_for", "until", "blocked") if name in event.data}
    return row
