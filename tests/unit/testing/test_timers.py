"""What waits for its time, on the real engine: timers, retries."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.unit.testing.plans import names, plan, sleep, step
from wpa.testing import fail
from wpa.testing.loop import VirtualLoop

BACKOFF = {"initial": "1h", "factor": 2, "max": "24h", "jitter": 0}


class TestTimers:
    def test_a_day_takes_milliseconds(self, wpa: Any) -> None:
        env = wpa(plan(sleep("s", "24h"), step("b", "", "s")), mocks={"x.b": 1})
        began = time.process_time()
        result = env.start().result()
        assert time.process_time() - began < 0.5
        assert result.status == "COMPLETED"
        assert result.duration_ms == 24 * 3600 * 1000

    def test_a_year_of_short_sleeps(self, wpa: Any) -> None:
        again = step("s", "core.sleep", inputs={"for": "24h"}, repeat={"until": "false", "max": 365})
        env = wpa(plan({**again, "on_error": "continue"}))
        began = time.process_time()
        assert env.start().result().duration_ms >= 364 * 24 * 3600 * 1000
        assert time.process_time() - began < 5

    def test_never_early_and_not_late(self, wpa: Any) -> None:
        env = wpa(plan(sleep("s", "90s")))
        run = env.start()
        env.skip(89.999)
        assert run.status == "WAITING"
        env.skip(0.001)
        assert run.status == "COMPLETED"

    def test_an_alarm_between_two_milliseconds_is_gone_to_at_once(
        self, wpa: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def brief() -> None:
            await asyncio.sleep(0.000_4)

        env = wpa(plan(step("b"), step("s", "core.sleep", "b", inputs={"for": "1h"})), mocks={"x.b": brief})
        moments = 0
        advance_to = VirtualLoop.advance_to

        def count(loop: VirtualLoop, moment_ns: int) -> None:
            nonlocal moments
            moments += 1
            advance_to(loop, moment_ns)

        monkeypatch.setattr(VirtualLoop, "advance_to", count)
        assert env.start().result().status == "COMPLETED"
        assert moments < 100

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
        began = time.process_time()
        result = env.start().result()
        assert time.process_time() - began < 1
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
