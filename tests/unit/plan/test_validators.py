from __future__ import annotations

from wpa.plan import check
from wpa.plan.validators import check_schema, misfits, validator


def test_a_schema_that_cannot_be_followed_is_a_problem_and_no_crash() -> None:
    for schema in ({"$ref": "#/nowhere"}, {"$ref": "#"}):
        (problem,) = misfits(validator(schema), {"x": 1}, "$.payload")
        assert problem.path == "$.payload"
        assert "can't be followed" in problem.message


def test_no_schema_and_true_fit_everything_and_false_fits_nothing() -> None:
    assert validator(None) is validator(True) is None
    assert misfits(None, object(), "$") == []
    assert len(misfits(validator(False), 1, "$")) == 1


def test_only_so_many_misfits_are_told() -> None:
    assert len(misfits(validator({"items": {"type": "string"}}), list(range(500)), "$")) == 50


def test_schemas_are_checked_themselves() -> None:
    assert check_schema({"type": "string"}, "$.input") == []
    assert check_schema({"type": "objekt"}, "$.input")[0].path == "$.input.type"
    assert "outside the document" in check_schema({"allOf": [{"$ref": "other.json"}]}, "$.input")[-1].message


def test_a_schedule_beside_a_schema_that_leads_nowhere_is_a_problem_and_no_crash() -> None:
    document = {
        "id": "p",
        "version": "1",
        "input": {"$ref": "#/nowhere"},
        "schedule": {"every": "5m"},
        "steps": [{"id": "a", "uses": "core.noop"}],
    }
    assert [problem.path for problem in check(document)] == ["$.schedule.input"]
