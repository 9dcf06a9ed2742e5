"""Triggers that read a stream: which inlets a workflow has, and what is done with what comes out of them.

An inlet is the server's: a durable place in a stream that its owner made (:mod:`wpa.ports.inlets`). All
workers draw from it; each message is acked when what it comes to is stored, so it is seen to at least once,
and what follows from it is named after its place in the stream, so it counts once.

A record for each workflow tells its inlets. It is written before an inlet is made and after one is removed:
whatever dies in between, the next worker that looks at the workflow removes what its latest version drops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Final

import msgspec

from wpa.engine.door import Origin
from wpa.engine.letters import bury
from wpa.engine.messages import Messages, digest, own_subject
from wpa.engine.services import Services
from wpa.engine.suspects import TRIED_FROM, poison
from wpa.engine.trials import Suspect
from wpa.errors import Conflict, OverLimit, PlatformError, PoisonMessage, Problem, TaskRejected
from wpa.model.subjects import covers
from wpa.model.times import parse_ms
from wpa.plan import Plan
from wpa.plan.subjects import ENGINES
from wpa.ports.inlets import Drawn, Inlet, UserStream
from wpa.ports.tasks import Feed

__all__ = ["InletKeeper", "Tap", "inlets_of"]

log = logging.getLogger("wpa.engine")

KIND: Final = "inlets"
"""The kind of the records."""
IN_HAND: Final = 64
"""Of each inlet, a worker has so many messages in hand at most; the others stay in the stream."""
RETRY_S: Final = 0.5
RETRY_MAX_S: Final = 5.0
EXTENDS_PER_ACK_WAIT: Final = 5
HAND_BACK_S: Final = 10.0
"""How long a message rests after an error of the engine's own."""


class InletKeeper:
    """Makes and removes inlets, as definitions come and go. Stateless: any worker may see to any of them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._inlets = services.ports.inlets

    # -- before a deploy ---------------------------------------------------------------------

    async def problems(self, tenant: str, document: dict[str, Any]) -> list[Problem]:
        """What is wrong with the streams that a definition names, which is otherwise all right.

        Raises PlatformError where the server can't be asked.
        """
        problems: list[Problem] = []
        for number, trigger in enumerate(document.get("triggers") or ()):
            stream = trigger.get("stream")
            subject = own_subject(tenant, trigger["subject"])
            if stream is None or subject is None:
                continue
            path = f"$.triggers[{number}]"
            found = await self._inlets.stream(stream)
            if found is None:
                problems.append(await self._missing(path, stream, subject))
            else:
                problems += _misfits(path, stream, found, subject, trigger.get("from", "new"))
        return problems

    async def _missing(self, path: str, stream: str, subject: str) -> Problem:
        others = [name for name in await self._inlets.capturing(subject) if not name.startswith(ENGINES)]
        hint = f"make it first: nats stream add {stream} --subjects '{subject}' --defaults"
        if others:
            hint = f"did you mean {others[0]!r}, which captures {subject}?"
        return Problem(f"{path}.stream", f"there is no stream {stream!r} on the server", hint)

    # -- after it ----------------------------------------------------------------------------

    async def settle(self, tenant: str, plan: Plan, held: Collection[Inlet] = ()) -> bool:
        """Write down the inlets of a version, if it is the latest, and remove those that it drops.

        Args:
            tenant: whose it is.
            plan: the version.
            held: inlets of the workflow that this worker may have made.

        May be called at any time, again and again. False where another version is the latest: whoever
        deployed that sees to it. Raises PlatformError.
        """
        ports = self._services.ports
        wanted = inlets_of(tenant, plan)
        while True:
            found = await ports.records.get(tenant, KIND, plan.id)
            known = msgspec.json.decode(found[0], type=list[Inlet]) if found else []
            dropped = {*known, *held} - wanted.keys()
            if not wanted and not dropped:
                return True
            # Read after the record: whoever deploys later finds it changed, or changes it himself.
            if await ports.definitions.latest(tenant, plan.id) != plan.version:
                return False
            revision = found[1] if found else 0
            try:
                if not wanted.keys() <= set(known):
                    revision = await self._write(tenant, plan.id, {*known, *wanted}, revision)
                for inlet in sorted(dropped, key=lambda inlet: inlet.name):
                    await self._inlets.remove(inlet)
                    log.info(
                        "%s.%s reads %s of stream %s no more", tenant, plan.id, inlet.subject, inlet.stream
                    )
                if dropped & set(known):
                    await self._write(tenant, plan.id, set(wanted), revision)
            except Conflict:
                continue
            return True

    async def _write(self, tenant: str, workflow: str, inlets: set[Inlet], revision: int) -> int:
        data = msgspec.json.encode(sorted(inlets, key=lambda inlet: inlet.name))
        return await self._services.ports.records.put(tenant, KIND, workflow, data, revision)

    async def deployed(self, tenant: str, plan: Plan) -> None:
        """A version was deployed: from now on, what its triggers wait for is kept for them.

        Raises PlatformError; then, the workers go on trying.
        """
        if await self.settle(tenant, plan):
            for inlet in inlets_of(tenant, plan):
                await self.add(inlet, plan)

    async def add(self, inlet: Inlet, plan: Plan) -> None:
        """Make an inlet of a version, where it is missing. Raises PlatformError.

        One that was lost with its stream begins with what is newer than the version.
        """
        since_ms = None
        if inlets_of(inlet.tenant, plan)[inlet] == "new":
            stored = await self._services.ports.definitions.get(inlet.tenant, plan.id, plan.version)
            since_ms = parse_ms(stored.deployed_at) if stored else self._services.clock.now_ms()
        await self._inlets.add(inlet, since_ms)


def inlets_of(tenant: str, plan: Plan) -> dict[Inlet, str]:
    """What a version reads of streams, and where it begins."""
    found: dict[Inlet, str] = {}
    for trigger in plan.triggers:
        subject = own_subject(tenant, trigger.subject)
        if trigger.stream and subject is not None:
            inlet = Inlet(
                tenant=tenant,
                workflow=plan.id,
                stream=trigger.stream,
                subject=trigger.subject,
                filter=subject,
            )
            found[inlet] = trigger.beginning
    return found


def _misfits(path: str, stream: str, found: UserStream, subject: str, beginning: str) -> list[Problem]:
    problems = []
    if not found.any_subject and not any(covers(captured, subject) for captured in found.subjects):
        problems.append(
            Problem(
                f"{path}.subject",
                f"the stream {stream!r} captures {', '.join(found.subjects)}: that is not all of {subject!r}",
                f"write a subject that it captures, or have it capture this one: nats stream edit {stream}",
            )
        )
    if found.work_queue and beginning != "first":
        message = f"the stream {stream!r} is a work queue, which can only be read from its first message on"
        problems.append(Problem(f"{path}.from", message, "write 'first'"))
    return problems


class Tap:
    """Draws from one inlet, for the triggers of one workflow, as long as it is open."""

    def __init__(self, services: Services, messages: Messages, inlet: Inlet, plan: Plan) -> None:
        self.inlet = inlet
        self.plan = plan
        """The version whose triggers count."""
        self._services = services
        self._messages = messages
        self._keeper = InletKeeper(services)
        self._name = f"{inlet.tenant}.{inlet.workflow}"
        self._feed: Feed | None = None
        self._lost = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False
        self._reading = asyncio.create_task(self._read(), name=f"wpa-inlet-{inlet.workflow}")

    @property
    def is_closed(self) -> bool:
        """Whether it draws nothing any more."""
        return self._closing

    async def close(self) -> None:
        """Draw nothing more, and see to what is in hand."""
        self._closing = True
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        if self._feed is not None:
            await self._feed.close()
        if self._running:
            await asyncio.wait(self._running)

    def abandon(self) -> None:
        """Leave everything as it lies, as a crash would: what is in hand goes to others."""
        for task in [self._reading, *self._running]:
            task.cancel()

    # -- staying in force --------------------------------------------------------------------

    async def _read(self) -> None:
        """Keep the inlet open, whatever becomes of its stream."""
        inlet, delay, troubled = self.inlet, RETRY_S, False
        while True:
            try:
                opened = await self._open()
            except PlatformError as error:
                if not troubled:
                    log.error(
                        "the triggers of %s on %s are not in force, and are tried again: stream %s: %s",
                        self._name, inlet.subject, inlet.stream, error,
                    )  # fmt: skip
                troubled = True
                await self._services.clock.sleep(delay)
                delay = min(delay * 2, RETRY_MAX_S)
                continue
            except Exception:
                log.exception("the triggers of %s on %s; please report it", self._name, inlet.subject)
                await self._services.clock.sleep(HAND_BACK_S)
                continue
            if opened:
                again = " again" if troubled else ""
                log.info("reading %s of stream %s%s for %s", inlet.subject, inlet.stream, again, self._name)
                delay, troubled = RETRY_S, False
                await self._lost.wait()
                await self._shut()
            await self._services.clock.sleep(RETRY_S)

    async def _open(self) -> bool:
        """Begin to draw; False where a later version has been deployed, which may want it no more."""
        ports, inlet = self._services.ports, self.inlet
        if await ports.definitions.latest(inlet.tenant, inlet.workflow) != self.plan.version:
            return False
        await self._keeper.add(inlet, self.plan)
        self._lost.clear()
        self._feed = await ports.inlets.open(inlet, self._deliver, self._lost.set)
        self._feed.request(IN_HAND - len(self._running))
        return True

    async def _shut(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.close()

    # -- messages ----------------------------------------------------------------------------

    def _deliver(self, drawn: Drawn) -> None:
        if self._closing:
            drawn.nak()
            return
        task = asyncio.create_task(self._see_to(drawn))
        self._running.add(task)
        task.add_done_callback(self._seen_to)

    def _seen_to(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._feed is not None and not self._closing:
            self._feed.request(1)

    async def _see_to(self, drawn: Drawn) -> None:
        """Publish what a message comes to, or bury it; then, and only then, ack it. Never raises."""
        try:
            await self._take(drawn)
        except PlatformError as error:
            log.debug("%s: is tried again: %s", self._place(drawn), error)
            drawn.nak(min(RETRY_S * 2 ** min(drawn.delivered - 1, 5), RETRY_MAX_S))
            return
        except Exception:
            log.exception("%s: an error of the engine's own; please report it", self._place(drawn))
            drawn.nak(HAND_BACK_S)
            return
        drawn.ack()

    async def _take(self, drawn: Drawn) -> None:
        inlet = self.inlet
        origin = Origin(
            workflow=inlet.workflow,
            subject=drawn.subject,
            pattern=inlet.subject,
            stream=inlet.stream,
            message=digest(inlet.name, drawn.stored, str(drawn.sequence)),
            headers=drawn.headers,
        )
        rejected: TaskRejected | None = await self._poison(drawn, origin)
        made_of = self._messages.tasks(inlet.tenant, self.plan, origin, drawn.data)
        for made in made_of if rejected is None else ():
            if isinstance(made, TaskRejected):
                rejected = rejected or made
                continue
            try:
                await self._messages.publish(inlet.tenant, made)
            except OverLimit as error:
                rejected = rejected or error
        if rejected is not None:
            log.warning("%s: of no use to %s: %s", self._place(drawn), self._name, rejected.outline)
            await bury(self._services, inlet.tenant, drawn.data, self._messages.letter(origin, rejected))

    async def _poison(self, drawn: Drawn, origin: Origin) -> PoisonMessage | None:
        """Why a message that was handed out too often may not be looked at."""
        trials = self._services.trials
        if trials is None or drawn.delivered < TRIED_FROM:
            return None
        suspect = Suspect(
            tenant=self.inlet.tenant,
            kind="tasks",
            data=drawn.data,
            headers=self._messages.about(origin),
            sequence=drawn.sequence,
            identity=origin.message,
            delivered=drawn.delivered,
            stored_ms=self._services.clock.now_ms(),
        )
        extending = asyncio.create_task(self._keep(drawn))
        try:
            death = await trials.try_out(suspect)
        finally:
            extending.cancel()
        return poison(death, drawn.delivered, self._services.worker) if death else None

    async def _keep(self, drawn: Drawn) -> None:
        while True:
            await self._services.clock.sleep(self._services.settings.ack_wait_s / EXTENDS_PER_ACK_WAIT)
            drawn.extend()

    def _place(self, drawn: Drawn) -> str:
        return f"message {drawn.sequence} of stream {self.inlet.stream} on {drawn.subject}"
