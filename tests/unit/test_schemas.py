"""The published schemas: generated, up to date, and true of tasks and events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.golden.dialogue import FILES, play
from tests.unit.model.test_codec import BAD_NAMES, MINIMAL, envelopes
from tests.unit.schemas import (
    ASYNCAPI,
    CLOSED_EVENTS,
    EVENTS,
    RENDERED,
    TASKS,
    complaints,
    component,
    schema,
    validator,
)
from wpa.cli.schema_files import render_all
from wpa.errors import TaskRejected
from wpa.kernel.fold import LEGAL
from wpa.model.api import VERBS
from wpa.model.codec import decode_task, encode_event
from wpa.model.event_data import EVENT_DATA
from wpa.model.limits import Limits
from wpa.model.tasks import ASKS

SCHEMAS = Path(__file__).parents[2] / "schemas"


class TestFiles:
    @pytest.mark.parametrize("name", sorted(RENDERED))
    def test_is_up_to_date(self, name: str) -> None:
        written = (SCHEMAS / name).read_text(encoding="utf-8")
        assert written == RENDERED[name], "write it with `wpa schema --out-dir schemas`"

    def test_there_is_nothing_else(self) -> None:
        assert {path.name for path in SCHEMAS.glob("*.json")} == set(RENDERED)

    @pytest.mark.parametrize("name", sorted(name for name in RENDERED if name.endswith(".schema.json")))
    def test_is_a_schema_with_a_name_and_a_place(self, name: str) -> None:
        found = schema(name)
        Draft202012Validator.check_schema(found)
        assert found["$id"].endswith(f"/{name}")
        assert found["title"].startswith("wpa ")

    def test_they_are_the_same_at_every_call(self) -> None:
        assert render_all() == RENDERED


ASKED: dict[str, dict[str, Any]] = {
    "workflow_signal": {"signal": "paid", "payload": {"n": 1}, "id": "s1"},
    "workflow_answer": {"step": "review", "approved": True, "comment": "fine"},
    "workflow_migrate": {"version": "2"},
    "workflow_child_ended": {"slot": "sub", "child": "x-sub", "status": "COMPLETED", "output": 1},
    "workflow_step_result": {"slot": "a", "attempt": 1, "output": 1},
}
"""Payloads of those tasks that can't do without one."""


class TestTasks:
    @pytest.mark.parametrize(
        "task",
        [
            MINIMAL,
            {"type": "workflow_start", "workflow_id": "order"},
            {
                "task_id": "3f1d0a6e-90ab-4ab0-8f0b-4c9a4d2f9a11",
                "tenant_id": "acme",
                "workflow_id": "order",
                "execution_id": "order-4711",
                "created_at": "2026-11-20T10:00:00Z",
                "type": "workflow_start",
                "priority": 5,
                "metadata": {"agent_id": "", "session_id": "", "user_id": "", "source": "api"},
                "payload": {"input_data": {}, "variables": {}, "execution_context": {}},
            },
            {**MINIMAL, "another_language": {"adds": ["things"]}},
            {**MINIMAL, "payload": {"input_data": [1, "any", None]}},
        ],
    )
    def test_good_ones_fit(self, task: dict[str, Any]) -> None:
        assert complaints(TASKS, task) == []
        decode_task(json.dumps(task).encode(), "acme", Limits())

    @pytest.mark.parametrize(
        "wrong",
        [
            {"type": "workflow_begin"},
            {"type": None},
            {"workflow_id": ""},
            {"priority": 10},
            {"priority": -1},
            {"priority": "5"},
            {"created_at": "yesterday"},
            {"metadata": {"user_id": 5}},
            {"metadata": {"user_id": "x" * 300}},
            {"payload": []},
            {"payload": {"variables": []}},
            {"version": "1..2"},
            *({"execution_id": name} for name in BAD_NAMES),
            *({"workflow_id": name} for name in BAD_NAMES),
            *({"tenant_id": name} for name in BAD_NAMES),
        ],
    )
    def test_bad_ones_do_not_fit(self, wrong: dict[str, Any]) -> None:
        assert complaints(TASKS, {**MINIMAL, **wrong})
        with pytest.raises(TaskRejected):
            decode_task(json.dumps({**MINIMAL, **wrong}).encode(), "acme", Limits())

    @pytest.mark.parametrize("kind", sorted(ASKS))
    def test_what_is_asked_of_an_execution_fits(self, kind: str) -> None:
        task = {"type": kind, "execution_id": "x", "payload": ASKED.get(kind, {})}
        assert complaints(TASKS, task) == []
        decode_task(json.dumps(task).encode(), "acme", Limits())

    @pytest.mark.parametrize(
        ("kind", "wrong"),
        [
            *((kind, {"execution_id": ""}) for kind in ASKS),
            *((kind, {"payload": 5}) for kind in ASKS),
            *((kind, {"payload": {}}) for kind in ASKED),
            ("workflow_signal", {"payload": {"signal": "not a name"}}),
            ("workflow_signal", {"payload": {"signal": "go", "id": "x" * 300}}),
            ("workflow_answer", {"payload": {"step": "a", "approved": "yes"}}),
            ("workflow_cancel", {"payload": {"compensate": 1}}),
            ("workflow_pause", {"metadata": {"roles": "manager"}}),
            ("workflow_pause", {"metadata": {"roles": ["x" * 300]}}),
            ("workflow_pause", {"execution_id": "a.b"}),
        ],
    )
    def test_what_is_asked_badly_does_not_fit(self, kind: str, wrong: dict[str, Any]) -> None:
        task = {"type": kind, "execution_id": "x", "payload": ASKED.get(kind, {}), **wrong}
        assert complaints(TASKS, task)
        with pytest.raises(TaskRejected):
            decode_task(json.dumps(task).encode(), "acme", Limits())

    @given(envelopes, st.sampled_from(sorted(ASKS)), st.booleans())
    def test_what_the_door_lets_in_of_asks_fits(
        self, envelope: dict[str, Any], kind: str, good: bool
    ) -> None:
        task = {**envelope, "type": kind}
        if good:
            task |= {"execution_id": "x", "payload": ASKED.get(kind, {})}
        try:
            decode_task(json.dumps(task).encode(), "acme", Limits())
        except TaskRejected:
            return
        assert complaints(TASKS, task) == []

    def test_every_type_of_task_has_its_own_schema(self) -> None:
        found = schema("task.schema.json")
        kinds = {found["$defs"][one["$ref"].rpartition("/")[2]]["title"] for one in found["oneOf"]}
        assert kinds == {"workflow_start", *ASKS}

    def test_without_a_type_or_a_workflow(self) -> None:
        assert complaints(TASKS, {})
        assert complaints(TASKS, {"type": "workflow_start"})

    @given(envelopes, st.booleans())
    def test_what_the_door_lets_in_fits(self, envelope: dict[str, Any], good: bool) -> None:
        task = {**envelope, **(MINIMAL if good else {})}
        try:
            decode_task(json.dumps(task).encode(), "acme", Limits())
        except TaskRejected:
            return
        assert complaints(TASKS, task) == []


class TestEvents:
    def test_every_event_of_the_kernel_is_described(self) -> None:
        assert set(EVENT_DATA) == {name for _, name in LEGAL}

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_the_golden_events_fit_key_by_key(self, path: Path) -> None:
        table = play(json.loads(path.read_text()))
        for event in table.journal:
            body = json.loads(encode_event(event))
            # Of all the shapes, only its own may be judged, or the complaint names them all.
            own = {"$ref": f"#/$defs/{event.event}", "$defs": CLOSED_EVENTS["$defs"]}
            assert complaints(validator(own), body) == []
            assert complaints(EVENTS, body) == []

    def test_a_run_that_starts_over_is_described(self) -> None:
        """The one kind that no plan writes."""
        data = {
            "input": {"page": 2},
            "run": 2,
            "next": ["a", "b"],
            "waits": {"b": {"kind": "timer", "uses": "x"}},
        }
        event = json.loads(encode_event(play(json.loads(FILES[0].read_text())).journal[0]))
        event |= {"event": "workflow_continued", "data": data}
        assert complaints(EVENTS, event) == []
        assert complaints(EVENTS, {**event, "data": {**data, "run": 1}})

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda event: event.pop("data"),
            lambda event: event.update(event="workflow_ended"),
            lambda event: event.update(event="workflow_failed"),
            lambda event: event.update(seq=0),
            lambda event: event.update(execution_id="a.b"),
            lambda event: event["data"].pop("next"),
            lambda event: event["data"].update(progress_percentage=101),
        ],
    )
    def test_a_spoilt_event_does_not_fit(self, spoil: Any) -> None:
        event = json.loads(encode_event(play(json.loads(FILES[0].read_text())).journal[0]))
        assert complaints(EVENTS, event) == []
        spoil(event)
        assert complaints(EVENTS, event)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


class TestAsyncApi:
    def test_every_reference_leads_somewhere(self) -> None:
        for reference in set(references(ASYNCAPI)):
            found: Any = ASYNCAPI
            for token in reference.removeprefix("#/").split("/"):
                found = found[token]
            assert found

    def test_every_subject_of_the_contract_is_there(self) -> None:
        addresses = {channel["address"] for channel in ASYNCAPI["channels"].values()}
        assert addresses >= {
            "workflow.tasks.{tenant}",
            "workflow.events.{tenant}.{execution}",
            "workflow.events.{tenant}.{execution}.live",
            "workflow.dlq.{tenant}",
            "workflow.emit.{tenant}.{subject}",
            *(f"workflow.api.{{tenant}}.{verb}" for verb in VERBS),
        }

    def test_parameters_are_those_of_the_address(self) -> None:
        for channel in ASYNCAPI["channels"].values():
            named = {
                token
                for token in ("tenant", "execution", "subject")
                if f"{{{token}}}" in str(channel["address"])
            }
            assert named == set(channel.get("parameters", {}))

    def test_every_channel_is_used_by_an_operation(self) -> None:
        used = set(references(ASYNCAPI["operations"]))
        assert used == {f"#/channels/{name}" for name in ASYNCAPI["channels"]}

    def test_every_schema_is_one(self) -> None:
        for name in ASYNCAPI["components"]["schemas"]:
            component(name)
