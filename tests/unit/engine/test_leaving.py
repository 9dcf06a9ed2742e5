"""Tasks for code that some workers, or all of them, don't have."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import pytest

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine import leaving
from wpa.engine.leaving import REST_MAX_S
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.errors import Unavailable
from wpa.flows import FlowProgram, approval, flow, flow_of, signal
from wpa.hooks import core
from wpa.hooks.steps import step_type_of
from wpa.model.limits import Limits
from wpa.settings import Settings
from wpa.testing.loop import LoopClock, VirtualLoop

TENANT: Final = "acme"
PROMPT_S: Final = 6.0
"""A worker that has what is missing is seen, and gets its task, within so long."""
HOUR_S: Final = 3_600.0

Said = Callable[..., list[str]]
"""What the log has said of the execution, from a level on."""


@flow("deal", version="1")
async def deal() -> str:
    verdict = await approval("Is it?")
    return "yes" if verdict.approved else "no"


@flow("deal", version="2")
async def other_deal() -> str:
    return str(await signal("something else"))


@flow("prompt", version="1")
async def prompt() -> None:
    """Ends at once."""


@flow("nap", version="1")
async def nap() -> None:
    await asyncio.sleep(HOUR_S)


START: Final = {"type": "workflow_start", "workflow_id": "deal", "execution_id": "x1"}
ANSWER: Final = {
    "type": "workflow_answer",
    "execution_id": "x1",
    "metadata": {"user_id": "eva"},
    "payload": {"step": "approval", "approved": True},
}


def program(function: Any) -> FlowProgram:
    found = flow_of(function)
    assert found is not None
    return found


class Catalog:
    types: Final = {found.name: found for found in map(step_type_of, core.wpa_steps()) if found}

    def get(self, name: str) -> Any:
        return self.types.get(name)

    def names(self) -> list[str]:
        return sorted(self.types)


class Yard:
    """Workers that come and go, on a loop whose time passes only here."""

    def __init__(self) -> None:
        self._loop = VirtualLoop()
        self.server = MemoryServer(LoopClock(self._loop, 0))
        self._flows: dict[str, dict[str, FlowProgram]] = {}
        self._ends: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        self.is_away = False
        """Whether the roster can't be read."""

    async def roster(self) -> list[dict[str, Any]]:
        if self.is_away:
            raise Unavailable("the server is away")
        return [
            {
                "worker": name,
                "step_types": Catalog().names(),
                "flows": sorted(flows),
                "codes": {id: found.hash for id, found in flows.items()},
            }
            for name, flows in self._flows.items()
        ]

    def come(self, name: str, *functions: Any) -> None:
        """A worker with these flows takes tasks from now on."""
        self._on(self._come(name, {found.id: found for found in map(program, functions)}))

    async def _come(self, name: str, flows: dict[str, FlowProgram]) -> None:
        ports = await open_ports(self.server, ack_wait_s=2.5)
        runner = StepRunner(Catalog(), ports.live, ports.clock, name, threads=1, processes=1)
        settings = Settings(ack_wait_s=2.5, grace_s=1)
        services = Services(ports, runner, settings, Limits(), name, flows=flows, roster=self.roster)
        await services.library.publish_flows({}, name)
        self._flows[name] = flows
        stop = asyncio.Event()
        task = asyncio.create_task(Worker(services).run(stop))

        async def end() -> None:
            del self._flows[name]
            stop.set()
            await task
            await runner.aclose()
            await ports.aclose()

        self._ends[name] = end

    def go(self, name: str) -> None:
        """A worker stops, and is on no roster any more."""
        self._on(self._ends.pop(name)())

    def close(self) -> None:
        for name in list(self._ends):
            self.go(name)
        self._loop.close()

    def publish(self, task: dict[str, Any]) -> None:
        async def work() -> None:
            ports = await open_ports(self.server)
            await ports.tasks.publish(TENANT, json.dumps(task).encode(), {})
            await ports.aclose()

        self._on(work())

    def passes(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, no longer than ``until``. Whether that came."""

        async def work() -> bool:
            limit_ns = self._loop.now_ns + int(seconds * 1e9)
            while True:
                await self._loop.idle()
                if until() or self._loop.now_ns >= limit_ns:
                    return until()
                moment_ns = self._loop.next_ns
                self._loop.advance_to(limit_ns if moment_ns is None else min(moment_ns, limit_ns))

        return self._loop.run_until_complete(work())

    def _on(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        assert self.passes(60, task.done)
        task.result()

    def sent(self, task: dict[str, Any]) -> None:
        """A task is published, and dealt with."""
        self.publish(task)
        assert self.passes(10, lambda: self.server.tasks.is_empty)

    def ended(self) -> bool:
        events = self.server.events.read(f"workflow.events.{TENANT}.x1")
        return bool(events) and json.loads(events[-1].data)["event"] == "workflow_completed"


@pytest.fixture
def yard() -> Iterator[Yard]:
    yard = Yard()
    yield yard
    yard.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.DEBUG, "wpa.worker")

    def said(level: int = logging.DEBUG) -> list[str]:
        told = [record for record in caplog.records if "x1 " in record.getMessage()]
        return [record.getMessage() for record in told if record.levelno >= level]

    return said


@pytest.mark.parametrize("others", [(), (other_deal,)], ids=["gone", "changed"])
def test_what_no_worker_has_the_code_for_is_tried_ever_more_seldom_until_one_comes(
    yard: Yard, said: Said, others: tuple[Any, ...]
) -> None:
    yard.come("before", deal)
    yard.sent(START)
    yard.go("before")
    yard.come("after", *others)
    yard.publish(ANSWER)
    yard.passes(HOUR_S)
    assert 0 < len(said()) <= 10 + HOUR_S / REST_MAX_S
    (once,) = said(logging.WARNING)
    assert "x1 waits, for no worker can take it: " in once
    yard.come("mended", deal)
    assert yard.passes(PROMPT_S, yard.ended)


def test_a_start_of_a_flow_that_is_gone_waits_for_it(yard: Yard, said: Said) -> None:
    yard.come("before", prompt)
    yard.go("before")
    yard.come("after")
    yard.publish({**START, "workflow_id": "prompt"})
    yard.passes(HOUR_S)
    yard.come("also lacks it")
    yard.passes(PROMPT_S)
    assert len(said(logging.WARNING)) == 2, "once more when another came in vain"
    yard.come("mended", prompt)
    assert yard.passes(2 * PROMPT_S, yard.ended), "the two others may get it first, now and then"


def test_a_worker_that_stops_leaves_nothing_to_rest(yard: Yard) -> None:
    yard.come("before", prompt)
    yard.go("before")
    yard.come("after")
    yard.publish({**START, "workflow_id": "prompt"})
    yard.passes(10 * REST_MAX_S + 2)  # it has just begun to rest
    yard.go("after")
    yard.come("mended", prompt)
    assert yard.passes(1, yard.ended)


def test_an_alarm_of_a_flow_that_is_gone_waits_for_it(yard: Yard, said: Said) -> None:
    yard.come("before", nap)
    yard.sent({**START, "workflow_id": "nap"})
    yard.go("before")
    yard.come("after")
    yard.passes(2 * HOUR_S)
    assert len(said(logging.WARNING)) == 1
    yard.come("mended", nap)
    assert yard.passes(PROMPT_S, yard.ended)


def test_where_one_worker_has_the_flow_it_has_it_soon(yard: Yard, said: Said) -> None:
    yard.come("lacks it")
    yard.come("has it", prompt)
    for number in range(20):
        yard.publish({**START, "workflow_id": "prompt", "execution_id": f"x{number}"})
    assert yard.passes(PROMPT_S, lambda: yard.server.tasks.is_empty)
    assert yard.ended()
    assert said(logging.WARNING) == []


def test_what_is_too_much_to_keep_waits_for_the_end_of_its_rest(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "KEPT_BYTES_MAX", 100)
    yard.come("before", prompt)
    yard.go("before")
    yard.come("after")
    yard.publish({**START, "workflow_id": "prompt"})
    yard.passes(10 * REST_MAX_S + 2)  # it has just begun to rest
    yard.come("mended", prompt)
    assert not yard.passes(PROMPT_S, yard.ended)
    assert yard.passes(REST_MAX_S, yard.ended)


def test_without_a_roster_it_rests_all_the_same(yard: Yard, said: Said) -> None:
    yard.come("before", prompt)
    yard.go("before")
    yard.come("after")
    yard.is_away = True
    yard.publish({**START, "workflow_id": "prompt"})
    yard.passes(HOUR_S)
    assert 0 < len(said()) <= 10 + HOUR_S / REST_MAX_S
    yard.is_away = False
    yard.come("mended", prompt)
    assert yard.passes(PROMPT_S, yard.ended)
