"""A world whose run the checker judges, too: by the facts alone, as it judges runs of real processes.

The checks of :mod:`tests.sim.checks` are quick, know how the engine works inside, and use its code. The judge
knows the journals and what clients and steps can tell, and shares no code with the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.checker.facts import Call, Definition, Effect, Facts, Fault, Message, Recorded, Snapshot
from tests.checker.judge import Bounds, judge
from tests.sim.node import EPOCH_MS, mark_of
from tests.sim.plans import Version
from tests.sim.world import TENANT, Began, SimWorld
from wpa.adapters.memory.storage import Message as Stored
from wpa.adapters.memory.storage import Stream

__all__ = ["JudgedWorld"]

LATE_MS, RETURN_MS = 10_000, 60_000
LEDGERED = ("sim.work", "sim.undo")


class JudgedWorld(SimWorld):
    """Keeps what is asked and deployed, and when the bad day ended."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self._calls: list[Call] = []
        self._definitions: list[Definition] = []
        self._calm_since_ms = EPOCH_MS
        super().__init__(*args, **more)

    def deploy(self, versions: Iterable[Version], tenant: str = TENANT) -> None:
        versions = list(versions)
        for version in versions:
            stored = version.stored
            told = (stored.workflow, stored.version, stored.hash, version.document)
            self._definitions.append(Definition(tenant, *told))
        super().deploy(versions, tenant)

    def publish(self, task: Mapping[str, Any], tenant: str = TENANT, version: str = "") -> None:
        kind, payload = task["type"].removeprefix("workflow_"), task.get("payload", {})
        self._calls.append(
            Call(
                kind=kind,
                tenant=tenant,
                execution=task["execution_id"],
                outcome="ok",
                via="api" if version else "publish",
                workflow=task.get("workflow_id", ""),
                input=payload.get("input_data", {}),
                body=payload if kind == "signal" and payload["id"] else {},
                version=version,
                asked_ms=self.now_ms,
                answered_ms=self.now_ms,
            )
        )
        super().publish(task, tenant, version)

    def be_calm(self) -> None:
        self._calm_since_ms = self.now_ms
        super().be_calm()

    # -- the judge ---------------------------------------------------------------------------

    def check_promises(self) -> None:
        """Have the run judged, when all has ended. Raises AssertionError with every promise that was broken."""
        violations = judge(self.facts(), self.bounds())
        assert not violations, "\n".join(map(str, violations))

    def bounds(self) -> Bounds:
        """What the clocks of this run's workers allow. A moment may be set by one, and kept by another."""
        skew_ms = 2 * self.skew_most_ms
        return Bounds(settle_ms=0, late_ms=LATE_MS + skew_ms, return_ms=RETURN_MS + skew_ms, skew_ms=skew_ms)

    def facts(self) -> Facts:
        """What is known from outside."""
        server = self.server
        tenants = {tenant for tenant, _, _ in self.programs}
        return Facts(
            taken_ms=self.now_ms,
            closed=True,
            ledgered=list(LEDGERED),
            calls=list(self._calls),
            faults=[Fault("a bad day", EPOCH_MS, self._calm_since_ms)],
            events=[
                Recorded(one.subject, one.sequence, one.stored_ms, json.loads(one.data))
                for one in _all(server.events)
            ],
            tasks=_messages(server.tasks),
            timers=_messages(server.due),
            letters=_messages(server.dead),
            snapshots=[
                Snapshot(*key.split(".", 1), json.loads(found[0]))
                for key in server.executions.keys
                if (found := server.executions.get(key))
            ],
            definitions=list(self._definitions),
            payloads={key: json.loads(data) for key, data in server.blobs.items()},
            effects=[_effect(began) for began in self.began],
            canaries={tenant: mark_of(tenant) for tenant in tenants},
        )


def _effect(began: Began) -> Effect:
    step, what = began.key.split(":")[1], "undo" if began.key.endswith(":undo") else "start"
    return Effect(began.execution, step, began.key, began.attempt, what, began.at_ms, began.tenant)


def _all(stream: Stream) -> list[Stored]:
    found = [message for subject in stream.subjects for message in stream.read(subject)]
    return sorted(found, key=lambda message: message.sequence)


def _messages(stream: Stream) -> list[Message]:
    return [
        Message(one.subject, one.sequence, one.stored_ms, json.loads(one.data), one.headers)
        for one in _all(stream)
    ]
