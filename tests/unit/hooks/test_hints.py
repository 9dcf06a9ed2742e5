"""The finer points of type hints: pydantic beside msgspec, schemas that stand alone, outputs that are checked."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import jsonschema
import msgspec
import pydantic.dataclasses
import pytest
from pydantic import BaseModel, Field

from wpa.errors import StepFailed
from wpa.hooks.steps import StepDeclarationError, step, step_type_of
from wpa.ports.steps import StepType


class Line(BaseModel):
    sku: str
    count: int = Field(gt=0)


class Order(BaseModel):
    lines: list[Line]


class Other(BaseModel):
    class Line(BaseModel):
        text: str

    line: Line


@dataclass
class Mixed:
    order: Order
    note: str = ""


@pydantic.dataclasses.dataclass
class Checked:
    count: Annotated[int, Field(gt=0)]


class Node(msgspec.Struct):
    name: str
    children: list[Node] = []


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Rich(msgspec.Struct):
    at: dt.datetime
    id: UUID
    price: Decimal
    colour: Colour
    blob: bytes
    tags: set[str]
    by_number: dict[int, str]


@dataclass
class Receipt:
    id: str
    cents: int


def typed(fn: Any) -> StepType:
    found = step_type_of(fn)
    assert found is not None
    return found


def refused(run: Any, kind: str) -> str:
    with pytest.raises(StepFailed) as caught:
        run()
    assert (caught.value.type, caught.value.retryable) == (kind, False)
    return caught.value.message


@step("h.pydantic")
async def pydantic_step(
    order: Order, other: Other, mixed: Mixed, checked: Checked, many: dict[str, list[Line]] | None = None
) -> None: ...


GOOD = {
    "order": {"lines": [{"sku": "a", "count": 1}]},
    "other": {"line": {"text": "x"}},
    "mixed": {"order": {"lines": []}},
    "checked": {"count": 1},
    "many": {"a": [{"sku": "b", "count": 2}]},
}


def test_pydantic_is_found_wherever_it_is() -> None:
    bound = typed(pydantic_step).bind(GOOD)
    assert bound["order"] == Order(lines=[Line(sku="a", count=1)])
    assert bound["mixed"] == Mixed(order=Order(lines=[]))
    assert bound["checked"] == Checked(count=1)
    assert bound["many"] == {"a": [Line(sku="b", count=2)]}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"order": {"lines": [{"sku": "a", "count": 0}]}}, "$.order.lines.0.count"),
        ({"mixed": {"order": 5}}, "$.mixed.order"),
        ({"checked": {"count": 0}}, "$.checked.count"),
        ({"many": {"a": [{"sku": "b"}]}}, "$.many.a.0.count"),
    ],
)
def test_pydantics_complaints_name_the_field(change: dict[str, Any], path: str) -> None:
    assert path in refused(lambda: typed(pydantic_step).bind({**GOOD, **change}), "InvalidInput")


def test_the_schema_of_nested_models_stands_alone() -> None:
    """Two models are called Line: each reference must find its own."""
    schema = typed(pydantic_step).signature.input_schema
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert list(validator.iter_errors(GOOD)) == []
    for bad in (
        {"order": {"lines": [{"text": "x"}]}},
        {"other": {"line": {"sku": "a", "count": 1}}},
        {"checked": {"count": 0}},
    ):
        assert list(validator.iter_errors({**GOOD, **bad})) != []


def test_constraints_of_pydantic_on_plain_types_are_kept() -> None:
    @step("h.field")
    async def field(
        count: Annotated[int, Field(gt=0)], size: Annotated[int, msgspec.Meta(ge=1)] = 1
    ) -> None: ...

    assert typed(field).bind({"count": 1}) == {"count": 1}
    assert "$.count" in refused(lambda: typed(field).bind({"count": 0}), "InvalidInput")
    assert "$.size" in refused(lambda: typed(field).bind({"count": 1, "size": 0}), "InvalidInput")


def test_a_recursive_type_has_a_schema_that_can_be_followed() -> None:
    @step("h.tree")
    async def tree(node: Node) -> Node:
        return node

    found = typed(tree)
    for schema in (found.signature.input_schema["properties"]["node"], found.signature.output_schema):
        whole = {**schema, "$defs": found.signature.input_schema["$defs"]}
        validator = jsonschema.Draft202012Validator(whole)
        assert list(validator.iter_errors({"name": "a", "children": [{"name": "b"}]})) == []
        assert list(validator.iter_errors({"name": "a", "children": [{"name": 1}]})) != []
    assert "$defs" in found.signature.output_schema
    deep = {"name": "a", "children": [{"name": "b", "children": []}]}
    assert found.dump(found.bind({"node": deep})["node"]) == deep


def test_a_function_without_annotations_takes_anything_under_its_names() -> None:
    @step("h.bare")
    def bare(ctx, a, b=5):  # type: ignore[no-untyped-def]
        return a

    found = typed(bare)
    assert found.takes_context
    assert found.bind({"a": [1]}) == {"a": [1]}
    assert "b2" in refused(lambda: found.bind({"a": 1, "b2": 1}), "InvalidInput")
    assert found.signature.input_schema["required"] == ["a"]
    assert found.signature.output_schema == {}


def test_the_context_has_a_name_that_no_input_may_take() -> None:
    @step("h.open")
    async def open_ended(ctx: Any, **rest: Any) -> None: ...

    assert typed(open_ended).bind({"a": 1}) == {"a": 1}
    assert "$.ctx" in refused(lambda: typed(open_ended).bind({"ctx": 1}), "InvalidInput")


def test_inputs_that_are_no_object_are_refused() -> None:
    for inputs in ([], "x", 5):
        refused(lambda given=inputs: typed(pydantic_step).bind(given), "InvalidInput")

    @step("h.none")
    async def none(**rest: Any) -> None: ...

    assert typed(none).bind(None) == {}


@pytest.mark.parametrize(
    ("hint", "good", "plain", "bad"),
    [
        (int, 5, 5, "5"),
        (str, "a", "a", 5),
        (float, 1, 1, "1"),
        (bool, True, True, 1),
        (None, None, None, 5),
        (dict, {"a": 1}, {"a": 1}, [1]),
        (list[int], [1], [1], ["1"]),
        (dict[str, int], {"a": 1}, {"a": 1}, {"a": "1"}),
        (dict[int, str], {1: "a"}, {"1": "a"}, {"x": "a"}),
        (int | None, None, None, "x"),
        (tuple[int, str], (1, "a"), [1, "a"], (1, 2)),
        (Point, Point(1, 2), [1, 2], (1, "x")),
        (Receipt, Receipt("a", 1), {"id": "a", "cents": 1}, Receipt("a", "1")),  # type: ignore[arg-type]
        (list[Receipt], [Receipt("a", 1)], [{"id": "a", "cents": 1}], [Receipt("a", None)]),  # type: ignore[arg-type]
        (Receipt, {"id": "a", "cents": 1}, {"id": "a", "cents": 1}, {"id": "a"}),
        (Line, Line(sku="a", count=1), {"sku": "a", "count": 1}, {"sku": "a", "count": 0}),
        (list[Line], [Line(sku="a", count=1)], [{"sku": "a", "count": 1}], [5]),
    ],
)
def test_an_output_must_fit_its_hint(hint: Any, good: Any, plain: Any, bad: Any) -> None:
    async def out() -> Any: ...

    out.__annotations__["return"] = hint
    found = typed(step("h.out")(out))
    recorded = msgspec.json.decode(msgspec.json.encode(found.dump(good)))
    assert recorded == plain
    jsonschema.validate(recorded, found.signature.output_schema)
    refused(lambda: found.dump(bad), "InvalidOutput")


def test_rich_types_become_json() -> None:
    @step("h.rich")
    async def rich() -> Rich: ...  # type: ignore[empty-body]

    value = Rich(
        at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), id=UUID(int=1), price=Decimal("1.20"), colour=Colour.RED,
        blob=b"x", tags={"a"}, by_number={1: "a"},
    )  # fmt: skip
    dumped = typed(rich).dump(value)
    assert dumped == {
        "at": "2026-01-02T00:00:00Z", "id": "00000000-0000-0000-0000-000000000001", "price": "1.20",
        "colour": "red", "blob": "eA==", "tags": ["a"], "by_number": {"1": "a"},
    }  # fmt: skip


def test_a_return_hint_that_is_no_data_says_nothing() -> None:
    @step("h.iter")
    async def iterable() -> Iterable[int]: ...  # type: ignore[empty-body]

    assert typed(iterable).signature.output_schema == {}
    assert typed(iterable).dump([1]) == [1]


def test_an_input_hint_that_json_can_never_fit_is_refused_at_import() -> None:
    class Odd: ...

    async def odd(a: Any) -> None: ...

    odd.__annotations__["a"] = Odd
    with pytest.raises(StepDeclarationError, match=r"h\.odd"):
        step("h.odd")(odd)


def test_a_step_of_a_script_cannot_run_in_a_process() -> None:
    def script() -> None: ...

    script.__qualname__, script.__module__ = "script", "__main__"
    with pytest.raises(StepDeclarationError, match="importable"):
        step("h.script", isolation="process")(script)
