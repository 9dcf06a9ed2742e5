"""One simulated world: a server, a few workers that come and go, and time that passes when it is told to."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from tests.sim.chaos import CALM, Weather
from tests.sim.loop import SimClock, SimLoop
from tests.sim.node import ACK_WAIT_S, EPOCH_MS, SKEW_MS, SimNode
from tests.sim.plans import Version
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.adapters.memory.storage import Message, Stream
from wpa.engine.door import VERSION_HEADER
from wpa.kernel.program import Program
from wpa.model import events as ev
from wpa.model.codec import decode_event
from wpa.model.events import Event
from wpa.ports import Ports
from wpa.testing.journal import Failures

__all__ = ["TENANT", "Began", "Key", "SimWorld"]

TENANT: Final = "t"
EVENTS_MAX: Final = 2_000
"""So many events are many times what all executions of a run have."""

Key = tuple[str, str]
"""Of an execution: tenant and id."""


class Began(NamedTuple):
    """An attempt, as it was begun. ``at_ms`` by the server's clock."""

    worker: str
    tenant: str
    execution: str
    key: str
    attempt: int
    at_ms: int
    was_frozen: bool


class _Tasks(Stream):
    """The stream of tasks, which forgets those that were taken; of one kind, this one keeps a note."""

    def __init__(self, clock: SimClock) -> None:
        super().__init__(clock)
        self.children_cancelled: dict[tuple[Key, str], int] = {}
        """When a parent's word that it waits no more was stored last, by the child and the parent's id."""

    def append(self, subject: str, data: bytes, headers: dict[str, str], after: int | None = None) -> Message:
        stored = super().append(subject, data, headers, after)
        if b'"workflow_cancel"' in data:
            task = msgspec.json.decode(data)
            if parent := task.get("payload", {}).get("parent"):
                child = (subject.rpartition(".")[2], task["execution_id"])
                self.children_cancelled[child, parent["execution_id"]] = stored.stored_ms
        return stored


class SimWorld:
    """Everything in it follows from its seed.

    Args:
        seed: of the run.
        flows: the programs that are no plans, by workflow.
        weather: how often things go wrong; drawn by whoever makes the world.
    """

    def __init__(
        self, seed: int, flows: Mapping[str, Program] | None = None, weather: Weather = CALM
    ) -> None:
        self.chance = random.Random(seed)
        self.loop = SimLoop()  # type: ignore[abstract]  # what it lacks of a loop, nobody calls here
        self.flows = flows or {}
        self.clock = SimClock(self.loop, EPOCH_MS)
        self.server = MemoryServer(self.clock)
        self.server.tasks = self.tasks = _Tasks(self.clock)
        self.weather = weather
        self.skew_ms: int | None = None
        """So far are all workers' clocks ahead; None: each as chance has it."""
        self.skew_most_ms = SKEW_MS
        """So far any worker's clock was ever off, one way or the other."""
        self.faults: Counter[str] = Counter()
        """What went wrong, by kind."""
        self.nodes: list[SimNode] = []
        self.began: list[Began] = []
        self.accepted: dict[Key, str] = {}
        """The versions that executions are to run on, as whoever started them was told."""
        self.programs: dict[tuple[str, str, str], Program] = {}
        """What is deployed, by tenant, workflow and version."""
        self.undoable: dict[tuple[str, str, str], set[str]] = {}
        """Of each plan the steps that have a compensation."""
        self.once: dict[tuple[str, str, str], set[str]] = {}
        """Of each plan the steps that are run at most once."""
        self.ports: Ports = self.loop.run(open_ports(self.server, ack_wait_s=ACK_WAIT_S))
        """A connection to the server on which nothing goes wrong."""
        self.on_attempt: Callable[[SimNode, Began, int], None] | None = None
        """Told of each attempt that takes its time: where, which, and how many milliseconds."""
        self.has_queue = True
        """Whether there is a queue of steps to serve: workers that begin from now on do."""
        self.follows = True
        """Whether workers that begin from now on look for what is to start by itself."""
        self._failures: dict[str, Failures] = {}
        self._names = itertools.count(1)
        self._later: list[tuple[int, int, Callable[[], object]]] = []
        """By the loop's time, in nanoseconds."""
        self._numbers = itertools.count()
        self._calm = False

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    # -- definitions and workers -------------------------------------------------------------

    def deploy(self, versions: Iterable[Version], tenant: str = TENANT) -> None:
        """Deploy plans, for one tenant."""
        for version in versions:
            key = (tenant, version.stored.workflow, version.stored.version)
            self.programs[key] = version.program
            self.undoable[key] = version.undoable
            self.once[key] = version.once
            self.loop.run(self.ports.definitions.put(tenant, version.stored))

    def program(self, tenant: str, workflow: str, version: str) -> Program:
        """What a version is driven by; a flow has only the one that is installed."""
        return self.flows.get(workflow) or self.programs[tenant, workflow, version]

    def add_node(self, flows: Mapping[str, Program] | None = None) -> SimNode:
        """Another worker; with ``flows``, with other code than the rest."""
        node = SimNode(f"w{next(self._names)}", self, flows)
        if self._calm:
            node.be_calm()
        self.nodes.append(node)
        return node

    def kill(self, node: SimNode) -> None:
        """Kill a worker, if it is alive. Not once the bad day is over: perhaps nobody would take its place."""
        if not (node.dead or self._calm):
            node.die()
            self.on_death()

    def on_death(self) -> None:
        """A worker is dead: another takes its place, soon, or later, or never."""
        if self.chance.random() < 0.7:
            self.at(self.now_ms + self.chance.randrange(3_000), self._replace)

    def _replace(self) -> None:
        self.add_node()

    @property
    def has_stale(self) -> bool:
        """Whether any worker ever had other code than the rest."""
        return any(node.stale for node in self.nodes)

    @property
    def alive(self) -> list[SimNode]:
        return [node for node in self.nodes if not node.dead and not node.stop.is_set()]

    def be_calm(self) -> None:
        """The bad day is over."""
        self._calm, self.weather = True, CALM
        for node in self.nodes:
            node.be_calm()

    # -- the outside -------------------------------------------------------------------------

    def publish(self, task: Mapping[str, Any], tenant: str = TENANT, version: str = "") -> None:
        """Store a task; with ``version`` a start that was accepted for it, as the service's verb does."""
        headers = {}
        if version:
            headers[VERSION_HEADER] = self.accepted[tenant, task["execution_id"]] = version
        self.loop.run(self.ports.tasks.publish(tenant, msgspec.json.encode(task), headers))

    def latest(self, tenant: str, workflow: str) -> str:
        """The version of a plan that was deployed last."""
        return self.loop.run(self.ports.definitions.latest(tenant, workflow)) or ""

    def executions(self) -> list[Key]:
        """Those that have begun."""
        tokens = (subject.split(".") for subject in self.server.events.subjects)
        return sorted((tenant, execution) for _, _, tenant, execution in tokens)

    def journal(self, tenant: str, execution: str) -> list[tuple[int, Event]]:
        """The events with the moments at which they were stored, in milliseconds since the Unix epoch."""
        found = self.server.events.read(f"workflow.events.{tenant}.{execution}")
        return [(message.stored_ms, decode_event(message.data)) for message in found]

    def left(self) -> list[Key]:
        """The executions that have not ended."""
        return [key for key in self.executions() if self._last_event(key).event not in ev.TERMINAL]

    def is_blocked(self, key: Key) -> bool:
        """Whether an execution can't go on with the code that there is."""
        return "blocked" in self._last_event(key).data

    def is_flow(self, key: Key) -> bool:
        """Whether an execution is driven by code, which a worker may not have."""
        return self._last_event(key).workflow_id in self.flows

    def waits_for(self, key: Key) -> set[str]:
        """The kinds of what an execution at rest waits for; none where it may be anything."""
        data = self._last_event(key).data
        return set() if "status" in data else {about["kind"] for about in data.get("waiting_for", ())}

    def _last_event(self, key: Key) -> Event:
        last = self.server.events.last(f"workflow.events.{key[0]}.{key[1]}")
        assert last is not None
        return decode_event(last.data)

    def redeliver(self) -> None:
        """The server takes a message for lost, though its holder is at work on it, and hands it out again."""
        leased = [(consumer, sequence) for consumer in self.server.consumers for sequence in consumer.leased]
        if leased:
            consumer, sequence = self.chance.choice(leased)
            self.faults["a task in two hands"] += 1
            self.loop.call_soon(consumer.nak, sequence, 0.0)

    # -- steps -------------------------------------------------------------------------------

    def failures(self, tenant: str, execution: str, key: str) -> int:
        """How many attempts are recorded as failed under an idempotency key."""
        found = self._failures.get(tenant)
        if found is None:
            found = self._failures[tenant] = Failures(self.server, tenant)
        return found.count(execution, key)

    async def make_attempt(self, node: SimNode, ctx: Any, ms: int) -> None:
        """Note an attempt, and let its time pass."""
        if node.dead:
            await self.loop.create_future()
        was_frozen = node.chaos.frozen_until_ns > self.loop.now_ns - int(3e9 * ACK_WAIT_S)
        await node.chaos.thaw()
        began = Began(
            worker=node.name,
            tenant=ctx.tenant,
            execution=ctx.execution,
            key=ctx.idempotency_key,
            attempt=ctx.attempt,
            at_ms=self.now_ms,
            was_frozen=was_frozen,
        )
        self.began.append(began)
        if ms:
            if self.on_attempt is not None:
                self.on_attempt(node, began, ms)
            await self.loop.sleep(ms / 1000)
        await node.chaos.thaw()

    # -- time --------------------------------------------------------------------------------

    def at(self, moment_ms: int, action: Callable[[], object]) -> None:
        """Do something at a moment, in milliseconds since the Unix epoch."""
        heapq.heappush(self._later, (self.clock.ns_of(moment_ms), next(self._numbers), action))

    def until(self, limit_ms: int) -> None:
        """Let time pass; while nobody has a task in hand, straight to what comes next."""
        loop, later = self.loop, self._later
        limit_ns = self.clock.ns_of(limit_ms)
        while True:
            loop.run_ready()
            assert self.server.events.last_sequence < EVENTS_MAX, "events come without end"
            if later and later[0][0] <= loop.now_ns:
                heapq.heappop(later)[2]()
                continue
            moment = self._next_ns()
            if moment is None or moment > limit_ns:
                loop.advance_to(limit_ns)
                return
            loop.advance_to(moment)

    def _next_ns(self) -> int | None:
        """The next moment at which anything can happen; None: nothing comes by itself.

        While a worker has a task in hand, or a call under way, its timers count. At rest, only the server's
        alarms do, and what comes from outside: a worker with nothing in hand may as well sleep through it.
        """
        moment = self._later[0][0] if self._later else None
        server = self.server
        other: int | None = None
        if not (server.tasks.is_empty and server.due.is_empty) or self._has_calls_under_way():
            other = self.loop.next_ns
        elif (alarm := server.schedules.next_ms) is not None:
            other = self.clock.ns_of(alarm) if alarm > self.now_ms else self.loop.next_ns
        if moment is None or other is None:
            return moment if other is None else other
        return min(moment, other)

    def _has_calls_under_way(self) -> bool:
        return any(node.chaos.pending and not node.dead for node in self.nodes)

    def close(self) -> None:
        """End everything, and leave nothing behind."""
        for node in self.nodes:
            if not node.dead:
                node.die()
        self.loop.allow_more()
        with suppress(AssertionError):  # what comes to no end is what the run has failed with
            self._end_all()
        self.loop.close()

    def _end_all(self) -> None:
        loop = self.loop
        for _ in range(100):
            loop.run_ready()
            if not loop.unfinished:
                return
            for task in loop.unfinished:
                task.cancel()
            loop.run_ready()
            if loop.next_ns is not None:
                loop.advance_to(loop.next_ns)
