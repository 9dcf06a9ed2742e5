from __future__ import annotations

from typing import Any

import pytest

from tests.unit.plan.player import plan_of, step
from wpa.model.subjects import covers, matches
from wpa.plan import check, load
from wpa.plan.expressions import ExpressionError
from wpa.plan.subjects import check_stream, check_subject, reserved
from wpa.plan.triggers import Signal, Start, Trigger

WAIT = {"id": "w", "uses": "core.wait", "with": {"signal": "paid"}}


def trigger(subject: str = "data.raw", **more: Any) -> Trigger:
    return plan_of(WAIT, triggers=[{"subject": subject, **more}]).triggers[0]


# -- triggers --------------------------------------------------------------------------------


def test_by_default_the_message_is_the_input() -> None:
    assert trigger(start={}).match("data.raw", {"n": 1}, {}) == Start(input={"n": 1})


def test_a_start_is_made_of_message_subject_and_headers() -> None:
    found = trigger(
        "data.*",
        start={
            "input": {"n": "${message.n}", "from": "${subject}"},
            "execution_id": "e-${message.n}",
            "idempotency_key": "${headers['Nats-Msg-Id']}",
        },
    ).match("data.raw", {"n": 1}, {"Nats-Msg-Id": "m"})
    assert found == Start(input={"n": 1, "from": "data.raw"}, execution_id="e-1", idempotency_key="m")


def test_a_signal_goes_to_the_execution_that_the_message_is_about() -> None:
    paid = trigger(signal={"name": "paid", "correlation": "${message.order}", "id": "${message.id}"})
    message = {"order": 4711, "id": "p1"}
    assert paid.match("data.raw", message, {}) == Signal(
        name="paid", execution_id="4711", payload=message, id="p1"
    )
    assert (paid.subject, paid.signal) == ("data.raw", "paid")


def test_other_subjects_and_filtered_messages_are_left_alone() -> None:
    big = trigger("data.*", filter="message.n > 5", start={})
    assert big.match("data.raw", {"n": 9}, {}) is not None
    assert big.match("data.raw", {"n": 1}, {}) is None
    assert big.match("other.raw", {"n": 9}, {}) is None


@pytest.mark.parametrize(
    ("fields", "message", "words"),
    [
        ({"filter": "message.n > 1", "start": {}}, {}, "$.triggers[0].filter"),
        ({"filter": "message.n", "start": {}}, {"n": 1}, "a filter must be true or false"),
        ({"start": {"input": "${message.n}"}}, {}, "$.triggers[0].start.input"),
        ({"start": {"execution_id": "a b"}}, {}, "$.triggers[0].start.execution_id: execution id 'a b'"),
        ({"start": {"idempotency_key": "${message}"}}, {}, "must be text or a whole number"),
        (
            {"signal": {"name": "paid", "correlation": "${message.id}"}},
            {"id": ""},
            "it must name an execution",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_that_says_where(
    fields: dict[str, Any], message: Any, words: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        trigger(**fields).match("data.raw", message, {})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "subject", "wanted"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.b", "a.B", False),
    ],
)
def test_subjects_match_as_the_server_matches_them(pattern: str, subject: str, wanted: bool) -> None:
    assert matches(pattern, subject) is wanted


@pytest.mark.parametrize(
    "good", ["a", "data.raw.*", "data.>", "workflow.emit.acme.>", "a-b._c", "workflows.x"]
)
def test_good_subjects(good: str) -> None:
    check_subject(good)
    assert not reserved(good)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "not a NATS subject"),
        ("a..b", "not a NATS subject"),
        (".a", "not a NATS subject"),
        ("a b", "not a NATS subject"),
        ("a.>.b", "not a NATS subject"),
        ("a.b*", "not a NATS subject"),
        ("a.é", "not a NATS subject"),
        ("a.\x00", "not a NATS subject"),
        ("x" * 256, "256 characters"),
        (">", "write out the first token"),
        ("*.tasks", "write out the first token"),
    ],
)
def test_bad_subjects_are_refused(bad: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_subject(bad)


@pytest.mark.parametrize(
    "subject",
    [
        "workflow.>",
        "workflow.tasks.acme",
        "workflow.*.acme",
        "workflow.emit",
        "wpa.x",
        "$JS.API.>",
        "$KV.wpa_definitions.>",
        "_INBOX.>",
        "_INBOX_beta.>",
        "_R_.>",
        "_R_.*.*",
        "_GR_.x",
        "_SYS_.x",
        "_",
    ],
)
def test_nobody_may_listen_to_the_engine_or_to_answers(subject: str) -> None:
    document = {"id": "p", "version": "1", "steps": [WAIT], "triggers": [{"subject": subject, "start": {}}]}
    (problem,) = check(document)
    assert problem.path == "$.triggers[0].subject"
    assert "belongs to the engine or the server" in problem.message
    assert load(document).triggers  # one that was deployed before goes on


@pytest.mark.parametrize(
    ("wide", "pattern", "wanted"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.*", False),
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.*", "a.>", False),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.>", True),
        ("a.>", "a.*.c", True),
        ("a.>", "a", False),
        (">", "a.>", True),
        ("*.b", "a.b", True),
        ("*.b", "a.*", False),
    ],
)
def test_a_pattern_covers_those_that_name_nothing_else(wide: str, pattern: str, wanted: bool) -> None:
    assert covers(wide, pattern) is wanted


@pytest.mark.parametrize("good", ["DATA", "data_raw-1", "x=1", "WPA", "KVS", "a" * 255])
def test_good_streams(good: str) -> None:
    check_stream(good)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "1 to 255 visible ASCII"),
        ("a.b", "can't be the name of a stream"),
        ("a b", "can't be the name of a stream"),
        ("a*", "can't be the name of a stream"),
        ("a/b", "can't be the name of a stream"),
        ("a\\b", "can't be the name of a stream"),
        ("é", "can't be the name of a stream"),
        ("a" * 256, "1 to 255"),
        ("WPA_TASKS", "a stream of your own"),
        ("KV_orders", "a stream of your own"),
        ("OBJ_files", "a stream of your own"),
    ],
)
def test_bad_streams_and_those_of_the_engine_are_refused(bad: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_stream(bad)


def test_a_trigger_may_read_a_stream() -> None:
    read, heard = trigger(stream="DATA", start={}), trigger(start={})
    assert (read.stream, read.beginning, heard.stream) == ("DATA", "new", "")
    assert trigger(stream="DATA", start={}, **{"from": "first"}).beginning == "first"


# -- what is wrong ---------------------------------------------------------------------------

CRON = {"cron": "0 0 6 * * *"}


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"triggers": [{"subject": "workflow.tasks.x", "start": {}}]}, "triggers[0].subject", "belongs to the engine"),
        ({"triggers": [{"subject": "a"}]}, "triggers[0]", "one of 'start' and 'signal'"),
        ({"triggers": [{"subject": "a", "start": {}, "signal": {"name": "paid", "correlation": "x"}}]}, "triggers[0]", "one of 'start' and 'signal'"),
        ({"triggers": [{"subject": "a", "start": {"inptu": 1}}]}, "triggers[0].start.inptu", "did you mean 'input'?"),
        ({"triggers": [{"subject": "a", "strat": {}}]}, "triggers[0].strat", "did you mean 'start'?"),
        ({"triggers": [{"subject": "a", "filter": "input.x", "start": {}}]}, "triggers[0].filter", "undeclared reference to 'input.x'"),
        ({"triggers": [{"subject": "a", "start": {"input": {"x": "${mesage}"}}}]}, "triggers[0].start.input.x", "undeclared reference"),
        ({"triggers": [{"subject": "a", "signal": {"name": "piad", "correlation": "x"}}]}, "triggers[0].signal.name", "did you mean 'paid'?"),
        ({"triggers": [{"subject": "a", "signal": {"name": "paid"}}]}, "triggers[0].signal.correlation", "missing"),
        ({"triggers": [{"subject": "a", "stream": "WPA_EVENTS", "start": {}}]}, "triggers[0].stream", "a stream of the engine's, or a bucket"),
        ({"triggers": [{"subject": "a", "stream": "S", "from": "last", "start": {}}]}, "triggers[0].from", "'new' or 'first'"),
        ({"triggers": [{"subject": "a", "from": "first", "start": {}}]}, "triggers[0]", "it needs 'stream'"),
        ({"triggers": [{"subject": "a", "stream": "S", "form": "first", "start": {}}]}, "triggers[0].form", "did you mean 'from'?"),
        ({"triggers": [{"subject": "a", "stream": "S", "start": {}}, {"subject": "a", "stream": "S", "from": "first", "start": {}}]}, "triggers[1].from", "write the same for both"),
        ({"schedule": {}}, "schedule", "one of 'cron' and 'every'"),
        ({"schedule": {**CRON, "every": "5m"}}, "schedule", "one of 'cron' and 'every'"),
        ({"schedule": {"every": "5m", "time_zone": "Europe/Madrid"}}, "schedule", "goes with 'cron'"),
        ({"schedule": {"every": "100ms"}}, "schedule.every", "the shortest interval is 1s"),
        ({"schedule": {"every": "soon"}}, "schedule.every", "not a duration"),
        ({"schedule": {"cron": "0 6 * * *"}}, "schedule.cron", ""),
        ({"schedule": {"cron": "0 0 25 * * *"}}, "schedule.cron", "25"),
        ({"schedule": {**CRON, "time_zone": "Europe/Madird"}}, "schedule.time_zone", "Madird"),
        ({"schedule": {**CRON, "overlap": "explode"}}, "schedule.overlap", "'skip', 'allow' or 'cancel_old'"),
        ({"schedule": {**CRON, "overlpa": "skip"}}, "schedule.overlpa", "did you mean 'overlap'?"),
        ({"schedule": {**CRON, "input": {"n": "${input.n}"}}}, "schedule.input", "can't hold expressions"),
        ({"schedule": {**CRON, "input": {"n": "x"}}, "input": {"properties": {"n": {"type": "integer"}}}}, "schedule.input.n", "not of type 'integer'"),
        ({"timeout": "soon"}, "timeout", "not a duration"),
    ],
)  # fmt: skip
def test_each_problem_has_its_path_and_words(fields: dict[str, Any], path: str, words: str) -> None:
    found = check({"id": "p", "version": "1", "steps": [step("a"), WAIT], **fields})
    assert [problem.path for problem in found] == [f"$.{path}"], found
    assert words in str(found[0])


def test_a_good_schedule_is_that_of_the_plan() -> None:
    plan = plan_of(
        step("a"), schedule={"every": "90s", "overlap": "cancel_old", "catch_up": "all", "paused": True}
    )
    assert plan.schedule is not None
    assert plan.schedule.every == "90s"
    assert (plan.schedule.overlap, plan.schedule.catch_up, plan.schedule.paused) == (
        "cancel_old",
        "all",
        True,
    )
    assert plan_of(step("a")).schedule is None


def test_a_plan_has_a_timeout_and_is_pinned() -> None:
    assert plan_of(step("a"), timeout="1h").timeout_ms == 3_600_000
    assert plan_of(step("a")).timeout_ms is None
    assert plan_of(step("a")).pinned
