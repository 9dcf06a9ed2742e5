"""Random plans, and the step types that they use.

Every input has a mark, the tenant's own: it goes through steps and children, and must be found nowhere at
another tenant's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import msgspec

from wpa import plan
from wpa.model.steptype import StepSignature
from wpa.plan import Plan
from wpa.ports.definitions import StoredDefinition

__all__ = ["APPROVERS", "CHILDREN", "LIKE_A_REFERENCE", "SIGNALS", "Version", "draw", "ticking", "version_of"]

SIGNALS = ("go", "come")
APPROVERS = ("ana", "bob", "eve")
LIKE_A_REFERENCE: Final = {"$blob": {"key": "no/key/of-ours", "size": 1, "sha256": ""}}
"""Somebody's own data, which look like what wpa records in place of a large payload."""
WORKFLOW = "sim"
MARK = "${input.mark}"
POOL: Final = 512
"""To check and compile a plan takes longer than to run it: so many of each size are shared by a block of seeds."""
BLOCK: Final = 10_000
SIGNATURES = {
    name: StepSignature(name=name, input_schema={}, output_schema={}) for name in ("sim.work", "sim.undo")
}


class Version(NamedTuple):
    """A version of a plan, ready to be deployed and run."""

    document: dict[str, Any]
    stored: StoredDefinition
    program: Plan
    children: frozenset[str]
    """The workflows that it may start."""

    @property
    def undoable(self) -> set[str]:
        """The steps that have a compensation."""
        return {step["id"] for step in self.document["steps"] if "compensate" in step}

    @property
    def once(self) -> set[str]:
        """The steps that are run at most once."""
        return {step["id"] for step in self.document["steps"] if step.get("at_most_once")}


def version_of(document: dict[str, Any]) -> Version:
    """A document, compiled."""
    encoded = msgspec.json.encode(document)
    stored = StoredDefinition(
        workflow=document["id"],
        version=document["version"],
        hash=plan.content_hash(document),
        kind="plan",
        document=msgspec.Raw(encoded),
        deployed_at="",
    )
    text = encoded.decode()
    children = frozenset(child["id"] for child in CHILDREN if f'"{child["id"]}"' in text)
    return Version(document, stored, plan.load(document), children)


def draw(seed: int, chance: random.Random, *, large: bool) -> tuple[Version, Callable[[], Version]]:
    """A random plan, one of the many of a seed's block, and what makes a later version of it."""
    number = (seed // BLOCK, chance.randrange(POOL), large)
    return _made(*number), partial(_later, *number)


@lru_cache(maxsize=2 * POOL)
def _documents(block: int, number: int, large: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    chance = random.Random(f"{block} {number} {large}")
    while True:
        made = _document(chance, large)
        later = _changed(made, chance)
        if not plan.check(made, SIGNATURES) and not plan.check(later, SIGNATURES):
            return made, later


@lru_cache(maxsize=2 * POOL)
def _made(block: int, number: int, large: bool) -> Version:
    return version_of(_documents(block, number, large)[0])


@lru_cache(maxsize=2 * POOL)
def _later(block: int, number: int, large: bool) -> Version:
    """Most runs need none."""
    return version_of(_documents(block, number, large)[1])


def _changed(made: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A later version: one that fits what has been settled, or one that may not."""
    steps = [dict(step) for step in made["steps"]]
    kind = chance.random()
    if kind < 0.6:
        steps.append({"id": "more", **_work(1), "needs": [chance.choice(steps)["id"]]})
    elif kind < 0.8:
        steps.insert(0, {"id": "first", **_work(1)})
        steps[-1]["needs"] = sorted({*steps[-1].get("needs", ()), "first"})
    else:
        at = chance.choice([at for at, step in enumerate(steps) if "uses" in step])
        kept = {key: value for key, value in steps[at].items() if key in ("id", "needs", "join", "on_error")}
        steps[at] = kept | chance.choice(_KINDS)(chance)
        if not any("queue" in step for step in made["steps"]):
            steps[at].pop("queue", None)  # nobody serves it
    return made | {"version": "2", "steps": steps}


def _work(ms: int, **more: Any) -> dict[str, Any]:
    return {"uses": "sim.work", "with": {"ms": ms, "mark": MARK, **more}}


def _undo(ms: int = 0, **more: Any) -> dict[str, Any]:
    return {"uses": "sim.undo", "with": {"ms": ms, "mark": MARK, **more}}


CHILDREN: tuple[dict[str, Any], ...] = (
    {"id": "quick", "version": "1", "steps": [{"id": "a", **_work(1)}], "output": "${steps.a.output}"},
    {
        "id": "slow",
        "version": "1",
        "steps": [
            {"id": "a", **_work(300), "compensate": _undo()},
            {"id": "nap", "uses": "core.sleep", "with": {"for": "20s"}, "needs": ["a"]},
            {"id": "b", **_work(100), "needs": ["nap"]},
        ],
    },
    {
        "id": "bad",
        "version": "1",
        "steps": [
            {"id": "a", **_work(50), "compensate": _undo()},
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


@lru_cache
def ticking(mark: str) -> tuple[Version, Version]:
    """A plan that starts by itself, and a later version of it that doesn't any more."""
    made: dict[str, Any] = {"id": "tick", "version": "1", "steps": [{"id": "a", **_work(300)}]}
    schedule = {"every": "9s", "input": {"mark": mark}}
    return version_of(made | {"schedule": schedule}), version_of(made | {"version": "2"})


def _document(chance: random.Random, large: bool) -> dict[str, Any]:
    """A plan of steps of every kind: two to five, or up to seven."""
    steps: list[dict[str, Any]] = []
    weights = _WEIGHTS if large else _SMALL_WEIGHTS
    for number in range(chance.randint(1, 7) if large else chance.choice((2, 2, 2, 3, 3, 4, 5))):
        step = {"id": f"s{number}", **chance.choices(_KINDS, weights)[0](chance)}
        before = [each["id"] for each in steps]
        step["needs"] = sorted(chance.sample(before, min(len(before), chance.choice((0, 0, 1, 1, 2, 3)))))
        if len(step["needs"]) > 1 and chance.random() < 0.3:
            step["join"] = chance.choice(("any", "race", 2))
        if chance.random() < 0.15:
            step["on_error"] = chance.choice(("fail", "continue"))
        if chance.random() < 0.05:
            step["if"] = "false"
        if chance.random() < 0.03:
            step["set"] = {"x": f"${{steps.{step['id']}.output.missing}}"}  # breaks the plan
        steps.append(step)
    made: dict[str, Any] = {"id": WORKFLOW, "version": "1", "steps": steps}
    if len(steps) > 1 and chance.random() < 0.4:
        _decide(chance, steps)
    if chance.random() < 0.4:
        made["max_parallel"] = chance.randint(1, 3)
    if chance.random() < 0.15:
        made["timeout"] = chance.choice(("3s", "40s", "2h"))
    return made


def _decide(chance: random.Random, steps: list[dict[str, Any]]) -> None:
    """Put a decision among the steps: before two of the last ones."""
    at = chance.randint(min(1, len(steps) - 2), len(steps) - 2)
    later = [step["id"] for step in steps[at:]]
    made: dict[str, Any] = {
        "id": "choice",
        "switch": [{"when": chance.choice(("true", "false")), "next": chance.choice(later)}],
        "needs": [step["id"] for step in steps[:at][-chance.randint(1, 2) :]],
    }
    if chance.random() < 0.7:
        made["default"] = chance.choice(later)
    steps.insert(at, made)


def _step(chance: random.Random) -> dict[str, Any]:
    ms = chance.choice((0, 1, 20, 300, 1500, 4000))
    step = _work(ms, fail=chance.choice((0, 0, 0, 1, 2)), fatal=chance.random() < 0.06)
    initial = chance.choice(("0ms", "50ms", "1s", "3s", "5m"))
    step["retry"] = {"max_attempts": chance.randint(1, 4), "backoff": {"initial": initial, "jitter": 0}}
    if chance.random() < 0.45:
        undo = _undo(chance.choice((1, 200)), fail=chance.choice((0, 0, 1)))
        undo["retry"] = {"backoff": {"initial": chance.choice(("10ms", "4s")), "jitter": 0}}
        if chance.random() < 0.1:
            child = {"workflow": chance.choice(("quick", "slow", "nope")), "input": {"mark": MARK}}
            undo = {"uses": "core.workflow", "with": child}
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
            inputs["default"] = LIKE_A_REFERENCE
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
    inputs: dict[str, Any] = {"workflow": chance.choice([*names, *names, "nope"]), "input": {"mark": MARK}}
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
_SMALL_WEIGHTS = (12, 1, 1, 3, 3, 2, 2)
