"""Clients' calls, each with what came of it: made by plain NATS requests, and kept for the judge."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error

from tests.checker.facts import Body, Call, Outcome

__all__ = ["Caller"]

TIMEOUT_S: Final = 5.0
AGAIN_S: Final = 0.2
ENDED: Final = "execution_ended"
UNHEARD: Final = ("unavailable", "timeout")
"""Codes that say nothing about what has become of a request."""


class Caller:
    """Asks, and writes down what was answered. ``calls`` are the facts.

    Args:
        connection: to the server; the caller's to close.
        timeout_s: after so many seconds without an answer, nobody knows what has become of a call.
    """

    def __init__(self, connection: Client, timeout_s: float = TIMEOUT_S) -> None:
        self._nc = connection
        self._timeout_s = timeout_s
        self._disturbed_s = float("-inf")
        self.calls: list[Call] = []

    def disturb(self) -> None:
        """Something is broken just now, and nobody may be there to answer: patience begins anew."""
        self._disturbed_s = time.monotonic()

    async def start(
        self, tenant: str, workflow: str, data: Any, execution: str, within_s: float = 0.0
    ) -> Call:
        """Start an execution under an id. It is asked again for so long as nobody has answered."""
        body = {"workflow_id": workflow, "payload": {"input_data": data}}
        return await self.ask("start", tenant, execution, body, within_s)

    async def ask(
        self,
        kind: str,
        tenant: str,
        execution: str,
        body: Body,
        within_s: float = 0.0,
        *,
        insist: bool = True,
    ) -> Call:
        """Ask something of an execution: ``kind`` is the verb. Every call that is made is kept.

        Args:
            within_s: so long it is asked again while nobody has answered; counted anew from each
                :meth:`disturb`.
            insist: whether it is asked again, too, when it was refused; of one that has ended, it never is.
        """
        began_s = time.monotonic()
        while True:
            call = await self._ask(kind, tenant, execution, body)
            self.calls.append(call)
            refused = call.outcome == "failed" and (not insist or call.code == ENDED)
            deadline = max(began_s, self._disturbed_s) + within_s
            if call.outcome == "ok" or refused or time.monotonic() > deadline:
                return call
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, kind: str, tenant: str, execution: str, body: Body) -> Call:
        asked_ms = _now_ms()
        outcome: Outcome = "unknown"
        code = why = version = ""
        sent = json.dumps({**body, "execution_id": execution}).encode()
        try:
            reply = await self._nc.request(f"workflow.api.{tenant}.{kind}", sent, timeout=self._timeout_s)
        except (TimeoutError, Error, OSError) as error:
            code, why = type(error).__name__, str(error)
        else:
            answer = json.loads(reply.data)
            told = answer.get("error") or {}
            code, why = told.get("code", ""), told.get("message", "")
            version = answer.get("version", "") if kind == "start" else ""
            outcome = "ok" if answer.get("ok") else "unknown" if code in UNHEARD else "failed"
        return Call(
            kind=kind,
            tenant=tenant,
            execution=execution,
            outcome=outcome,
            workflow=body.get("workflow_id", ""),
            input=body.get("payload", {}).get("input_data") if kind == "start" else None,
            body=body,
            code=code,
            why=why,
            version=version,
            asked_ms=asked_ms,
            answered_ms=_now_ms(),
        )


def _now_ms() -> int:
    return int(time.time() * 1000)
