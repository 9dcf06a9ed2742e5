"""The scenes of what waits: an approval, a flow in the middle of which everything is killed, a pause."""

from __future__ import annotations

import asyncio
import time

from main_job import order
from stage import Stage
from wpa_orders import inspect

from wpa.errors import Unavailable

__all__ = ["approval_waits", "approval_is_given", "killed_in_mid_flow", "paused_and_resumed"]

THINKS_S = 1.5
"""How long the flow sleeps between its two charges: it is killed there."""
AFTER_S = 5.0
"""When the reminder is due; by then it is paused."""


async def approval_waits(stage: Stage) -> str:
    stage.title("5  an approval: two people of finance have to agree to a payment")
    execution = await stage.begin("approval", {"payee": "Acme", "amount_cents": 250_000})
    await stage.follow(execution, until="workflow_waiting")
    _, listed = await stage.command("approvals", "list")
    stage.checks.equal("it is on the list, unanswered", execution in listed and "0 of 2" in listed, True)
    refused, words = await stage.command("approvals", "approve", execution, "ask", "--as", "ana")
    stage.checks.equal("ana may not approve it", (refused, "not_allowed" in words), (2, True))
    return execution


async def killed_in_mid_flow(stage: Stage) -> None:
    stage.title("6  a flow, ordinary Python; everything is killed in the middle of it")
    before = inspect(stage.shop)
    execution = await stage.begin("order-flow", order(order_id="o-4713", reconsider_s=THINKS_S))
    following = asyncio.create_task(stage.follow(execution))
    async with asyncio.timeout(20):
        while inspect(stage.shop)["charged_cents"] == before["charged_cents"]:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    stage.say("it sleeps now, between its two charges")
    pid = await stage.dev.kill()
    stage.say(f"kill -9 {pid}: the worker is gone, and the NATS server with it")
    stage.checks.equal("nobody answers", await _answers(stage), False)
    await asyncio.sleep(THINKS_S)
    began = time.monotonic()
    await stage.dev.start()
    stage.say(f"wpa dev again, in the same folder: ready after {time.monotonic() - began:.1f} s")
    await following
    status = await stage.end(execution)
    after = inspect(stage.shop)
    events = [event["event"] for event in await stage.client.history(execution)]
    stage.checks.equal("status", status["status"], "COMPLETED")
    stage.checks.equal("taken over by another worker", events.count("workflow_recovered"), 1)
    stage.checks.equal(
        "charged, once", after["charged_cents"] - before["charged_cents"], 2 * 895 + 4990 + 490
    )
    stage.checks.equal("parcels", after["shipped"] - before["shipped"], 1)


async def _answers(stage: Stage) -> bool:
    try:
        async with asyncio.timeout(0.5):
            await stage.client.workers()
    except (TimeoutError, Unavailable):
        return False
    return True


async def approval_is_given(stage: Stage, execution: str) -> None:
    stage.title("7  the approval of before still waits, and is given")
    _, listed = await stage.command("approvals", "list")
    stage.checks.equal("it is still on the list", execution in listed, True)
    for user, comment in (("eva", "as agreed"), ("leo", "go ahead")):
        await stage.command(
            "approvals", "approve", execution, "ask", "--as", user, "--role", "finance", "--comment", comment
        )
    await stage.follow(execution)
    status = await stage.end(execution)
    ask = next(step for step in status["steps"] if step["step"] == "ask")
    who = [answer["by"]["user_id"] for answer in (ask["output"] or {}).get("answers", ())]
    stage.checks.equal(
        "status and output", (status["status"], status["output"]), ("COMPLETED", {"approved": True})
    )
    stage.checks.equal("approved by", who, ["eva", "leo"])


async def paused_and_resumed(stage: Stage) -> None:
    stage.title("8  a pause: what becomes due meanwhile happens at the resume")
    execution = await stage.begin("reminder", {"invoice": "i-1", "after": f"{int(AFTER_S * 1000)}ms"})
    due = time.monotonic() + AFTER_S
    await stage.follow(execution, until="workflow_waiting")
    await stage.command("pause", execution, "--as", "ana", "--reason", "the customer called")
    await asyncio.sleep(max(0.0, due + 0.5 - time.monotonic()))
    status = await stage.client.status(execution)
    stage.checks.equal("after its moment", (status["status"], status["progress"]["completed"]), ("PAUSED", 0))
    await stage.command("resume", execution, "--as", "ana")
    await stage.follow(execution)
    status = await stage.end(execution)
    steps = {step["step"]: step["status"] for step in status["steps"]}
    stage.checks.equal("status", status["status"], "COMPLETED")
    stage.checks.equal("reminded", (steps["remind"], status["output"]), ("completed", {"paid": False}))
