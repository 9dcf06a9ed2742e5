"""Whatever of a plan can't be computed when it is time: what was done before is undone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kernel.table import Table
from wpa import plan

RESERVE = {"id": "reserve", "uses": "o.reserve", "compensate": {"uses": "o.release"}}
MISSING = "${input.missing}"
FAULTS: dict[str, dict[str, Any]] = {
    "when": {"switch": [{"when": "input.missing > 1", "next": "y"}]},
    "if of a decision": {"if": "input.missing", "switch": [{"when": "true", "next": "y"}]},
    "if": {"if": "input.missing", "uses": "o.x"},
    "with": {"uses": "o.x", "with": {"a": MISSING}},
    "a wait": {"uses": "core.sleep", "with": {"for": MISSING}},
    "foreach": {"uses": "o.x", "foreach": {"in": MISSING}},
    "a list that is none": {"uses": "o.x", "foreach": {"in": "${5}"}},
    "an item": {"uses": "o.x", "foreach": {"in": [1, 2]}, "with": {"a": "${item.missing}"}},
    "repeat": {"uses": "o.x", "repeat": {"until": "output.missing", "max": 3}},
    "no rounds left": {"uses": "o.x", "repeat": {"until": "false", "max": 1}},
    "set": {"uses": "o.x", "set": {"a": MISSING}},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("crash", [False, True])
def test_a_fault_undoes_what_was_done(fault: str, *, crash: bool) -> None:
    steps = [RESERVE, {"id": "x", "needs": ["reserve"], **FAULTS[fault]}]
    if "switch" in FAULTS[fault]:
        steps.append({"id": "y", "uses": "o.y"})
    table = Table(plan.load({"id": "p", "version": "1", "steps": steps}), {})
    table.ok("reserve")
    if "x" in table.state.open:
        table.ok("x")
    if crash:
        table.crash()
    assert table.state.undo == ["reserve:undo"]
    table.ok("reserve:undo")
    assert (table.state.status, table.state.undone) == ("ROLLED_BACK", ["reserve"])


@pytest.mark.parametrize("fault", ["when", "if"])
def test_without_compensations_a_fault_fails_it(fault: str) -> None:
    steps = [{"id": "x", **FAULTS[fault]}, {"id": "y", "uses": "o.y", "needs": ["x"]}]
    if fault == "when":
        del steps[1]["needs"]
    table = Table(plan.load({"id": "p", "version": "1", "steps": steps}), {})
    assert (table.state.status, table.state.failed_step) == ("FAILED", "x")
