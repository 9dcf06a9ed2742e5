"""The adapters in memory give the same answers as the real ones, whatever is asked of them.

A hypothesis state machine does the same to both and compares. Positions and revisions are numbers of
a whole stream, which on the real server others use too, so they are compared by what they stand for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.contract.test_journal import event
from tests.servers import NatsServer
from wpa.adapters import memory
from wpa.adapters.nats import open_ports
from wpa.errors import Conflict
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition

EXECUTIONS = st.sampled_from(["a", "b", "A", "a-b", "a_b"])
KINDS = st.sampled_from(["schedule", "pause"])
VERSIONS = st.sampled_from(["1", "2"])
# Which of the numbers seen so far is expected: the last one, none, an older one, one that never was.
EXPECTED = st.sampled_from(["last", "last", "last", "none", "older", "never"])


class Pair:
    """A memory server and a real one, and a loop to talk to both from tests that aren't async."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.memory: Ports = self.run(memory.open_ports())
        self.nats: Ports = self.run(open_ports(url, worker="pair"))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def both(self, one: Awaitable[Any], other: Awaitable[Any]) -> tuple[Any, Any]:
        async def ask() -> tuple[Any, Any]:
            return await asyncio.gather(one, other, return_exceptions=True)

        first, second = self.run(ask())
        for outcome in (first, second):
            if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict):
                raise outcome
        return first, second

    def close(self) -> None:
        self.run(self.memory.aclose())
        self.run(self.nats.aclose())
        self.loop.close()


@pytest.fixture
def pair(nats_server: NatsServer) -> Iterator[Pair]:
    pair = Pair(nats_server.url)
    yield pair
    pair.close()


Numbers = tuple[int, int]
"""What stands for the same place, in memory and on the server."""


def pick(seen: list[Numbers], which: str) -> Numbers:
    if which == "never":
        return (10**9, 10**9)
    if which == "none" or not seen:
        return (0, 0)
    return seen[-1] if which == "last" else seen[len(seen) // 2]


class SameAnswers(RuleBasedStateMachine):
    """Journals, snapshots, records and definitions, asked of ``pair``."""

    pair: Pair

    @initialize()
    def begin(self) -> None:
        self.tenant = f"t-{uuid.uuid4().hex[:16]}"
        self.positions: dict[str, list[Numbers]] = defaultdict(list)
        self.revisions: dict[str, list[Numbers]] = defaultdict(list)
        self.records: dict[tuple[str, str], list[Numbers]] = defaultdict(list)
        self.count = 0

    def agree(self, seen: list[Numbers], outcome: tuple[Any, Any]) -> None:
        one, other = outcome
        assert isinstance(one, Conflict) == isinstance(other, Conflict), (one, other)
        if not isinstance(one, Conflict):
            if seen:
                assert one > seen[-1][0]
                assert other > seen[-1][1]
            seen.append((one, other))

    @rule(execution=EXECUTIONS, which=EXPECTED)
    def append(self, execution: str, which: str) -> None:
        seen = self.positions[execution]
        self.count += 1
        fact = event(self.tenant, self.count, execution)
        one, other = pick(seen, which)
        self.agree(
            seen,
            self.pair.both(
                self.pair.memory.journal.append(fact, one), self.pair.nats.journal.append(fact, other)
            ),
        )

    @rule(execution=EXECUTIONS, which=EXPECTED)
    def read(self, execution: str, which: str) -> None:
        one, other = pick(self.positions[execution], which)
        ours, theirs = self.pair.both(
            self.pair.memory.journal.read(self.tenant, execution, one),
            self.pair.nats.journal.read(self.tenant, execution, other),
        )
        assert [found for _, found in ours] == [found for _, found in theirs]
        places = list(zip((place for place, _ in ours), (place for place, _ in theirs), strict=True))
        assert places == [seen for seen in self.positions[execution] if seen[0] > one]

    @rule(most=st.integers(1, 6))
    def recent(self, most: int) -> None:
        """Look back to the beginning."""
        one = other = 0
        while True:
            (ours, one), (theirs, other) = self.pair.both(
                self.pair.memory.journal.recent(self.tenant, most, one),
                self.pair.nats.journal.recent(self.tenant, most, other),
            )
            assert [event for _, event in ours] == [event for _, event in theirs]
            assert other or not one
            if not one or not other:
                break

    @rule(execution=EXECUTIONS, which=EXPECTED)
    def put(self, execution: str, which: str) -> None:
        seen = self.revisions[execution]
        self.count += 1
        data = b"%d" % self.count
        one, other = pick(seen, which)
        outcome = self.pair.both(
            self.pair.memory.snapshots.put(self.tenant, execution, data, one),
            self.pair.nats.snapshots.put(self.tenant, execution, data, other),
        )
        self.agree(seen, outcome)

    @rule(execution=EXECUTIONS)
    def get(self, execution: str) -> None:
        ours, theirs = self.pair.both(
            self.pair.memory.snapshots.get(self.tenant, execution),
            self.pair.nats.snapshots.get(self.tenant, execution),
        )
        seen = self.revisions[execution]
        assert (ours is None) == (theirs is None) == (not seen)
        if seen:
            assert ours[0] == theirs[0]
            assert (ours[1], theirs[1]) == seen[-1]

    @rule(kind=KINDS, name=EXECUTIONS, which=EXPECTED)
    def put_record(self, kind: str, name: str, which: str) -> None:
        seen = self.records[kind, name]
        self.count += 1
        data = b"%d" % self.count
        one, other = pick(seen, which)
        outcome = self.pair.both(
            self.pair.memory.records.put(self.tenant, kind, name, data, one),
            self.pair.nats.records.put(self.tenant, kind, name, data, other),
        )
        self.agree(seen, outcome)

    @rule(kind=KINDS)
    def list_records(self, kind: str) -> None:
        ours, theirs = self.pair.both(
            self.pair.memory.records.list(self.tenant, kind), self.pair.nats.records.list(self.tenant, kind)
        )
        assert sorted(ours) == sorted(theirs)
        assert {name for name, _ in ours} == {name for (of, name), seen in self.records.items()
                                              if of == kind and seen}  # fmt: skip

    @rule(workflow=EXECUTIONS, version=VERSIONS)
    def deploy(self, workflow: str, version: str) -> None:
        stored = StoredDefinition(
            workflow=workflow, version=version, hash=f"{workflow}{version}", kind="plan",
            document=msgspec.Raw(b"{}"), deployed_at="",
        )  # fmt: skip
        ours, theirs = self.pair.both(
            self.pair.memory.definitions.put(self.tenant, stored),
            self.pair.nats.definitions.put(self.tenant, stored),
        )
        assert ours == theirs

    @rule(workflow=EXECUTIONS, version=VERSIONS)
    def look_up(self, workflow: str, version: str) -> None:
        definitions, others = self.pair.memory.definitions, self.pair.nats.definitions
        ours, theirs = self.pair.both(
            definitions.latest(self.tenant, workflow), others.latest(self.tenant, workflow)
        )
        assert ours == theirs
        ours, theirs = self.pair.both(
            definitions.get(self.tenant, workflow, version), others.get(self.tenant, workflow, version)
        )
        assert (ours and ours.hash) == (theirs and theirs.hash)


def test_memory_and_server_give_the_same_answers(pair: Pair) -> None:
    run_state_machine_as_test(
        type("SameAnswersOfThePair", (SameAnswers,), {"pair": pair}),
        settings=settings(
            max_examples=50,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
