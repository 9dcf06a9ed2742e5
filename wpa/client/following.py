"""Looking at executions: once, up to their end, or event by event."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import nats.errors
from nats.aio.msg import Msg

from wpa.client.channel import Away, Body, Channel
from wpa.client.connecting import flush
from wpa.errors import TaskRejected
from wpa.model.events import TERMINAL
from wpa.model.ids import check_execution
from wpa.model.state import is_terminal

__all__ = ["Following"]

POLL_EVERY_S: Final = 2.0
REFUSED_AFTER_S: Final = 5.0
"""Where nothing came for so long, who watches wants to know whether it still could."""
FIRST_POLL_S: Final = 0.25
"""In a cluster, a new subscription may miss what another node publishes in its first moments."""


class Following(Channel):
    """Shows executions and waits for them. An execution that waits for months is waited for, too."""

    async def status(self, execution_id: str) -> Body:
        """The status document. Raises TaskRejected (``unknown_execution``)."""
        found: Body = (await self.request("status", {"execution_id": execution_id}))["execution"]
        return found

    async def history(self, execution_id: str, after: int = 0) -> list[Body]:
        """All events past sequence ``after``, in order."""
        events: list[Body] = []
        page = {"after": after}
        while True:
            answer = await self.request("history", {"execution_id": execution_id, **page})
            events += answer["events"]
            if not answer["more"]:
                return events
            page = {"after": events[-1]["seq"], "position": answer.get("next", 0)}

    async def result(self, execution_id: str, timeout_s: float | None = None) -> Body:
        """Wait until the execution has ended, through all its waits and pauses; its status document.

        COMPLETED, FAILED, ROLLED_BACK and CANCELLED are ends; a FAILED one that is being retried goes on.

        Survives reconnects, lost events and workers that come and go, by looking itself every few
        seconds. An id that nobody knows yet is waited for, too: its start may be queued. Raises
        TimeoutError, InvalidName, and Unavailable where no worker answers the first question, or where the
        server does not let us in any more.
        """
        check_execution(execution_id)
        ended = asyncio.Event()
        away = Away()

        async def look(message: Msg) -> None:
            if any(name.encode() in message.data[:600] for name in TERMINAL):
                ended.set()

        subscription = await self._nc.subscribe(f"workflow.events.{self.tenant}.{execution_id}", cb=look)
        patience_s = FIRST_POLL_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    status = await away.ask(self._status_or_none(execution_id))
                    if status is not None and is_terminal(status["status"]):
                        return status
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience_s):
                            await ended.wait()
                    patience_s = POLL_EVERY_S
                    ended.clear()
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _status_or_none(self, execution_id: str) -> Body | None:
        try:
            return await self.status(execution_id)
        except TaskRejected as error:
            if error.code == "unknown_execution":
                return None  # queued, and not begun
            raise

    async def watch(self, execution_id: str | None = None) -> AsyncIterator[Body]:
        """Events as they happen: of one execution from its first on, up to its end; or of all, from now on.

        Live events (``step_started``, ``step_progress``) come too; they have no ``seq``. Stored events
        come once each and, for one execution, in order. Raises InvalidName, and Unavailable where no
        worker answers the first question, or where the server does not let us in any more; workers may
        come and go.
        """
        if execution_id is not None:
            check_execution(execution_id)
        queue: asyncio.Queue[Body] = asyncio.Queue()

        async def take(message: Msg) -> None:
            with contextlib.suppress(msgspec.DecodeError):
                queue.put_nowait(msgspec.json.decode(message.data))

        which = "*" if execution_id is None else execution_id
        subscriptions = [
            await self._nc.subscribe(f"workflow.events.{self.tenant}.{which}", cb=take),
            await self._nc.subscribe(f"workflow.events.{self.tenant}.{which}.live", cb=take),
        ]
        await flush(self._nc)
        try:
            if execution_id is None:
                while True:
                    try:
                        async with asyncio.timeout(REFUSED_AFTER_S):
                            event = await queue.get()
                    except TimeoutError:
                        self.check_let_in()
                    else:
                        yield event
            async for event in self._follow(execution_id, queue):
                yield event
        finally:
            for subscription in subscriptions:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()

    async def _follow(self, execution_id: str, queue: asyncio.Queue[Body]) -> AsyncIterator[Body]:
        seen = 0
        away = Away()
        while True:
            # What the subscription missed (events before it, or during a reconnect) is in the journal.
            events = await away.ask(self._history_or_nothing(execution_id, seen)) or []
            for event in events:
                seen = event["seq"]
                yield event
            if events and events[-1]["event"] in TERMINAL:
                return  # an end that something follows was none: a failed execution was tried again
            while True:
                try:
                    async with asyncio.timeout(POLL_EVERY_S):
                        event = await queue.get()
                except TimeoutError:
                    break  # quiet: it may be that events were missed
                if "seq" not in event:
                    yield event
                elif event["seq"] == seen + 1:
                    seen = event["seq"]
                    yield event
                    if event["event"] in TERMINAL:
                        return
                elif event["seq"] > seen:
                    break  # a gap: look into the journal

    async def _history_or_nothing(self, execution_id: str, after: int) -> list[Body]:
        try:
            return await self.history(execution_id, after)
        except TaskRejected as error:
            if error.code == "unknown_execution":
                return []
            raise
