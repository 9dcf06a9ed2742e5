"""The kit with flows."""

from __future__ import annotations

from typing import Any

from tests.unit.testing.flows import greeting, purchase
from wpa.testing import Run, fail, run

MOCKS: dict[str, Any] = {
    "stock.reserve": None,
    "stock.release": None,
    "payments.charge": lambda amount: amount * 2,
    "payments.refund": None,
    "shipping.create": lambda **given: None,
}


def test_a_flow_runs_like_a_plan(wpa: Any) -> None:
    env = wpa(purchase, mocks=MOCKS)
    run = env.start({"amount": 3})
    run.signal("approved", {"by": "ana"}, at="2h")
    result = run.result()
    assert (result.status, result.output) == ("COMPLETED", "charged 6, approved by ana")
    assert result.duration_ms == 24 * 3600 * 1000


def test_a_time_out_takes_the_default(wpa: Any) -> None:
    result = wpa(purchase, mocks=MOCKS).start({"amount": 3}).result()
    assert (result.output, result.duration_ms) == ("charged 6, approved by nobody", 25 * 3600 * 1000)


def test_compensation_runs_backwards_wherever_a_worker_dies() -> None:
    mocks = MOCKS | {"shipping.create": fail("NoTruck", retryable=False)}

    def script(run: Run) -> None:
        run.signal("approved", {"by": "ana"}, at="2h")

    result = run(purchase, {"amount": 3}, mocks=mocks, script=script, crash_everywhere=True)
    assert result.status == "ROLLED_BACK"
    undone = [call.uses for call in result.calls if call.is_undo]
    assert undone == ["payments.refund", "stock.release"]


def test_the_dice_fall_the_same_wherever_a_worker_dies() -> None:
    result = run(purchase, {"amount": 3}, mocks=MOCKS, crash_everywhere=True)
    again = run(purchase, {"amount": 3}, mocks=MOCKS)
    refs = [
        [call.inputs["ref"] for call in each.calls if call.uses == "shipping.create"]
        for each in (result, again)
    ]
    assert refs[0] == refs[1] != []


def test_a_flow_that_waits_is_not_kept_in_memory_to_go_on(wpa: Any) -> None:
    env = wpa(greeting)
    runs = [env.start({"name": name}) for name in ("ana", "bea")]
    assert {each.status for each in runs} == {"WAITING"}
    assert [each.result().output for each in runs] == ["ANA", "BEA"]
