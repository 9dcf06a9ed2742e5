from __future__ import annotations

from typing import Any

import pytest

from wpa import plan
from wpa.adapters.memory import VirtualClock
from wpa.engine.crew import ROSTER_KEPT_S, Crew
from wpa.errors import CodeDiffers, StepsMissing, Unavailable
from wpa.flows import flow, flow_of
from wpa.plan import Plan

MINE = frozenset({"core.noop", "t.mine"})


def a_plan(*steps: dict[str, Any]) -> Plan:
    numbered = [{"id": f"s{number}", **given} for number, given in enumerate(steps)]
    return plan.load({"id": "w", "version": "1", "steps": numbered})


class Bench:
    """Worker ``me``, and others that a test lets come and go."""

    def __init__(self) -> None:
        self.clock = VirtualClock(0)
        self.others: dict[str, list[str]] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.known = True
        self.away = False
        self.asked = 0
        self.crew = Crew("me", MINE.__contains__, self.clock, self.roster)

    async def roster(self) -> list[dict[str, Any]]:
        self.asked += 1
        if self.away:
            raise Unavailable("the server is away")
        rows = {"me": sorted(MINE), **self.others} if self.known else self.others
        return [
            {"worker": name, "step_types": types}
            | ({"codes": self.codes[name]} if name in self.codes else {})
            for name, types in rows.items()
        ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


OTHERS_PLAN = ({"uses": "t.mine"}, {"uses": "t.note"})


async def test_nobody_is_asked_where_nothing_is_missing(bench: Bench) -> None:
    await bench.crew.check(a_plan({"uses": "t.mine"}, {"uses": "core.sleep", "with": {"for": "1s"}}))
    assert bench.asked == 0


@pytest.mark.parametrize(
    "step",
    [
        {"uses": "t.note"},
        {"uses": "t.mine", "compensate": {"uses": "t.note"}},
        {"uses": "core.sleep", "with": {"for": "1s"}, "compensate": {"uses": "t.note"}},
    ],
)
async def test_a_plan_is_left_to_a_worker_that_has_all_it_needs(bench: Bench, step: dict[str, Any]) -> None:
    bench.others["able"] = ["core.noop", "t.mine", "t.note"]
    with pytest.raises(StepsMissing, match=r"w 1 needs t\.note"):
        await bench.crew.check(a_plan(step, {"uses": "t.mine"}))


async def test_what_a_queue_sends_elsewhere_need_not_be_here(bench: Bench) -> None:
    bench.others["gpu"] = ["t.note", "t.mine"]
    await bench.crew.check(a_plan({"uses": "t.note", "queue": "gpu", "compensate": {"uses": "t.note"}}))
    assert bench.asked == 0


async def test_it_is_driven_here_where_no_single_worker_has_all(bench: Bench) -> None:
    bench.others |= {"half": ["t.note"], "other half": ["t.mine"]}
    await bench.crew.check(a_plan(*OTHERS_PLAN))


async def test_an_abler_worker_that_has_just_come_is_seen_and_is_believed_in_for_a_while(
    bench: Bench,
) -> None:
    program = a_plan(*OTHERS_PLAN)
    await bench.crew.check(program)
    bench.others["able"] = ["t.mine", "t.note"]
    for _ in range(3):
        with pytest.raises(StepsMissing):
            await bench.crew.check(program)
    assert bench.asked == 2
    bench.others.clear()
    with pytest.raises(StepsMissing):
        await bench.crew.check(program)
    await bench.clock.advance(ROSTER_KEPT_S + 0.1)
    await bench.crew.check(program)


async def test_a_roster_that_has_forgotten_this_worker_or_can_not_be_read_says_nothing(bench: Bench) -> None:
    bench.known = False
    with pytest.raises(StepsMissing):
        await bench.crew.check(a_plan(*OTHERS_PLAN))
    bench.away = True
    with pytest.raises(Unavailable):
        await bench.crew.check(a_plan({"uses": "t.other"}))


async def test_a_flow_and_a_worker_without_a_roster_are_not_looked_into(bench: Bench) -> None:
    @flow("f")
    async def f() -> None: ...

    found = flow_of(f)
    assert found is not None
    await bench.crew.check(found)
    await Crew("me", MINE.__contains__, bench.clock, None).check(a_plan(*OTHERS_PLAN))
    assert bench.asked == 0


async def test_a_flow_is_left_to_a_worker_with_other_code_for_it(bench: Bench) -> None:
    @flow("f")
    async def f() -> None: ...

    found = flow_of(f)
    assert found is not None
    bench.others |= {"older release": [], "without it": [], "same": []}
    bench.codes |= {"me": {"f": found.hash}, "without it": {"g": "other"}, "same": {"f": found.hash}}
    await bench.crew.check_code(found)
    bench.others["newer"] = []
    bench.codes["newer"] = {"f": "other"}
    with pytest.raises(CodeDiffers, match="newer has other code"):
        await bench.crew.check_code(found)
    await bench.crew.check_code(a_plan(*OTHERS_PLAN))
    await Crew("me", MINE.__contains__, bench.clock, None).check_code(found)
