"""What waits for somebody, on the real engine: signals, approvals, children."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.testing import flows
from tests.unit.testing.plans import names, plan, sleep, step
from wpa.errors import TaskRejected
from wpa.testing import NotEnded, TestKitError, Unmocked, child, fail

BACKOFF = {"initial": "1h", "factor": 2, "max": "24h", "jitter": 0}


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

    def test_escalations_come_at_their_moments_whatever_their_order(self, wpa: Any) -> None:
        escalate = [{"after": "4h", "users": ["board"]}, {"after": "1h", "users": ["boss"]}]
        ask = step("ask", "core.approval", inputs={"users": ["eva"], "escalate": escalate})
        run = wpa(plan(ask)).start()
        run.skip("2h")
        with pytest.raises(TaskRejected, match="may not answer"):
            run.approve("ask", user="board")
        run.approve("ask", user="boss")
        assert run.status == "COMPLETED"

    def test_neither_a_signal_nor_an_answer_to_another_question_takes_an_answer_away(self, wpa: Any) -> None:
        asks = step("ask", "core.approval", foreach={"in": [1, 2]}, inputs={"users": ["eva", "2:eva"]})
        run = wpa(plan(asks, signals={"other": {}})).start()
        for id in ("answer:ask:eva", "answer:ask:2:eva"):
            run.signal("other", id=id)
        run.approve("ask", user="2:eva")
        assert [waiting["slot"] for waiting in run.waiting_for] == ["ask:2"]
        run.approve("ask:2", user="eva")
        assert run.status == "COMPLETED"

    def test_a_migration_opens_a_question_to_nobody(self, wpa: Any) -> None:
        env = wpa(plan(step("ask", "core.approval", inputs={"roles": ["finance"]})))
        run = env.start()
        other = step("ask", "core.approval", inputs={"roles": "${input.team_roles}"})
        env.deploy(plan(other, version="2"))
        with pytest.raises(TaskRejected, match="does_not_fit"):
            run.migrate("2")
        with pytest.raises(TaskRejected, match="not_allowed"):
            run.approve("ask", user="mallory", roles=["intern"])
        assert run.status == "WAITING"

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

    def test_several_people_have_names(self, wpa: Any) -> None:
        run = wpa(plan(step("ask", "core.approval", inputs={"count": 2}))).start()
        with pytest.raises(TaskRejected, match="2 different people"):
            run.approve("ask")
        run.approve("ask", user="eva")
        run.approve("ask", user="ida")
        assert run.result().status == "COMPLETED"

    def test_an_answer_after_its_time_is_refused_in_a_pause_too(self, wpa: Any) -> None:
        env = wpa(self.PLAN)
        run = env.start()
        run.approve("ask", user="eva", roles=["finance"])
        run.pause()
        env.skip("49h")
        with pytest.raises(TaskRejected, match="its time was over"):
            run.approve("ask", user="ida", roles=["finance"])
        run.approve("ask", user="eva", roles=["finance"])  # it counts already
        run.resume()
        assert run.result().output is False

    def test_whoever_has_answered_answers_again_when_a_flow_starts_over(self, wpa: Any) -> None:
        run = wpa(flows.renewal).start({"years": 2})
        for _ in range(2):
            assert run.status == "WAITING"
            run.approve("approval", user="ada")
        assert run.result().output == "renewed"


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

    def test_one_that_the_test_says_nothing_of(self, wpa: Any) -> None:
        env = wpa(self.PARENT, mocks={"x.b": 1})
        with pytest.raises(Unmocked, match=r"parent-1 starts workflow other as .*child\('other', output\)"):
            env.start({"n": 3})

    def test_one_that_is_given_a_bad_input(self, wpa: Any) -> None:
        other = plan(sleep("s", "1h"), id="other", input={"required": ["m"]})
        with pytest.raises(TestKitError, match=r"starts workflow other .*invalid_input: .*'m' is a required"):
            wpa(self.PARENT, other).start({"n": 3})

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
