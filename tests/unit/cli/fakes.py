"""A client that answers from a table, in the place of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from wpa.client import AskResult, RerunResult, StartResult
from wpa.errors import TaskRejected

Body = dict[str, Any]


def step(step: str, status: str = "completed", **changes: Any) -> Body:
    """A step of a status document."""
    body: Body = {
        "step": step,
        "slot": step,
        "uses": "core.echo",
        "kind": "step",
        "status": status,
        "attempt": 1,
        "started_at": None,
        "finished_at": None,
        "duration_ms": 12,
        "retry_at": None,
        "until": None,
        "name": None,
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
        "finished_at": None,
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
        self.hides_flow = False
        self.ended = status()
        self.events: list[Body] = []
        self.rows: list[Body] = []
        self.letter: Body = {}
        self.raises: Exception | None = None
        self.refuses: dict[str, TaskRejected] = {}
        """Executions of which nothing can be asked, and why."""
        self.duplicate = False
        self.queued = False

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

    async def executions(self, *, looked: Any, **options: Any) -> list[Body]:
        looked(4_000)
        self._called("executions", options)
        return self.rows

    async def watch(self, execution: str | None = None) -> AsyncIterator[Body]:
        self._called("watch", execution)
        for one in self.events:
            yield one

    def _asked(self, name: str, execution: str, *what: Any) -> AskResult:
        self._called(name, (execution, *what))
        if execution in self.refuses:
            raise self.refuses[execution]
        return AskResult(execution, duplicate=self.duplicate, queued=self.queued)

    async def signal(self, execution: str, name: str, payload: Any, **options: Any) -> AskResult:
        return self._asked("signal", execution, name, payload, options)

    async def approve(self, execution: str, step: str, **options: Any) -> AskResult:
        return self._asked("approve", execution, step, options)

    async def reject(self, execution: str, step: str, **options: Any) -> AskResult:
        return self._asked("reject", execution, step, options)

    async def pause(self, execution: str, **options: Any) -> AskResult:
        return self._asked("pause", execution, options)

    async def resume(self, execution: str, **options: Any) -> AskResult:
        return self._asked("resume", execution, options)

    async def cancel(self, execution: str, **options: Any) -> AskResult:
        return self._asked("cancel", execution, options)

    async def terminate(self, execution: str, **options: Any) -> AskResult:
        return self._asked("terminate", execution, options)

    async def retry(self, execution: str, **options: Any) -> AskResult:
        return self._asked("retry", execution, options)

    async def migrate(self, execution: str, version: str, **options: Any) -> AskResult:
        return self._asked("migrate", execution, version, options)

    async def rerun(self, execution: str, **options: Any) -> RerunResult:
        self._called("rerun", (execution, options))
        return RerunResult(options["new_execution_id"] or "made", "order", "1", execution, self.duplicate)

    async def approvals(self, *, limit: int | None, looked: Any) -> list[Body]:
        looked(4_000)
        self._called("approvals", limit)
        return self.rows

    async def schedules(self) -> list[Body]:
        self._called("schedules")
        return self.rows

    async def pause_schedule(self, workflow: str) -> Body:
        self._called("pause_schedule", workflow)
        return {"workflow_id": workflow, "paused": True}

    async def resume_schedule(self, workflow: str) -> Body:
        self._called("resume_schedule", workflow)
        return {"workflow_id": workflow, "paused": False}

    async def delete_schedule(self, workflow: str) -> Body:
        self._called("delete_schedule", workflow)
        return {"workflow_id": workflow}

    async def trigger_schedule(self, workflow: str, *, new_execution_id: str = "") -> str:
        self._called("trigger_schedule", workflow)
        return new_execution_id or f"{workflow}-now"

    async def workers(self) -> list[Body]:
        self._called("workers")
        return self.rows

    async def definitions(self) -> list[Body]:
        self._called("definitions")
        return self.rows

    async def definition(self, workflow: str, version: str = "") -> Body:
        self._called("definition", (workflow, version))
        return {"document": {}}

    async def deploy(self, document: Body, deployed_by: str = "") -> Body:
        self._called("deploy", document)
        return {
            "workflow_id": document["id"],
            "version": "1",
            "hash": "abc",
            "created": True,
            "hides_flow": self.hides_flow,
        }

    async def dlq_list(self, limit: int) -> list[Body]:
        self._called("dlq_list", limit)
        return [self.letter] if self.letter else []

    async def dlq_show(self, sequence: int) -> Body:
        self._called("dlq_show", sequence)
        return self.letter

    async def dlq_retry(self, sequence: int) -> int:
        self._called("dlq_retry", sequence)
        return 42
