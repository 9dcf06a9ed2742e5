"""Looking at executions: once, up to their end, or event by event."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import nats.errors
from nats.aio.msg import Msg

from wpa.client.channel import AWAY_RETRY_S, Away, Body, Channel, LockedOut
from wpa.client.feed import Feed
from wpa.errors import TaskRejected, Unavailable
from wpa.model.events import TERMINAL
from wpa.model.ids import check_execution
from wpa.model.state import is_terminal

__all__ = ["Following"]

log = logging.getLogger("wpa.client")

POLL_EVERY_S: Final = 2.0
FIRST_POLL_S: Final = 0.25
"""In a cluster, a new subscription may miss what another node publishes in its first moments."""
LAGS_S: Final = 0.1
"""Before a worker is asked again that has read from a replica which lags behind."""
SEEN_MAX: Final = 10_000
"""Of so many executions, those that were heard of last, it is remembered how far they were seen."""


class Following(Channel):
    """Shows executions and waits for them. An execution that waits for months is waited for, too."""

    async def status(self, execution_id: str) -> Body:
        """The status document. Raises TaskRejected (``unknown_execution``)."""
        found: Body = (await self.request("status", {"execution_id": execution_id}))["execution"]
        return found

    async def history(self, execution_id: str, after: int = 0) -> list[Body]:
        """All events past sequence ``after``, in order. One that is too large for an answer has ``cut``."""
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

        Stored events come once each, and in order: those of one execution, or all as they were stored. What
        is missed while the connection is lost, or while more than 16 MB wait to be taken, is read from the
        journal. Live events (``step_started``, ``step_progress``) come, too, best effort: without a ``seq``.

        Raises InvalidName, and Unavailable where the server does not let us in any more or, for one
        execution, no worker answers the first question; workers may come and go. Who watches all before any
        worker has answered is told by the log where events may have been missed.
        """
        if execution_id is not None:
            check_execution(execution_id)
        followed = self._follow_all() if execution_id is None else self._follow(execution_id)
        async with contextlib.aclosing(followed):
            async for event in followed:
                yield event

    def _feed(self, which: str) -> Feed:
        subject = f"workflow.events.{self.tenant}.{which}"
        return Feed(self._nc, subject, f"{subject}.live")

    async def _follow(self, execution_id: str) -> AsyncGenerator[Body, None]:
        seen = 0
        away = Away()
        async with self._feed(execution_id) as feed:
            while True:
                feed.resume()
                # What the subscription missed (events before it, or during a reconnect) is in the journal.
                events = await away.ask(self._history_or_nothing(execution_id, seen)) or []
                for event in events:
                    seen = event["seq"]
                    yield event
                if events and events[-1]["event"] in TERMINAL:
                    return  # an end that something follows was none: a failed execution was tried again
                # Quiet: it may be that events were missed.
                while (heard := await feed.next(POLL_EVERY_S)) is not None:
                    event = heard.event
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

    async def _follow_all(self) -> AsyncGenerator[Body, None]:
        away, seen = Away(), _Seen()
        first = await self._stored_past(None, away)
        position = first["next"] if first is not None else None
        shown = 0
        """The position of what was shown last."""
        async with self._feed("*") as feed:
            while True:
                missed, more = feed.resume(), True
                while more and (page := await self._stored_past(position, away, missed)) is not None:
                    for event in page["events"]:
                        seen.take(event)
                        yield event
                    if position is not None:
                        shown = page["next"]
                    position, more = page["next"], page["more"]
                    if more and not page["events"]:
                        await asyncio.sleep(LAGS_S)
                # Quiet: as above.
                while (heard := await feed.next(POLL_EVERY_S)) is not None:
                    if "seq" in heard.event:
                        if 0 < heard.position <= shown:
                            continue
                        if (last := seen.take(heard.event)) is not None:
                            for event in await self._between(last, heard.event, away):
                                yield event
                        shown = max(shown, heard.position)
                        position = max(position or 0, shown)
                    yield heard.event

    async def _stored_past(self, position: int | None, away: Away, missed: bool = False) -> Body | None:
        """A page of what is stored past ``position``; without one, where the last event is.

        None where no worker has been able to say since we watch: then only what is heard can be shown. Once
        one has, it is waited for.
        """
        asked = {} if position is None else {"after": position}
        while True:
            try:
                answer = await away.ask(self.request("events", asked))
            except LockedOut:
                raise
            except Unavailable as error:
                if missed:
                    log.warning("events may have been missed, and can't be read back: %s", error)
                return None
            if answer is not None:
                return answer
            await asyncio.sleep(AWAY_RETRY_S)

    async def _between(self, last: int, event: Body, away: Away) -> list[Body]:
        """What an execution's journal has between the event that was seen last and this one.

        A server that has just become the leader of its cluster does not pass all on that the one before it
        has stored.
        """
        execution_id = event["execution_id"]
        history = await away.ask(self._history_or_nothing(execution_id, last))
        if history is None:
            log.warning("events %d to %d of %s were missed", last + 1, event["seq"] - 1, execution_id)
        return [missed for missed in history or () if missed["seq"] < event["seq"]]


class _Seen:
    """How far executions were seen, of those that were heard of last."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def take(self, event: Body) -> int | None:
        """Take note of a stored event. Where some before it were missed: the ``seq`` of the last one seen."""
        execution_id, seq = event["execution_id"], event["seq"]
        last = self._last.pop(execution_id, None)
        if event["event"] not in TERMINAL:
            self._last[execution_id] = seq
        if len(self._last) > SEEN_MAX:
            del self._last[next(iter(self._last))]
        return last if last is not None and seq > last + 1 else None
