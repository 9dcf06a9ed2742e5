"""Everything that waits, on the real engine: what the kit is for, and the engine's own shake-down."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.unit.testing.plans import names, plan, sleep, step
from wpa.errors import TaskRejected
from wpa.testing import NotEnded, child, fail

BACKOFF = {"initial": "1h", "factor": 2, "max": "24h", "jitter": 0}


class TestTimers:
    def test_a_day_takes_milliseconds(self, wpa: Any) -> None:
        env = wpa(plan(sleep("s", "24h"), step("b", "", "s")), mocks={"x.b": 1})
        began = time.perf_counter()
        result = env.start().result()
        assert time.perf_counter() - began < 0.5
        assert result.status == "COMPLETED"
        assert result.duration_ms == 24 * 3600 * 1000

    def test_a_year_of_short_sleeps(self, wpa: Any) -> None:
        again = step("s", "core.sleep", inputs={"for": "24h"}, repeat={"until": "false", "max": 365})
        env = wpa(plan({**again, "on_error": "continue"}))
        began = time.perf_counter()
        assert env.start().result().duration_ms >= 364 * 24 * 3600 * 1000
        assert time.perf_counter() - began < 5

    def test_never_early_and_not_late(self, wpa: Any) -> None:
        env = wpa(plan(sleep("s", "90s")))
        run = env.start()
        env.skip(89.999)
        assert run.status == "WAITING"
        env.skip(0.001)
        assert run.status == "COMPLETED"

    def test_until_a_moment(self, wpa: Any) -> None:
        env = wpa(
            plan(step("s", "core.sleep", inputs={"until": "2026-03-01T00:00:00Z"})),
            now="2026-02-27T12:00:00Z",
        )
        assert env.start().result().events[-1].timestamp == "2026-03-01T00:00:00.000Z"

    def test_a_moment_that_is_past_is_no_wait(self, wpa: Any) -> None:
        env = wpa(plan(step("s", "core.sleep", inputs={"until": "2020-03-01T00:00:00Z"})))
        assert env.start().status == "COMPLETED"

    def test_several_at_a_time(self, wpa: Any) -> None:
        env = wpa(
            plan(sleep("a", "1h"), sleep("b", "3h"), sleep("c", "2h"), step("d", "", "a")), mocks={"x.d": 1}
        )
        run = env.start()
        env.skip("90m")
        assert [item["slot"] for item in run.waiting_for] == ["b", "c"]
        assert run.result().duration_ms == 3 * 3600 * 1000
        assert names(run.events).count("step_completed") == 4

    def test_a_delayed_start(self, wpa: Any) -> None:
        env = wpa(plan(step("a")), mocks={"x.a": 1})
        run = env.start(start_at="2026-01-05T00:00:00Z")
        assert run.status == "WAITING"
        assert env.calls() == []
        assert run.result().status == "COMPLETED"
        assert env.now == "2026-01-05T00:00:00.000Z"


class TestRetries:
    def test_long_backoffs_are_slept_through_at_rest(self, wpa: Any) -> None:
        env = wpa(
            plan(step("a", retry={"max_attempts": 4, "backoff": BACKOFF})),
            mocks={"x.a": fail("Busy", times=3, then="done")},
        )
        run = env.start()
        assert run.waiting_for == [
            {"slot": "a", "step": "a", "kind": "retry", "until": "2026-01-01T01:00:00.000Z"}
        ]
        result = run.result()
        assert result.duration_ms == (1 + 2 + 4) * 3600 * 1000
        assert [call.attempt for call in result.calls] == [1, 2, 3, 4]
        assert {call.key for call in result.calls} == {"w-1:a:1"}

    def test_short_ones_are_waited_for(self, wpa: Any) -> None:
        env = wpa(
            plan(step("a", retry={"max_attempts": 3, "backoff": {"initial": "500ms", "jitter": 0}})),
            mocks={"x.a": fail("Busy", times=2)},
        )
        result = env.start().result()
        assert result.duration_ms == 1_500
        assert "waiting" not in names(result.events)

    def test_give_up_ends_at_once(self, wpa: Any) -> None:
        env = wpa(plan(step("a")), mocks={"x.a": fail("Declined", "no money", retryable=False)})
        result = env.start().result()
        assert (result.status, result.failed_step) == ("FAILED", "a")
        assert result.error is not None
        assert (result.error.type, result.error.message) == ("Declined", "no money")
        assert len(result.calls) == 1

    def test_an_attempt_that_hangs_times_out_in_virtual_time(self, wpa: Any) -> None:
        async def hang() -> None:
            await asyncio.sleep(3600)

        env = wpa(plan(step("a", timeout="30s", retry={"max_attempts": 1})), mocks={"x.a": hang})
        began = time.perf_counter()
        result = env.start().result()
        assert time.perf_counter() - began < 1
        assert result.error is not None
        assert result.error.type == "Timeout"
        assert result.duration_ms == 30_000

    def test_the_deadline_of_a_step_ends_its_retries(self, wpa: Any) -> None:
        env = wpa(
            plan(step("a", deadline="3h", retry={"max_attempts": 9, "backoff": BACKOFF})),
            mocks={"x.a": fail("Busy")},
        )
        result = env.start().result()
        assert result.error is not None
        assert result.error.type == "DeadlineExceeded"
        assert len(result.calls) == 2


class TestSignals:
    PLAN = plan(
        sleep("s", "1h"),
        step("w", "core.wait", "s", inputs={"signal": "go"}),
        step("b", "", "w", inputs={"got": "${steps.w.output}"}),
        output="${steps.b.output}",
    )

    def test_one_that_comes_while_it_is_waited_for(self, wpa: Any) -> None:
        env = wpa(self.PLAN, mocks={"x.b": lambda got: got["n"]})
        run = env.start()
        run.signal("go", {"n": 7}, at="2h")
        result = run.result()
        assert (result.output, result.duration_ms) == (7, 2 * 3600 * 1000)

    def test_one_that_comes_before_is_kept(self, wpa: Any) -> None:
        env = wpa(self.PLAN, mocks={"x.b": lambda got: got["n"]})
        run = env.start()
        run.signal("go", {"n": 7})
        assert run.status == "WAITING"
        result = run.result()
        assert (result.output, result.duration_ms) == (7, 3600 * 1000)

    def test_one_sent_twice_counts_once(self, wpa: Any) -> None:
        env = wpa(
            plan(
                step("one", "core.wait", inputs={"signal": "go"}),
                step("two", "core.wait", "one", inputs={"signal": "go"}),
            )
        )
        run = env.start()
        run.signal("go", 1, id="the-same")
        run.signal("go", 1, id="the-same")
        assert [item["slot"] for item in run.waiting_for] == ["two"]
        run.signal("go", 2, id="another")
        assert run.status == "COMPLETED"

    def test_a_time_out_takes_the_default(self, wpa: Any) -> None:
        env = wpa(
            plan(step("w", "core.wait", inputs={"signal": "go", "timeout": "2d", "default": "never"})),
        )
        result = env.start().result()
        assert (result.output, result.duration_ms) == ({"w": "never"}, 2 * 24 * 3600 * 1000)

    def test_a_time_out_without_one_fails(self, wpa: Any) -> None:
        env = wpa(plan(step("w", "core.wait", inputs={"signal": "go", "timeout": "2d"})))
        result = env.start().result()
        assert result.error is not None
        assert (result.status, result.error.type) == ("FAILED", "Timeout")

    def test_one_that_comes_too_late_is_refused(self, wpa: Any) -> None:
        env = wpa(plan(step("w", "core.wait", inputs={"signal": "go", "timeout": "1h", "default": 0})))
        run = env.start()
        run.result()
        with pytest.raises(TaskRejected, match="ended"):
            run.signal("go")

    def test_a_payload_that_does_not_fit_is_refused(self, wpa: Any) -> None:
        env = wpa(
            plan(
                step("w", "core.wait", inputs={"signal": "go"}),
                signals={"go": {"schema": {"type": "object", "required": ["n"]}}},
            )
        )
        run = env.start()
        with pytest.raises(TaskRejected, match="n"):
            run.signal("go", {})
        run.signal("go", {"n": 1})
        assert run.status == "COMPLETED"

    def test_a_refusal_on_the_way_is_raised_by_what_lets_time_pass(self, wpa: Any) -> None:
        env = wpa(plan(step("w", "core.wait", inputs={"signal": "go", "timeout": "1h", "default": 0})))
        run = env.start()
        run.signal("go", at="2h")
        with pytest.raises(TaskRejected, match="ended"):
            env.skip("3h")

    def test_waiting_for_ever_is_said(self, wpa: Any) -> None:
        env = wpa(plan(step("w", "core.wait", inputs={"signal": "go"})))
        run = env.start()
        with pytest.raises(NotEnded, match=r"waits for w \(signal go\).*send the signal"):
            run.result()
        run.signal("go", 1)
        assert run.result().status == "COMPLETED"


class TestApprovals:
    PLAN = plan(
        step(
            "ask",
            "core.approval",
            inputs={
                "roles": ["finance"],
                "count": 2,
                "timeout": "48h",
                "default": {"approved": False, "answers": []},
                "escalate": [{"after": "4h", "roles": ["board"]}],
            },
        ),
        output="${steps.ask.output.approved}",
    )

    def test_as_many_as_are_needed(self, wpa: Any) -> None:
        run = wpa(self.PLAN).start()
        run.approve("ask", user="eva", roles=["finance"])
        assert run.status == "WAITING"
        run.approve("ask", user="eva", roles=["finance"])
        assert run.status == "WAITING"
        run.approve("ask", user="ida", roles=["finance"], comment="fine")
        result = run.result()
        assert result.output is True
        answers = result.steps["ask"].output["answers"]
        assert [(answer["by"]["user_id"], answer["comment"]) for answer in answers] == [
            ("eva", ""),
            ("ida", "fine"),
        ]

    def test_one_no_is_enough(self, wpa: Any) -> None:
        run = wpa(self.PLAN).start()
        run.reject("ask", user="eva", roles=["finance"], comment="too much")
        assert run.result().output is False

    def test_escalation_lets_others_answer(self, wpa: Any) -> None:
        run = wpa(self.PLAN).start()
        with pytest.raises(TaskRejected, match="may not answer"):
            run.approve("ask", user="bob", roles=["board"])
        run.approve("ask", user="bob", roles=["board"], at="4h1m")
        run.approve("ask", user="eva", roles=["finance"], at="5h")
        result = run.result()
        assert result.output is True
        assert names(result.events).count("escalated") == 1

    def test_nobody_answers(self, wpa: Any) -> None:
        result = wpa(self.PLAN).start().result()
        assert (result.output, result.duration_ms) == (False, 48 * 3600 * 1000)

    def test_a_step_that_asks_nothing(self, wpa: Any) -> None:
        run = wpa(self.PLAN).start()
        with pytest.raises(TaskRejected, match="ask"):
            run.approve("askk", user="eva", roles=["finance"])


class TestChildren:
    PARENT = plan(
        step("c", "core.workflow", inputs={"workflow": "other", "input": {"n": "${input.n}"}}),
        step("b", "", "c", inputs={"got": "${steps.c.output}"}),
        id="parent",
        output="${steps.b.output}",
    )

    def test_a_real_one(self, wpa: Any) -> None:
        other = plan(sleep("s", "1h"), id="other", output="${input.n + 1}")
        env = wpa(self.PARENT, other, mocks={"x.b": lambda got: got * 10})
        run = env.start({"n": 3})
        assert run.waiting_for[0]["kind"] == "child"
        assert env.execution(run.waiting_for[0]["name"]).status == "WAITING"
        result = run.result()
        assert (result.output, result.duration_ms) == (40, 3600 * 1000)

    def test_a_stand_in(self, wpa: Any) -> None:
        env = wpa(
            self.PARENT,
            child("other", lambda **given: given["input"]["n"] + 1),
            mocks={"x.b": lambda got: got},
        )
        assert env.start({"n": 3}).result().output == 4
        assert env.calls("child.other")[0].inputs == {"input": {"n": 3}}

    def test_one_that_fails_fails_its_parent(self, wpa: Any) -> None:
        env = wpa(self.PARENT, child("other", error=fail("Broken", "no")))
        result = env.start({"n": 3}).result()
        assert result.error is not None
        assert (result.status, result.error.type) == ("FAILED", "ChildFailed")
        assert result.error.details["status"] == "FAILED"

    def test_a_cancel_reaches_it(self, wpa: Any) -> None:
        other = plan(sleep("s", "1h"), id="other")
        env = wpa(self.PARENT, other)
        run = env.start({"n": 3})
        name = run.waiting_for[0]["name"]
        run.cancel("enough")
        assert run.status == "CANCELLED"
        assert env.execution(name).status == "CANCELLED"

    def test_one_that_nobody_waits_for(self, wpa: Any) -> None:
        parent = plan(step("c", "core.workflow", inputs={"workflow": "other", "wait": False}), id="parent")
        env = wpa(parent, plan(sleep("s", "1h"), id="other"))
        run = env.start()
        assert run.status == "COMPLETED"
        name = run.result().steps["c"].output["execution_id"]
        assert env.execution(name).status == "WAITING"
        assert env.execution(name).result().status == "COMPLETED"


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
