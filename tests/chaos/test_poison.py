"""What ends every worker that takes it: a few of them it does end, and then it is put aside, and says why."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.site import CrashWorker, Site
from tests.e2e.processes import Wpa
from tests.waiting import patiently, until
from wpa.client import Client

LEASE_S = 0.5
AT_LAST_S = 180.0
"""A worker takes its time to start, and several do."""
INNOCENTS = 60
DEATHS_MAX = 4
"""Three workers end at it; one more may be ended by what it had in hand when it was told to."""

FLOWS = """
import asyncio
import ctypes
import re
from pathlib import Path

from wpa import call, flow, signal, step

@step("poison.wait")
async def wait(path: str) -> str:
    while not Path(path).exists():
        await asyncio.sleep(0.1)
    return "done"

@flow("in_hand")
async def in_hand(path: str) -> str:
    return await call("poison.wait", path=path)

def crash():
    if not Path({mended!r}).exists():
        ctypes.string_at(0)

@flow("at_once")
async def at_once() -> str:
    crash()
    return "went on"

@flow("told")
async def told() -> str:
    await signal("go")
    crash()
    return "went on"

@flow("after_a_step")
async def after_a_step() -> str:
    await call("core.noop")
    crash()
    return "went on"

@flow("held")
async def held() -> str:
    await signal("go")
    re.match("(a+)+$", "a" * 60 + "b")
    return "never"

@flow("good")
async def good(rounds: int) -> int:
    for _ in range(rounds):
        await signal("tick")
        await call("core.noop")
    return rounds
"""


class Supervisor:
    """Starts a worker again whenever it has ended."""

    def __init__(self, start: Callable[[], Wpa | CrashWorker]) -> None:
        self._start = start
        self.deaths = 0

    async def keep(self) -> None:
        while True:
            try:
                worker = await asyncio.to_thread(self._start)
            except RuntimeError:  # it has ended before it could say that it was ready
                self.deaths += 1
                continue
            while _is_alive(worker):
                await asyncio.sleep(0.05)
            self.deaths += 1


def _is_alive(worker: Wpa | CrashWorker) -> bool:
    return worker.alive if isinstance(worker, CrashWorker) else worker.process.poll() is None


@asynccontextmanager
async def supervised(site: Site, flows: Path, command: bool = False) -> AsyncIterator[Supervisor]:
    """A worker that serves the flows and is started again and again, by its command, or forked."""
    env = {"WPA_FLOWS": str(flows), "WPA_ACK_WAIT_S": str(LEASE_S)}
    start = site.start_worker if command else site.start_crashing
    supervisor = Supervisor(lambda: start(env=env))
    keeping = asyncio.create_task(supervisor.keep())
    try:
        yield supervisor
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    """A file that, once it is there, mends the flows."""
    return tmp_path / "mended"


@pytest.fixture
def flows(tmp_path: Path, mended: Path) -> Path:
    path = tmp_path / "poison_flows.py"
    path.write_text(FLOWS.format(mended=str(mended)))
    return path


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site") as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    async with await Client.connect(site.url, "bad") as client:
        yield client


@asynccontextmanager
async def neighbours(url: str, name: str = "good") -> AsyncIterator[Client]:
    """Another tenant's execution, under way from before to after whatever is done within."""
    async with await Client.connect(url, "good") as good:
        await patiently(lambda: good.start("good", {"rounds": 3}, execution_id=name))
        await patiently(lambda: good.signal(name, "tick"))
        yield good
        for _ in range(2):
            await patiently(lambda: good.signal(name, "tick"))
        done = await patiently(lambda: good.result(name, timeout_s=30), AT_LAST_S)
        assert (done["status"], done["output"]) == ("COMPLETED", 3)


@pytest.mark.timeout(300)
async def test_a_start_that_ends_its_workers_becomes_a_dead_letter(
    site: Site, client: Client, flows: Path, mended: Path
) -> None:
    async with supervised(site, flows, command=True) as supervisor, neighbours(site.url):
        await patiently(lambda: client.start("at_once", {}, execution_id="bad"))
        (letter,) = await until(lambda: patiently(lambda: client.dlq_list(5), AT_LAST_S), AT_LAST_S)
        assert letter["code"] == "poison_message"
        assert re.search(
            r"handed out 4 times, .*SIGSEGV.*; the log of worker \S+ says where", letter["message"]
        )
        assert 1 <= supervisor.deaths <= DEATHS_MAX
        deaths = supervisor.deaths

        mended.touch()
        await patiently(lambda: client.dlq_retry(letter["sequence"]))
        done = await patiently(lambda: client.result("bad", timeout_s=30), AT_LAST_S)
        assert (done["status"], done["output"]) == ("COMPLETED", "went on")
        assert supervisor.deaths == deaths


async def comes_to_be_blocked(client: Client) -> dict[str, Any]:
    async def status() -> Any:
        status = await patiently(lambda: client.status("bad"), AT_LAST_S)
        return status if status["blocked"] else None

    return await until(status, AT_LAST_S)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("flow", ["told", "after_a_step"])
async def test_an_execution_that_ends_its_workers_is_blocked_until_it_is_mended(
    site: Site, client: Client, flows: Path, mended: Path, flow: str
) -> None:
    async with supervised(site, flows) as supervisor, neighbours(site.url):
        await patiently(lambda: client.start(flow, {}, execution_id="bad"))
        if flow == "told":
            await patiently(lambda: client.signal("bad", "go", id="go"))
        status = await comes_to_be_blocked(client)
        assert (status["status"], status["blocked"]["type"]) == ("WAITING", "WorkerLost")
        assert "handed out" in status["blocked"]["message"]
        assert 1 <= supervisor.deaths <= DEATHS_MAX
        deaths = supervisor.deaths

        async def blocked_times(times: int) -> None:
            async def count() -> bool:
                return sum("blocked" in event["data"] for event in await client.history("bad")) == times

            await until(count)

        await client.signal("bad", "more")
        await blocked_times(2)
        await client.resume("bad")
        await blocked_times(3)
        assert supervisor.deaths == deaths, "whoever tells it something, tries it, or looks at it, lives"
        assert not await client.dlq_list(5)

        mended.touch()
        await client.resume("bad")
        done = await client.result("bad", timeout_s=30)
        assert (done["status"], done["output"]) == ("COMPLETED", "went on")
        assert supervisor.deaths == deaths


@pytest.mark.timeout(300)
async def test_an_execution_that_holds_its_workers_is_blocked(
    site: Site, client: Client, flows: Path
) -> None:
    async with supervised(site, flows) as supervisor, neighbours(site.url):
        await patiently(lambda: client.start("held", {}, execution_id="bad"))
        await patiently(lambda: client.signal("bad", "go", id="go"))
        status = await comes_to_be_blocked(client)
        assert status["blocked"]["type"] == "WorkerLost"
        assert 1 <= supervisor.deaths <= DEATHS_MAX


@pytest.mark.timeout(300)
async def test_those_that_were_in_the_same_hands_go_on(
    site: Site, client: Client, flows: Path, tmp_path: Path
) -> None:
    released = tmp_path / "released"
    async with supervised(site, flows) as supervisor, await Client.connect(site.url, "good") as good:
        names = [f"good-{number}" for number in range(INNOCENTS)]
        for name in names:
            await patiently(lambda n=name: good.start("in_hand", {"path": str(released)}, execution_id=n))
        await until(lambda: patiently(lambda: all_run(good, names)), AT_LAST_S)
        await patiently(lambda: client.start("at_once", {}, execution_id="bad"))
        await until(lambda: patiently(lambda: client.dlq_list(5), AT_LAST_S), AT_LAST_S)
        assert 1 <= supervisor.deaths <= DEATHS_MAX
        released.touch()
        ended = await asyncio.gather(
            *(patiently(lambda n=name: good.result(n, timeout_s=60), AT_LAST_S) for name in names)
        )
        assert {done["status"] for done in ended} == {"COMPLETED"}
        assert not await good.dlq_list(5)
        assert supervisor.deaths <= DEATHS_MAX


async def all_run(client: Client, names: list[str]) -> bool:
    found = [await client.status(name) for name in names]
    return all(status["current_steps"] for status in found)
