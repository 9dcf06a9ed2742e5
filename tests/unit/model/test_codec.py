from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wpa.errors import InvalidName, OverLimit, TaskRejected
from wpa.model.codec import decode_event, decode_task, encode_event, start_hash
from wpa.model.events import Event
from wpa.model.limits import Limits
from wpa.model.tasks import Task

LIMITS = Limits()
MINIMAL: dict[str, Any] = {"type": "workflow_start", "workflow_id": "order", "payload": {"input_data": {}}}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        name: anything | st.sampled_from(["workflow_start", "order", "acme", "2026-11-20T10:00:00Z", 5, {}])
        for name in (*Task.__struct_fields__, "something_else")
    }
    | {
        "payload": anything
        | st.fixed_dictionaries(
            {},
            optional={
                "input_data": anything,
                "variables": st.dictionaries(st.text(), anything) | anything,
                "execution_context": anything,
            },
        )
    },
)


def decode(body: Any, **more: Any) -> Task:
    data = body if isinstance(body, bytes) else json.dumps({**body, **more}).encode()
    return decode_task(data, "acme", LIMITS)


def refused(body: Any, **more: Any) -> TaskRejected:
    with pytest.raises(TaskRejected) as caught:
        decode(body, **more)
    return caught.value


def start_with(input_data: bytes) -> bytes:
    return b'{"type": "workflow_start", "workflow_id": "order", "payload": {"input_data": %s}}' % input_data


class TestGoodTasks:
    def test_the_least_that_starts_a_workflow(self) -> None:
        task = decode(MINIMAL)
        assert (task.type, task.workflow_id, task.priority) == ("workflow_start", "order", 5)
        assert task.payload.input_data == {}
        assert task.execution_id == ""

    def test_the_envelope_of_the_design(self) -> None:
        task = decode(
            MINIMAL,
            task_id="0b6f2c0e-5a43-4f3a-8a86-0d0a1a5a5f10",
            tenant_id="acme",
            execution_id="order-4711",
            created_at="2026-11-20T10:00:00Z",
            priority=9,
            metadata={"agent_id": "", "session_id": "", "user_id": "ana", "source": "api"},
            payload={"input_data": {"a": 1}, "variables": {"v": 2}, "execution_context": {"c": 3}},
        )
        assert task.metadata.user_id == "ana"
        assert task.payload.variables == {"v": 2}
        assert task.payload.execution_context == {"c": 3}

    def test_what_other_languages_add_is_tolerated(self) -> None:
        assert decode(MINIMAL, schema_version=7, trace={"deep": [1, 2]}) == decode(MINIMAL)

    def test_of_a_key_that_comes_twice_the_last_counts(self) -> None:
        assert decode(b'{"type":"x","type":"workflow_start","workflow_id":"order"}').type == "workflow_start"

    @pytest.mark.parametrize(
        "moment",
        [
            "2026-11-20T10:00:00Z",
            "2026-11-20t10:00:00z",
            "2026-11-20 10:00:00+01:00",
            "2026-11-20T10:00:00.123456789-07:30",
        ],
    )
    def test_times_in_rfc_3339(self, moment: str) -> None:
        assert decode(MINIMAL, created_at=moment).created_at == moment

    def test_brackets_in_strings_are_not_nesting(self) -> None:
        text = "[" * 10_000 + '\\"' + "{" * 10_000
        task = decode({**MINIMAL, "payload": {"input_data": {text: [text, "\\", text]}}})
        assert task.payload.input_data == {text: [text, "\\", text]}

    def test_many_brackets_side_by_side_are_not_nesting(self) -> None:
        wide: list[Any] = [[{}] for _ in range(5_000)]
        assert decode({**MINIMAL, "payload": {"input_data": wide}}).payload.input_data == wide

    @pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0, 1_000_000_000_000_000_000])
    def test_whole_numbers_of_64_bits(self, number: int) -> None:
        assert decode({**MINIMAL, "payload": {"input_data": [number]}}).payload.input_data == [number]

    def test_long_digits_that_are_no_integer(self) -> None:
        data = {"card": "9" * 40, "ratio": 0.1234567890123456789012345}
        assert decode({**MINIMAL, "payload": {"input_data": data}}).payload.input_data == data


class TestNotJson:
    @pytest.mark.parametrize(
        "data",
        [b"", b"hello", b"{", b'{"type": "workflow_start"', b'{"type": "workflow_start"} x', b"{'type': 1}"],
    )
    def test_what_is_no_json(self, data: bytes) -> None:
        assert refused(data).code == "not_json"

    @pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"[1, NaN]"])
    def test_not_a_number_is_named(self, literal: bytes) -> None:
        error = refused(start_with(literal))
        assert error.code == "not_json"
        assert "NaN and Infinity are not JSON" in error.message

    @pytest.mark.parametrize(
        "data", [b'{"type": "\xff\xfe"}', start_with(b'"\xc3\x28"'), b'{"other": "\xff"}']
    )
    def test_bad_utf8_anywhere(self, data: bytes) -> None:
        error = refused(data)
        assert error.code == "not_json"
        assert "UTF-8" in error.message

    def test_half_a_surrogate_pair(self) -> None:
        assert refused(start_with(b'"\\ud800"')).code == "not_json"

    def test_a_byte_order_mark_is_named(self) -> None:
        assert "byte order mark" in refused(b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode()).message


class TestNesting:
    @pytest.mark.parametrize("depth", [65, 10_000, 100_000])
    @pytest.mark.parametrize("shape", [(b"[", b"]"), (b'{"a":', b"}")])
    def test_deep_is_over_the_limit(self, depth: int, shape: tuple[bytes, bytes]) -> None:
        data = start_with(shape[0] * depth + b"1" + shape[1] * depth)
        error = refused(data)
        assert isinstance(error, OverLimit)
        assert "64 levels" in error.message

    def test_deep_in_a_field_that_is_not_known(self) -> None:
        assert refused(b'{"other": ' + b"[" * 10_000 + b"]" * 10_000 + b"}").code == "over_limit"

    def test_deep_and_never_closed(self) -> None:
        assert refused(b"[" * 10_000).code == "over_limit"

    def test_the_limit_itself_is_allowed(self) -> None:
        # Two levels are the envelope's own.
        assert decode(start_with(b"[" * 62 + b"]" * 62)).payload.input_data
        assert refused(start_with(b"[" * 63 + b"]" * 63)).code == "over_limit"

    def test_a_quote_behind_escapes_hides_nothing(self) -> None:
        even, odd = b'"\\\\\\\\"', b'"\\\\\\""'
        assert refused(start_with(b"[" + even + b"," + b"[" * 80 + b"]" * 81)).code == "over_limit"
        assert refused(start_with(b"[" + odd + b"," + b"[" * 80 + b"]" * 81)).code == "over_limit"

    @pytest.mark.parametrize(
        "data",
        [b"[" * 4_000_000, b"[}" * 2_000_000, b"[" * 70 + b'"' + b'\\"' * 1_900_000, b'{"a' * 1_300_000],
        ids=["open", "mismatched", "escapes", "strings"],
    )
    def test_no_input_takes_more_than_linear_time(self, data: bytes) -> None:
        began = time.perf_counter()
        refused(data)
        assert time.perf_counter() - began < 10  # takes a tenth of a second; quadratic takes an hour


class TestNumbers:
    @pytest.mark.parametrize("literal", [b"9" * 30, b"-" + b"9" * 30, b"9223372036854775808", b"1" * 5_000])
    def test_more_than_64_bits_says_where(self, literal: bytes) -> None:
        error = refused(start_with(b'{"lines": [{"qty": 1}, {"qty": %s}]}' % literal))
        assert error.code == "bad_number"
        if len(literal) < 100:
            assert "$.payload.input_data.lines[1].qty" in error.message

    @pytest.mark.parametrize("part", ["input_data", "variables", "execution_context"])
    def test_in_every_part_of_the_payload(self, part: str) -> None:
        error = refused(MINIMAL, payload={part: {"odd key": 10**30}})
        assert error.code == "bad_number"
        assert f"$.payload.{part}['odd key']" in error.message

    def test_a_number_that_is_infinite_as_a_float(self) -> None:
        assert refused(start_with(b"1e400")).code == "bad_number"


class TestNotATask:
    @pytest.mark.parametrize("data", [b"[]", b'"text"', b"42", b"null", b"true", b" [1] "])
    def test_json_that_is_no_object(self, data: bytes) -> None:
        error = refused(data)
        assert error.code == "not_a_task"
        assert "JSON object" in error.message

    def test_no_type(self) -> None:
        error = refused(b"{}")
        assert error.code == "not_a_task"
        assert "$.type is missing" in error.message

    @pytest.mark.parametrize("payload", [{}, [], "text", {"input_data": {}}])
    def test_an_unknown_type_lists_the_known(self, payload: Any) -> None:
        error = refused({"type": "workflow_begin", "payload": payload})
        assert error.code == "unknown_type"
        assert "'workflow_begin'" in error.message
        assert "workflow_start" in error.message

    @pytest.mark.parametrize(
        ("more", "path"),
        [
            ({"type": 5}, "$.type"),
            ({"workflow_id": 5}, "$.workflow_id"),
            ({"priority": "high"}, "$.priority"),
            ({"priority": 10}, "$.priority"),
            ({"priority": -1}, "$.priority"),
            ({"priority": True}, "$.priority"),
            ({"payload": []}, "$.payload"),
            ({"payload": {"variables": []}}, "$.payload.variables"),
            ({"metadata": {"user_id": 5}}, "$.metadata.user_id"),
            ({"workflow_id": ""}, "$.workflow_id"),
            ({"created_at": "yesterday"}, "$.created_at"),
            ({"created_at": "2026-11-20T10:00:00"}, "$.created_at"),
            ({"created_at": "2026-13-20T10:00:00Z"}, "$.created_at"),
            ({"created_at": "2026-W47-5T10:00:00Z"}, "$.created_at"),
            ({"created_at": "20261120T100000Z"}, "$.created_at"),
        ],
    )
    def test_misfits_say_where(self, more: dict[str, Any], path: str) -> None:
        error = refused(MINIMAL, **more)
        assert error.code == "not_a_task"
        assert error.message.startswith(path)

    def test_too_large(self) -> None:
        data = start_with(b'"' + b"x" * 2_000 + b'"')
        with pytest.raises(OverLimit, match="the most is 1024"):
            decode_task(data, "acme", Limits(task_bytes_max=1024))


BAD_NAMES = ["a.b", "a*", ">", "a b", "a\0b", "órden", "заказ", "注文", "a\nb", "-" * 200, "$JS", "a/b", "①"]


class TestNames:
    @pytest.mark.parametrize("name", BAD_NAMES)
    @pytest.mark.parametrize("field", ["workflow_id", "execution_id", "tenant_id"])
    def test_names_that_can_be_no_subject_token(self, field: str, name: str) -> None:
        error = refused(MINIMAL, **{field: name})
        assert isinstance(error, InvalidName)
        assert error.message.startswith(f"$.{field}: ")
        assert error.message.isascii()

    @pytest.mark.parametrize("version", ["1..2", "1.", ".1", "1 2", "*", "v\0", "一"])
    def test_versions(self, version: str) -> None:
        assert refused(MINIMAL, version=version).code == "invalid_name"

    def test_the_subjects_tenant_is_checked_too(self) -> None:
        with pytest.raises(InvalidName):
            decode_task(json.dumps(MINIMAL).encode(), "Acme.*", LIMITS)

    def test_a_tenant_that_disagrees_with_the_subject(self) -> None:
        error = refused(MINIMAL, tenant_id="other")
        assert error.code == "wrong_tenant"
        assert "workflow.tasks.acme" in error.message

    @pytest.mark.parametrize("field", ["task_id", "global_task_id"])
    @pytest.mark.parametrize("value", ["x" * 257, "a\r\nb", "\0"])
    def test_labels(self, field: str, value: str) -> None:
        assert refused(MINIMAL, **{field: value}).code == "invalid_name"

    def test_labels_in_the_metadata(self) -> None:
        error = refused(MINIMAL, metadata={"user_id": "x" * 300})
        assert "$.metadata.user_id" in error.message
        assert "$.metadata.roles[1]" in refused(MINIMAL, metadata={"roles": ["ops", "x" * 257]}).message

    def test_each_label_may_be_as_long_as_one_may_be(self) -> None:
        most = "x" * 256
        metadata = {"agent_id": most, "session_id": most, "user_id": most, "source": most, "roles": [most]}
        task = {**MINIMAL, "task_id": most, "global_task_id": most, "metadata": metadata}
        assert decode_task(json.dumps(task).encode(), "acme", LIMITS).metadata.roles == [most]


class TestFuzz:
    @given(st.binary(max_size=400))
    def test_any_bytes(self, data: bytes) -> None:
        self.only_task_rejected(data)

    @given(anything)
    def test_any_json(self, value: Any) -> None:
        self.only_task_rejected(json.dumps(value).encode())

    @given(envelopes)
    def test_any_envelope(self, value: Any) -> None:
        self.only_task_rejected(json.dumps(value).encode())

    @given(envelopes, st.data())
    def test_any_damaged_envelope(self, value: Any, data: st.DataObject) -> None:
        whole = json.dumps({**MINIMAL, **value}, ensure_ascii=False).encode(errors="surrogatepass")
        at = data.draw(st.integers(0, len(whole)))
        self.only_task_rejected(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :])

    @given(st.binary(max_size=60).map(lambda tail: b'["' * 33 + tail), st.integers(1, 70))
    def test_nesting_agrees_with_a_plain_count(self, data: bytes, most: int) -> None:
        self.only_task_rejected(data, Limits(nesting_max=most))

    @given(anything)
    def test_depth_is_measured_right(self, value: Any) -> None:
        def depth(value: Any) -> int:
            if isinstance(value, dict):
                return 1 + max(map(depth, value.values()), default=0)
            return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

        data = json.dumps({"type": "other", "payload": value}).encode()
        most = depth(value) + 1
        for limit, expected in ((most, "unknown_type"), (most - 1, "over_limit")):
            with pytest.raises(TaskRejected) as caught:
                decode_task(data, "acme", Limits(nesting_max=limit))
            if caught.value.code not in ("not_json", "bad_number"):  # NaN, surrogates, huge integers
                assert caught.value.code == expected

    @staticmethod
    def only_task_rejected(data: bytes, limits: Limits = LIMITS) -> None:
        try:
            task = decode_task(data, "acme", limits)
        except TaskRejected as error:
            assert error.code
            assert len(error.message) < 2_000
        else:
            # What was let in can be written again, and hashed.
            assert task.type == "workflow_start"
            assert start_hash(task)


class TestStartHash:
    def test_says_what_was_asked_not_who_asked_or_when(self) -> None:
        asked = decode(MINIMAL)
        again = decode(
            MINIMAL, task_id="t", priority=1, created_at="2026-11-20T10:00:00Z", metadata={"user_id": "u"}
        )
        assert start_hash(asked) == start_hash(again)

    def test_keys_come_in_any_order_and_defaults_may_be_left_out(self) -> None:
        one = decode(MINIMAL, payload={"input_data": {"a": 1, "b": {"c": 2, "d": 3}}})
        two = decode(MINIMAL, payload={"variables": {}, "input_data": {"b": {"d": 3, "c": 2}, "a": 1}})
        assert start_hash(one) == start_hash(two)

    @pytest.mark.parametrize(
        "more",
        [
            {"workflow_id": "other"},
            {"version": "2"},
            {"payload": {"input_data": {"a": 1}}},
            {"payload": {"input_data": [], "variables": {}}},
            {"payload": {"variables": {"a": 1}}},
            {"payload": {"execution_context": {"a": 1}}},
        ],
    )
    def test_other_content_is_another_start(self, more: dict[str, Any]) -> None:
        assert start_hash(decode(MINIMAL)) != start_hash(decode(MINIMAL, **more))

    def test_a_rerun_from_another_step_is_another_start(self) -> None:
        forks = [None, {"execution_id": "x"}, {"execution_id": "x", "step": "a"}, {"execution_id": "y"}]
        assert len({start_hash(decode(MINIMAL, fork=fork)) for fork in forks}) == len(forks)

    def test_it_is_recorded_and_so_the_same_for_ever(self) -> None:
        told = decode(MINIMAL, version="2", payload={"input_data": {"n": [1.0, "ü"]}, "variables": {"b": 1}})
        assert start_hash(decode(MINIMAL)) == "431f5db5d5a55cf28181764d54e223a0"
        assert start_hash(told) == "f49c7265ec11387af550dea5c74a6db9"


def test_events_survive_the_codec() -> None:
    event = Event(
        id="1",
        seq=3,
        event="workflow_step_completed",
        tenant_id="acme",
        workflow_id="order",
        execution_id="x",
        timestamp="2026-11-20T10:00:00.000Z",
        data={"output": {"ñ": [1, 2.5, None]}},
    )
    assert decode_event(encode_event(event)) == event


def test_a_reason_is_kept_in_the_journal_and_so_is_limited() -> None:
    task = {"type": "workflow_pause", "execution_id": "x", "payload": {"reason": "r" * 2_001}}
    with pytest.raises(OverLimit, match=r"\$\.payload\.reason has 2001 characters; the most is 2000"):
        decode_task(msgspec.json.encode(task), "acme", Limits())
