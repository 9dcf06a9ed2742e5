from __future__ import annotations

from types import ModuleType
from typing import Any

import msgspec
import pytest

from tests.unit.testing.plans import plan, step
from wpa.errors import StepFailed
from wpa.hooks.steps import step as declare
from wpa.ports.steps import StepContext
from wpa.testing import TestKitError, Unmocked, fail, returns

ONE = plan(step("a", inputs={"n": "${input.n}"}), output="${steps.a.output}")
THREE_TRIES = plan(
    step("a", retry={"max_attempts": 3, "backoff": {"initial": "1s"}}), output="${steps.a.output}"
)


class Receipt(msgspec.Struct):
    id: int


@declare("x.a")
async def real(n: int) -> Receipt:
    return Receipt(id=n)


@pytest.mark.parametrize("value", [7, None, "text", {"id": 1}, 1.5, True])
def test_a_value(wpa: Any, value: Any) -> None:
    assert wpa(ONE, mocks={"x.a": value}).start({"n": 1}).result().output == value


@pytest.mark.parametrize("value", [[1, 2], [], [[1]], None])
def test_any_value_with_returns(wpa: Any, value: Any) -> None:
    assert wpa(ONE, mocks={"x.a": returns(value)}).start({"n": 1}).result().output == value


def test_functions(wpa: Any) -> None:
    async def waits(n: int) -> int:
        return n + 1

    def asks(ctx: StepContext, n: int) -> str:
        return f"{ctx.idempotency_key} {ctx.attempt} {n}"

    assert wpa(ONE, mocks={"x.a": lambda n: n * 2}).start({"n": 4}).result().output == 8
    assert wpa(ONE, mocks={"x.a": waits}).start({"n": 4}).result().output == 5
    assert wpa(ONE, mocks={"x.a": asks}).start({"n": 4}).result().output == "w-1:a:1 1 4"
    assert wpa(ONE, mocks={"x.a": dict}).start({"n": 4}).result().output == {"n": 4}


def test_one_outcome_for_each_attempt(wpa: Any) -> None:
    outcomes = [fail("Busy"), ConnectionError("lost"), lambda: "third time"]
    result = wpa(THREE_TRIES, mocks={"x.a": outcomes}).start().result()
    assert result.output == "third time"
    failed = [event.data["error"]["type"] for event in result.events if event.event == "workflow_step_failed"]
    assert failed == ["Busy", "ConnectionError"]


def test_failing_so_many_times(wpa: Any) -> None:
    assert wpa(THREE_TRIES, mocks={"x.a": fail("Busy", times=2, then=5)}).start().result().output == 5
    result = wpa(THREE_TRIES, mocks={"x.a": fail("Busy", "come back", times=3)}).start().result()
    assert (result.status, len(result.calls)) == ("FAILED", 3)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("Busy", "come back")
    then = fail("Busy", times=1, then=fail("Gone", retryable=False))
    result = wpa(THREE_TRIES, mocks={"x.a": then}).start().result()
    assert result.error is not None
    assert (result.error.type, len(result.calls)) == ("Gone", 2)


@pytest.mark.parametrize(
    "error", [StepFailed("no", type="No", retryable=False), ValueError, ValueError("no")]
)
def test_exceptions(wpa: Any, error: Any) -> None:
    result = wpa(plan(step("a", retry={"max_attempts": 1})), mocks={"x.a": error}).start().result()
    assert result.error is not None
    assert result.error.type in ("No", "ValueError")


def test_a_list_that_is_used_up_is_the_tests_fault(wpa: Any) -> None:
    env = wpa(plan(step("a"), step("b", "x.a", "a")), mocks={"x.a": [1]})
    with pytest.raises(Unmocked, match="has 1 outcomes, and this is attempt 2"):
        env.start().result()


def test_a_step_that_is_not_mocked_is_named(wpa: Any) -> None:
    env = wpa(plan(step("a", "shop.pay", inputs={"cents": 5}, on_error="continue")), mocks={"x.b": 1})
    with pytest.raises(
        Unmocked, match=r"step a of w-1 uses shop.pay, with inputs \{'cents': 5\}.*mocks=.'shop.pay'"
    ):
        env.start()


def test_steps_by_id_and_their_compensations(wpa: Any) -> None:
    document = plan(
        step("one", "x.same", compensate={"uses": "x.same"}),
        step("two", "x.same", "one"),
        step("three", "x.same", "two", retry={"max_attempts": 1}),
    )
    mocks = {"x.same": "by type", "two": "by id", "three": fail("No"), "one:undo": "undone"}
    env = wpa(document, mocks=mocks)
    result = env.start().result()
    assert [result.steps[slot].output for slot in ("one", "two", "one:undo")] == [
        "by type",
        "by id",
        "undone",
    ]
    assert [call.place for call in env.calls("x.same")] == ["one", "two", "three", "one:undo"]


class TestBesideTheRealStep:
    def test_real_ones_run(self, wpa: Any) -> None:
        assert wpa(ONE, steps=[real]).start({"n": 4}).result().output == {"id": 4}

    def test_what_it_would_refuse_its_mock_refuses(self, wpa: Any) -> None:
        document = plan(step("a", inputs={"n": "${input.n}"}), output="${steps.a.output}")
        result = wpa(document, steps=[real], mocks={"x.a": {"id": 1}}).start({"n": "four"}).result()
        assert result.error is not None
        assert result.error.type == "InvalidInput"

    def test_a_mock_can_not_lie_about_the_output(self, wpa: Any) -> None:
        result = wpa(ONE, steps=[real], mocks={"x.a": {"number": 1}}).start({"n": 1}).result()
        assert result.error is not None
        assert result.error.type == "InvalidOutput"
        assert wpa(ONE, steps=[real], mocks={"x.a": Receipt(id=2)}).start({"n": 1}).result().output == {
            "id": 2
        }

    def test_plain_functions_run_to_their_end(self, wpa: Any) -> None:
        @declare("x.a")
        def blocks(n: int) -> int:
            import asyncio

            return asyncio.run(asyncio.sleep(0, n + 1))  # as in a thread of its own: no loop runs here

        assert wpa(ONE, steps=[blocks]).start({"n": 4}).result().output == 5

    def test_plugins_are_taken_whole(self, wpa: Any) -> None:
        class Plugin:
            @staticmethod
            def wpa_steps() -> list[Any]:
                return [real]

        assert wpa(ONE, steps=[Plugin]).start({"n": 4}).result().output == {"id": 4}

    def test_modules_are_taken_with_the_steps_that_they_declare(self, wpa: Any) -> None:
        module = ModuleType("payments")
        with pytest.raises(TestKitError, match="module payments declares nothing with @step"):
            wpa(ONE, steps=[module])
        vars(module).update(charge=real, helper=len)
        assert wpa(ONE, steps=[module]).start({"n": 4}).result().output == {"id": 4}

    def test_what_is_no_step_is_refused(self, wpa: Any) -> None:
        with pytest.raises(TestKitError, match="declare it with @step"):
            wpa(ONE, steps=[len])


class TestTheTestsOwnFaults:
    """They are raised to the test, whatever the workflow would make of a failed step."""

    FORGIVING = plan(step("a", inputs={"n": "${input.n}"}, on_error="continue"))

    def test_a_function_that_does_not_take_the_inputs(self, wpa: Any) -> None:
        env = wpa(self.FORGIVING, mocks={"x.a": lambda number: number})
        with pytest.raises(TestKitError, match=r"mock of x.a takes \(number\), but .* inputs are \{'n': 1\}"):
            env.start({"n": 1})

    def test_an_assertion_in_a_mock(self, wpa: Any) -> None:
        def checks(n: int) -> None:
            assert n == 7, "not seven"

        with pytest.raises(AssertionError, match="not seven"):
            wpa(self.FORGIVING, mocks={"x.a": checks}).start({"n": 1})

    def test_pytest_fail_in_a_mock(self, wpa: Any) -> None:
        env = wpa(self.FORGIVING, mocks={"x.a": lambda n: pytest.fail("never call this")})
        with pytest.raises(pytest.fail.Exception, match="never call this"):
            env.start({"n": 1})

    def test_a_type_error_inside_a_mock_is_the_steps_failure(self, wpa: Any) -> None:
        result = wpa(ONE, mocks={"x.a": lambda n: n + "1"}).start({"n": 1}).result()
        assert result.error is not None
        assert result.error.type == "TypeError"
        assert "TypeError" in repr(result)
