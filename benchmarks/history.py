"""Long histories: a flow replayed from its journal, an execution loaded with a snapshot and without one.

The journal is made by the kernel itself, from a flow of as many calls, and encoded as it is stored.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from flows import many

from wpa.adapters.nats import open_ports
from wpa.adapters.nats.headers import header_lines
from wpa.adapters.nats.streams import JOURNAL
from wpa.engine import loading
from wpa.flows import FlowProgram, flow_of
from wpa.kernel.draft import Draft, seal
from wpa.kernel.execution import Attempt, Execution, Start
from wpa.kernel.fold import fold
from wpa.model.codec import decode_event, encode_event
from wpa.model.events import Event
from wpa.model.limits import Limits
from wpa.model.state import State, decode_state, encode_state, pack
from wpa.model.times import rfc3339
from wpa.ports import Ports

CALLS, EVENTS, TAIL, IN_FLIGHT = 1_000, 100_000, 50, 500
TENANT, EXECUTION = "default", "long"
SUBJECT = f"{JOURNAL}.{TENANT}.{EXECUTION}"
BEGAN_MS = 1_795_000_000_000
LIMITS = Limits()
OUTPUT = {"data": "x" * 190}
HEADERS = header_lines(
    {
        "ce-specversion": "1.0",
        "ce-id": "bench-1",
        "ce-source": f"/wpa/{TENANT}/many",
        "ce-type": "wpa.workflow_step_completed",
        "ce-subject": EXECUTION,
        "ce-time": rfc3339(BEGAN_MS),
        "content-type": "application/json",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }
)
"""Those of an event; what their values are makes no difference."""


def replay(scale: float) -> dict[str, Any]:
    """A flow of a thousand calls, its last one open: back from its journal to where it waits. No server."""
    calls = max(100, int(CALLS * scale))
    journal = _journal(calls, calls)[:-1]
    began = time.perf_counter()
    _rebuild(_folded(journal))
    return {
        "calls": calls,
        "first_ms": round((time.perf_counter() - began) * 1000, 1),
        "ms": _median_ms(lambda: _rebuild(_folded(journal)), 11),
        "fold_ms": _median_ms(lambda: _folded(journal), 11),
    }


async def load(url: str, scale: float) -> dict[str, Any]:
    """An execution of very many events, from a server: all of its journal; its snapshot and the last few."""
    events = max(1_000, int(EVENTS * scale))
    journal = _journal(events, events - 2)
    ports = await open_ports(url, worker="bench")
    try:
        for first in range(0, events, IN_FLIGHT):
            batch = journal[first : first + IN_FLIGHT]
            await asyncio.gather(*(ports.transport.publish_acked(SUBJECT, data, HEADERS) for data in batch))
        fold_ms = await _load_ms(ports, 3)
        snapshot = pack(encode_state(_folded(journal[:-TAIL])))
        await ports.snapshots.put(TENANT, EXECUTION, snapshot, 0)
        snapshot_ms = await _load_ms(ports, 5)
    finally:
        await ports.aclose()
    return {
        "events": events,
        "fold_ms": fold_ms,
        "decode_ms": _median_ms(lambda: decode_state(snapshot), 5),
        "snapshot_ms": snapshot_ms,
        "tail": TAIL,
        "snapshot_mb": round(len(snapshot) / 1e6, 2),
        "journal_mb": round(sum(map(len, journal)) / 1e6, 1),
    }


async def _load_ms(ports: Ports, rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        loaded = await loading.load(ports, TENANT, EXECUTION)
        taken.append((time.perf_counter() - began) * 1000)
        assert loaded is not None
    return round(statistics.median(taken), 1)


def _program() -> FlowProgram:
    program = flow_of(many)
    assert program is not None
    return program


def _journal(calls: int, completed: int) -> list[bytes]:
    """The journal of a flow of ``calls`` calls, of which so many are completed; ended where all are."""
    execution, draft = Execution.start(
        _program(),
        Start(
            tenant=TENANT,
            execution=EXECUTION,
            start_hash="0" * 32,
            input={"calls": calls},
            lease="bench",
            seed="5eed",
        ),
        BEGAN_MS,
        LIMITS,
    )
    journal: list[bytes] = []
    _record(execution, draft, journal)
    for number in range(completed):
        now_ms = BEGAN_MS + number * 10
        attempt = Attempt(slot=execution.state.open[0], started_ms=now_ms, output=OUTPUT, stored=OUTPUT)
        _record(execution, execution.attempted(attempt, now_ms), journal)
        while draft_next := execution.follow_up(now_ms):
            _record(execution, draft_next, journal)
    return journal


def _record(execution: Execution, draft: Draft, journal: list[bytes]) -> None:
    number = len(journal) + 1
    about = {"id": f"bench-{number}", "worker": "bench", "epoch": 1}
    state: State | None = execution.state
    event = (
        Event(
            seq=1,
            event=draft.event,
            tenant_id=TENANT,
            workflow_id=execution.program.id,
            execution_id=EXECUTION,
            timestamp=rfc3339(draft.at_ms),
            data=draft.data,
            **about,
        )
        if state is None
        else seal(draft, state, **about)
    )
    data = encode_event(event)
    execution.record(decode_event(data), number)
    journal.append(data)


def _folded(journal: list[bytes], state: State | None = None) -> State:
    for data in journal:
        state = fold(state, decode_event(data))
        state.position = state.seq
    assert state is not None
    return state


def _rebuild(state: State) -> Execution:
    return Execution.rebuild(_program(), state, LIMITS)


def _median_ms(act: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(taken), 1)
