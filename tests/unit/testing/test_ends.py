"""Pauses, cancels, compensation, deadlines, and dynamic work, on the real engine."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from tests.unit.testing.plans import plan, sleep, step
from wpa.errors import TaskRejected
from wpa.testing import NotEnded, fail

ONCE = {"retry": {"max_attempts": 1}}
BACKOFF = {"initial": "1h", "factor": 2, "max": "24h", "jitter": 0}


class TestPauseAndResume:
    PLAN = plan(step("a"), sleep("s", "1h", "a"), step("b", "", "s"))

    def test_nothing_begins_during_a_pause(self, wpa: Any) -> None:
        env = wpa(self.PLAN, mocks={"x.a": 1, "x.b": 2})
        run = env.start()
        run.pause("look first")
        env.skip("5h")
        assert run.status == "PAUSED"
        assert env.calls("x.b") == []
        with pytest.raises(NotEnded, match=r"PAUSED.*resume it"):
            run.result()
        run.resume()
        result = run.result()
        assert (result.status, result.duration_ms) == ("COMPLETED", 5 * 3600 * 1000)

    def test_a_running_step_ends_first(self, wpa: Any) -> None:
        async def slow() -> int:
            await asyncio.sleep(10)
            return 1

        env = wpa(self.PLAN, mocks={"x.a": slow, "x.b": 2})
        run = env.start()
        run.pause(at="3s")
        env.skip("1m")
        assert run.state.slots["a"].status == "completed"
        assert "s" not in run.state.slots
        run.resume()
        assert run.result().status == "COMPLETED"


class TestAPlanThatItsSetBreaks:
    BROKEN = step("a", set={"x": "${steps.a.output.missing}"}, compensate={"uses": "x.undo_a"})
    MOCKS: Final = {"x.a": {"id": "R1"}, "x.undo_a": None, "x.undo_b": None}

    def test_undoes_what_was_done_and_gives_up_what_it_waits_for(self, wpa: Any) -> None:
        wait = step("w", "core.wait", inputs={"signal": "go"})
        run = wpa(plan(self.BROKEN, wait), mocks=self.MOCKS).start()
        result = run.result()
        assert (result.status, result.undone, result.duration_ms) == ("ROLLED_BACK", ["a"], 0)
        assert "steps.a.output.missing" in result.error.message

    def test_lets_what_runs_end_and_undoes_it_too(self, wpa: Any) -> None:
        async def slow() -> int:
            await asyncio.sleep(10)
            return 1

        b = step("b", compensate={"uses": "x.undo_b"})
        run = wpa(plan(self.BROKEN, b, step("c", "", "b")), mocks={**self.MOCKS, "x.b": slow}).start()
        result = run.result()
        assert (result.status, result.undone) == ("ROLLED_BACK", ["b", "a"])

    def test_tries_nothing_again(self, wpa: Any) -> None:
        async def slow() -> int:
            await asyncio.sleep(5)
            return 1

        b = step("b", retry={"max_attempts": 3, "backoff": {"initial": "1s", "jitter": 0}})
        slow_a = self.BROKEN | {"needs": ["c"]}
        mocks = {**self.MOCKS, "x.b": [fail("Away"), 1], "x.c": 1, "x.d": slow}
        env = wpa(plan(b, step("c"), slow_a, step("d")), mocks=mocks)
        result = env.start().result()
        assert (result.status, result.undone, result.duration_ms) == ("ROLLED_BACK", ["a"], 5_000)
        assert len(env.calls("x.b")) == 1


class TestCancel:
    SAGA = plan(
        step("a", compensate={"uses": "x.undo_a", "with": {"was": "${steps.a.output}"}}),
        step("b", "", "a", compensate={"uses": "x.undo_b"}),
        sleep("s", "1h", "b"),
    )

    def test_at_rest(self, wpa: Any) -> None:
        env = wpa(self.SAGA, mocks={"x.a": 5, "x.b": 6, "x.undo_a": None, "x.undo_b": None})
        run = env.start()
        run.cancel("changed my mind", at="30m")
        result = run.result()
        assert (result.status, result.undone) == ("CANCELLED", ["b", "a"])
        assert [call.uses for call in result.calls] == ["x.a", "x.b", "x.undo_b", "x.undo_a"]
        assert env.calls("a:undo")[0].inputs == {"was": 5}

    def test_without_compensation(self, wpa: Any) -> None:
        env = wpa(self.SAGA, mocks={"x.a": 5, "x.b": 6})
        run = env.start()
        run.cancel(compensate=False)
        result = run.result()
        assert (result.status, result.undone, result.not_undone) == ("CANCELLED", [], ["b", "a"])

    def test_a_running_step_is_stopped(self, wpa: Any) -> None:
        stopped = []

        async def slow() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                stopped.append(True)
                raise

        env = wpa(self.SAGA, mocks={"x.a": 5, "x.b": slow, "x.undo_a": None})
        run = env.start()
        run.cancel(at="10s")
        result = run.result()
        assert stopped == [True]
        assert (result.status, result.undone) == ("CANCELLED", ["a"])
        assert result.duration_ms < 11_000

    def test_terminate_just_ends_it(self, wpa: Any) -> None:
        env = wpa(self.SAGA, mocks={"x.a": 5, "x.b": 6})
        run = env.start()
        run.terminate("now")
        assert run.result().not_undone == ["a", "b"]


class TestDoneElsewhere:
    """What a worker of another group, or a child, had under way when the execution gave up."""

    FAR = plan(
        step("a", queue="far", compensate={"uses": "x.undo_a"}),
        step("b", retry={"max_attempts": 1}),
    )

    def test_it_is_let_end_and_undone(self, wpa: Any) -> None:
        done: list[str] = []

        async def pay() -> None:
            done.append("paid")
            await asyncio.sleep(10)
            done.append("reported")

        async def bad() -> None:
            await asyncio.sleep(5)
            raise RuntimeError("no")

        mocks = {"x.a": pay, "x.b": bad, "x.undo_a": lambda: done.append("paid back")}
        env = wpa(self.FAR, mocks=mocks, queues={"far"})
        result = env.start().result()
        assert (result.status, result.undone) == ("ROLLED_BACK", ["a"])
        assert done == ["paid", "reported", "paid back"]

    def test_what_was_reported_in_a_pause_is_undone_by_the_cancel(self, wpa: Any) -> None:
        waits = {"id": "w", "uses": "core.wait", "with": {"signal": "go"}}
        mocks = {"x.a": 1, "x.undo_a": None}
        env = wpa(plan(self.FAR["steps"][0], waits), mocks=mocks, queues={"far"}, auto_skip=False)
        run = env.start()
        run.pause()
        env.skip("1m")
        run.cancel()
        env.skip("1m")
        assert (run.status, run.state.undone) == ("CANCELLED", ["a"])


class TestCompensation:
    def test_undos_are_retried(self, wpa: Any) -> None:
        """An undo that failed after a step had given up was never tried again: its driver span for ever."""
        saga = plan(
            step("a", compensate={"uses": "x.undo_a"}),
            step("b", "", "a", compensate={"uses": "x.undo_b"}),
            step("c", "", "b", retry={"max_attempts": 1}),
        )
        env = wpa(
            saga,
            mocks={
                "x.a": 1,
                "x.b": 2,
                "x.c": fail("No"),
                "x.undo_a": fail("Busy", times=2),
                "x.undo_b": None,
            },
        )
        result = env.start().result()
        assert (result.status, result.undone) == ("ROLLED_BACK", ["b", "a"])
        assert [call.attempt for call in env.calls("a:undo")] == [1, 2, 3]

    def test_undos_with_long_backoffs_rest(self, wpa: Any) -> None:
        undo = {"uses": "x.undo_a", "retry": {"max_attempts": 3, "backoff": BACKOFF}}
        env = wpa(
            plan(step("a", compensate=undo), step("c", "", "a", retry={"max_attempts": 1})),
            mocks={"x.a": 1, "x.c": fail("No"), "x.undo_a": fail("Busy", times=2)},
        )
        run = env.start()
        assert run.status == "COMPENSATING"
        result = run.result()
        assert (result.status, result.duration_ms) == ("ROLLED_BACK", 3 * 3600 * 1000)

    def test_an_undo_that_gives_up(self, wpa: Any) -> None:
        saga = plan(
            step("a", compensate={"uses": "x.undo_a"}),
            step("b", "", "a", compensate={"uses": "x.undo_b"}),
            step("c", "", "b", retry={"max_attempts": 1}),
        )
        env = wpa(
            saga, mocks={"x.a": 1, "x.b": 2, "x.c": fail("No"), "x.undo_b": fail("Gone", retryable=False)}
        )
        result = env.start().result()
        assert (result.status, result.undone, result.not_undone) == ("FAILED", [], ["b", "a"])
        assert env.calls("x.undo_a") == []


class TestDeadlineOfAnExecution:
    def test_ends_it(self, wpa: Any) -> None:
        env = wpa(plan(step("w", "core.wait", inputs={"signal": "go"}), timeout="3h"))
        result = env.start().result()
        assert result.error is not None
        assert (result.status, result.error.type) == ("FAILED", "DeadlineExceeded")
        assert result.duration_ms == 3 * 3600 * 1000

    def test_undoes_what_was_done(self, wpa: Any) -> None:
        env = wpa(
            plan(
                step("a", compensate={"uses": "x.undo_a"}),
                step("w", "core.wait", "a", inputs={"signal": "go"}),
                timeout="3h",
            ),
            mocks={"x.a": 1, "x.undo_a": None},
        )
        result = env.start().result()
        assert (result.status, result.undone) == ("ROLLED_BACK", ["a"])

    def test_stops_a_running_step(self, wpa: Any) -> None:
        async def slow() -> None:
            await asyncio.sleep(3600)

        env = wpa(plan(step("a"), timeout="10s"), mocks={"x.a": slow})
        result = env.start().result()
        assert result.error is not None
        assert result.error.type == "DeadlineExceeded"
        assert result.duration_ms < 12_000

    def test_counts_anew_where_a_failed_execution_is_tried_again(self, wpa: Any) -> None:
        doing = (step("a", compensate={"uses": "x.undo_a"}), step("b", "", "a", on_error="fail", **ONCE))
        wait = step("w", "core.wait", "b", inputs={"signal": "go"})
        env = wpa(
            plan(*doing, wait, timeout="2h"),
            mocks={"x.a": 1, "x.b": [fail("Away")] * 2 + [2], "x.undo_a": None},
        )
        run = env.start()
        for _ in range(2):
            assert run.result().status == "FAILED"
            env.skip("3h")
            run.retry()
        env.skip("1h59m")
        assert run.status == "WAITING"
        result = run.result()
        assert result.error is not None
        assert (result.status, result.error.type) == ("ROLLED_BACK", "DeadlineExceeded")
        assert result.duration_ms == (3 + 3 + 2) * 3600 * 1000

    def test_is_over_where_a_version_without_one_is_tried_again(self, wpa: Any) -> None:
        steps = (step("w", "core.wait", inputs={"signal": "go"}), step("a", "", "w", **ONCE))
        env = wpa(plan(*steps, timeout="3h"), mocks={"x.a": [fail("Away"), 1]})
        run = env.start()
        env.deploy(plan(*steps, version="2"))
        run.migrate("2")
        run.signal("go")
        assert run.result().status == "FAILED"
        env.skip("5h")
        run.retry()
        assert run.result().status == "COMPLETED"

    def test_is_why_it_is_not_tried_again(self, wpa: Any) -> None:
        run = wpa(plan(step("w", "core.wait", inputs={"signal": "go"}), timeout="3h")).start()
        run.result()
        with pytest.raises(TaskRejected, match=r"no step of it had given up: DeadlineExceeded: .*wpa rerun"):
            run.retry()


class TestDynamicWork:
    def test_foreach(self, wpa: Any) -> None:
        each = step("a", foreach={"in": "${input.items}", "concurrency": 3}, inputs={"n": "${item}"})
        env = wpa(plan(each, output="${steps.a.output}"), mocks={"x.a": lambda n: n * n})
        assert env.start({"items": [1, 2, 3, 4, 5]}).result().output == [1, 4, 9, 16, 25]

    def test_repeat_until(self, wpa: Any) -> None:
        poll = step("a", repeat={"until": "output == 'done'", "delay": "10m"})
        env = wpa(plan(poll), mocks={"x.a": ["queued", "running", "done"]})
        result = env.start().result()
        assert (result.output, result.duration_ms) == ({"a": "done"}, 20 * 60 * 1000)
        assert len({call.key for call in result.calls}) == 3

    def test_race(self, wpa: Any) -> None:
        racing = plan(
            sleep("near", "1h"),
            sleep("far", "5h"),
            step("first", "", "near", "far", join="race"),
        )
        result = wpa(racing, mocks={"x.first": 1}).start().result()
        assert result.duration_ms == 3600 * 1000
        assert result.steps["far"].status == "cancelled"

    def test_a_step_of_another_queue(self, wpa: Any) -> None:
        env = wpa(plan(step("a", queue="gpu", inputs={"n": 1})), mocks={"x.a": lambda n: n + 1})
        assert env.start().result().output == {"a": 2}


class TestMigrate:
    def test_a_waiting_one_goes_on_with_the_new_version(self, wpa: Any) -> None:
        old = plan(sleep("s", "1h"), step("b", "", "s"))
        new = plan(sleep("s", "1h"), step("b", "x.better", "s"), version="2")
        env = wpa(old, mocks={"x.b": "old", "x.better": "new"})
        run = env.start()
        env.deploy(new)
        run.migrate("2")
        assert run.result().output == {"b": "new"}

    def test_a_version_with_fewer_rounds_than_were_made_ends_the_loop(self, wpa: Any) -> None:
        async def poll() -> None:
            await asyncio.sleep(3600)

        def polling(rounds: int, version: str) -> dict[str, Any]:
            return plan(step("a", repeat={"until": "false", "max": rounds}), version=version)

        env = wpa(polling(9, "1"), mocks={"x.a": poll})
        run = env.start()
        env.skip("4.5h")
        run.pause()
        env.skip("1h")  # the fifth round ends, and nothing is open
        env.deploy(polling(3, "2"))
        run.migrate("2")
        run.resume()
        result = run.result()
        assert (result.status, result.error.type) == ("FAILED", "RepeatExhausted")
        assert result.error.message.startswith("after 5 rounds `until: false`")


class TestRetryInPlace:
    def test_a_failed_one_goes_on(self, wpa: Any) -> None:
        env = wpa(
            plan(step("a"), step("b", "", "a", retry={"max_attempts": 1})),
            mocks={"x.a": 1, "x.b": fail("Down", times=1, then="up")},
        )
        run = env.start()
        assert run.status == "FAILED"
        run.retry()
        result = run.result()
        assert (result.status, len(env.calls("x.a"))) == ("COMPLETED", 1)
