"""Plans for the tests, made of steps."""

from __future__ import annotations

from typing import Any


def plan(*steps: dict[str, Any], id: str = "w", version: str = "1", **fields: Any) -> dict[str, Any]:
    return {"id": id, "version": version, "steps": list(steps), **fields}


def step(id: str, uses: str = "", *needs: str, **fields: Any) -> dict[str, Any]:
    """A step; ``inputs`` are its ``with``."""
    body: dict[str, Any] = {"id": id, "uses": uses or f"x.{id}", **fields}
    if needs:
        body["needs"] = list(needs)
    if "inputs" in body:
        body["with"] = body.pop("inputs")
    return body


def sleep(id: str, how_long: str, *needs: str) -> dict[str, Any]:
    return step(id, "core.sleep", *needs, inputs={"for": how_long})


def names(events: list[Any]) -> list[str]:
    return [event.event.removeprefix("workflow_") for event in events]
