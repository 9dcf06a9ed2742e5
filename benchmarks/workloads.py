"""The workloads: no-op steps with inputs and outputs of about 200 bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["BESIDE", "ENDS", "WORKLOADS"]

DATA = {"data": "x" * 190}


def _step(name: str, needs: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "core.echo", "with": DATA, "needs": needs or [], **more}


def _sequence(count: int) -> list[dict[str, Any]]:
    return [_step(f"s{n}", [f"s{n - 1}"] if n else []) for n in range(count)]


def _fan(count: int) -> list[dict[str, Any]]:
    middle = [_step(f"m{n}", ["first"]) for n in range(count)]
    return [_step("first"), *middle, _step("join", [step["id"] for step in middle])]


def _saga() -> list[dict[str, Any]]:
    undo = {"uses": "core.echo", "with": DATA}
    last = {"id": "c", "uses": "core.fail", "needs": ["b"], "with": {"retryable": False}}
    return [_step("a", compensate=undo), _step("b", ["a"], compensate=undo), last]


WORKLOADS: dict[str, list[dict[str, Any]]] = {
    "seq1": _sequence(1),
    "seq3": _sequence(3),
    "fan10": _fan(10),
    "saga3": _saga(),
}

ENDS = {
    "seq1": "workflow_completed",
    "seq3": "workflow_completed",
    "flow3": "workflow_completed",
    "fan10": "workflow_completed",
    "saga3": "workflow_rolled_back",
}
"""How each ends. ``flow3`` is in ``flows.py``: the worker brings it along."""

BESIDE = {"flow3": "seq3"}
"""The plan that does the same as a flow."""
