"""The corpus of JSON, through every door that takes JSON."""

from __future__ import annotations

import math

import msgspec
import pytest

from tests.json_corpus import CASES, MUST_REFUSE, Case, as_input
from wpa import plan
from wpa.errors import DefinitionError, TaskRejected
from wpa.model.codec import decode_task, start_hash
from wpa.model.limits import Limits
from wpa.model.tasks import Task

by_name = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def outcome(data: bytes) -> Task | TaskRejected:
    try:
        task = decode_task(data, "acme", Limits())
    except TaskRejected as error:
        return error
    assert isinstance(task, Task)
    return task


@by_name
def test_as_an_input_it_is_read_as_written_or_refused_for_what_it_is(case: Case) -> None:
    found = outcome(as_input(case.text))
    if case.code:
        assert isinstance(found, TaskRejected)
        assert found.code == case.code
        assert 10 < len(found.message) < 2_000
        return
    assert isinstance(found, Task)
    given = found.payload.input_data
    assert given == case.value
    assert type(given) is type(case.value)
    if given == 0:
        assert math.copysign(1, given) == math.copysign(1, case.value)
    # What is let in can be written, and is read again as the same, by anybody.
    again = outcome(msgspec.json.encode(found))
    assert again == found
    assert start_hash(found) == start_hash(again)


@by_name
def test_as_a_whole_task_it_is_refused(case: Case) -> None:
    found = outcome(case.text)
    assert isinstance(found, TaskRejected)
    # That it is no object may be plain before its end is seen, or its numbers.
    assert found.code in {case.code, "not_a_task"}


@by_name
def test_in_a_field_that_nobody_knows_it_is_json_all_the_same(case: Case) -> None:
    found = outcome(b'{"type": "workflow_start", "workflow_id": "order", "other": %s}' % case.text)
    if case in MUST_REFUSE:
        assert isinstance(found, TaskRejected)
        assert found.code == case.code


@pytest.mark.parametrize("name", ["p.json", "p.yaml"])
@by_name
def test_as_a_part_of_a_definition_it_is_kept_as_written_or_is_a_problem(case: Case, name: str) -> None:
    if len(case.text) > 20_000:
        return  # the door's limits are not the command line's, and YAML is slow
    text = case.text.decode(errors="replace")
    whole = '{"id": "p", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}], "output": ' + text + "}"
    try:
        document = plan.parse(whole, name)
    except DefinitionError as error:
        assert error.problems
        assert case.code or name == "p.yaml" or "twice" in case.name
        return
    problems = plan.check(document)
    assert name == "p.yaml" or problems or case not in MUST_REFUSE or b"\xef" in text.encode()
    if not problems:
        assert msgspec.json.decode(msgspec.json.encode(document)) == document
        assert plan.load(document).hash == plan.content_hash(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the task is empty"),
        (b" \n", "the task is empty"),
        (b"{'type': 'workflow_start'}", "double quotes"),
        (as_input(b"['a']"), "double quotes"),
        (as_input(rb'"\ud800"'), r"\ud800 is half a character (byte 78)"),
        (as_input(rb'"\ud83d\ude00 \uDC00"'), r"\uDC00 is half a character"),
        (as_input(b"[NaN]"), "send null or a string"),
        (b"\xef\xbb\xbf{}", "send it without"),
    ],
    ids=range(8),
)
def test_the_usual_mistakes_are_named(text: bytes, words: str) -> None:
    found = outcome(text)
    assert isinstance(found, TaskRejected)
    assert words in found.message
