"""Random plans, and the step types that they use."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["APPROVERS", "CHILDREN", "SIGNALS", "document"]

SIGNALS = ("go", "come")
APPROVERS = ("ana", "bob", "eve")
WORKFLOW = "sim"


def _work(ms: int, **more: Any) -> dict[str, Any]:
    return {"uses": "sim.work", "with": {"ms": ms, **more}}


CHILDREN: tuple[dict[str, Any], ...] = (
    {"id": "quick", "version": "1", "steps": [{"id": "a", **_work(1)}], "output": "${steps.a.output}"},
    {
        "id": "slow",
        "version": "1",
        "steps": [
            {"id": "a", **_work(300), "compensate": {"uses": "sim.undo"}},
            {"id": "nap", "uses": "core.sleep", "with": {"for": "20s"}, "needs": ["a"]},
            {"id": "b", **_work(100), "needs": ["nap"]},
        ],
    },
    {
        "id": "bad",
        "version": "1",
        "steps": [
            {"id": "a", **_work(50), "compensate": {"uses": "sim.undo"}},
            {"id": "b", **_work(50, fatal=True), "needs": ["a"]},
        ],
    },
    {
        "id": "frail",
        "version": "1",
        "steps": [{"id": "a", **_work(50, fail=1), "retry": {"max_attempts": 1}}],
    },
    {
        "id": "picky",
        "version": "1",
        "input": {"type": "object", "required": ["never"]},
        "steps": [{"id": "a", **_work(1)}],
    },
    {
        "id": "waiter",
        "version": "1",
        "steps": [{"id": "w", "uses": "core.wait", "with": {"signal": "go", "timeout": "90s", "default": 1}}],
    },
)  # fmt: skip


def document(chance: random.Random) -> dict[str, Any]:
    """A plan of up to seven steps of every kind."""
    steps: list[dict[str, Any]] = []
    for number in range(chance.randint(1, 7)):
        step = {"id": f"s{number}", **_KINDS[chance.choices(range(len(_KINDS)), _WEIGHTS)[0]](chance)}
        before = [each["id"] for each in steps]
        step["needs"] = sorted(chance.sample(before, min(len(before), chance.choice((0, 0, 1, 1, 2, 3)))))
        if len(step["needs"]) > 1 and chance.random() < 0.3:
            step["join"] = chance.choice(("any", "race", 2))
        if chance.random() < 0.15:
            step["on_error"] = chance.choice(("fail", "continue"))
        if chance.random() < 0.05:
            step["if"] = "false"
        steps.append(step)
    plan: dict[str, Any] = {"id": WORKFLOW, "version": "1", "steps": steps}
    if chance.random() < 0.4:
        plan["max_parallel"] = chance.randint(1, 3)
    if chance.random() < 0.15:
        plan["timeout"] = chance.choice(("3s", "40s", "2h"))
    return plan


def _step(chance: random.Random) -> dict[str, Any]:
    ms = chance.choice((0, 1, 20, 300, 1500, 4000))
    step = _work(ms, fail=chance.choice((0, 0, 0, 1, 2)), fatal=chance.random() < 0.06)
    initial = chance.choice(("0ms", "50ms", "1s", "3s", "5m"))
    step["retry"] = {"max_attempts": chance.randint(1, 4), "backoff": {"initial": initial, "jitter": 0}}
    if chance.random() < 0.45:
        undo: dict[str, Any] = {"uses": "sim.undo", "with": {"ms": chance.choice((1, 200))}}
        undo["with"]["fail"] = chance.choice((0, 0, 1))
        undo["retry"] = {"backoff": {"initial": chance.choice(("10ms", "4s")), "jitter": 0}}
        if chance.random() < 0.1:
            undo = {"uses": "core.workflow", "with": {"workflow": chance.choice(("quick", "slow", "nope"))}}
        step["compensate"] = undo
    if chance.random() < 0.2:
        step["queue"] = "far"
    if chance.random() < 0.1:
        step["at_most_once"] = True
    if chance.random() < 0.1:
        step["timeout"] = chance.choice(("100ms", "2s"))
    if chance.random() < 0.1:
        step["deadline"] = chance.choice(("1s", "1m"))
    return step


def _items(chance: random.Random) -> dict[str, Any]:
    step = _step(chance)
    step["foreach"] = {"in": [1, 2, 3, 4], "concurrency": chance.randint(1, 4)}
    return step


def _repeat(chance: random.Random) -> dict[str, Any]:
    step = chance.choice((_step, _step, _wait, _approval))(chance)
    repeat: dict[str, Any] = {"until": chance.choice(("true", "false")), "max": chance.randint(1, 3)}
    if chance.random() < 0.5:
        repeat["delay"] = chance.choice(("100ms", "3s", "1m"))
    return step | {"repeat": repeat}


def _sleep(chance: random.Random) -> dict[str, Any]:
    return {"uses": "core.sleep", "with": {"for": chance.choice(("0ms", "700ms", "2500ms", "1m", "1h"))}}


def _wait(chance: random.Random) -> dict[str, Any]:
    inputs: dict[str, Any] = {"signal": chance.choice(SIGNALS)}
    if chance.random() < 0.5:
        inputs["timeout"] = chance.choice(("500ms", "5s", "10m"))
        if chance.random() < 0.5:
            inputs["default"] = {"came": False}
    return {"uses": "core.wait", "with": inputs}


def _approval(chance: random.Random) -> dict[str, Any]:
    inputs: dict[str, Any] = {"users": ["ana", "bob"], "count": chance.randint(1, 2)}
    if chance.random() < 0.4:
        inputs["timeout"] = chance.choice(("5s", "10m"))
    if chance.random() < 0.3:
        inputs["escalate"] = [{"after": chance.choice(("1s", "20s")), "users": ["eve"]}]
    return {"uses": "core.approval", "with": inputs}


def _child(chance: random.Random) -> dict[str, Any]:
    names = [child["id"] for child in CHILDREN]
    inputs: dict[str, Any] = {"workflow": chance.choice([*names, *names, "nope"])}
    if chance.random() < 0.15:
        inputs["execution_id"] = "shared"
    if chance.random() < 0.15:
        inputs["wait"] = False
    if chance.random() < 0.15:
        inputs["on_cancel"] = "abandon"
    step = {"uses": "core.workflow", "with": inputs}
    if chance.random() < 0.2:
        step["timeout"] = "10s"
    return step


_KINDS = (_step, _items, _repeat, _sleep, _wait, _approval, _child)
_WEIGHTS = (8, 2, 2, 3, 3, 2, 4)
