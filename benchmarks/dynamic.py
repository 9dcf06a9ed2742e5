"""Dynamic work: what an item of a ``foreach`` costs, in a list of a thousand and in one ten times as long."""

from __future__ import annotations

from typing import Any

from processes import Usage
from waiting import Stage
from watch import publish, start, watching

ITEMS, MANY_ITEMS = 1_000, 10_000
WARM_UP_ITEMS = 200

DEFINITIONS = {
    "each": [
        {
            "id": "each",
            "foreach": {"in": "input.items", "concurrency": 50},
            "uses": "core.echo",
            "with": {"item": "${item}"},
        }
    ]
}


async def foreach(stage: Stage) -> dict[str, Any]:
    """The same step for each item of two lists, one after the other: an item should cost as much in both."""
    await _each(stage, "warm-up", WARM_UP_ITEMS)
    items, many = stage.count(ITEMS), stage.count(MANY_ITEMS)
    took, cpu_us = await _each(stage, "few", items)
    many_took, many_cpu_us = await _each(stage, "many", many)
    return {
        "items": items,
        "s": round(took, 2),
        "item_ms": round(took / items * 1000, 3),
        "item_cpu_us": cpu_us,
        "many_items": many,
        "many_s": round(many_took, 2),
        "many_item_ms": round(many_took / many * 1000, 3),
        "many_item_cpu_us": many_cpu_us,
        "growth": round(many_cpu_us / cpu_us, 2),
    }


async def _each(stage: Stage, execution: str, items: int) -> tuple[float, int]:
    """Seconds for a list, and microseconds of the worker's CPU for an item."""
    before = Usage.of(stage.worker)
    async with watching(stage.nc, "workflow_completed") as watch:
        await publish(stage.nc, [start("each", execution, {"items": list(range(items))})])
        took = await watch.until(1)
    return took, round((Usage.of(stage.worker).cpu_s - before.cpu_s) / items * 1e6)
