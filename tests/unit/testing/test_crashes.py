"""A worker that dies at any point of any of these, and another that takes over: nothing may show."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from tests.unit.testing.plans import plan, sleep, step
from wpa.hooks.steps import step as declare
from wpa.ports.steps import StepContext
from wpa.testing import CrashFailure, Result, Run, TestKitError, child, fail, run

ONCE = {"max_attempts": 1}
HOURLY = {"max_attempts": 4, "backoff": {"initial": "1h", "jitter": 0}}


def everywhere(document: Any, *others: Any, script: Any = None, input: Any = None, **mocks: Any) -> Result:
    named = {name.replace("_", ".", 1): outcome for name, outcome in mocks.items()}
    return run(document, input, others=others, script=script, mocks=named, crash_everywhere=True)


class TestNothingShows:
    def test_ten_steps(self) -> None:
        steps = [step(f"s{n}", "x.add", *([f"s{n - 1}"] if n else []), inputs={"n": n}) for n in range(10)]
        began = time.perf_counter()
        result = everywhere(plan(*steps), x_add=lambda n: n + 1)
        assert time.perf_counter() - began < 4
        assert result.status == "COMPLETED"
        # Each: before and after its attempt, before and after its append.
        assert len(result.crash_points) >= 10 * 4 + 2
        assert result.crash_points[0] == "before the append of workflow_started of w-1"

    def test_side_by_side(self) -> None:
        each = [step(f"s{n}", "x.add", inputs={"n": n}) for n in range(5)]
        joined = plan(*each, step("all", "", *(f"s{n}" for n in range(5))), output="${steps.all.output}")
        assert everywhere(joined, x_add=lambda n: n, x_all=9).output == 9

    def test_sleeps_signals_and_retries(self) -> None:
        document = plan(
            step("a", retry=HOURLY),
            sleep("s", "24h", "a"),
            step("w", "core.wait", "s", inputs={"signal": "go"}),
            step("b", "", "w", inputs={"got": "${steps.w.output}"}, retry=HOURLY),
            output="${steps.b.output}",
        )
        result = everywhere(
            document,
            script=lambda run: run.signal("go", 3, at="30h"),
            x_a=fail("Busy", times=2, then=1),
            x_b=[fail("Busy", times=2), lambda got: got + 1],
        )
        assert result.output == 4
        assert len(result.crash_points) > 50

    def test_an_approval_that_escalates(self) -> None:
        ask = {"users": ["eva"], "timeout": "9h", "escalate": [{"after": "4h", "users": ["bob"]}]}

        def script(run: Run) -> None:
            run.skip("5h")
            run.approve("ask", user="bob")

        result = everywhere(plan(step("ask", "core.approval", inputs=ask)), script=script)
        assert result.output["ask"]["approved"] is True

    def test_a_saga(self) -> None:
        document = plan(
            *(
                step(name, "", *needs, compensate={"uses": f"x.undo_{name}"})
                for name, needs in {"a": (), "b": ("a",), "c": ("b",)}.items()
            ),
            step("d", "", "c", retry=ONCE),
        )
        mocks = {"x_undo_a": None, "x_undo_b": fail("Busy", times=2), "x_undo_c": None}
        result = everywhere(document, x_a=1, x_b=2, x_c=3, x_d=fail("No"), **mocks)
        assert (result.status, result.undone) == ("ROLLED_BACK", ["c", "b", "a"])

    def test_a_saga_whose_undo_gives_up(self) -> None:
        document = plan(
            step("a", compensate={"uses": "x.undo_a", "retry": ONCE}), step("b", "", "a", retry=ONCE)
        )
        result = everywhere(document, x_a=1, x_b=fail("No"), x_undo_a=fail("Gone", retryable=False))
        assert (result.status, result.not_undone) == ("FAILED", ["a"])

    def test_a_cancel(self) -> None:
        document = plan(step("a", compensate={"uses": "x.undo_a"}), sleep("s", "9h", "a"))
        result = everywhere(document, script=lambda run: run.cancel("no", at="5h"), x_a=1, x_undo_a=None)
        assert (result.status, result.undone) == ("CANCELLED", ["a"])

    def test_a_pause(self) -> None:
        def script(run: Run) -> None:
            run.pause()
            run.skip("9h")
            run.resume()

        document = plan(step("a"), sleep("s", "2h", "a"), step("b", "", "s"))
        assert everywhere(document, script=script, x_a=1, x_b=2).output == {"b": 2}

    def test_a_deadline(self) -> None:
        document = plan(
            step("a", compensate={"uses": "x.undo_a"}),
            step("w", "core.wait", "a", inputs={"signal": "never"}),
            timeout="3h",
        )
        assert everywhere(document, x_a=1, x_undo_a=None).status == "ROLLED_BACK"

    def test_children(self) -> None:
        parent = plan(
            step("c", "core.workflow", inputs={"workflow": "other"}),
            step("d", "core.workflow", inputs={"workflow": "mock"}),
            id="parent",
        )
        other = plan(sleep("s", "1h"), step("a", "", "s"), id="other")
        result = everywhere(parent, other, child("mock", {"m": 1}), x_a=1)
        assert result.output == {"c": {"a": 1}, "d": {"m": 1}}

    def test_a_child_that_fails(self) -> None:
        parent = plan(
            step("a", compensate={"uses": "x.undo_a"}),
            step("c", "core.workflow", "a", inputs={"workflow": "other"}),
            id="parent",
        )
        other = plan(step("b", retry=ONCE), id="other")
        result = everywhere(parent, other, x_a=1, x_b=fail("No"), x_undo_a=None)
        assert result.error is not None
        assert (result.status, result.error.type) == ("ROLLED_BACK", "ChildFailed")

    def test_a_cancel_that_reaches_a_child(self) -> None:
        parent = plan(step("c", "core.workflow", inputs={"workflow": "other"}), id="parent")
        other = plan(sleep("s", "9h"), id="other")
        assert everywhere(parent, other, script=lambda run: run.cancel(at="1h")).status == "CANCELLED"

    def test_foreach_repeat_and_a_decision(self) -> None:
        document = plan(
            step(
                "each",
                "x.double",
                foreach={"in": "${input.items}", "concurrency": 2},
                inputs={"n": "${item}"},
            ),
            step("poll", "", "each", repeat={"until": "output == 'done'", "delay": "10m"}),
            {
                "id": "which",
                "needs": ["poll"],
                "switch": [{"when": "input.big", "next": "big"}],
                "default": "small",
            },
            step("big"),
            step("small"),
            output={"each": "${steps.each.output}", "big": "${steps.big.status}"},
        )
        result = everywhere(
            document,
            input={"items": [1, 2, 3], "big": True},
            x_double=lambda n: 2 * n,
            x_poll=["queued", "done"],
            x_big=1,
        )
        assert result.output == {"each": [2, 4, 6], "big": "completed"}

    def test_a_race(self) -> None:
        document = plan(
            sleep("near", "1h"), sleep("far", "5h"), step("first", "", "near", "far", join="race")
        )
        assert everywhere(document, x_first=1).output == {"first": 1}

    def test_a_step_of_another_queue(self) -> None:
        document = plan(step("a", queue="gpu", inputs={"n": 1}, retry=HOURLY), step("b", "", "a"))
        result = everywhere(document, x_a=[fail("Busy"), lambda n: n + 1], x_b=3)
        assert result.output == {"b": 3}

    def test_large_values(self) -> None:
        document = plan(step("a"), step("b", "", "a", inputs={"text": "${steps.a.output}"}))
        result = everywhere(document, x_a="x" * 100_000, x_b=lambda text: len(text))
        assert result.output == {"b": 100_000}

    def test_a_delayed_start(self) -> None:
        def script(run: Run) -> None:
            run.skip("1h")

        result = run(plan(step("a")), mocks={"x.a": 1}, crash_everywhere=True, script=script)
        assert result.status == "COMPLETED"


class TestWhatShows:
    def test_a_step_that_is_not_idempotent(self) -> None:
        counter = itertools.count()
        document = plan(step("a"), output="${steps.a.output}")
        with pytest.raises(
            CrashFailure, match=r"(?s)a worker died .*its output is .*with the crash:\n.*started"
        ):
            run(document, mocks={"x.a": lambda: next(counter)}, crash_everywhere=True)

    def test_one_that_must_not_be_repeated(self) -> None:
        document = plan(step("a", at_most_once=True))
        with pytest.raises(CrashFailure, match=r"its status is 'FAILED', not 'COMPLETED'"):
            run(document, mocks={"x.a": 1}, crash_everywhere=True)

    def test_a_script_that_fails_only_after_a_crash(self) -> None:
        def script(run: Run) -> None:
            assert {event.worker for event in run.events} == {"worker-1"}

        with pytest.raises(CrashFailure, match="AssertionError"):
            run(plan(step("a")), mocks={"x.a": 1}, script=script, crash_everywhere=True)

    def test_what_is_wrong_without_a_crash_is_said_as_it_is(self) -> None:
        with pytest.raises(TestKitError, match="add it to mocks") as caught:
            run(plan(step("a")), crash_everywhere=True)
        assert not isinstance(caught.value, CrashFailure)


def test_attempts_have_the_key_of_their_slot() -> None:
    keys: dict[str, set[str]] = {}

    @declare("x.a")
    async def a(ctx: StepContext) -> int:
        keys.setdefault(ctx.step, set()).add(ctx.idempotency_key)
        return 1

    run(plan(step("a"), step("b", "x.a", "a")), steps=[a], crash_everywhere=True, execution_id="o7")
    assert keys == {"a": {"o7:a:1"}, "b": {"o7:b:1"}}


def test_without_crashes_it_is_one_run() -> None:
    result = run(plan(step("a"), output="${input.n}"), {"n": 4}, mocks={"x.a": 1})
    assert (result.output, result.crash_points) == (4, ())
