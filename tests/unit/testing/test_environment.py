from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.testing.plans import names, plan, sleep, step
from wpa.errors import DefinitionError, TaskRejected
from wpa.testing import NotEnded, TestKitError, WorkflowEnvironment, child

ECHO = plan(step("a", "core.echo", inputs={"n": "${input.n}"}), output="${steps.a.output.n}")


class TestWhatIsTested:
    def test_a_file(self, wpa: Any, tmp_path: Path) -> None:
        path = tmp_path / "w.json"
        path.write_text(json.dumps(ECHO))
        assert wpa(path).start({"n": 1}).result().output == 1
        assert wpa(str(path)).start({"n": 1}).result().output == 1

    def test_a_file_that_is_not_there(self, wpa: Any) -> None:
        with pytest.raises(TestKitError, match=r"nowhere\.json can't be read: No such file"):
            wpa("nowhere.json")

    def test_a_plan_that_could_not_be_deployed(self, wpa: Any) -> None:
        with pytest.raises(DefinitionError, match="stepz"):
            wpa(plan(step("a", "core.echo", inputs={"n": "${stepz.b}"})))

    def test_what_is_no_workflow(self, wpa: Any) -> None:
        with pytest.raises(TestKitError, match="is no workflow"):
            wpa(len)

    def test_other_workflows_can_be_started_too(self, wpa: Any) -> None:
        env = wpa(ECHO, plan(sleep("s", "1h"), id="other"), child("third", 3))
        assert env.start(workflow="other").result().status == "COMPLETED"
        assert env.start(workflow="third").result().output == 3

    def test_versions(self, wpa: Any) -> None:
        env = wpa(ECHO)
        env.deploy({**ECHO, "version": "2", "output": "two"})
        assert env.start({"n": 1}, version="1").result().output == 1
        assert env.start({"n": 1}).result().output == "two"


class TestStarts:
    def test_ids_are_counted_or_given(self, wpa: Any) -> None:
        env = wpa(ECHO)
        runs = [env.start({"n": 1}), env.start({"n": 1}, execution_id="mine"), env.start({"n": 1})]
        assert [run.id for run in runs] == ["w-1", "mine", "w-3"]

    def test_a_bad_input_is_refused(self, wpa: Any) -> None:
        env = wpa({**ECHO, "input": {"type": "object", "required": ["n"]}})
        with pytest.raises(TaskRejected, match="'n' is a required property"):
            env.start({})

    def test_the_same_id_with_other_content_is_a_conflict(self, wpa: Any) -> None:
        env = wpa(ECHO)
        env.start({"n": 1}, execution_id="x")
        assert env.start({"n": 1}, execution_id="x").result().output == 1
        with pytest.raises(TaskRejected, match="other content"):
            env.start({"n": 2}, execution_id="x")

    def test_metadata_and_variables_arrive(self, wpa: Any) -> None:
        env = wpa(
            plan(
                step("a", "core.noop"),
                output=["${vars.v}", "${execution.metadata.user_id}"],
                variables={"v": 0},
            )
        )
        run = env.start(variables={"v": 5}, metadata={"user_id": "ana"})
        assert run.result().output == [5, "ana"]


class TestTime:
    def test_it_begins_where_it_is_told_to(self, wpa: Any) -> None:
        assert wpa(ECHO).now == "2026-01-01T00:00:00.000Z"
        assert wpa(ECHO, now="2030-05-05T10:00:00+02:00").now == "2030-05-05T08:00:00.000Z"

    def test_it_passes_as_it_is_told_to(self, wpa: Any) -> None:
        env = wpa(ECHO)
        env.skip("1h30m")
        env.skip(0.5)
        assert env.now == "2026-01-01T01:30:00.500Z"
        env.skip_until("2026-02-01T00:00:00Z")
        assert env.now == "2026-02-01T00:00:00.000Z"
        with pytest.raises(ValueError, match="time does not go back"):
            env.skip(-1)

    def test_without_auto_skip_it_stands_still(self, wpa: Any) -> None:
        run = wpa(plan(sleep("s", "1h")), auto_skip=False).start()
        with pytest.raises(NotEnded, match=r"auto_skip is off: let time pass with skip\(\)"):
            run.result()
        run.skip("1h")
        assert run.result().status == "COMPLETED"

    def test_a_step_that_hangs_exhausts_the_patience(self, wpa: Any) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        env = wpa(plan(step("a")), mocks={"x.a": hang}, patience_s=0.3)
        with pytest.raises(TestKitError, match=r"after 0.3 s of real time.*steps begun: a \(x.a\)"):
            env.start().result()

    def test_threads_stop_the_clock(self, wpa: Any) -> None:
        import time

        async def slow() -> str:
            return await asyncio.to_thread(lambda: time.sleep(0.05) or "done")

        env = wpa(plan(step("a", timeout="10ms")), mocks={"x.a": slow})
        assert env.start().result().output == {"a": "done"}

    def test_steps_sleep_in_virtual_time(self, wpa: Any) -> None:
        async def slow() -> None:
            await asyncio.sleep(1800)

        assert wpa(plan(step("a")), mocks={"x.a": slow}).start().result().duration_ms == 1_800_000


class TestSchedules:
    def test_they_start_executions_while_time_passes(self, wpa: Any) -> None:
        env = wpa(plan(step("a"), schedule={"every": "1h"}), mocks={"x.a": 1})
        env.skip("3h30m")
        assert [call.execution for call in env.calls("x.a")] == [
            "w-20260101T010000Z",
            "w-20260101T020000Z",
            "w-20260101T030000Z",
        ]

    def test_nobody_waits_for_them(self, wpa: Any) -> None:
        wait = step("wait", "core.wait", inputs={"signal": "go"})
        with pytest.raises(NotEnded, match=r"waits for wait \(signal go\)"):
            wpa(plan(wait, schedule={"every": "1h"})).start().result()


class TestLooking:
    def test_a_result_tells_what_happened(self, wpa: Any) -> None:
        result = wpa(ECHO).start({"n": 1}).result()
        assert names(result.events) == ["started", "step_completed", "completed"]
        assert result.steps["a"].output == {"n": 1}
        [call] = result.calls
        assert (call.execution, call.step, call.uses, call.inputs) == ("w-1", "a", "core.echo", {"n": 1})
        assert (call.attempt, call.key, call.is_undo) == (1, "w-1:a:1", False)
        assert "step_completed" in result.journal
        assert str(result).startswith("w-1: COMPLETED\n")

    def test_an_execution_that_is_not_there(self, wpa: Any) -> None:
        with pytest.raises(TestKitError, match="nobody has not started"):
            wpa(ECHO).execution("nobody")

    def test_large_outputs_come_as_they_are(self, wpa: Any) -> None:
        env = wpa(plan(step("a"), output="${steps.a.output}"), mocks={"x.a": "x" * 100_000})
        assert env.start().result().output == "x" * 100_000


class TestLife:
    async def test_in_an_async_test_it_is_called_the_same_way(self, wpa: Any) -> None:
        env = wpa(plan(sleep("s", "1h")))
        assert env.start().result().status == "COMPLETED"

    def test_a_closed_one_says_so(self) -> None:
        with WorkflowEnvironment(ECHO) as env:
            env.start({"n": 1})
        with pytest.raises(TestKitError, match="is closed"):
            env.start({"n": 1})
        env.close()

    def test_nothing_is_left_behind(self) -> None:
        async def slow() -> None:
            await asyncio.sleep(3600)

        with WorkflowEnvironment(plan(step("a")), mocks={"x.a": slow}) as env:
            assert env.start().status == "RUNNING"
