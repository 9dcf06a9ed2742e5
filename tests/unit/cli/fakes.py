"""A client that answers from a table, in the place of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from wpa.client import StartResult

Body = dict[str, Any]


def step(name: str, status: str = "completed", **changes: Any) -> Body:
    """A step of a status document."""
    body: Body = {
        "step": name,
        "uses": "core.echo",
        "kind": "step",
        "status": status,
        "attempt": 1,
        "started_at": None,
        "finished_at": None,
        "duration_ms": 12,
        "input": {},
        "output": None,
        "error": None,
        "compensation": None,
    }
    return body | changes


def status(state: str = "COMPLETED", **changes: Any) -> Body:
    """A status document."""
    body: Body = {
        "execution_id": "e1",
        "workflow_id": "order",
        "version": "1",
        "tenant_id": "default",
        "status": state,
        "duration_ms": 1500,
        "progress": {"total": 1, "completed": 1, "failed": 0, "skipped": 0, "percentage": 100},
        "steps": [step("a")],
        "output": {"ok": True},
        "error": None,
        "failed_step": None,
        "undone": [],
        "not_undone": [],
    }
    return body | changes


def event(name: str, seq: int | None = 1, **data: Any) -> Body:
    """An event; with no ``seq``, a live one, whose data lie flat."""
    body: Body = {
        "event": name,
        "execution_id": "e1",
        "workflow_id": "order",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "worker": "w1",
        "epoch": 1,
    }
    return body | data if seq is None else body | {"seq": seq, "data": data}


class FakeClient:
    """What the commands need of :class:`wpa.client.Client`; ``calls`` holds what they asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.ended = status()
        self.events: list[Body] = []
        self.rows: list[Body] = []
        self.letter: Body = {}
        self.raises: Exception | None = None

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...

    def _called(self, name: str, what: Any = None) -> None:
        self.calls.append((name, what))
        if self.raises is not None:
            raise self.raises

    async def start(self, workflow: str, input: Any, **options: Any) -> StartResult:
        self._called("start", (workflow, input, options))
        return StartResult(options["execution_id"] or "e1", workflow, "1")

    async def result(self, execution: str) -> Body:
        self._called("result", execution)
        return self.ended

    async def status(self, execution: str) -> Body:
        self._called("status", execution)
        return self.ended

    async def history(self, execution: str) -> list[Body]:
        self._called("history", execution)
        return self.events

    async def executions(self, **options: Any) -> list[Body]:
        self._called("executions", options)
        return self.rows

    async def watch(self, execution: str | None = None) -> AsyncIterator[Body]:
        self._called("watch", execution)
        for one in self.events:
            yield one

    async def deploy(self, document: Body, deployed_by: str = "") -> Body:
        self._called("deploy", document)
        return {"workflow_id": document["id"], "version": "1", "hash": "abc", "created": True}

    async def dlq_list(self, limit: int) -> list[Body]:
        self._called("dlq_list", limit)
        return [self.letter] if self.letter else []

    async def dlq_show(self, sequence: int) -> Body:
        self._called("dlq_show", sequence)
        return self.letter

    async def dlq_retry(self, sequence: int) -> int:
        self._called("dlq_retry", sequence)
        return 42
