"""A small interpreter: plays a plan as the kernel would, and checks the run's side of the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wpa.kernel.program import ExecutionInfo, Failed, Finished, Outcome, Settled, Waiting, Want
from wpa.model.events import Failure
from wpa.plan import load
from wpa.plan.compile import Plan
from wpa.plan.run import PlanRun

INFO = ExecutionInfo(id="x1", tenant="t", workflow="p", version="1", started_at="2026-11-20T10:00:00.000Z")
Answer = Callable[[Want], Any]


def plan_of(*steps: dict[str, Any], **more: Any) -> Plan:
    return load({"id": "p", "version": "1", "steps": list(steps), **more})


def step(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "core.echo", "needs": list(needs), **more}


def boom(message: str = "boom", type: str = "Boom") -> Failure:
    return Failure(type=type, message=message)


class Player:
    """One run. ``open`` are the wants that are not settled, in the order in which they were wanted."""

    def __init__(self, plan: Plan, data: Any = None) -> None:
        self.plan = plan
        self.data = data or {}
        self.run = plan.begin(self.data, {}, INFO)
        self.open: dict[str, Want] = {}
        self.seen: set[str] = set()
        self.dropped: list[str] = []
        self.history: list[Settled] = []
        self.outcome: Outcome = Waiting()
        self.latest: list[Want] = []
        self._poll()

    def _poll(self) -> None:
        self.outcome = self.run.poll()
        self.latest = []
        for slot in self.outcome.dropped:
            assert slot in self.open, f"{slot} was dropped, but isn't open"
            del self.open[slot]
            self.dropped.append(slot)
        if not isinstance(self.outcome, Waiting):
            assert isinstance(self.outcome, Failed) or not self.open, f"ended, but {self.slots()} are open"
            return
        for want in self.outcome.wants:
            assert want.slot not in self.seen, f"{want.slot} is wanted twice"
            assert want.slot.partition(":")[0] == want.step
            self.seen.add(want.slot)
            self.open[want.slot] = want
            self.latest.append(want)

    def settle(self, slot: str, value: Any = None) -> Player:
        """Settle an open slot: a decision as it was decided, a fault as it is, else with ``value``."""
        want = self.open.pop(slot)
        if want.decision is not None:
            settled = Settled(slot=slot, status="decided", value=want.decision)
        elif want.fault is not None or isinstance(value, Failure):
            error = want.fault or value
            assert want.policy.on_error == "continue", "the kernel would have ended the execution"
            settled = Settled(slot=slot, status="failed", error=error)
        else:
            settled = Settled(slot=slot, status="completed", value=value)
        self.history.append(settled)
        self.run.settle(settled)
        self._poll()
        return self

    def play(
        self, answer: Answer = lambda want: want.inputs, pick: Callable[[int], int] = lambda n: 0
    ) -> Player:
        """Settle everything, in the order that ``pick`` (of how many) says."""
        while isinstance(self.outcome, Waiting):
            slots = list(self.open)
            assert slots, "nothing is open, and the run has not ended"
            slot = slots[pick(len(slots))]
            self.settle(slot, answer(self.open[slot]))
        return self

    @property
    def output(self) -> Any:
        assert isinstance(self.outcome, Finished), self.outcome
        return self.outcome.output

    @property
    def error(self) -> Failure:
        assert isinstance(self.outcome, Failed), self.outcome
        return self.outcome.error

    def slots(self) -> list[str]:
        return list(self.open)

    def rebuilt(self) -> Player:
        """The same run, made anew from its history as the kernel would."""
        again = Player(self.plan, self.data)
        for settled in self.history:
            assert settled.slot in again.open
            del again.open[settled.slot]
            again.history.append(settled)
            again.run.settle(settled)
            again._poll()
        return again


def begin(*steps: dict[str, Any], data: Any = None, **more: Any) -> Player:
    return Player(plan_of(*steps, **more), data)


def view(run: PlanRun) -> dict[str, str]:
    return {shown.step: shown.phase for shown in run.steps()}
