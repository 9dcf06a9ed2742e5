from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel, Field, model_validator

from tests.unit.flows.table import Table, run
from wpa.errors import Problem, TaskRejected
from wpa.flows import FlowDeclarationError, call, flow, flow_of


@dataclass
class Item:
    sku: str
    count: int = 1


class Payment(BaseModel):
    amount: Annotated[int, Field(gt=0)]


class Note(msgspec.Struct):
    text: str


@flow("order", version="2.1", timeout=60, max_parallel=4)
async def order(
    items: list[Item], payment: Payment, note: Note | None = None, at: datetime.date | None = None
) -> list[Any]:
    assert all(type(item) is Item for item in items)
    assert type(payment) is Payment
    return [len(items), payment, note, at]


def check(data: Any) -> list[str]:
    program = flow_of(order)
    assert program is not None
    return [f"{problem.path}: {problem.message}" for problem in program.check_input(data)]


def test_a_flow_is_a_program() -> None:
    program = flow_of(order)
    assert program is not None
    assert (program.id, program.version, program.timeout_ms, program.max_parallel) == (
        "order",
        "2.1",
        60_000,
        4,
    )
    assert program.pinned is False
    assert program.check_signal("any", {}) == []
    assert flow_of(program) is program
    assert flow_of(len) is None


def test_input_becomes_arguments_and_the_result_json() -> None:
    data = {
        "items": [{"sku": "a"}, {"sku": "b", "count": 2}],
        "payment": {"amount": 3},
        "note": {"text": "hi"},
        "at": "2026-01-02",
    }
    assert check(data) == []
    assert run(order, data).output == [2, {"amount": 3}, {"text": "hi"}, "2026-01-02"]


def test_everything_that_is_wrong_with_an_input_is_told_with_its_place() -> None:
    data = {
        "items": [{"sku": "a"}, {"sku": 1}],
        "payment": {"amount": -1},
        "note": {"text": None},
        "other": 1,
    }
    assert check(data) == [
        "$.payload.input_data.items[1].sku: Expected `str`, got `int`",
        "$.payload.input_data.payment.amount: Input should be greater than 0",
        "$.payload.input_data.note.text: Expected `str`, got `null`",
        "$.payload.input_data.other: is not a parameter of the flow",
    ]
    assert check(None) == check({})
    assert check({}) == [
        "$.payload.input_data.items: is missing",
        "$.payload.input_data.payment: is missing",
    ]
    assert check([1]) == ["$.payload.input_data: expected an object, got list"]


def test_an_input_that_does_not_fit_any_more_fails_the_execution() -> None:
    error = Table(order, {"items": 5}).error
    assert error.type == "Misfit"
    assert "payment" in error.message
    assert "items" in error.message


class Kind(BaseModel):
    kind: str

    @model_validator(mode="before")
    @classmethod
    def lower(cls, data: Any) -> Any:
        return {"kind": data["kind"].lower()}


class Share(msgspec.Struct):
    of: int

    def __post_init__(self) -> None:
        self.part = 1 / self.of


@dataclass
class Named:
    name: str

    def __post_init__(self) -> None:
        self.initial = self.name[0]


@flow("checked")
async def checked(kind: Kind | None = None, share: Share | None = None, named: Named | None = None) -> None:
    pass


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"kind": {}}, "kind: its check failed: KeyError: 'kind'"),
        ({"share": {"of": 0}}, "share: its check failed: ZeroDivisionError: division by zero"),
        ({"named": {"name": ""}}, "named: its check failed: IndexError: string index out of range"),
    ],
)
def test_whatever_a_check_of_the_flows_own_raises_is_a_problem(wpa: Any, data: Any, problem: str) -> None:
    with pytest.raises(TaskRejected) as refused:
        wpa(checked).start(data)
    assert [str(each) for each in refused.value.problems] == [f"$.payload.input_data.{problem}"]
    assert Table(checked, data).error.type == "Misfit"


def test_each_run_has_its_own_defaults() -> None:
    @flow("collecting")
    async def collecting(items: list[str] = [], seen: dict[str, Any] = {"in": []}) -> Any:  # noqa: B006
        items.append("one")
        seen["in"].append("two")
        for item in items:
            await call("a.do", item=item)
        return [items, seen]

    for _ in range(2):
        assert run(collecting).output == [["one"], {"in": ["two"]}]


def test_a_flow_may_take_whatever_comes() -> None:
    @flow("open")
    async def opened(a: int = 1, **rest: Any) -> Any:
        return [a, rest["b"].c]

    assert Table(opened, {"b": {"c": 2}}).output == [1, 2]
    assert opened.__wpa_flow__.check_input({"anything": 1}) == []


def test_the_function_stays_a_function() -> None:
    @flow("plain")
    async def plain(n: int) -> int:
        return n + 1

    with pytest.raises(StopIteration) as stopped:
        plain(1).send(None)
    assert stopped.value.value == 2


def test_local_classes_are_found() -> None:
    @dataclass
    class Local:
        n: int

    @flow("local")
    async def local(one: Local) -> int:
        return one.n

    assert Table(local, {"one": {"n": 4}}).output == 4


def test_functions_that_can_not_be_flows() -> None:
    with pytest.raises(FlowDeclarationError, match="is not an 'async def' function"):
        flow("x")(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(FlowDeclarationError, match="not a valid name"):
        flow("no spaces")
    with pytest.raises(FlowDeclarationError, match="not a valid name"):
        flow("x", version="..")
    with pytest.raises(FlowDeclarationError, match="timeout must be a positive"):
        flow("x", timeout=0)
    with pytest.raises(FlowDeclarationError, match="max_parallel"):
        flow("x", max_parallel=0)
    with pytest.raises(FlowDeclarationError, match="parameter args can't be passed by name"):

        @flow("x")
        async def positional(*args: int) -> None: ...

    with pytest.raises(FlowDeclarationError, match="type hints can't be read"):

        @flow("x")
        async def unreadable(a: Missing) -> None: ...  # noqa: F821


def test_a_result_that_is_no_json_fails_the_execution() -> None:
    @flow("odd")
    async def odd() -> Any:
        return object()

    assert Table(odd).error.type == "InvalidOutput"


def make(constant: int, text: str = "a") -> Any:
    namespace: dict[str, Any] = {"call": call, "__name__": __name__}
    source = (
        f"async def f():\n    x = {{'{text}', 'b', 'c'}}\n    return [await call('a.do', n={constant}), x]\n"
    )
    exec(source, namespace)
    return flow("made")(namespace["f"])


def test_the_hash_is_that_of_the_code() -> None:
    one, same, other = make(1), make(1), make(2)
    assert one.__wpa_flow__.hash == same.__wpa_flow__.hash != other.__wpa_flow__.hash
    assert one.__wpa_flow__.hash != make(1, "z").__wpa_flow__.hash
    assert one.__wpa_flow__.version == one.__wpa_flow__.hash[:12]


def test_the_hash_sees_functions_inside_and_defaults_but_no_lines() -> None:
    def variant(n: int, default: int) -> str:
        namespace: dict[str, Any] = {"__name__": __name__}
        source = f"async def f(d={default}):\n    async def g():\n        return {n}\n    return await g()\n"
        exec("\n" * (n + default) + source, namespace)
        return str(flow("made")(namespace["f"]).__wpa_flow__.hash)

    assert variant(1, 1) == variant(1, 1)
    assert len({variant(1, 1), variant(2, 1), variant(1, 2)}) == 3
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(
        "\n\n\nasync def f(d=1):\n    async def g():\n        return 1\n\n\n    return await g()\n", namespace
    )
    assert flow("made")(namespace["f"]).__wpa_flow__.hash == variant(1, 1)


def test_problems_carry_a_hint() -> None:
    program = flow_of(order)
    assert program is not None
    [problem] = program.check_input({"items": [], "payment": {"amount": 1}, "other": 1})
    assert problem == Problem(
        "$.payload.input_data.other", "is not a parameter of the flow", "it takes: items, payment, note, at"
    )
