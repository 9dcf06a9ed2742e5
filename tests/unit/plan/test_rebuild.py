"""Whatever happens in whatever order: a run made anew from its history goes on as the old one would."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plan.player import Player, boom, plan_of, step
from wpa.kernel.program import Finished, Want
from wpa.plan import check

CONDITIONS = st.sampled_from(["true", "false", None, None])


@st.composite
def loops(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["", "", "foreach", "repeat", "while"]))
    if kind == "foreach":
        items = draw(st.lists(st.integers(0, 9), max_size=5))
        each = {
            "in": items,
            "concurrency": draw(st.integers(1, 3)),
            "on_error": draw(st.sampled_from(["fail", "continue"])),
        }
        return {"foreach": each, "with": {"x": "${item}", "i": "${index}"}}
    if kind:
        delay = {"delay": "1s"} if draw(st.booleans()) else {}
        condition = {"until": "index >= 2"} if kind == "repeat" else {"while": "index < 1"}
        return {"repeat": {**condition, **delay, "max": draw(st.integers(1, 4))}}
    return {"with": {"x": "${input.n}"}}


@st.composite
def plans(draw: st.DrawFn) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 8))):
        before = [item["id"] for item in steps]
        needs = draw(st.lists(st.sampled_from(before), unique=True, max_size=4)) if before else []
        name = f"s{index}"
        item: dict[str, Any] = {"id": name, "needs": needs}
        if len(needs) > 1:
            item["join"] = draw(st.sampled_from(["all", "any", "race", "race", 2]))
        if (condition := draw(CONDITIONS)) is not None:
            item["if"] = condition
        if draw(st.integers(0, 5)) == 0:
            item["switch"] = [{"when": "input.n > 1", "next": f"{name}-a"}]
            item["default"] = f"{name}-b"
            steps += [item, *(step(f"{name}-{way}", on_error="continue") for way in "ab")]
            continue
        uses = draw(st.sampled_from(["core.echo", "core.echo", "core.approval"]))
        item |= {"uses": uses, "on_error": "continue"}
        if uses == "core.echo":
            item |= draw(loops())
            seen = "".join("${steps['NAME'].status}".replace("NAME", need) for need in needs)
            item["with"] = {**item.get("with", {}), "seen": seen}
        steps.append(item)
    return steps


@settings(max_examples=300)
@given(plans(), st.integers(0, 3), st.integers())
def test_every_run_ends_and_can_be_rebuilt_at_every_settlement(
    steps: list[dict[str, Any]], n: int, seed: int
) -> None:
    document = {"id": "p", "version": "1", "steps": steps}
    assert check(document) == []
    dice = random.Random(seed)
    player = Player(plan_of(*steps), {"n": n})

    def answer(want: Want) -> Any:
        return boom() if want.kind != "timer" and dice.random() < 0.15 else want.inputs

    while player.open:
        slot = dice.choice(player.slots())
        player.settle(slot, answer(player.open[slot]))
        again = player.rebuilt()
        assert again.open == player.open
        assert again.latest == player.latest
        assert again.dropped == player.dropped
        assert again.outcome == player.outcome
        assert again.run.progress() == player.run.progress()
        assert again.run.steps() == player.run.steps()
    assert isinstance(player.outcome, Finished)
    assert player.run.progress().percentage == 100
    assert {view.phase for view in player.run.steps()} <= {"settled", "skipped"}
