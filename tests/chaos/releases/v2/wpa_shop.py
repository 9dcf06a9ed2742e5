"""The second release: a step more, which the flow calls where it may; a parameter and an output more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from wpa_e2e_steps import note

from wpa import call, flow, patched
from wpa.sdk import StepContext, hookimpl, step

NAP_S = 2.1


@step("shop.price")
async def price(ctx: StepContext, word: str, currency: str = "EUR") -> dict[str, Any]:
    note(ctx, "start")
    return {"cents": 100 * len(word), "currency": currency}


@step("shop.label")
async def label(ctx: StepContext) -> str:
    note(ctx, "start")
    return "labelled"


@step("shop.pack")
async def pack(ctx: StepContext, seconds: float = 0.0) -> str:
    note(ctx, "start")
    await asyncio.sleep(seconds)
    return "packed"


@step("shop.unpack")
async def unpack(ctx: StepContext) -> None:
    note(ctx, "undo")


@flow("sale")
async def sale(word: str, seconds: float = 0.0) -> int:
    priced = await call("shop.price", step_name="price", word=word)
    if patched("label"):
        await call("shop.label", step_name="label")
    await asyncio.sleep(NAP_S)
    await call("shop.pack", step_name="pack", seconds=seconds, undo="shop.unpack")
    cents: int = priced.cents
    return cents


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [price, label, pack, unpack]


@hookimpl
def wpa_flows() -> Iterable[Any]:
    return [sale]
