"""The worker: takes tasks, drives executions, keeps leases alive, drains when it is told to.

Stateless: what it holds is leased, what it knows is in the journal. Any number of workers may serve
the same tenants.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

from wpa.engine.deployments import Deployments
from wpa.engine.door import Heard, Request, admit
from wpa.engine.driver import Driver
from wpa.engine.inbox import Inbox
from wpa.engine.leaving import Leaving
from wpa.engine.letters import HAND_BACK_S, reject
from wpa.engine.library import is_reserved
from wpa.engine.pace import Pace
from wpa.engine.remote import RemoteSteps
from wpa.engine.schedules import Schedules
from wpa.engine.services import Services
from wpa.engine.suspects import Suspects
from wpa.engine.triggers import Triggers
from wpa.errors import CodeMissing, PlatformError, PoisonMessage, Superseded, TaskRejected
from wpa.model.tasks import ScheduleDue, Task, TimerDue
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["Worker"]

log = logging.getLogger("wpa.worker")

HEARTBEATS_PER_ACK_WAIT = 5
"""So often a lease is extended before it would run out: an event loop that is blocked for three fifths of
``ack_wait``, by a step or by the machine, loses none."""
BEATS_PER_HEARTBEAT = 2
"""So often it is looked at whose turn it is. What is in hand for less than one of these is not extended at
all: most tasks are done by then."""
DISCOVER_EVERY_S = 1.0
WARN_EVERY_S = 10.0
"""How often at most a worker says that the server can't be asked."""
CREDIT_MIN = 8
"""So many unbegun tasks of a feed a worker takes at least, however many feeds there are: asking for one at a
time would double what a message costs."""
DROP_WITHIN_S = 0.5
"""How long a worker that is cancelled waits for the steps that it cancels."""
TRIGGERS_SHARE = 0.2
"""The share of the grace period in which messages for triggers that were heard are seen to."""
CLEAN_UP_SHARE = 0.8
"""The share of the grace period after which what still runs is handed back."""


class _Held:
    """A request in hand, and the driver at work on it, if it has begun."""

    __slots__ = ("beat", "driver", "given_up", "request", "task")

    def __init__(self, request: Request, beat: int) -> None:
        self.request = request
        self.beat = beat
        """When its lease was begun, or extended."""
        self.driver: Driver | None = None
        self.task: asyncio.Task[None] | None = None
        self.given_up = False
        """Whether its driver is stuck in a step, and another one has the request."""


class Worker:
    """``await run(stop)`` works until ``stop`` is set, then drains."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._inbox = Inbox()
        self._remote = RemoteSteps(services)
        self._leaving = Leaving(services.crew, services.clock)
        self._schedules = Schedules(services)
        self._triggers = Triggers(services)
        self._deployments = Deployments(services, [self._triggers.deployed, self._schedules.deployed])
        self._feeds: dict[Source, Feed] = {}
        self._tenants: set[str] = set()
        self._held: dict[tuple[str, str], _Held] = {}
        self._driving = 0
        self._pace = Pace(services.settings.concurrency, services.worked_s, self._begin)
        self._beat = 0
        """Counts the heartbeat's looks at the leases."""
        self._suspects = Suspects(services, self._admit, lambda lease: self._credit(lease.source))
        self._draining = False
        self._chores: set[asyncio.Task[None]] = set()
        self._burying: set[tuple[str, str]] = set()
        """Tasks that are just becoming dead letters."""
        self._news: set[str] = set()
        """Tenants that were heard of since the worker began."""
        self._changed = asyncio.Event()

    # -- life --------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then take no new tasks, finish or hand back what is held."""
        services = self._services
        services.ports.definitions.on_change(self._on_definition)
        await services.ports.live.on_nudge(services.worker, self._on_nudge)
        background = [
            asyncio.create_task(self._heartbeat(), name="wpa-heartbeat"),
            asyncio.create_task(self._discover(), name="wpa-discover"),
            asyncio.create_task(self._deployments.run(), name="wpa-deployments"),
        ]
        try:
            await stop.wait()
            await self._drain(services.settings.grace_s)
        except asyncio.CancelledError:
            await self._drop()
            raise
        finally:
            self._triggers.abandon()
            self._remote.close()
            self._leaving.close()
            self._pace.close()
            for task in [*background, *self._chores]:
                task.cancel()
            await asyncio.gather(*background, *self._chores, return_exceptions=True)

    async def follow(self, tenant: str, workflow: str) -> None:
        """Return when this worker has set up what the deployed version starts by itself, or soon after."""
        await self._deployments.follow(tenant, workflow)

    @property
    def busy(self) -> int:
        """How many executions are being driven right now."""
        return self._driving

    async def _drain(self, grace_s: float) -> None:
        self._draining = True
        self._pace.close()
        log.info("draining: %d executions under way, %d tasks handed back", self._driving, len(self._inbox))
        await asyncio.gather(*(feed.close() for feed in self._feeds.values()))
        await self._triggers.close(grace_s * TRIGGERS_SHARE)
        for request in self._inbox.clear():
            self._let_go(request)
            request.lease.nak()
        self._suspects.close()
        self._remote.drain()
        running = {held.task for held in self._held.values() if held.task is not None} | self._remote.running
        if running:
            _, unfinished = await asyncio.wait(running, timeout=grace_s * CLEAN_UP_SHARE)
            if unfinished:
                log.warning("grace period over: %d executions are handed back unfinished", len(unfinished))
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished, timeout=grace_s * (1 - CLEAN_UP_SHARE) + 0.5)

    async def _drop(self) -> None:
        """Cancelled without a stop: begin nothing more, and hand back at once what is held."""
        self._draining = True
        self._suspects.close()
        self._remote.drain()
        for request in self._inbox.clear():
            self._let_go(request)
            request.lease.nak()
        running = {held.task for held in self._held.values() if held.task is not None} | self._remote.running
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=DROP_WITHIN_S)

    # -- tenants -----------------------------------------------------------------------------

    def _on_definition(self, tenant: str, workflow: str) -> None:
        if tenant and tenant not in self._tenants and not is_reserved(tenant):
            self._news.add(tenant)
            self._changed.set()

    async def _discover(self) -> None:
        """Open a feed for every tenant that has deployed something, or has anything waiting for us.

        A tenant whose executions all sleep, and that has deployed nothing (flows), shows when one's alarm
        has rung.
        """
        ports = self._services.ports
        served = set(self._services.settings.queue_names)
        quiet_until = 0.0
        while True:
            try:
                self._changed.clear()
                tenants = await ports.definitions.tenants() | await ports.tasks.tenants() | self._news
                if served:
                    tenants |= {tenant for tenant, queue in await ports.tasks.queues() if queue in served}
            except PlatformError as error:
                now = asyncio.get_running_loop().time()
                if now >= quiet_until:
                    quiet_until = now + WARN_EVERY_S
                    log.warning("can't look for tenants: %s", error)
                tenants = self._news
            for tenant in sorted(tenants - self._tenants):
                if not is_reserved(tenant):
                    await self._open(tenant)
            try:
                async with asyncio.timeout(DISCOVER_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _open(self, tenant: str) -> None:
        """Serve a tenant: what is asked, what rings, and the steps of the queues that this worker serves."""
        settings = self._services.settings
        sources = [Source(tenant), Source(tenant, "due")]
        sources += [Source(tenant, "steps", queue) for queue in settings.queue_names]
        for source in sources:
            if source in self._feeds:
                continue
            deliver = self._remote.take if source.kind == "steps" else self._on_task
            try:
                feed = await self._services.ports.tasks.open(source, deliver)
            except PlatformError as error:
                log.warning("can't serve %s yet: %s", source.subject, error)
                return
            self._feeds[source] = feed
            if source.kind == "steps":
                self._remote.serve(source, feed)
            else:
                # So many tasks may lie here unbegun for each feed: enough to stay busy, never a hoard.
                feed.request(max(CREDIT_MIN, settings.concurrency // max(1, len(self._feeds))))
        self._tenants.add(tenant)
        log.info("serving tenant %s", tenant)

    # -- tasks -------------------------------------------------------------------------------

    def _on_task(self, lease: Lease) -> None:
        key = (lease.tenant, lease.identity)
        held = self._held.get(key)
        if held is not None:
            # Delivered again while we hold it (a heartbeat came too late): the newest lease counts.
            held.request.lease = lease
            held.beat = self._beat
            self._credit(lease.source)
            return
        if self._suspects.holds(lease):
            self._credit(lease.source)
            return
        if self._draining:
            lease.nak()
            return
        if not self._suspects.takes(lease):
            self._admit(lease)

    def _admit(self, lease: Lease, poison: PoisonMessage | None = None) -> None:
        """Read a task, and drive it when it is its turn; not where there is ``poison``."""
        services, key = self._services, (lease.tenant, lease.identity)
        try:
            if poison is not None and not poison.readable:
                raise poison
            request = admit(lease, services.limits, services.ports.live)
        except TaskRejected as error:
            if key not in self._burying:  # delivered again before that was done
                self._burying.add(key)
                self._chore(self._bury(lease, error))
            self._credit(lease.source)
            return
        held = self._held[key] = _Held(request, self._beat)
        if not isinstance(request.task, Task | TimerDue):
            # A cancel must not wait until one of those that it may be meant for has ended.
            self._see_to(held, poison)
        elif poison is not None:
            self._see_to(held, poison)
            self._credit(lease.source)
        else:
            self._inbox.put(request)
            self._begin()

    def _begin(self) -> None:
        """Drive as many of the waiting requests as there is room for."""
        while self._pace.room(self._driving):
            request = self._inbox.take()
            if request is None:
                return
            self._see_to(self._held[(request.tenant, request.lease.identity)])
            self._credit(request.lease.source)

    def _see_to(self, held: _Held, poison: PoisonMessage | None = None) -> None:
        request = held.request
        if poison is not None:
            work = Driver(self._services, request, lambda: None).condemn(poison)
        elif isinstance(request.task, ScheduleDue):
            work = self._schedules.fired(request.lease, request.task.workflow_id)
        elif isinstance(request.task, Heard):
            work = self._triggers.retried(request.lease, request.task.origin)
        else:
            held.driver = Driver(self._services, request, partial(self._replace, held))
            work = held.driver.drive()
        held.task = self._services.loop.create_task(self._drive(held, work))
        self._driving += 1

    def _replace(self, held: _Held) -> None:
        """Give up a driver that is stuck in a step: a new one takes the execution over."""
        key = (held.request.tenant, held.request.lease.identity)
        if self._held.get(key) is not held:
            return
        held.given_up = True
        if self._draining:
            held.request.lease.nak()  # another worker takes it over
            self._done(held.request)
            return
        self._driving -= 1
        successor = self._held[key] = _Held(held.request, held.beat)
        self._see_to(successor)

    def _credit(self, source: Source) -> None:
        if not self._draining:
            self._feeds[source].request(1)

    async def _drive(self, held: _Held, work: Coroutine[Any, Any, None]) -> None:
        request = held.request
        name = f"{request.tenant}.{request.execution or request.task.workflow_id}"
        try:
            await work
        except TaskRejected as error:
            await self._bury(request.lease, error)
        except Superseded as error:
            log.warning("stopped driving: %s", error)  # no ack, no nak: the lease is another's now
        except CodeMissing as error:
            self._suspects.vouch(request.lease)
            await self._leaving.leave(request.lease, name, error)
        except PlatformError as error:
            log.warning("%s is handed back: %s", name, error)
            self._suspects.vouch(request.lease)
            request.lease.nak(HAND_BACK_S)
        except asyncio.CancelledError:
            if held.given_up or not self._draining:
                raise
            request.lease.nak()
        except Exception:
            log.exception("%s is handed back after an error of the engine's own; please report it", name)
            self._suspects.vouch(request.lease)
            request.lease.nak(HAND_BACK_S * 10)
        finally:
            if not held.given_up:
                self._done(request)

    def _done(self, request: Request) -> None:
        self._let_go(request)
        self._driving -= 1
        if not isinstance(request.task, Task | TimerDue):
            self._credit(request.lease.source)
        if not self._draining:
            self._begin()

    def _let_go(self, request: Request) -> None:
        held = self._held.pop((request.tenant, request.lease.identity), None)
        if held is not None:
            # Each holds the other: the garbage collector would have to find the whole execution.
            held.driver = None

    async def _bury(self, lease: Lease, error: TaskRejected) -> None:
        try:
            await reject(self._services, lease, error)
        finally:
            self._burying.discard((lease.tenant, lease.identity))

    def _chore(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # -- leases ------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Keep every lease in hand alive: those of waiting requests, too."""
        every = self._services.settings.ack_wait_s / (HEARTBEATS_PER_ACK_WAIT * BEATS_PER_HEARTBEAT)
        while True:
            await asyncio.sleep(every)
            self._beat = beat = self._beat + 1
            for held in self._held.values():
                if beat - held.beat >= BEATS_PER_HEARTBEAT:
                    held.request.lease.extend()
                    held.beat = beat
            if beat % BEATS_PER_HEARTBEAT == 0:
                self._remote.extend()
                self._suspects.extend()

    async def _on_nudge(self, tenant: str, execution: str, epoch: int, reason: str) -> None:
        """An execution has news: tell its driver; or stop it, where another worker has taken over."""
        for held in list(self._held.values()):
            request, driver, task = held.request, held.driver, held.task
            if driver is None or task is None:
                continue
            if not execution:  # what was said while the connection was lost, nobody heard
                driver.news(interrupt=True)
            if (request.tenant, request.execution) != (tenant, execution):
                continue
            if reason == "taken_over" and driver.is_older(epoch):
                log.warning("%s.%s was taken over, epoch %d: stopping here", tenant, execution, epoch)
                task.cancel()
            elif driver.epoch == epoch:
                driver.news(interrupt=reason == "cancel")
