from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field

from wpa.errors import StepFailed
from wpa.hooks.steps import StepDeclarationError, step, step_type_of
from wpa.ports.steps import StepContext, StepType


class Item(msgspec.Struct):
    sku: str
    quantity: int = 1


@dataclass
class Address:
    city: str


class Person(TypedDict):
    name: str


class Card(BaseModel):
    number: str = Field(min_length=4)


def typed(fn: Any) -> StepType:
    found = step_type_of(fn)
    assert found is not None
    return found


@step("t.many")
async def many(
    ctx: StepContext,
    items: list[Item],
    address: Address,
    person: Person,
    card: Card,
    mode: Literal["fast", "slow"] = "slow",
    count: int | None = None,
) -> dict[str, int]:
    """Takes many kinds of things.

    And says so.
    """
    return {}


GOOD = {
    "items": [{"sku": "a"}],
    "address": {"city": "Madrid"},
    "person": {"name": "Ada"},
    "card": {"number": "1234"},
}


def test_inputs_become_what_the_hints_say() -> None:
    bound = typed(many).bind(GOOD)
    assert bound == {
        "items": [Item("a")],
        "address": Address("Madrid"),
        "person": {"name": "Ada"},
        "card": Card(number="1234"),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": [{"sku": 1}]}, "$.items[0].sku"),
        ({"mode": "medium"}, "$.mode"),
        ({"count": "1"}, "$.count"),
        ({"card": {"number": "1"}}, "$.card.number"),
        ({"zap": 1}, "zap"),
        ({"address": None}, "$.address"),
    ],
)
def test_a_misfit_is_final_and_names_the_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(StepFailed) as caught:
        typed(many).bind({**GOOD, **change})
    assert (caught.value.type, caught.value.retryable) == ("InvalidInput", False)
    assert words in caught.value.message


def test_a_missing_input_is_named() -> None:
    with pytest.raises(StepFailed, match="address"):
        typed(many).bind({"items": [], "person": {"name": "x"}, "card": {"number": "1234"}})


def test_the_schema_is_that_of_the_hints() -> None:
    schema = typed(many).signature.input_schema
    assert set(schema["required"]) == {"items", "address", "person", "card"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["mode"]["default"] == "slow"
    assert typed(many).signature.description == "Takes many kinds of things."


def test_the_function_stays_a_function() -> None:
    @step("t.plain")
    def plain(a: int) -> int:
        return a + 1

    assert plain(1) == 2
    assert typed(plain).isolation == "thread"


def test_extra_inputs_go_to_kwargs() -> None:
    @step("t.open")
    async def open_ended(a: int, **rest: Any) -> None: ...

    assert typed(open_ended).bind({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert typed(open_ended).signature.input_schema["additionalProperties"] is True


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        (Item("a"), {"sku": "a", "quantity": 1}),
        (Address("x"), {"city": "x"}),
        (Card(number="12345"), {"number": "12345"}),
        ((1, 2), [1, 2]),
    ],
)
def test_outputs_become_plain_data(returned: Any, wanted: Any) -> None:
    @step("t.out")
    async def out() -> Any: ...

    dumped = typed(out).dump(returned)
    assert msgspec.json.decode(msgspec.json.encode(dumped)) == wanted


@pytest.mark.parametrize(("hint", "returned"), [(dict[str, Any], {"a": [1]}), (list[Any], [{"a": 1}])])
def test_a_hint_that_says_nothing_of_the_inside_lets_it_pass(hint: Any, returned: Any) -> None:
    async def out() -> Any: ...

    out.__annotations__["return"] = hint
    found = typed(step("t.out")(out))
    assert found.dump(returned) is returned
    with pytest.raises(StepFailed, match="can't return"):
        found.dump(1)


def test_an_output_that_json_cannot_hold_is_final() -> None:
    @step("t.out")
    async def out() -> Any: ...

    with pytest.raises(StepFailed) as caught:
        typed(out).dump(object())
    assert (caught.value.type, caught.value.retryable) == ("InvalidOutput", False)


@pytest.mark.parametrize("name", ["charge", "", "a.b c", "pay.", ".x", "a..b", "ä.b"])
def test_a_bad_name_is_refused_at_import(name: str) -> None:
    with pytest.raises(StepDeclarationError, match=r"payments\.charge"):
        step(name)


def test_what_cannot_be_a_step_is_refused_at_import() -> None:
    with pytest.raises(StepDeclarationError, match="async"):

        @step("t.x", isolation="process")
        async def one() -> None: ...

    with pytest.raises(StepDeclarationError, match="top"):

        @step("t.x", isolation="process")
        def two() -> None: ...

    with pytest.raises(StepDeclarationError, match="by name"):

        @step("t.x")
        async def three(*args: int) -> None: ...


class Renamed(BaseModel):
    order_id: int = Field(alias="orderId")


async def test_models_are_written_as_their_schema_says() -> None:
    @step("x.renamed")
    async def renamed(order: Renamed, names: dict[int, str]) -> Renamed:
        assert names == {1: "one"}
        return order

    found = typed(renamed)
    arguments = found.bind({"order": {"orderId": 7}, "names": {"1": "one"}})
    assert found.dump(await found.fn(**arguments)) == {"orderId": 7}
    assert set(found.signature.output_schema["properties"]) == {"orderId"}
