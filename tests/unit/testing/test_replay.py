from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.testing import flows
from tests.unit.testing.plans import plan, sleep, step
from wpa.testing import ReplayFailure, TestKitError, assert_replays, journals, replay, run

PLAN = plan(step("a"), sleep("s", "1h", "a"), step("b", "", "s"), output="${steps.b.output}")


@pytest.fixture
def journal() -> list[Any]:
    return run(flows.greeting, {"name": "ana"}).events


def store(folder: Path, name: str, events: list[Any]) -> Path:
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(events)))
    return path


class TestFlows:
    def test_the_same_code_replays(self, journal: list[Any], tmp_path: Path) -> None:
        assert replay(flows.greeting, journal) is None
        assert replay(flows.greeting, store(tmp_path, "one", journal)) is None
        assert replay(flows.greeting, msgspec.json.decode(msgspec.json.encode(journal))) is None

    def test_other_inputs_of_a_step_are_no_divergence(self, journal: list[Any]) -> None:
        assert replay(flows.greeting_other_words, journal) is None

    @pytest.mark.parametrize(
        ("changed", "seq", "reason"),
        [
            (flows.greeting_other_order, 1, r"recorded: step core_log \(core.log\), completed"),
            (flows.greeting_other_output, 6, "output was 'ANA'; today it would be 'ana'"),
            (flows.greeting_with_more, 6, "had come to its end; the code of today asks for"),
            (flows.greeting_with_less, 2, "recorded: timer sleep"),
        ],
    )
    def test_the_first_event_that_does_not_fit_is_named(
        self, journal: list[Any], changed: Any, seq: int, reason: str
    ) -> None:
        divergence = replay(changed, journal)
        assert divergence is not None
        assert divergence.event.seq == seq, str(divergence)
        with pytest.raises(ReplayFailure, match=f"(?s)greeting-1, event {seq} .*{reason}"):
            assert_replays(changed, journal)

    def test_one_that_has_not_ended_replays_too(self, journal: list[Any]) -> None:
        for length in range(1, len(journal) + 1):
            assert replay(flows.greeting, journal[:length]) is None


class TestPlans:
    def test_the_same_plan_replays(self) -> None:
        assert replay(PLAN, run(PLAN, mocks={"x.a": 1, "x.b": 2}).events) is None

    def test_one_that_was_changed_in_place(self) -> None:
        divergence = replay({**PLAN, "description": "changed"}, run(PLAN, mocks={"x.a": 1, "x.b": 2}).events)
        assert divergence is not None
        assert "changed in place" in divergence.reason

    def test_another_version_is_checked_as_a_migration(self) -> None:
        events = run(PLAN, mocks={"x.a": 1, "x.b": 2}).events
        assert replay({**PLAN, "version": "2"}, events) is None
        other = plan(sleep("s", "1h"), step("b", "", "s"), version="2")
        divergence = replay(other, events)
        assert divergence is not None
        assert divergence.event.seq == 1

    def test_failures_and_compensations(self) -> None:
        from wpa.testing import fail

        document = plan(step("a", compensate={"uses": "x.u"}), step("b", "", "a", retry={"max_attempts": 2}))
        result = run(document, mocks={"x.a": 1, "x.b": fail("No"), "x.u": None})
        assert result.status == "ROLLED_BACK"
        for length in range(1, len(result.events) + 1):
            assert replay(document, result.events[:length]) is None

    def test_each_run_of_one_that_starts_over_is_checked(self) -> None:
        result = run(flows.counting, {"n": 3})
        assert [event.event for event in result.events].count("workflow_continued") == 2
        assert replay(flows.counting, result.events) is None
        divergence = replay(flows.counting_otherwise, result.events)
        assert divergence is not None
        assert divergence.event.seq < 4

    def test_large_payloads_have_to_be_given(self) -> None:
        document = plan(step("a"), step("b", "", "a", inputs={"t": "${steps.a.output}"}))
        events = run(document, mocks={"x.a": "x" * 100_000, "x.b": lambda t: 1}).events
        key = events[1].data["output"]["$blob"]["key"]
        with pytest.raises(TestKitError, match=f"payload {key}; give it"):
            replay(document, events)
        assert replay(document, events, payloads={key: "x" * 100_000}) is None


class TestFolders:
    def test_all_in_a_folder(self, journal: list[Any], tmp_path: Path) -> None:
        store(tmp_path, "one", journal)
        store(tmp_path, "two", journal[:3])
        assert [path.stem for path in journals(tmp_path)] == ["one", "two"]
        assert_replays(flows.greeting, tmp_path)
        with pytest.raises(ReplayFailure) as caught:
            assert_replays(flows.greeting_other_order, tmp_path)
        assert str(caught.value).count("greeting-1, event 1") == 2

    def test_an_empty_one_is_no_success(self, tmp_path: Path) -> None:
        with pytest.raises(TestKitError, match="holds no journal"):
            assert_replays(flows.greeting, tmp_path)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("{", "is not JSON"),
            ("[]", "holds no events"),
            ('{"a": 1}', "no list of events"),
            ("[1]", "no list of"),
        ],
    )
    def test_what_is_no_journal(self, tmp_path: Path, text: str, complaint: str) -> None:
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(TestKitError, match=complaint):
            replay(flows.greeting, path)

    def test_of_another_workflow(self, journal: list[Any]) -> None:
        with pytest.raises(TestKitError, match="journal of greeting-1 is one of workflow greeting, not of w"):
            replay(PLAN, journal)

    def test_one_with_events_missing(self, journal: list[Any]) -> None:
        with pytest.raises(TestKitError, match="none that was ever recorded"):
            replay(flows.greeting, [journal[0], *journal[2:]])
