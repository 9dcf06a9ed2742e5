"""What a worker does with what may end it: whom it suspects, whom it has tried, and what it does with the condemned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import pytest

from tests.waiting import until
from wpa import plan
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.api_executions import execution_behind
from wpa.engine.loading import load
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.trials import Death, Result, Suspect
from wpa.engine.worker import Worker
from wpa.errors import Unavailable
from wpa.flows import call, flow, flow_of
from wpa.hooks import core
from wpa.hooks.steps import step, step_type_of
from wpa.kernel.program import Program
from wpa.model.limits import Limits
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition
from wpa.ports.steps import StepType
from wpa.ports.tasks import Lease
from wpa.settings import Settings

ACK_WAIT_S = 0.3
SUBJECT = "workflow.tasks.acme"
WAITS = {"id": "w", "version": "1", "steps": [{"id": "a", "uses": "core.wait", "with": {"signal": "go"}}]}
WORKS = {"id": "w", "version": "1", "steps": [{"id": "a", "uses": "t.work"}]}
DEAD = Death(how="SIGSEGV", admitted=True)
UNREADABLE = Death(how="SIGSEGV", admitted=False)


class Trials:
    """Says of each what it is told to, and remembers whom it tried."""

    def __init__(self) -> None:
        self.verdict: Callable[[], Death | None] = lambda: None
        self.tried: list[tuple[int, dict[str, Result]]] = []

    async def attend(self, lease: Lease, results: Mapping[str, Result] | None = None) -> Death | None:
        self.tried.append((lease.delivered, dict(results or {})))
        await asyncio.sleep(0.01)
        return self.verdict()

    async def try_out(self, suspect: Suspect) -> Death | None:
        self.tried.append((suspect.delivered, {}))
        return self.verdict()


class Room:
    def __init__(self) -> None:
        self.server = MemoryServer()
        self.trials = Trials()
        self.gate = asyncio.Event()
        self.begun = 0
        self.flows: dict[str, Program] = {}
        self._stop = asyncio.Event()

    async def open(self) -> None:
        self.ports = await open_ports(self.server, ack_wait_s=ACK_WAIT_S)

        @step("t.work")
        async def work() -> str:
            self.begun += 1
            await self.gate.wait()
            return "done"

        types = {found.name: found for found in map(step_type_of, [work, *core.wpa_steps()]) if found}

        class Catalog:
            def get(self, name: str) -> StepType | None:
                return types.get(name)

            def names(self) -> list[str]:
                return sorted(types)

        self.runner = StepRunner(Catalog(), self.ports.live, self.ports.clock, "w", threads=1, processes=1)

    async def deploy(self, document: dict[str, Any]) -> None:
        made = plan.load(document)
        stored = StoredDefinition(
            workflow="w",
            version="1",
            hash=made.hash,
            kind="plan",
            document=msgspec.Raw(msgspec.json.encode(document)),
            deployed_at="2026-11-22T00:00:00Z",
        )
        await self.ports.definitions.put("acme", stored)

    async def publish(self, data: Any) -> None:
        await self.ports.tasks.publish(
            "acme", data if isinstance(data, bytes) else msgspec.json.encode(data), {}
        )

    async def lose(self, times: int) -> None:
        """A worker takes the task, and is gone; so many times."""
        for _ in range(times):
            ports = await open_ports(self.server, ack_wait_s=ACK_WAIT_S)
            taken: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
            feed = await ports.tasks.open("acme", taken.set_result)
            feed.request(1)
            await asyncio.wait_for(taken, 10)
            await ports.aclose()

    def work(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._work(self.ports))

    async def _work(self, ports: Ports) -> None:
        trials: Any = self.trials
        settings = Settings(ack_wait_s=ACK_WAIT_S, grace_s=1)
        await Worker(
            Services(ports, self.runner, settings, Limits(), "w", flows=self.flows, trials=trials)
        ).run(self._stop)

    async def die_at_work(self) -> None:
        """A worker begins the step, and is gone."""
        before, ports = self.begun, await open_ports(self.server, ack_wait_s=ACK_WAIT_S)
        worker = asyncio.create_task(self._work(ports))
        await until(lambda: self.begun > before)
        await ports.aclose()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    async def letter(self) -> Any:
        (letter,) = await until(lambda: self.server.dead.read("workflow.dlq.acme"))
        return letter

    async def events(self) -> list[Any]:
        return [event for _, event in await self.ports.journal.read("acme", "x")]

    async def close(self, *workers: asyncio.Task[None]) -> None:
        self._stop.set()
        await asyncio.gather(*workers)
        self._stop = asyncio.Event()
        await self.runner.aclose()
        await self.ports.aclose()


@contextlib.asynccontextmanager
async def a_room(document: dict[str, Any] | None = None) -> AsyncIterator[Room]:
    room = Room()
    await room.open()
    await room.deploy(document or WAITS)
    yield room


def start() -> dict[str, Any]:
    return {"type": "workflow_start", "workflow_id": "w", "execution_id": "x"}


async def condemned(room: Room) -> asyncio.Task[None]:
    """A worker to which an execution comes that has ended three, and that ends what it is tried in, too."""
    await room.publish(start())
    await room.die_at_work()
    await room.lose(2)
    room.trials.verdict = lambda: DEAD
    return room.work()


@pytest.mark.parametrize(("lost", "tried"), [(0, []), (2, []), (3, [4])])
async def test_only_what_came_four_times_is_tried_and_then_taken_as_ever(lost: int, tried: list[int]) -> None:
    async with a_room() as room:
        await room.publish(start())
        await room.lose(lost)
        worker = room.work()
        await until(lambda: not room.server.tasks.read(SUBJECT))
        assert [delivered for delivered, _ in room.trials.tried] == tried
        assert [event.event for event in await room.events()] == ["workflow_started", "workflow_waiting"]
        await room.close(worker)


@pytest.mark.parametrize("death", [DEAD, UNREADABLE])
async def test_a_condemned_start_is_a_dead_letter_and_its_parent_is_told_where_it_can_be_read(
    death: Death,
) -> None:
    async with a_room() as room:
        room.trials.verdict = lambda: death
        await room.publish(start() | {"parent": {"execution_id": "above", "slot": "c"}})
        await room.lose(3)
        told: list[bytes] = []
        real = room.ports.tasks.publish

        async def publish(tenant: str, data: bytes, headers: dict[str, str]) -> int:
            told.append(data)
            return await real(tenant, data, headers)

        room.ports.tasks.publish = publish  # type: ignore[method-assign]
        worker = room.work()
        letter = await room.letter()
        assert letter.headers["Wpa-Code"] == "poison_message"
        assert "handed out 4 times" in letter.headers["Wpa-Reason"]
        assert "SIGSEGV" in letter.headers["Wpa-Reason"]
        assert [b'"REJECTED"' in data for data in told] == [True] * death.admitted
        assert not await room.events()
        await room.close(worker)


async def test_what_a_worker_hands_back_itself_is_not_suspected_there() -> None:
    async with a_room() as room:
        await room.publish({"type": "workflow_signal", "execution_id": "nobody", "payload": {"signal": "go"}})
        worker = room.work()
        await room.letter()  # after six tries
        assert not room.trials.tried
        await room.close(worker)


async def test_one_that_can_not_be_tried_now_is_tried_later() -> None:
    async with a_room() as room:
        answers = iter([True, False])

        def verdict() -> None:
            if next(answers):
                raise Unavailable("the server is away")

        room.trials.verdict = verdict
        await room.publish(start())
        await room.lose(3)
        worker = room.work()
        await until(lambda: not room.server.tasks.read(SUBJECT))
        assert [delivered for delivered, _ in room.trials.tried] == [4, 5]
        await room.close(worker)


async def test_a_condemned_execution_is_blocked_and_charged_and_goes_on_when_it_is_asked_for() -> None:
    async with a_room(WORKS) as room:
        worker = await condemned(room)

        async def last() -> Any:
            found = (await room.events())[-1]
            return found if "blocked" in found.data else None

        blocked = await until(last)
        assert blocked.data["blocked"]["type"] == "WorkerLost"
        assert "until" not in blocked.data, "nothing is tried again by itself"
        names = [event.event for event in await room.events()]
        assert names == ["workflow_started", "workflow_recovered", "workflow_waiting"]
        assert room.begun == 1

        room.trials.verdict = lambda: None
        room.gate.set()
        await room.publish({"type": "workflow_resume", "execution_id": "x"})

        async def ended() -> bool:
            return (await room.events())[-1].event == "workflow_completed"

        await until(ended)
        assert room.begun == 2
        await room.close(worker)


async def test_what_was_terminated_is_shown_without_a_run_of_its_code() -> None:
    async with a_room(WORKS) as room:
        worker = await condemned(room)
        for ask, comes in (("", "workflow_waiting"), ("workflow_terminate", "workflow_cancelled")):
            if ask:
                await room.publish({"type": ask, "execution_id": "x"})

            async def came(comes: str = comes) -> bool:
                return (await room.events())[-1].event == comes

            await until(came)
            loaded = await load(room.ports, "acme", "x")
            assert loaded is not None
            nothing: Any = None
            assert await execution_behind(nothing, loaded.state) == (None, None)
        assert len(room.trials.tried) == 1
        await room.close(worker)


async def test_a_result_that_is_condemned_is_not_recorded() -> None:
    async with a_room(WORKS) as room:
        await room.publish(start())
        for _ in range(3):
            await room.die_at_work()
        room.gate.set()
        verdicts = iter([None, DEAD])
        room.trials.verdict = lambda: next(verdicts)
        worker = room.work()

        async def blocked() -> bool:
            return "blocked" in (await room.events())[-1].data

        await until(blocked)
        assert room.trials.tried == [(4, {}), (4, {"a": Result(output="done")})]
        assert [event.event for event in await room.events()][-2:] == [
            "workflow_recovered",
            "workflow_waiting",
        ]
        assert "workflow_step_completed" not in [event.event for event in await room.events()]
        await room.close(worker)


@flow("f")
async def once() -> None:
    await call("t.work", at_most_once=True)


@flow("f")
async def other() -> None:
    await call("core.noop")


async def test_what_ran_when_its_worker_ended_is_lost_though_other_code_took_over() -> None:
    async with a_room() as room:
        room.flows = {"f": flow_of(once)}  # type: ignore[dict-item]
        await room.publish(start() | {"workflow_id": "f"})
        await room.die_at_work()
        room.flows = {"f": flow_of(other)}  # type: ignore[dict-item]
        worker = room.work()

        async def last() -> Any:
            return (await room.events())[-1]

        async def blocked() -> bool:
            return "blocked" in (await last()).data

        await until(blocked)
        await room.close(worker)
        room.flows = {"f": flow_of(once)}  # type: ignore[dict-item]
        room.gate.set()
        await room.open()
        worker = room.work()
        await room.publish({"type": "workflow_resume", "execution_id": "x"})

        async def failed() -> bool:
            return (await last()).event == "workflow_failed"

        await until(failed)
        assert (await last()).data["error"]["type"] == "OutcomeUnknown"
        assert room.begun == 1
        await room.close(worker)


async def test_what_is_interrupted_because_its_execution_is_blocked_is_lost() -> None:
    once = {"id": "a", "uses": "t.work", "at_most_once": True}
    wait = {"id": "b", "uses": "core.wait", "with": {"signal": "go"}}
    async with a_room({"id": "w", "version": "1", "steps": [once, wait]}) as room:
        worker = room.work()
        await room.publish(start())
        await until(lambda: room.begun)
        put, lost = room.ports.blobs.put, []

        async def lose(key: str, data: bytes) -> None:
            lost.append((key, data))

        room.ports.blobs.put = lose  # type: ignore[method-assign]
        payload = {"signal": "go", "payload": "x" * 100_000}
        await room.publish({"type": "workflow_signal", "execution_id": "x", "payload": payload})

        async def blocked() -> bool:
            return "blocked" in (await room.events())[-1].data

        await until(blocked)
        await put(*lost[0])
        room.gate.set()
        await room.publish({"type": "workflow_resume", "execution_id": "x"})

        async def ended() -> bool:
            return (await room.events())[-1].event in ("workflow_failed", "workflow_completed")

        await until(ended)
        assert room.begun == 1
        assert (await room.events())[-1].data["error"]["type"] == "OutcomeUnknown"
        await room.close(worker)
