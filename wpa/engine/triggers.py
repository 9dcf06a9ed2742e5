"""Triggers: messages on NATS subjects that start executions, or wake them.

Every worker listens to the subjects of the triggers of every workflow's latest version. For each workflow and
subject the workers form one queue group, so each message reaches one of them. What it comes to is an ordinary
task on ``workflow.tasks.<tenant>``; from there on everything is as durable as ever. Up to there it is not:
core NATS keeps no messages, so one that is published while no worker listens, or that a worker holds when it
is killed, is not seen by anybody. A trigger that names a stream misses none (:mod:`wpa.engine.inlets`).

A message that a trigger wants and can't make a task of becomes a dead letter: its own bytes, and the reason.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from wpa.engine.door import Origin
from wpa.engine.inlets import InletKeeper, Tap, inlets_of
from wpa.engine.letters import bury
from wpa.engine.messages import Messages, digest, foreign, own_subject
from wpa.engine.patience import until_done
from wpa.engine.services import Services
from wpa.errors import NotFound, OverLimit, TaskRejected
from wpa.plan import Plan
from wpa.ports.clock import Clock
from wpa.ports.inlets import Inlet
from wpa.ports.live import Unsubscribe
from wpa.ports.tasks import Lease

__all__ = ["Triggers"]

log = logging.getLogger("wpa.engine")

QUEUE_MAX: Final = 5_000
"""Of each workflow and subject, so many messages may wait here; more are dropped, and counted in the log."""
AT_A_TIME: Final = 32
WARN_EVERY_S: Final = 5.0

Message = tuple[str, bytes, dict[str, str]]
"""Subject, data, headers."""


class _Ear:
    """Listens on one subject for the triggers of one workflow."""

    def __init__(self, tenant: str, pattern: str, clock: Clock) -> None:
        self._clock = clock
        self.tenant = tenant
        self.pattern = pattern
        self.plan: Plan | None = None
        self.queue: asyncio.Queue[Message] = asyncio.Queue(QUEUE_MAX)
        self.dropped = 0
        self.warned_at = float("-inf")
        self.unsubscribe: Unsubscribe | None = None
        self.task: asyncio.Task[None] | None = None

    def hear(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Called for each message; must not block."""
        try:
            self.queue.put_nowait((subject, data, headers))
        except asyncio.QueueFull:
            self.dropped += 1
            now = self._clock.monotonic_s()
            if now - self.warned_at > WARN_EVERY_S:
                self.warned_at = now
                log.error("messages on %s come too fast: %d are dropped so far", self.pattern, self.dropped)


class Triggers:
    """The triggers of all tenants, as far as this worker hears what they listen to."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._messages = Messages(services)
        self._keeper = InletKeeper(services)
        self._ears: dict[tuple[str, str], dict[str, _Ear]] = {}
        """By tenant and workflow, then by subject."""
        self._taps: dict[tuple[str, str], dict[Inlet, Tap]] = {}
        """By tenant and workflow, then by what they read."""

    # -- following ---------------------------------------------------------------------------

    async def deployed(self, tenant: str, plan: Plan) -> None:
        """Listen for the triggers of this version, and no more for those of the one before.

        See :data:`wpa.engine.deployments.OnLatest`. Raises PlatformError where it has to be called again.
        """
        for problem in foreign(tenant, plan):
            log.error("a trigger of %s.%s %s is not in force: %s", tenant, plan.id, plan.version, problem)
        await self._follow_subjects(tenant, plan)
        await self._follow_streams(tenant, plan)

    async def _follow_subjects(self, tenant: str, plan: Plan) -> None:
        ears = self._ears.setdefault((tenant, plan.id), {})
        heard = [trigger.subject for trigger in plan.triggers if not trigger.stream]
        wanted = {pattern: own_subject(tenant, pattern) for pattern in heard}
        for pattern, subject in wanted.items():
            if subject is None:
                continue
            ear = ears.get(pattern)
            if ear is None:
                ear = _Ear(tenant, pattern, self._services.clock)
                ear.plan = plan
                await self._listen(ear, subject, plan.id)
                ears[pattern] = ear
            ear.plan = plan
        for pattern in ears.keys() - wanted.keys():
            await self._stop(ears.pop(pattern))

    async def _follow_streams(self, tenant: str, plan: Plan) -> None:
        taps = self._taps.setdefault((tenant, plan.id), {})
        held, wanted = set(taps), inlets_of(tenant, plan)
        await asyncio.gather(*(taps[inlet].close() for inlet in held - wanted.keys()))
        await self._keeper.settle(tenant, plan, held)
        for inlet in held - wanted.keys():
            del taps[inlet]
        for inlet in wanted:
            tap = taps.get(inlet)
            if tap is None or tap.is_closed:  # by a version that dropped it, and was not seen to to the end
                taps[inlet] = Tap(self._services, self._messages, inlet, plan)
            else:
                tap.plan = plan

    async def _listen(self, ear: _Ear, subject: str, workflow: str) -> None:
        # The server delivers a message once to each queue name, whatever the subjects of its members: so
        # each subject of a workflow needs a name of its own, the same in all workers.
        queue = f"wpa-{digest(ear.tenant, workflow, ear.pattern)}"
        ear.unsubscribe = await self._services.ports.live.watch(subject, ear.hear, queue)
        ear.task = asyncio.create_task(self._work(ear), name=f"wpa-trigger-{workflow}")
        log.info("listening on %s for %s.%s", subject, ear.tenant, workflow)

    async def _stop(self, ear: _Ear) -> None:
        if ear.unsubscribe is not None:
            await ear.unsubscribe()
        if ear.task is not None:
            await ear.queue.join()
            ear.task.cancel()

    async def close(self, within_s: float) -> None:
        """Listen no more; see to what was heard, for so long at most."""
        ears = [ear for found in self._ears.values() for ear in found.values()]
        taps = [tap for found in self._taps.values() for tap in found.values()]
        self._ears.clear()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._stop(ear) for ear in ears), *(tap.close() for tap in taps))
        except TimeoutError:
            left = sum(ear.queue.qsize() for ear in ears)
            if left:
                log.error("%d messages for triggers were heard and are not seen to", left)
            for ear in ears:
                if ear.task is not None:
                    ear.task.cancel()

    def abandon(self) -> None:
        """Leave everything as it lies, as a crash would."""
        for found in self._ears.values():
            for ear in found.values():
                if ear.task is not None:
                    ear.task.cancel()
        for read in self._taps.values():
            for tap in read.values():
                tap.abandon()

    # -- messages ----------------------------------------------------------------------------

    async def _work(self, ear: _Ear) -> None:
        while True:
            messages = [await ear.queue.get()]
            while not ear.queue.empty() and len(messages) < AT_A_TIME:
                messages.append(ear.queue.get_nowait())
            plan = ear.plan
            if plan is not None:
                await asyncio.gather(*(self._take(ear, plan, *message) for message in messages))
            for _ in messages:
                ear.queue.task_done()

    async def _take(self, ear: _Ear, plan: Plan, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Publish what a message comes to, or bury it. Never raises."""
        services = self._services
        origin = Origin(
            workflow=plan.id,
            subject=subject,
            pattern=ear.pattern,
            message=digest(services.next_id()),
            headers=headers,
        )
        rejected: TaskRejected | None = None
        try:
            for made in self._messages.tasks(ear.tenant, plan, origin, data):
                if isinstance(made, TaskRejected):
                    rejected = rejected or made
                    continue
                try:
                    await until_done(partial(self._messages.publish, ear.tenant, made))
                except OverLimit as error:
                    rejected = rejected or error
            if rejected is not None:
                await self._bury(ear.tenant, plan, origin, data, rejected)
        except Exception:
            log.exception(
                "a message on %s is lost by an error of the engine's own; please report it", subject
            )

    async def _bury(self, tenant: str, plan: Plan, origin: Origin, data: bytes, error: TaskRejected) -> None:
        services = self._services
        log.warning(
            "a message on %s is of no use to %s.%s: %s", origin.subject, tenant, plan.id, error.outline
        )
        headers = self._messages.letter(origin, error)
        await until_done(lambda: bury(services, tenant, data, headers))

    async def retried(self, lease: Lease, origin: Origin) -> None:
        """See to a dead letter of ours that was queued again, and ack it.

        Raises TaskRejected where it is of no use still: it becomes a dead letter once more.
        """
        plan = await self._services.library.program(lease.tenant, origin.workflow)
        if not isinstance(plan, Plan):
            raise NotFound("unknown_trigger", f"workflow {origin.workflow} is no plan, it has no triggers")
        made = list(self._messages.tasks(lease.tenant, plan, origin, lease.data))
        rejected = [error for error in made if isinstance(error, TaskRejected)]
        if rejected:
            raise rejected[0]
        for found in made:
            if not isinstance(found, TaskRejected):
                await self._messages.publish(lease.tenant, found)
        lease.ack()
