"""Every example does what its description says, on a real server and a real worker; also when both are killed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nats
import pytest
import wpa_orders
from nats.aio.msg import Msg

from tests.e2e.processes import EXAMPLES, Wpa, run_wpa
from tests.servers import NatsServer
from wpa.client import Client
from wpa.errors import TaskRejected, Unavailable

Body = dict[str, Any]
FLOWS = [f"--flows={path}" for path in sorted((EXAMPLES / "flows").glob("*.py"))]
WITHIN_S = 8.0

ORDER = json.loads((EXAMPLES / "order.input.json").read_text())
ATLANTIS = {"name": "Plato", "street": "Temple of Poseidon", "city": "Atlantis", "country": "XA"}
FINANCE = {"roles": ["finance"]}


class Case(NamedTuple):
    """An example: its input, what is done while it waits, and how it ends."""

    workflow: str
    input: Body
    output: Any
    acts: tuple[Callable[[Client, str], Any], ...] = ()
    status: str = "COMPLETED"


def signal(name: str, payload: Any) -> Callable[[Client, str], Any]:
    return lambda client, execution: client.signal(execution, name, payload, id="once")


def approve(step: str, user: str) -> Callable[[Client, str], Any]:
    return lambda client, execution: client.approve(execution, step, user=user, **FINANCE)


CASES = {
    "approval": Case(
        "approval", {"payee": "Acme", "amount_cents": 5}, {"approved": True},
        (approve("ask", "eva"), approve("ask", "leo")),
    ),
    "reminder": Case("reminder", {"invoice": "i-1", "after": "2500ms"}, {"paid": False}),
    "reminder-paid": Case("reminder", {"invoice": "i-2"}, {"paid": True}, (signal("paid", {"amount_cents": 5}),)),
    "fanout": Case(
        "fanout", {"documents": ["a", "b", "c"]},
        {"results": [{"number": n, "document": d} for n, d in enumerate("abc", 1)], "errors": []},
    ),
    "race": Case("race", {}, {"supplier": "near", "cents": 900}),
    "parent": Case("parent", {"customers": ["Ana", "Ben"]}, {"greetings": ["Hello, Ana", "Hello, Ben"]}),
    "nightly": Case("nightly", {"report": "sales"}, {"write": None}),
    "decision": Case("decision", {"amount_cents": 5}, {"taken": "approve"}),
    "hello": Case("hello", {"name": "Ada", "after_s": 2.5}, "Ada said hi", (signal("answer", {"text": "hi"}),)),
    "expense": Case(
        "expense", {"employee": "Ada", "amount_cents": 5, "remind_every_s": 600},
        {"paid": True, "why": "decided by eva"}, (approve("finance", "eva"),),
    ),
    "expense-forgotten": Case(
        "expense", {"employee": "Ada", "amount_cents": 5, "remind_every_s": 0.3, "reminders": 2},
        {"paid": False, "why": "nobody answered 2 reminders"},
    ),
    "digest": Case("digest", {"topics": ["tea", "pots"], "every_s": 2.2, "rounds": 2}, 14),
}  # fmt: skip


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
    env = {"WPA_SHOP_DB": str(shop)}
    return Wpa("worker", "--nats", url, "--ack-wait", "1", *FLOWS, *more, log=log, env=env).wait_ready()


@pytest.fixture(scope="module", autouse=True)
def worker(
    examples_server: NatsServer, tmp_path_factory: pytest.TempPathFactory, shop: Path
) -> Iterator[Wpa]:
    folder = tmp_path_factory.mktemp("worker")
    worker = start_worker(examples_server.url, folder / "worker.log", shop)
    files = [str(path) for path in EXAMPLES.glob("*.json") if "input" not in path.name]
    done = run_wpa("deploy", *files, url=examples_server.url)
    assert done.returncode == 0, done.stderr
    yield worker
    assert worker.stop() == 0


@pytest.fixture
async def client(examples_server: NatsServer) -> AsyncIterator[Client]:
    async with await Client.connect(examples_server.url) as client:
        yield client


async def rests(client: Client, execution: str) -> Body:
    """Its status once it waits for something."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = await client.executions(limit=1000)
            if any(row["execution_id"] == execution and row["status"] == "WAITING" for row in found):
                return await client.status(execution)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", CASES)
async def test_it_ends_as_it_says(name: str, client: Client) -> None:
    case = CASES[name]
    await client.start(case.workflow, case.input, execution_id=name)
    for act in case.acts:
        await rests(client, name)
        await act(client, name)
    ended = await client.result(name, timeout_s=WITHIN_S)
    assert (ended["status"], ended["output"]) == (case.status, case.output), ended["error"]


def test_every_example_is_tried() -> None:
    elsewhere = {"order", "document", "child", "pipeline", "queue", "flaky"}
    deployed = {path.name.split(".")[0] for path in EXAMPLES.glob("*.json")}
    assert deployed - elsewhere == {case.workflow for case in CASES.values()} - {"hello", "expense", "digest"}


# -- orders: a plan and a flow ---------------------------------------------------------------


def charges(shop: Path, order: str) -> list[tuple[str, int]]:
    with sqlite3.connect(shop) as db:
        query = "SELECT status, amount_cents FROM charges WHERE order_id = ? ORDER BY id"
        return db.execute(query, (order,)).fetchall()


async def test_an_order_as_a_plan_and_as_a_flow(client: Client, shop: Path) -> None:
    for workflow, cents in (("order", [6780]), ("order-flow", [490, 6780])):
        await client.start(workflow, {**ORDER, "order_id": workflow}, execution_id=f"{workflow}-1")
        ended = await client.result(f"{workflow}-1", timeout_s=WITHIN_S)
        assert ended["status"] == "COMPLETED", ended["error"]
        assert ended["output"]["total_cents"] == sum(cents)
        assert charges(shop, workflow) == [("charged", each) for each in cents]


async def test_a_refused_address_takes_the_order_to_the_pick_up_point(client: Client, shop: Path) -> None:
    data = {**ORDER, "order_id": "o-p", "address": ATLANTIS, "pickup": ORDER["address"]}
    await client.start("order-flow", data, execution_id="order-p")
    ended = await client.result("order-p", timeout_s=WITHIN_S)
    assert (ended["status"], ended["output"]["total_cents"]) == ("COMPLETED", 6780)
    assert sorted(charges(shop, "o-p")) == [("charged", 6780), ("refunded", 490)]


@pytest.mark.parametrize("workflow", ["order", "order-flow"])
async def test_without_one_everything_is_undone(workflow: str, client: Client, shop: Path) -> None:
    data = {**ORDER, "order_id": f"{workflow}-r", "address": ATLANTIS}
    before = wpa_orders.inspect(shop)
    await client.start(workflow, data, execution_id=f"{workflow}-r")
    ended = await client.result(f"{workflow}-r", timeout_s=WITHIN_S)
    assert (ended["status"], ended["error"]["type"]) == ("ROLLED_BACK", "AddressRefused")
    assert wpa_orders.inspect(shop) == before


# -- triggers, schedules, queues -------------------------------------------------------------


async def test_the_pipeline_is_started_and_woken_by_messages(
    examples_server: NatsServer, client: Client
) -> None:
    nc = await nats.connect(examples_server.url)
    emitted: asyncio.Queue[Msg] = asyncio.Queue()
    await nc.subscribe("workflow.emit.default.readings.s1", cb=emitted.put)
    await nc.publish("data.raw.s1", b'{"id": 7, "sensor": "s1", "value": 3.5}')
    await nc.publish("data.raw.s1", b'{"id": 8, "sensor": "s1", "value": -1.0}')
    waiting = await rests(client, "reading-7")
    assert waiting["input"] == {"sensor": "s1", "value": 3.5, "from": "data.raw.s1"}
    for _ in range(2):
        await nc.publish("data.reviewed.s1", b'{"id": 7, "good": true}', headers={"Nats-Msg-Id": "review-7"})
    ended = await client.result("reading-7", timeout_s=WITHIN_S)
    assert ended["status"] == "COMPLETED"
    message = await asyncio.wait_for(emitted.get(), 5)
    assert json.loads(message.data) == {"value": 3.5}
    assert not [row for row in await client.executions(limit=1000) if row["execution_id"] == "reading-8"]
    await nc.close()


async def test_the_nightly_report_can_be_had_at_once(client: Client) -> None:
    (row,) = [row for row in await client.schedules() if row["workflow_id"] == "nightly"]
    assert row["next_at"]
    execution = await client.trigger_schedule("nightly")
    ended = await client.result(execution, timeout_s=WITHIN_S)
    assert (ended["status"], ended["input"]) == ("COMPLETED", {"report": "sales"})


async def test_a_queue_waits_visibly_for_its_worker(
    examples_server: NatsServer, client: Client, shop: Path, tmp_path: Path
) -> None:
    await client.start("queue", {"scene": "harbour"}, execution_id="scene-1")
    (waiting,) = (await rests(client, "scene-1"))["waiting_for"]
    assert (waiting["kind"], waiting["step"], waiting["name"]) == ("remote", "render", "gpu")
    gpu = start_worker(examples_server.url, tmp_path / "gpu.log", shop, "--queue", "gpu")
    ended = await client.result("scene-1", timeout_s=WITHIN_S)
    assert (ended["status"], ended["output"]) == ("COMPLETED", "harbour.png")
    assert gpu.stop() == 0


async def test_flaky_is_mended_by_a_retry_and_by_a_rerun(client: Client) -> None:
    await client.start("flaky", {}, execution_id="flaky-1")
    assert (await client.result("flaky-1", timeout_s=WITHIN_S))["status"] == "FAILED"
    again = await client.rerun("flaky-1", from_step="load", new_execution_id="flaky-2")
    await client.retry("flaky-1")
    async with asyncio.timeout(WITHIN_S):
        while (await client.status("flaky-1"))["status"] != "COMPLETED":
            await asyncio.sleep(0.05)
    rerun = await client.result(again.execution_id, timeout_s=WITHIN_S)
    assert (rerun["status"], rerun["forked_from"], rerun["failed_step"]) == ("FAILED", "flaky-1", "load")


# -- all at once, and everything is killed ---------------------------------------------------


async def told(asking: Awaitable[Any]) -> bool:
    """Whether it could be said; for now, somebody may be away, or not have begun to wait."""
    try:
        await asking
    except (TaskRejected, Unavailable):
        return False
    return True


async def test_all_of_them_while_everything_is_killed(server: NatsServer, shop: Path, tmp_path: Path) -> None:
    logs = iter(range(100))

    def new_worker() -> Wpa:
        return start_worker(server.url, tmp_path / f"worker-{next(logs)}.log", shop)

    worker = await asyncio.to_thread(new_worker)
    files = [str(path) for path in EXAMPLES.glob("*.json") if "input" not in path.name]
    assert run_wpa("deploy", *files, url=server.url).returncode == 0
    async with await Client.connect(server.url) as client:
        for name, case in CASES.items():
            await client.start(case.workflow, case.input, execution_id=name)
        slow = {**ORDER, "order_id": "killed", "reconsider_s": 1.5}
        await client.start("order-flow", slow, execution_id="order-killed")
        for _ in range(2):
            worker.kill()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            worker = await asyncio.to_thread(new_worker)
            await asyncio.sleep(0.7)
        for name, case in CASES.items():
            for act in case.acts:
                async with asyncio.timeout(WITHIN_S):
                    while not await told(act(client, name)):
                        await asyncio.sleep(0.2)
        for name, case in CASES.items():
            try:
                ended = await client.result(name, timeout_s=WITHIN_S)
            except TimeoutError:
                import json as j

                print(j.dumps(await client.status(name), indent=1))
                print(
                    "HIST",
                    [
                        (x["event"], x["epoch"], x["worker"], x["timestamp"])
                        for x in await client.history("digest-child_digest-topic")
                    ],
                )
                print(j.dumps(await client.status("digest-child_digest-topic")))
                print(run_wpa("dlq", "list", url=server.url).stdout)
                for p in tmp_path.glob("*.log"):
                    print(p, p.read_text())
                raise
            assert (name, ended["status"], ended["output"]) == (name, case.status, case.output), ended[
                "error"
            ]
        ended = await client.result("order-killed", timeout_s=WITHIN_S)
        assert ended["status"] == "COMPLETED"
    assert charges(shop, "killed") == [("charged", 490), ("charged", 6780)]
    assert worker.stop() == 0
