"""Flows for the tests."""

from __future__ import annotations

import asyncio
import uuid

from wpa import approval, call, continue_as_new, flow, signal


@flow("purchase")
async def purchase(amount: int) -> str:
    await call("stock.reserve", undo="stock.release")
    charge = await call("payments.charge", amount=amount, undo="payments.refund")
    await asyncio.sleep(24 * 3600)
    approved = await signal("approved", timeout=3600, default={"by": "nobody"})
    await call("shipping.create", charge=charge, ref=str(uuid.uuid4()))
    return f"charged {charge}, approved by {approved.by}"


@flow("greeting", version="1")
async def greeting(name: str) -> str:
    await call("core.log", message=f"Hello, {name}")
    await asyncio.sleep(60)
    return name.upper()


@flow("greeting", version="2")
async def greeting_other_words(name: str) -> str:
    await call("core.log", message=f"Good morning, {name}")
    await asyncio.sleep(60)
    return name.upper()


@flow("greeting", version="3")
async def greeting_other_order(name: str) -> str:
    await asyncio.sleep(60)
    await call("core.log", message=f"Hello, {name}")
    return name.upper()


@flow("greeting", version="4")
async def greeting_other_output(name: str) -> str:
    await call("core.log", message=f"Hello, {name}")
    await asyncio.sleep(60)
    return name.lower()


@flow("greeting", version="5")
async def greeting_with_more(name: str) -> str:
    await call("core.log", message=f"Hello, {name}")
    await asyncio.sleep(60)
    await call("core.log", message="Bye")
    return name.upper()


@flow("greeting", version="6")
async def greeting_with_less(name: str) -> str:
    await call("core.log", message=f"Hello, {name}")
    return name.upper()


@flow("counting", version="1")
async def counting(n: int) -> str:
    await call("core.noop")
    if n > 1:
        continue_as_new(n=n - 1)
    return "done"


@flow("counting", version="2")
async def counting_otherwise(n: int) -> str:
    if n > 2:
        await asyncio.sleep(1)
    await call("core.noop")
    if n > 1:
        continue_as_new(n=n - 1)
    return "done"


@flow("renewal")
async def renewal(years: int) -> str:
    await approval("one more year?", users=["ada"])
    if years > 1:
        continue_as_new(years=years - 1)
    return "renewed"
