from __future__ import annotations

import datetime
import uuid
import warnings
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, Field

from tests.unit.flows.table import Table, run
from wpa.errors import InvalidName, StepFailed
from wpa.flows import NotInFlow, Record, Retry, UnknownSlot, call, child, flow, signal
from wpa.kernel.program import Settled, StepPolicy
from wpa.model.events import Failure
from wpa.model.steptype import StepSignature
from wpa.sdk import StepContext, step


@dataclass
class Item:
    sku: str
    count: int = 1


class Payment(BaseModel):
    amount: int
    currency: str = "EUR"


class Receipt(msgspec.Struct):
    id: str
    at: datetime.datetime
    extra: dict[str, Any] = {}


@step("tests.charge")
async def charge(ctx: StepContext, payment: Payment, items: list[Item]) -> Receipt:
    raise NotImplementedError


@step("tests.total")
def total(items: list[Item], name: str = "") -> Decimal:
    raise NotImplementedError


@step("tests.slow")
def slow(timeout: float) -> None:
    raise NotImplementedError


@step("tests.refund")
def refund(id: str) -> None:
    raise NotImplementedError


def only_want(declared: Any, data: Any = None) -> Any:
    [want] = Table(declared, data).wants.values()
    return want


def test_a_function_takes_positions_and_gives_its_type() -> None:
    @flow("typed")
    async def typed() -> dict[str, Any]:
        receipt = await call(charge, Payment(amount=5), items=[Item("a"), Item("b", 2)], undo=refund)
        assert isinstance(receipt, Receipt)
        assert receipt.at.year == 2026
        amount = await call(total, [Item("c")])
        return {"id": receipt.id, "more": receipt.extra["a"]["b"], "amount": str(amount + 1)}

    want = only_want(typed)
    assert (want.step, want.uses) == ("tests_charge", "tests.charge")
    assert want.inputs == {
        "payment": {"amount": 5, "currency": "EUR"},
        "items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 2}],
    }

    def answer(want: Any) -> Any:
        if want.uses == "tests.total":
            return "2.50"
        return {"id": "r1", "at": "2026-01-02T03:04:05Z", "extra": {"a": {"b": 1}}}

    assert run(typed, answer=answer).output == {"id": "r1", "more": 1, "amount": "3.50"}


def test_an_output_that_is_not_what_was_declared_fails_the_call() -> None:
    @flow("mistyped")
    async def mistyped() -> None:
        await call(charge, payment=Payment(amount=5), items=[])

    table = Table(mistyped)
    table.settle("tests_charge", {"id": 7})
    assert table.error.type == "InvalidOutput"
    assert "`$.id`" in table.error.message


@pytest.mark.parametrize(
    "given", [{"amount": 5, "currency": "EUR"}, Payment(amount=5), Record(amount=5, currency="EUR")]
)
def test_a_name_takes_one_object_as_its_inputs(given: Any) -> None:
    @flow("spread")
    async def spread() -> Any:
        return await call("payments.charge", given, note="n")

    assert only_want(spread).inputs == {"amount": 5, "currency": "EUR", "note": "n"}


def test_other_positions_need_a_known_signature() -> None:
    @flow("positions")
    async def positions() -> Any:
        return await call("payments.status", "charge-1")

    assert Table(positions).error.type == "TypeError"
    assert "pass them by name, as in call('payments.status', order_id=...)" in Table(positions).error.message
    schema = {"properties": {"charge_id": {}, "name": {}}}
    known = positions.__wpa_flow__.with_signatures(
        lambda name: StepSignature(name=name, input_schema=schema, output_schema={})
    )
    assert only_want(known).inputs == {"charge_id": "charge-1"}


def knowing(declared: Any, fn: Any) -> Any:
    """A flow whose worker knows ``fn``'s signature."""
    signature = fn.__wpa_step__.signature
    return declared.__wpa_flow__.with_signatures({signature.name: signature}.get)


def test_one_object_that_does_not_fit_the_parameters_is_the_first_of_them() -> None:
    @flow("positioned")
    async def positioned() -> Any:
        return await call("tests.charge", Payment(amount=5), items=[])

    @flow("named")
    async def named() -> Any:
        return await call("tests.charge", {"payment": {"amount": 5}, "items": []})

    @flow("halved")
    async def halved() -> Any:
        return await call("tests.charge", {"payment": {"amount": 5}}, items=[])

    payment = {"amount": 5, "currency": "EUR"}
    assert only_want(knowing(positioned, charge)).inputs == {"payment": payment, "items": []}
    for flow_ in (named, halved):
        assert only_want(knowing(flow_, charge)).inputs == {"payment": {"amount": 5}, "items": []}


def test_one_object_is_no_parameter_that_takes_none() -> None:
    @flow("misnamed")
    async def misnamed() -> Any:
        return await call("tests.total", {"itmes": []})

    assert only_want(knowing(misnamed, total)).inputs == {"itmes": []}


def test_an_option_that_may_be_an_input_is_refused() -> None:
    @flow("ambiguous")
    async def ambiguous() -> None:
        await call(slow, timeout=5)

    @flow("clear")
    async def clear() -> None:
        await call(total, [], name="Bob", step_name="total_of_bob")

    assert "timeout is an option of call() and an input of the step" in Table(ambiguous).error.message
    want = only_want(clear)
    assert (want.step, want.inputs) == ("total_of_bob", {"items": [], "name": "Bob"})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda: call(total, [], "a", "b"), "TypeError", "takes 2 inputs (items, name), but 3 were given"),
        (lambda: call(total, [], items=[]), "TypeError", "items is given twice"),
        (lambda: call(len, []), "TypeError", "a function declared with @step"),
        (lambda: call("a.do", x=object()), "TypeError", "can't be written as JSON"),
        (lambda: call("a.do", retry=0), "ValueError", "retry must be"),
        (
            lambda: call("a.do", retry=Retry(max_attempts=None)),
            "ValueError",
            "retry can't be followed: TypeE",
        ),  # type: ignore[arg-type]
        (lambda: call("a.do", retry=Retry(initial_ms="1")), "ValueError", "retry can't be followed: TypeE"),  # type: ignore[arg-type]
        (lambda: call("a.do", retry=Retry(factor=float("nan"))), "ValueError", "retry can't be followed: V"),
        (lambda: call("a.do", retry=Retry(give_up_on=None)), "ValueError", "retry can't be followed: T"),  # type: ignore[arg-type]
        (
            lambda: call("a.do", retry=Retry(initial_ms=10**15, max_ms=10**15)),
            "ValueError",
            "retry waits for",
        ),
        (lambda: call("a.do", timeout=-1), "ValueError", "timeout must be a positive number of seconds"),
        (lambda: call("a.do", priority=10), "ValueError", "priority must be 0 to 9"),
        (lambda: call("a.do", step_name="no spaces"), "InvalidName", "step id 'no spaces'"),
        (lambda: call("a.do", queue="no.dots"), "InvalidName", "queue 'no.dots'"),
    ],
)
def test_calls_that_can_not_be_made_say_why(arguments: Any, error: str, message: str) -> None:
    @flow("wrong")
    async def wrong() -> None:
        await arguments()

    failure = Table(wrong).error
    assert failure.type == error
    assert message in failure.message
    assert failure.details["at"].startswith("tests.unit.flows.test_calls:")


def test_options_become_the_policy() -> None:
    @flow("optioned")
    async def optioned() -> None:
        await call(
            "a.do",
            retry=Retry(max_attempts=7),
            timeout=1.5,
            deadline=timedelta(minutes=1),
            queue="gpu",
            at_most_once=True,
            priority=9,
        )

    assert only_want(optioned).policy == StepPolicy(
        retry=Retry(max_attempts=7),
        timeout_ms=1500,
        deadline_ms=60_000,
        on_error="continue",
        priority=9,
        queue="gpu",
        at_most_once=True,
    )


def test_everything_that_json_can_hold_is_dumped_and_copied() -> None:
    @flow("dumped")
    async def dumped() -> None:
        tags = ["a"]
        asked = call(
            "a.do",
            tags=tags,
            at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
            id=uuid.UUID(int=1),
            items=(Item("x"),),
            nested={"p": [Payment(amount=1)], 5: None},
        )
        tags.append("b")
        await asked

    assert only_want(dumped).inputs == {
        "tags": ["a"],
        "at": "2026-01-02T00:00:00Z",
        "id": str(uuid.UUID(int=1)),
        "items": ({"sku": "x", "count": 1},),
        "nested": {"p": [{"amount": 1, "currency": "EUR"}], "5": None},
    }


def test_what_a_flow_does_to_an_output_changes_nothing_that_is_recorded() -> None:
    @flow("vandal")
    async def vandal(given: dict[str, Any]) -> Any:
        given["list"].append(1)
        output = await call("a.do")
        output.inner.value = 2
        output["more"] = []
        return [given, output]

    data = {"given": {"list": []}}
    table = Table(vandal, data)
    value = {"inner": {"value": 1}}
    table.run.settle(Settled(slot="a_do", status="completed", value=value, at_ms=1))
    assert value == {"inner": {"value": 1}}
    assert data == {"given": {"list": []}}


def test_a_failure_is_an_exception_with_everything_recorded() -> None:
    @flow("failing")
    async def failing() -> Any:
        try:
            await call("a.do")
        except StepFailed as error:
            return [error.type, error.message, error.details, error.retryable]

    table = Table(failing)
    error = Failure(type="CardDeclined", message="no money", retryable=False, details={"code": 51})
    table.settle("a_do", error=error)
    assert table.output == ["CardDeclined", "no money", {"code": 51}, False]


def test_what_a_flow_does_to_a_failure_changes_nothing_that_is_recorded() -> None:
    @flow("picky")
    async def picky() -> Any:
        found = []
        for name in ("a.do", "b.do"):
            try:
                await (call(name) if name == "a.do" else signal("b"))
            except StepFailed as error:
                found.append(error.details.inner.codes.pop())
        return found

    table = Table(picky)
    error = Failure(type="CardDeclined", message="no money", details={"inner": {"codes": [51, 52]}})
    table.settle("a_do", error=error)
    table.settle("signal_b", error=error)
    assert table.output == [52, 52]
    assert error.details == {"inner": {"codes": [51, 52]}}


def test_a_failure_that_leaves_the_flow_keeps_its_type() -> None:
    @flow("leaving")
    async def leaving() -> None:
        await call("a.do")

    table = Table(leaving)
    table.settle("a_do", error=Failure(type="CardDeclined", message="no money", details={"code": 51}))
    assert (table.error.type, table.error.message, table.error.retryable) == (
        "CardDeclined",
        "no money",
        False,
    )
    assert table.error.details["code"] == 51
    assert table.error.details["at"].endswith("in leaving")


def test_records_are_dicts_with_attributes() -> None:
    made = Record(id=1, items=[1])
    assert made == {"id": 1, "items": [1]}
    assert made.id == 1
    assert callable(made.items)
    assert made["items"] == [1]
    made.id = 2
    assert made["id"] == 2
    with pytest.raises(AttributeError, match="there is no 'x' among the members: id, items"):
        made.x  # noqa: B018


def test_outside_of_flows_there_is_nothing_to_call_with() -> None:
    with pytest.raises(NotInFlow, match=r"call\(\) was used where no flow is running"):
        call("a.do")


def test_undo_takes_inputs_and_outputs() -> None:
    @flow("undone")
    async def undone() -> None:
        await call("a.do", order=1, id="mine", undo="a.undo")
        await call("b.do")
        await call("c.do", undo=refund)

    table = Table(undone)
    table.settle("a_do", {"id": "theirs", "extra": True})
    table.ok("b_do")
    want = table.run.undo("a_do")
    assert want is not None
    assert (want.slot, want.step, want.uses, want.trim) == ("a_do:undo", "a_do", "a.undo", True)
    assert want.inputs == {"order": 1, "id": "theirs", "extra": True}
    assert want.policy.retry.max_attempts == 10
    assert table.run.undo("b_do") is None
    assert table.run.undo("c_do") is None
    assert table.run.undo("nothing") is None
    table.fail("c_do")
    assert table.run.undo("c_do") is None


def test_a_slot_that_nobody_waits_for_is_refused_with_what_is_asked() -> None:
    @flow("asker")
    async def asker() -> None:
        await call("a.do")
        await call("b.do")

    table = Table(asker)
    table.ok("a_do")
    assert table.run.asked() == ["step a_do uses a.do", "step b_do uses b.do"]
    for slot in ("c_do", "a_do"):
        with pytest.raises(UnknownSlot, match=rf"slot {slot} is settled, but .* step b_do uses b.do"):
            table.run.settle(Settled(slot=slot, status="completed"))


def test_a_step_that_ends_after_the_flow_can_still_be_undone() -> None:
    @flow("early")
    async def early() -> None:
        async def other() -> None:
            await call("a.do", undo="a.undo")

        import asyncio

        async with asyncio.TaskGroup() as group:
            group.create_task(other())
            await call("b.do")

    table = Table(early)
    table.fail("b_do")
    outcome = table.outcome
    assert table.error.type == "Boom"
    assert outcome.dropped == ("a_do",)
    table.run.settle(Settled(slot="a_do", status="completed", value={}))
    assert table.run.undo("a_do") is not None
    assert table.run.poll() == msgspec.structs.replace(outcome, dropped=())  # told once


def test_bad_names_are_refused_when_they_are_asked_for() -> None:
    @flow("bad")
    async def bad() -> str:
        try:
            await call("1.do")
        except InvalidName as error:
            return error.message
        return ""

    assert "step id '1_do'" in Table(bad).output


class Renamed(BaseModel):
    order_id: int = Field(alias="orderId")


@step("aliased.do")
async def aliased(ctx: StepContext, order: Renamed) -> Renamed:
    return order


def test_models_are_written_as_they_are_read() -> None:
    @flow("aliases")
    async def aliases(order: Renamed) -> Renamed:
        return await call(aliased, order)

    table = Table(aliases, {"order": {"orderId": 7}})
    assert table.wants["aliased_do"].inputs == {"order": {"orderId": 7}}
    table.settle("aliased_do", {"orderId": 8})
    assert table.output == {"orderId": 8}


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], "\ud800", {"a": Renamed}])
def test_what_json_can_not_hold_is_refused_where_it_is_given(value: Any) -> None:
    @flow("giver")
    async def giver() -> str:
        with pytest.raises(TypeError, match="can't be written as JSON"):
            await call("a.do", value=value)
        return "refused"

    assert Table(giver).output == "refused"


def test_a_forgotten_await_is_told_by_name() -> None:
    @flow("forgetful")
    async def forgetful() -> None:
        call("a.do", n=1)
        signal("go")
        child("other")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert Table(forgetful).output is None
    told = [str(warning.message) for warning in caught]
    names = ("call(a.do)", "signal(signal_go)", "child(child_other)")
    assert told == [f"coroutine '{name}' was never awaited" for name in names]
