"""Every example does what its description says, on a real server and real workers.

All of them run at once; while everything is killed, they do in ``test_any_moment.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import wpa_orders
from nats.aio.msg import Msg

from tests.e2e.asking import comes_to
from tests.e2e.cases import CASES, CHARGES, FLOWS, PLANS, Body, Case, act, begin, charges, publish
from tests.e2e.processes import Wpa, run_wpa
from tests.servers import NatsServer
from tests.waiting import PATIENCE_S
from wpa.client import Client
from wpa.client.connecting import flush


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    wpa_orders.seed(path)
    return path


@pytest.fixture(scope="module")
def examples_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("examples") / "nats")
    server.start()
    yield server
    server.stop()


def start_worker(url: str, log: Path, shop: Path, *more: str) -> Wpa:
    flows = [f"--flows={path}" for path in FLOWS]
    return Wpa("worker", "--nats", url, *flows, *more, log=log, env={"WPA_SHOP_DB": str(shop)}).wait_ready()


@pytest.fixture(scope="module", autouse=True)
def worker(
    examples_server: NatsServer, tmp_path_factory: pytest.TempPathFactory, shop: Path
) -> Iterator[Wpa]:
    folder = tmp_path_factory.mktemp("worker")
    worker = start_worker(examples_server.url, folder / "worker.log", shop)
    done = run_wpa("deploy", *map(str, PLANS), url=examples_server.url)
    assert done.returncode == 0, done.stderr
    yield worker
    assert worker.stop() == 0


@pytest.fixture
async def client(examples_server: NatsServer) -> AsyncIterator[Client]:
    async with await Client.connect(examples_server.url) as client:
        yield client


def test_every_example_is_a_case() -> None:
    flows = {name for path in FLOWS for name in re.findall(r'@flow\("(.+)"\)', path.read_text())}
    plans = {json.loads(path.read_text())["id"] for path in PLANS}
    assert flows | plans == {case.workflow for case in CASES.values()}


async def test_each_ends_as_it_says(
    client: Client, examples_server: NatsServer, shop: Path, tmp_path: Path
) -> None:
    async def run(name: str, case: Case) -> tuple[str, Body]:
        await begin(client, name, case)
        await act(client, name, case)
        return name, await client.result(name, timeout_s=PATIENCE_S)

    async def a_worker_for_the_queue() -> None:
        (waiting,) = (await comes_to(client, "scene", "WAITING"))["waiting_for"]
        assert (waiting["kind"], waiting["step"], waiting["name"]) == ("remote", "render", "gpu")
        gpu = await asyncio.to_thread(
            start_worker, examples_server.url, tmp_path / "gpu.log", shop, "--queue", "gpu"
        )
        await client.result("scene", timeout_s=PATIENCE_S)
        assert await asyncio.to_thread(gpu.stop) == 0

    async with listening(examples_server, "workflow.emit.default.readings.s1") as emitted:
        *ended, _ = await asyncio.gather(
            *(run(name, case) for name, case in CASES.items()), a_worker_for_the_queue()
        )
        message = await asyncio.wait_for(emitted.get(), PATIENCE_S)
    assert json.loads(message.data) == {"value": 3.5}
    for name, status in ended:
        case = CASES[name]
        assert (name, status["status"], status["output"]) == (name, case.status, case.output), status["error"]
    for order, booked in CHARGES.items():
        assert (order, charges(shop, order)) == (order, booked)


@contextlib.asynccontextmanager
async def listening(server: NatsServer, subject: str) -> AsyncIterator[asyncio.Queue[Msg]]:
    messages: asyncio.Queue[Msg] = asyncio.Queue()
    nc = await nats.connect(server.url)
    await nc.subscribe(subject, cb=messages.put)
    await flush(nc)
    yield messages
    await nc.close()


async def test_what_the_filter_does_not_want_starts_nothing(client: Client) -> None:
    for number, value in ((901, -1.0), (902, 1.0)):
        await publish(client, "data.raw.s9", {"id": number, "sensor": "s9", "value": value})
    started = await comes_to(client, "reading-902", "WAITING")
    assert started["input"] == {"sensor": "s9", "value": 1.0, "from": "data.raw.s9"}
    assert not [row for row in await client.executions(limit=1000) if row["execution_id"] == "reading-901"]


async def test_the_nightly_report_can_be_had_at_once(client: Client) -> None:
    (row,) = [row for row in await client.schedules() if row["workflow_id"] == "nightly"]
    assert row["next_at"]
    execution = await client.trigger_schedule("nightly")
    ended = await client.result(execution, timeout_s=PATIENCE_S)
    assert (ended["status"], ended["input"]) == ("COMPLETED", {"report": "sales"})


async def test_a_refused_order_leaves_the_shop_as_it_was(client: Client, shop: Path) -> None:
    before = wpa_orders.inspect(shop)
    for name in ("order-refused", "order-flow-refused"):
        data: dict[str, Any] = {**CASES[name].input, "order_id": f"{name}-again"}
        await client.start(CASES[name].workflow, data, execution_id=f"{name}-again")
        ended = await client.result(f"{name}-again", timeout_s=PATIENCE_S)
        assert (ended["status"], ended["error"]["type"]) == ("ROLLED_BACK", "AddressRefused")
        assert wpa_orders.inspect(shop) == before


async def test_flaky_fails_anew_when_it_is_rerun(client: Client) -> None:
    await client.start("flaky", {}, execution_id="flaky-1")
    assert (await client.result("flaky-1", timeout_s=PATIENCE_S))["status"] == "FAILED"
    again = await client.rerun("flaky-1", from_step="load", new_execution_id="flaky-2")
    rerun = await client.result(again.execution_id, timeout_s=PATIENCE_S)
    assert (rerun["status"], rerun["forked_from"], rerun["failed_step"]) == ("FAILED", "flaky-1", "load")
