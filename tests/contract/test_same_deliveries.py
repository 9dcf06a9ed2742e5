"""Workers are given the same by the adapters in memory as by the real ones, whatever they ask and answer.

As in ``test_same_answers.py``, a hypothesis state machine does the same to both and compares; here, tasks,
steps, alarms, dead letters, and the leases of all these.

Time is what the two don't share: the one in memory has a virtual clock, the real one the machine's, which may
be busy. So what is compared does not depend on how long anything takes:

* Leases last for ten minutes. In memory, these pass. On the real server, leases are ended as if they had
  (``NatsWorld.end_leases``): first what would have ended in the first half of that time, then the rest.
* What is put off comes at once, soon, or never. Soon is in the first half of a lease; for alarms, just after
  the calls that set and clear them, in one rule.
* An answer to a lease is sent, not awaited. Here, what it does is awaited.

Sources are queues, so they are compared in order. Only alarms may ring in any; and workers that compete are
given the same between them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import uuid
from collections.abc import Coroutine, Iterator
from typing import Any, Literal, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.contract.twin import Answer, Moment
from tests.contract.twins import AlarmChange, TooSlow, Twins
from tests.servers import NatsServer

EXAMPLES_ASKED = int(os.environ.get("SAME_EXAMPLES", "0"))

WORKERS = st.integers(0, 2)
QUEUES = st.sampled_from(["tasks", "tasks", "other", "steps"])
KINDS = st.sampled_from(["tasks", "tasks", "other", "steps", "due"])
COUNTS = st.integers(1, 4)
HEADERS = st.sampled_from([{}, {"Traceparent": "00-1"}, {"Wpa-Note": "a\r\nNats-Evil:  b"}])
TWICE = st.lists(st.sampled_from([False, False, True]), min_size=1, max_size=4)
"""Of each message, whether it is published twice."""
LATELY = st.integers(0, 15)
"""Of what was delivered or buried, which: 0 is the last."""
ANSWERS = st.lists(
    st.tuples(LATELY, st.sampled_from(["ack", "ack", "now", "soon", "never", "extend"])), max_size=6
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["x1.wake", "x1.start", "x2.wake"]),
        st.sampled_from(["soon", "soon", "never", "clear"]),
    ),
    max_size=4,
)


@pytest.fixture
def twins(nats_server: NatsServer) -> Iterator[Twins]:
    twins = Twins(nats_server.url)
    yield twins
    twins.close()


class SameDeliveries(RuleBasedStateMachine):
    """Tasks, steps, alarms and their leases, asked of ``twins``."""

    twins: Twins

    @initialize()
    def begin(self) -> None:
        self.is_over = False
        self.act(self.twins.begin(f"t-{uuid.uuid4().hex[:16]}"))

    def act(self, act: Coroutine[Any, Any, None]) -> None:
        """Do it to both, and compare; nothing any more, once the machine was too slow to compare anything."""
        if self.is_over:
            act.close()
            return
        try:
            self.twins.run(act)
        except TooSlow:
            self.is_over = True

    # Of the rules, hypothesis leaves some out in each example, so each is to do something without the others.

    @rule(kind=QUEUES, headers=HEADERS, twice=TWICE, number=WORKERS, wanted=st.integers(0, 4))
    def publish(
        self, kind: str, headers: dict[str, str], twice: list[bool], number: int, wanted: int
    ) -> None:
        for each in twice:
            self.act(self.twins.publish(kind, headers, twice=each))
        if wanted:
            self.act(self.twins.fetch(number, kind, wanted))

    @rule(number=WORKERS, kind=KINDS, count=COUNTS, answers=ANSWERS)
    def fetch(self, number: int, kind: str, count: int, answers: list[tuple[int, Answer]]) -> None:
        self.act(self.twins.fetch(number, kind, count))
        self.answer(answers)

    @rule(kind=KINDS, count=COUNTS, answers=ANSWERS)
    def compete(self, kind: str, count: int, answers: list[tuple[int, Answer]]) -> None:
        self.act(self.twins.compete(kind, count))
        self.answer(answers)

    @rule(changes=CHANGES, number=WORKERS, kind=KINDS, wanted=st.integers(0, 4), answers=ANSWERS)
    def pass_time(
        self,
        changes: list[AlarmChange],
        number: int,
        kind: str,
        wanted: int,
        answers: list[tuple[int, Answer]],
    ) -> None:
        self.act(self.twins.pass_time(changes))
        if wanted:
            self.act(self.twins.fetch(number, kind, wanted))
        self.answer(answers)

    @rule(number=WORKERS, answers=ANSWERS)
    def die(self, number: int, answers: list[tuple[int, Answer]]) -> None:
        self.act(self.twins.die(number))
        self.answer(answers)

    @rule(kind=KINDS, number=WORKERS, rings=st.sampled_from([False, False, False, True]))
    def hang_up(self, kind: str, number: int, rings: bool) -> None:
        self.act(self.twins.hang_up(kind))
        if rings:
            self.act(self.twins.ring("x1.wake", "past"))
            self.act(self.twins.fetch(number, "due", 1))

    @rule(count=COUNTS, headers=HEADERS, limit=COUNTS, which=LATELY)
    def bury(self, count: int, headers: dict[str, str], limit: int, which: int) -> None:
        for _ in range(count):
            self.act(self.twins.bury(headers))
        self.act(self.twins.read_letters(limit))
        self.act(self.twins.discard(which))
        self.act(self.twins.compare_held())

    def answer(self, answers: list[tuple[int, Answer]]) -> None:
        for which, answer in answers:
            self.act(self.twins.answer(which, answer))

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.act(self.twins.compare_all())


def test_workers_are_given_the_same(twins: Twins) -> None:
    run_state_machine_as_test(
        type("SameDeliveriesOfTheTwins", (SameDeliveries,), {"twins": twins}),
        settings=settings(
            max_examples=EXAMPLES_ASKED or 12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # What one of the two does not do is waited for in vain, each time: too slow to be made shorter.
            phases=[phase for phase in Phase if phase is not Phase.shrink],
        ),
    )


@pytest.mark.parametrize("dies", [False, True])
def test_every_two_answers_to_a_message_come_to_the_same(twins: Twins, tenant: str, dies: bool) -> None:
    """Worker 0 holds all until its leases end. Then worker 1 gets the tasks, and nobody the steps."""
    pairs = list(itertools.product(get_args(Answer), repeat=2))
    tasks = [(pair, by) for by in ((0, 1), (1, 0), (1, 1)) for pair in pairs]

    async def cross() -> None:
        await twins.begin(tenant)
        for kind, count in (("tasks", len(tasks)), ("steps", len(pairs))):
            for _ in range(count):
                await twins.publish(kind, {}, twice=False)
            await twins.fetch(0, kind, count)
        await twins.pass_time([])
        if dies:
            await twins.die(0)
        for number, pair in enumerate(pairs):
            for answer in pair:
                await twins.answer(len(pairs) - 1 - number, answer)
        await twins.fetch(1, "tasks", len(tasks))
        for number, (pair, by) in enumerate(tasks):
            for answer, worker in zip(pair, by, strict=True):
                delivery = number if worker == 0 else len(tasks) + len(pairs) + number
                await twins.answer(2 * len(tasks) + len(pairs) - 1 - delivery, answer)
        await twins.compare_all()

    twins.run(cross())


def test_every_two_changes_of_an_alarm_come_to_the_same(twins: Twins, tenant: str) -> None:
    moments: list[Moment | Literal["clear"]] = ["soon", "never", "clear"]

    async def cross(tenant: str) -> None:
        await twins.begin(tenant)
        for first in moments:
            names = {f"{first}-{second}.wake": second for second in moments}
            await twins.pass_time([*((name, first) for name in names), *names.items()])
        await twins.compare_all()

    async def try_to() -> bool:
        with contextlib.suppress(TooSlow):
            await cross(f"{tenant}-{next(tries)}")
            return True
        return False

    tries = itertools.count()
    assert any(twins.run(try_to()) for _ in range(5)), "the machine is too busy, again and again"
