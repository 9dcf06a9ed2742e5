"""The first release of a plugin: two steps, what undoes one of them, and a flow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from wpa_e2e_steps import note

from wpa import call, flow
from wpa.sdk import StepContext, hookimpl, step

NAP_S = 2.1
"""Longer than what a worker waits for itself: it comes to rest."""


@step("shop.price")
async def price(ctx: StepContext, word: str) -> dict[str, Any]:
    note(ctx, "start")
    return {"cents": 100 * len(word)}


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
    await asyncio.sleep(NAP_S)
    await call("shop.pack", step_name="pack", seconds=seconds, undo="shop.unpack")
    cents: int = priced.cents
    return cents


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [price, pack, unpack]


@hookimpl
def wpa_flows() -> Iterable[Any]:
    return [sale]
