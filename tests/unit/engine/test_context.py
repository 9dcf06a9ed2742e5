from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from wpa.adapters.memory.clock import VirtualClock
from wpa.engine.context import DATA_BYTES_MAX, EMIT_BYTES_MAX, PROGRESS_BURST, Context, StepCall
from wpa.errors import StepFailed

CALL = StepCall(
    tenant="acme", workflow="order", execution="o-1", step="charge", slot="charge:2", uses="t.do", inputs={},
    attempt=3, idempotency_key="o-1:charge:2", metadata={"user_id": "u"},
)  # fmt: skip


class Heard:
    """A live port that keeps what is published, as whoever listens would see it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.published: list[tuple[str, Any]] = []

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        assert (tenant, execution) == ("acme", "o-1")
        self.events.append(json.loads(msgspec.json.encode(body)))

    def publish(self, subject: str, data: bytes) -> None:
        self.published.append((subject, json.loads(data)))

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int) -> None:
        raise AssertionError

    async def on_nudge(self, worker: str, callback: Any) -> None:
        raise AssertionError

    @property
    def shares(self) -> list[float]:
        return [event["percentage"] for event in self.events]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def context(heard: Heard) -> AsyncIterator[Context]:
    context = Context(CALL, heard, VirtualClock(), "w1", asyncio.get_running_loop())
    yield context
    context.close()


async def test_progress_is_a_live_event_with_all_its_names(context: Context, heard: Heard) -> None:
    await context.progress(25, "page 1", page=1)
    (event,) = heard.events
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "step_progress", "percentage": 25.0, "message": "page 1", "data": {"page": 1},
        "tenant_id": "acme", "workflow_id": "order", "execution_id": "o-1", "step": "charge",
        "slot": "charge:2", "attempt": 3, "worker": "w1",
    }  # fmt: skip


async def test_a_chatty_step_is_heard_now_and_then_and_at_the_end(context: Context, heard: Heard) -> None:
    for number in range(1_000):
        await context.progress(number / 10)
    assert len(heard.events) == PROGRESS_BURST
    context.close()
    assert len(heard.events) == PROGRESS_BURST + 1
    assert heard.shares[-1] == 99.9


async def test_what_was_held_back_follows_when_the_step_falls_silent(context: Context, heard: Heard) -> None:
    for number in range(100):
        await context.progress(number)
    await asyncio.sleep(0.15)
    assert len(heard.events) == PROGRESS_BURST + 1
    assert heard.shares[-1] == 99.0


async def test_repeating_the_end_is_no_way_around_the_bound(context: Context, heard: Heard) -> None:
    for _ in range(1_000):
        await context.progress(100)
    assert len(heard.events) == PROGRESS_BURST


async def test_reports_keep_their_order(context: Context, heard: Heard) -> None:
    for number in range(60):
        await context.progress(number)
    await asyncio.sleep(0.1)
    await context.progress(80)
    await asyncio.sleep(0.1)
    assert heard.shares == sorted(heard.shares)
    assert heard.shares[-1] == 80.0


async def test_an_attempt_that_has_ended_is_heard_no_more(context: Context, heard: Heard) -> None:
    context.close()
    await context.progress(50)
    await asyncio.to_thread(context.progress_sync, 60)
    context.heartbeat()
    await asyncio.sleep(0.01)
    assert heard.events == []


async def test_threads_report_and_beat_through_the_loop(context: Context, heard: Heard) -> None:
    await asyncio.to_thread(context.progress_sync, 60, "half", page=2)
    await asyncio.to_thread(context.heartbeat)
    await asyncio.sleep(0.01)
    assert [event["event"] for event in heard.events] == ["step_progress", "step_heartbeat"]
    assert heard.events[0]["data"] == {"page": 2}


@pytest.mark.parametrize(("given", "seen"), [(-5, 0.0), (250, 100.0), (float("nan"), 0.0), (True, 1.0)])
async def test_a_percentage_is_one(context: Context, heard: Heard, given: float, seen: float) -> None:
    await context.progress(given)
    assert heard.shares == [seen]


@pytest.mark.parametrize("data", [object(), "x" * (DATA_BYTES_MAX + 1), {1, object()}])
async def test_data_that_cannot_be_published_is_left_out(context: Context, heard: Heard, data: Any) -> None:
    await context.progress(10, "still told", odd=data)
    assert heard.events[0]["message"] == "still told"
    assert "data" not in heard.events[0]


async def test_what_was_reported_is_what_was_at_that_moment(context: Context, heard: Heard) -> None:
    pages = [1]
    for _ in range(int(PROGRESS_BURST)):
        await context.progress(1)
    await context.progress(2, pages=pages)
    pages.append(2)
    context.close()
    assert heard.events[-1]["data"] == {"pages": [1]}


async def test_progress_tells_of_no_number_that_a_reader_could_not_hold(
    context: Context, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    await context.progress(50, "half", rows=10**30)
    assert heard.events[-1]["percentage"] == 50.0
    assert "data" not in heard.events[-1]
    assert "$.rows is an integer of more than 64 bits" in caplog.text


async def test_emissions_stay_under_the_tenants_prefix(context: Context, heard: Heard) -> None:
    assert await context.emit("orders.paid", {"id": 1}) == "workflow.emit.acme.orders.paid"
    assert heard.published == [("workflow.emit.acme.orders.paid", {"id": 1})]


@pytest.mark.parametrize(
    "subject",
    ["", "a b", "a.>", "*", "a..b", ".a", "a.", "x\r\nPUB workflow.tasks.other 2\r\n{}", "é", "a\0", "a" * 201,
     ".".join("abcdefghi"), None],
)  # fmt: skip
async def test_no_other_subject_can_be_reached(context: Context, heard: Heard, subject: Any) -> None:
    with pytest.raises(StepFailed) as caught:
        await context.emit(subject, 1)
    assert (caught.value.type, caught.value.retryable) == ("InvalidInput", False)
    assert heard.published == []


@pytest.mark.parametrize("data", [object(), "x" * EMIT_BYTES_MAX, {"n": 2**63}])
async def test_what_cannot_be_emitted_fails_the_step(context: Context, heard: Heard, data: Any) -> None:
    with pytest.raises(StepFailed, match="emitted"):
        await context.emit("a", data)
    assert heard.published == []


async def test_the_logger_says_whose_line_it_is(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wpa.step"):
        context.log.info("charged %d", 5, extra={"bank": "x"})
    (record,) = caplog.records
    assert record.getMessage() == "[acme.o-1 charge#3] charged 5"
    wanted = {"tenant": "acme", "workflow": "order", "execution": "o-1", "step": "charge", "attempt": 3}
    assert wanted.items() <= vars(record).items()
    assert vars(record)["bank"] == "x"


async def test_a_step_cannot_change_what_the_execution_knows(context: Context) -> None:
    context.metadata["user_id"] = "somebody else"
    assert context.metadata == {"user_id": "u"}
    assert (context.idempotency_key, context.attempt) == ("o-1:charge:2", 3)
