"""The kernel's part in a test: settles what a flow wants, remembers it, and can begin again from memory."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from wpa.flows import FlowProgram, FlowRun, flow_of
from wpa.kernel.program import Continued, ExecutionInfo, Failed, Finished, Outcome, Settled, Waiting, Want
from wpa.model.events import Failure
from wpa.model.times import rfc3339

EPOCH_MS = 1_795_000_000_000


class Cancel(NamedTuple):
    """The run is told that its execution is to end."""

    at_ms: int
    compensate: bool


Answer = Callable[[Want], Any]


def echo(want: Want) -> Any:
    """The output of every step: what it is and what it was given."""
    return {"did": want.slot, **({"inputs": want.inputs} if want.inputs else {})}


class Table:
    """One execution of a flow: keep to the contract of :mod:`wpa.kernel.program`, in memory."""

    def __init__(self, declared: Any, data: Any = None, *, id: str = "x1", seed: str = "5eed") -> None:
        program = flow_of(declared)
        assert program is not None
        self.program: FlowProgram = program
        self.data, self.id, self.seed = data, id, seed
        self.now_ms = EPOCH_MS
        self.history: list[Settled | Cancel] = []
        self.recorded: list[Any] = []
        self.transcript: list[Any] = []
        """What each poll answered, in JSON: what a replay must repeat."""
        self.begin()

    # -- the run -----------------------------------------------------------------------------

    def begin(self, *, rebuilt: bool = False) -> None:
        self.wants: dict[str, Want] = {}
        self.opened_ms: dict[str, int] = {}
        info = ExecutionInfo(
            id=self.id,
            tenant="acme",
            workflow=self.program.id,
            version=self.program.version,
            started_at=rfc3339(EPOCH_MS),
            seed=self.seed,
            recorded=tuple(copy.deepcopy(self.recorded)),
            replayed=len(self.history),
            rebuilt=rebuilt,
        )
        self.run: FlowRun = self.program.begin(copy.deepcopy(self.data), {}, info)
        self.live = not rebuilt
        self.polled = 0
        self.poll()

    def poll(self) -> None:
        outcome: Outcome = self.run.poll()
        said = shown(outcome)
        if self.polled < len(self.transcript):
            assert said[:2] == self.transcript[self.polled][:2], "a replay wants something else"
            if not self.live:
                said[2] = self.transcript[self.polled][2]
        else:
            self.transcript.append(said)
        self.polled += 1
        self.outcome = outcome
        if isinstance(outcome, Waiting):
            for want in outcome.wants:
                assert want.slot not in self.wants
                self.wants[want.slot] = want
                self.opened_ms[want.slot] = self.now_ms
        if self.live:
            self.recorded += json.loads(json.dumps(outcome.recorded))
        for slot in outcome.dropped:
            del self.wants[slot]

    def crash(self) -> None:
        """Another worker takes over: a new run is told all that happened."""
        now_ms = self.now_ms
        wants = dict(self.wants)
        opened = dict(self.opened_ms)
        self.now_ms = EPOCH_MS
        self.begin(rebuilt=True)
        for told in self.history:
            self.tell(told)
        self.live = True
        self.now_ms = now_ms
        assert self.wants == wants
        self.opened_ms |= opened

    def tell(self, told: Settled | Cancel) -> None:
        self.now_ms = max(self.now_ms, told.at_ms)
        if isinstance(told, Cancel):
            self.run.cancel(told.at_ms, compensate=told.compensate)
        else:
            del self.wants[told.slot]
            self.run.settle(copy.deepcopy(told))
        self.poll()

    # -- what happens ------------------------------------------------------------------------

    def settle(self, slot: str, value: Any = None, error: Failure | None = None, after_ms: int = 10) -> None:
        self.now_ms += after_ms
        status = "completed" if error is None else "failed"
        value = json.loads(json.dumps(value))
        settled = Settled(slot=slot, status=status, value=value, error=error, at_ms=self.now_ms)
        self.history.append(settled)
        self.tell(settled)

    def cancel(self, *, compensate: bool = True, after_ms: int = 10) -> None:
        self.now_ms += after_ms
        told = Cancel(self.now_ms, compensate)
        self.history.append(told)
        self.tell(told)

    def ok(self, *slots: str) -> None:
        for slot in slots:
            self.settle(slot, echo(self.wants[slot]))

    def fail(self, slot: str, type: str = "Boom", message: str = "") -> None:
        self.settle(slot, error=Failure(type=type, message=message or f"{slot} failed"))

    def ring(self, slot: str) -> None:
        """A timer's moment has come."""
        wait = self.wants[slot].wait
        assert wait is not None
        assert wait.delay_ms is not None
        self.settle(slot, after_ms=max(0, self.opened_ms[slot] + wait.delay_ms - self.now_ms))

    def go(self, answer: Answer = echo, *, crashing: bool = False, newest: bool = False) -> Table:
        """Settle everything until the end: the oldest want first, or the newest."""
        while isinstance(self.outcome, Waiting):
            if crashing:
                self.crash()
            assert self.wants, "nothing is wanted, and it is not over"
            slots = [s for s, w in self.wants.items() if w.kind != "timer"] or sorted(
                self.wants, key=self.due
            )
            slot = slots[-1 if newest and self.wants[slots[-1]].kind != "timer" else 0]
            if self.wants[slot].kind == "timer":
                self.ring(slot)
                continue
            value = answer(self.wants[slot])
            if isinstance(value, Failure):
                self.settle(slot, error=value)
            else:
                self.settle(slot, value)
        return self

    def due(self, slot: str) -> int:
        wait = self.wants[slot].wait
        assert wait is not None
        return self.opened_ms[slot] + (wait.delay_ms or 0)

    # -- how it ended ------------------------------------------------------------------------

    @property
    def output(self) -> Any:
        assert isinstance(self.outcome, Finished), self.outcome
        return self.outcome.output

    @property
    def error(self) -> Failure:
        assert isinstance(self.outcome, Failed), self.outcome
        return self.outcome.error

    @property
    def continued(self) -> Any:
        assert isinstance(self.outcome, Continued), self.outcome
        return self.outcome.input

    @property
    def slots(self) -> list[str]:
        return list(self.wants)


def shown(outcome: Outcome) -> list[Any]:
    """An outcome in a form that can be compared: wants or the end, drops, recorded values."""
    if isinstance(outcome, Waiting):
        return [[repr(want) for want in outcome.wants], list(outcome.dropped), list(outcome.recorded)]
    return [
        repr(msgspec.structs.replace(outcome, recorded=())),
        list(outcome.dropped),
        list(outcome.recorded),
    ]


def run(declared: Any, data: Any = None, answer: Answer = echo, **how: Any) -> Table:
    """Run a flow to its end, once as it is and once with a crash before every settlement; they must agree."""
    plain = Table(declared, data).go(answer, **how)
    crashed = Table(declared, data).go(answer, crashing=True, **how)
    assert crashed.transcript == plain.transcript
    return plain
