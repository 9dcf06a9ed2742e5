"""Every example as a case: how it begins, what is done while it waits, and how it ends.

The key of a case is its execution's id. Whatever is done may be done again until it was said: for a while,
nobody may be there to hear it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import nats.errors

from tests.e2e.processes import EXAMPLES
from tests.waiting import patiently, until
from wpa.client import Client
from wpa.errors import TaskRejected, Unavailable

Body = dict[str, Any]
Act = Callable[[Client, str], Awaitable[Any]]

FLOWS = sorted((EXAMPLES / "flows").glob("*.py"))
PLANS = sorted(path for path in EXAMPLES.glob("*.json") if ".input" not in path.name)

ORDER: Body = json.loads((EXAMPLES / "order.input.json").read_text())
ATLANTIS = {"name": "Plato", "street": "Temple of Poseidon", "city": "Atlantis", "country": "XA"}


class Has(dict[str, Any]):
    """Equal to whatever has these members, whatever else it has."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and all(other.get(key) == value for key, value in self.items())

    __hash__ = None  # type: ignore[assignment]


class Case(NamedTuple):
    """An example: what it is given, what is done while it waits, and how it ends."""

    workflow: str
    input: Any
    output: Any
    acts: tuple[Act, ...] = ()
    status: str = "COMPLETED"
    begin: Act | None = None
    """How it begins, where it isn't started by its name."""


# -- what is done ----------------------------------------------------------------------------


async def begin(client: Client, execution: str, case: Case) -> None:
    """Start a case, once, however often it has to be asked."""
    if case.begin is not None:
        await case.begin(client, execution)
    else:
        await patiently(lambda: client.start(case.workflow, case.input, execution_id=execution))


async def act(client: Client, execution: str, case: Case) -> None:
    """Do what it waits for, one thing after another."""
    for each in case.acts:
        await patiently(lambda each=each: each(client, execution))  # type: ignore[misc]


def signal(name: str, payload: Any) -> Act:
    return lambda client, execution: client.signal(execution, name, payload, id="once")


def approve(step: str, user: str) -> Act:
    return lambda client, execution: client.approve(execution, step, user=user, roles=["finance"])


async def publish(client: Client, subject: str, body: Body, **headers: str) -> None:
    """As any program would, that knows nothing of workflows. Raises Unavailable where no server is there."""
    try:
        await client._nc.publish(subject, json.dumps(body).encode(), headers=headers or None)
        await client._nc.flush(timeout=5)
    except nats.errors.Error as error:
        raise Unavailable(str(error)) from error


async def raw_data(client: Client, execution: str) -> None:
    """A message that starts an execution; published until one has heard it: it is only sent to who listens."""
    number = int(execution.removeprefix("reading-"))

    async def heard() -> None:
        await publish(client, "data.raw.s1", {"id": number, "sensor": "s1", "value": 3.5})
        for _ in range(10):
            with contextlib.suppress(TaskRejected):
                await client.status(execution)
                return
            await asyncio.sleep(0.05)
        await client.status(execution)

    await patiently(heard)


async def review(client: Client, execution: str) -> None:
    """A message that wakes it; published until it has ended. It counts once."""
    number = int(execution.removeprefix("reading-"))

    async def ended() -> bool:
        with contextlib.suppress(TimeoutError, Unavailable):
            await publish(
                client, "data.reviewed.s1", {"id": number, "good": True}, **{"Nats-Msg-Id": execution}
            )
            await client.result(execution, timeout_s=0.5)
            return True
        return False

    await until(ended)


async def mend(client: Client, execution: str) -> None:
    """Try it again, in place, once it has failed."""
    while (await client.status(execution))["status"] != "COMPLETED":
        if (await client.status(execution))["status"] == "FAILED":
            await client.retry(execution)
        await asyncio.sleep(0.05)


# -- the cases -------------------------------------------------------------------------------


def sample_pdf() -> bytes:
    """The document of the demo."""
    path = EXAMPLES / "demo" / "sample_pdf.py"
    spec = importlib.util.spec_from_file_location("sample_pdf", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.sample_pdf()
    assert isinstance(found, bytes)
    return found


DOCUMENT = {
    "base64": base64.b64encode(sample_pdf()).decode(),
    "mime": "application/pdf",
    "nombre_documento": "contract.pdf",
    "uuid_proceso": "p-1",
}

CASES = {
    "order": Case("order", {**ORDER, "order_id": "o-plan"}, Has(total_cents=6780)),
    "order-refused": Case(
        "order", {**ORDER, "order_id": "o-plan-r", "address": ATLANTIS}, None, status="ROLLED_BACK"
    ),
    "document": Case("document", DOCUMENT, Has(title="Contract 4711", uuid_proceso="p-1")),
    "decision": Case("decision", {"amount_cents": 5}, {"taken": "approve"}),
    "approval": Case(
        "approval",
        {"payee": "Acme", "amount_cents": 5},
        {"approved": True},
        (approve("ask", "eva"), approve("ask", "leo")),
    ),
    "reminder": Case("reminder", {"invoice": "i-1", "after": "2500ms"}, {"paid": False}),
    "reminder-paid": Case(
        "reminder", {"invoice": "i-2"}, {"paid": True}, (signal("paid", {"amount_cents": 5}),)
    ),
    "fanout": Case(
        "fanout",
        {"documents": ["a", "b", "c"]},
        {"results": [{"number": n, "document": d} for n, d in enumerate("abc", 1)], "errors": []},
    ),
    "race": Case("race", {}, {"supplier": "near", "cents": 900}),
    "parent": Case("parent", {"customers": ["Ana", "Ben"]}, {"greetings": ["Hello, Ana", "Hello, Ben"]}),
    "child": Case("child", {"name": "Cy"}, "Hello, Cy"),
    "nightly": Case("nightly", {"report": "sales"}, {"write": None}),
    "flaky": Case("flaky", {}, {"rows": 3}, (mend,)),
    "reading-7": Case(
        "pipeline",
        None,
        {"publish": {"subject": "workflow.emit.default.readings.s1"}},
        (review,),
        begin=raw_data,
    ),
    "scene": Case("queue", {"scene": "harbour"}, "harbour.png"),
    "hello": Case(
        "hello", {"name": "Ada", "after_s": 2.5}, "Ada said hi", (signal("answer", {"text": "hi"}),)
    ),
    "expense": Case(
        "expense",
        {"employee": "Ada", "amount_cents": 5, "remind_every_s": 600},
        {"paid": True, "why": "decided by eva"},
        (approve("finance", "eva"),),
    ),
    "expense-forgotten": Case(
        "expense",
        {"employee": "Ada", "amount_cents": 5, "remind_every_s": 0.3, "reminders": 2},
        {"paid": False, "why": "nobody answered 2 reminders"},
    ),
    "digest": Case("digest", {"topics": ["tea", "pots"], "every_s": 2.2, "rounds": 2}, 14),
    "digest-topic": Case("digest-topic", {"name": "cup"}, 3),
    "order-flow": Case(
        "order-flow", {**ORDER, "order_id": "o-flow", "reconsider_s": 1.5}, Has(total_cents=490 + 6780)
    ),
    "order-flow-pickup": Case(
        "order-flow",
        {**ORDER, "order_id": "o-flow-p", "address": ATLANTIS, "pickup": ORDER["address"]},
        Has(total_cents=6780),
    ),
    "order-flow-refused": Case(
        "order-flow", {**ORDER, "order_id": "o-flow-r", "address": ATLANTIS}, None, status="ROLLED_BACK"
    ),
}
CHARGES = {
    "o-plan": [(6780, "charged")],
    "o-plan-r": [(6780, "refunded")],
    "o-flow": [(490, "charged"), (6780, "charged")],
    "o-flow-p": [(490, "refunded"), (6780, "charged")],
    "o-flow-r": [(490, "refunded"), (6780, "refunded")],
}
"""What the shop's book says of each order when all have ended."""


def charges(shop: Path, order: str) -> list[tuple[int, str]]:
    """What the shop's book says of an order."""
    with contextlib.closing(sqlite3.connect(shop)) as db:
        query = "SELECT amount_cents, status FROM charges WHERE order_id = ? ORDER BY amount_cents"
        return db.execute(query, (order,)).fetchall()
