"""The first four scenes: an order, the same rolled back, a document, a decision."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from typing import Any

from rich.table import Table
from sample_pdf import PAGES, sample_pdf
from stage import EXAMPLES, Stage, short
from wpa_orders import inspect

__all__ = ["PAGES", "decision", "document", "order", "order_completes", "order_rolls_back"]

PROGRESS_WITHIN_S = 10.0
"""What is said live comes while the step runs; or a moment later, on a slow machine."""


def order(**changes: Any) -> dict[str, Any]:
    """The order of the examples, changed."""
    return {**json.loads((EXAMPLES / "order.input.json").read_text()), **changes}


def shop_view(title: str, shop: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 3, 0, 0), header_style="dim")
    row = []
    for name, value in shop.items():
        table.add_column(name)
        row.append(short(value))
    table.add_row(*row)
    return table


async def order_completes(stage: Stage) -> None:
    stage.title("1  order saga: reserve, charge, ship, notify")
    before = inspect(stage.shop)
    stage.console.print(shop_view("the shop before", before))
    status = await stage.run("order", order())
    after = inspect(stage.shop)
    stage.console.print(shop_view("the shop after", after))
    stage.checks.equal("status", status["status"], "COMPLETED")
    stage.checks.equal("tea in stock", after["stock"]["tea"], before["stock"]["tea"] - 2)
    stage.checks.equal("pots in stock", after["stock"]["pot"], before["stock"]["pot"] - 1)
    stage.checks.equal("charged, cents", after["charged_cents"], 2 * 895 + 4990)
    stage.checks.equal("shipped and notified", (after["shipped"], after["notified"]), (1, 1))


async def order_rolls_back(stage: Stage) -> None:
    stage.title("2  the same, to an address that the carrier refuses")
    before = inspect(stage.shop)
    nowhere = {"name": "Plato", "street": "Temple of Poseidon", "city": "Atlantis", "country": "XA"}
    status = await stage.run("order", order(order_id="o-4712", address=nowhere))
    failed = (status["failed_step"], (status["error"] or {}).get("type"))
    stage.checks.equal("status", status["status"], "ROLLED_BACK")
    stage.checks.equal("failed step and error", failed, ("ship", "AddressRefused"))
    stage.checks.equal("undone, in this order", status["undone"], ["charge", "reserve"])
    stage.checks.equal("the shop is as before", inspect(stage.shop), before)


async def document(stage: Stage) -> None:
    stage.title("3  document pipeline: a PDF in base64, text and metadata side by side")
    data = {
        "base64": base64.b64encode(sample_pdf()).decode(),
        "mime": "application/pdf",
        "nombre_documento": "contract-4711.pdf",
        "uuid_proceso": str(uuid.uuid4()),
        "manual": False,
    }
    listening = asyncio.create_task(_whole_progress(stage, "text"))
    await asyncio.sleep(0.1)
    status = await stage.run("document", data)
    await asyncio.wait([listening], timeout=PROGRESS_WITHIN_S)
    listening.cancel()
    output = status["output"] or {}
    words = sum(len(" ".join(page).split()) for page in PAGES)
    found = {name: output.get(name) for name in ("pages", "words", "title", "author", "uuid_proceso")}
    stage.checks.equal("status", status["status"], "COMPLETED")
    stage.checks.equal("pages and words", (found["pages"], found["words"]), (len(PAGES), words))
    stage.checks.equal("title and author", (found["title"], found["author"]), ("Contract 4711", "Ada"))
    stage.checks.equal("the document's name and process", found["uuid_proceso"], data["uuid_proceso"])
    stage.checks.equal("all of its progress was reported", listening.done(), True)


async def _whole_progress(stage: Stage, step: str) -> None:
    """Listen until a step has reported that all is done."""
    async with contextlib.aclosing(stage.client.watch()) as events:
        async for event in events:
            if event["event"] == "step_progress" and event["step"] == step and event["percentage"] == 100:
                return


async def decision(stage: Stage) -> None:
    stage.title("4  a decision: amounts over the limit take another branch")
    for amount, branch, other in ((250_000, "review", "approve"), (99_00, "approve", "review")):
        status = await stage.run("decision", {"amount_cents": amount})
        steps = {step["step"]: step["status"] for step in status["steps"]}
        stage.checks.equal("status", status["status"], "COMPLETED")
        stage.checks.equal(f"{amount} cents take", status["output"], {"taken": branch})
        stage.checks.equal("the other branch", steps[other], "skipped")
