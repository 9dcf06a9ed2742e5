"""Sees what happens at a site: what is asked and answered, what is broken; has it judged in the end."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import nats

from tests.chaos import aftermath
from tests.chaos.site import ACK_WAIT_S, FLOWS, Site
from tests.checker.calls import Caller
from tests.checker.dump import dump, settled
from tests.checker.facts import Facts, Fault, read_ledger, save
from tests.checker.flows import replay
from tests.checker.judge import Bounds, Violation, judge
from tests.e2e.processes import environment

BOUNDS = Bounds(settle_ms=0, late_ms=20_000, return_ms=45_000, pause_ms=10_000)
"""Nothing moves any more when it is judged. What is late by less may be the fault of a busy machine."""
LEDGERED = ("e2e.work", "e2e.undo")
CALL_TIMEOUT_S, ELECTION_S = 2.0, 10.0
"""How long an answer is waited for: from a cluster, for as long as it may take to elect a leader."""
QUIET_WITHIN_S = 60.0
LEASE_MS = int(ACK_WAIT_S * 1000)
KEPT_WITHIN_S = 30.0


class Witness:
    """The facts about one scenario: ``caller`` asks and keeps what was asked, :meth:`fault` what was broken.

    Args:
        site: where it happens.
        scenario: what it is called in the report, the file that ``CHAOS_REPORT`` names.
        canaries: for each tenant a word that only its own data holds.
        ledgered: the step types, next to those of the e2e plugin, that leave a line for each side effect.
        before: the calls, faults and effects of the time before.
        code: what leads to the newest code of the flows: variables of the environment.
    """

    caller: Caller

    def __init__(
        self,
        site: Site,
        scenario: str,
        canaries: Mapping[str, str] | None = None,
        *,
        ledgered: Sequence[str] = (),
        before: Facts | None = None,
        code: Mapping[str, str] | None = None,
    ) -> None:
        self._before = before or Facts()
        self._ledgered = [*LEDGERED, *ledgered]
        self._code = environment({**site.env, **(code or {})})
        self._site = site
        self._scenario = scenario
        self._canaries = dict(canaries or {})
        self.faults: list[Fault] = [*self._before.faults]

    async def __aenter__(self) -> Self:
        self._connection = await nats.connect(
            self._site.url.split(","),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            connect_timeout=5,
            error_cb=_ignore,
        )
        self.caller = Caller(self._connection, ELECTION_S if self._site.replicated else CALL_TIMEOUT_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    @contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """Something is broken in here; and until the leases have run out that were held meanwhile."""
        began_ms = _now_ms()
        self.caller.disturb()
        try:
            yield
        finally:
            self.caller.disturb()
            self.faults.append(Fault(what, began_ms, _now_ms() + LEASE_MS))

    async def judge(self) -> Facts:
        """Wait until all is quiet, and have everything judged. Raises AssertionError for a broken promise.

        The facts are kept beside the logs then: ``python -m tests.checker FILE`` judges them again.
        """
        latest_ms = max((fault.until_ms for fault in self.faults), default=0)
        await asyncio.sleep(max(0, latest_ms - _now_ms()) / 1000)
        facts = self._add_ours(await settled(self._site.url, QUIET_WITHIN_S))
        violations = await asyncio.to_thread(judge, facts)  # others, and their lines, share this loop
        violations += await asyncio.to_thread(replay, facts, [FLOWS], self._code)
        self._report(facts, violations)
        if violations:
            told = [*map(str, violations), self._keep(facts), *aftermath.journals(facts, violations)]
            raise AssertionError("\n".join(told))
        return facts

    async def tell(self, error: Exception, seed: int, executions: int) -> str:
        """All that is worth knowing of a run that has failed; the report has it, too.

        Of one that could not be judged, what there is of the facts is kept.
        """
        lines = [f"seed {seed}, {executions} executions: {type(error).__name__}: {error}"]
        if not self._path.exists():
            try:
                async with asyncio.timeout(KEPT_WITHIN_S):
                    facts = await dump(self._site.url, statuses=False)
                lines.append(self._keep(self._add_ours(facts)))
            except Exception as trouble:
                lines.append(f"the facts can't be read: {trouble!r}")
        words = "\n".join([*lines, *aftermath.last_words(self._site.folder)])
        self._write({"scenario": self._scenario, "failed": words})
        return words

    @property
    def _path(self) -> Path:
        return self._site.folder / "facts.json"

    def _keep(self, facts: Facts) -> str:
        save(facts, self._path)
        return f"the facts are in {self._path}"

    def _add_ours(self, facts: Facts) -> Facts:
        """Add what no server knows."""
        facts.calls, facts.closed = [*self._before.calls, *self.caller.calls], True
        facts.bounds = BOUNDS
        facts.faults = self.faults
        facts.canaries, facts.ledgered = self._canaries, self._ledgered
        facts.effects = [*self._before.effects, *read_ledger(self._site.ledger)]
        return facts

    def _report(self, facts: Facts, violations: list[Violation]) -> None:
        line: dict[str, Any] = {
            "scenario": self._scenario,
            "executions": len(facts.journals()),
            "events": len(facts.events),
            "calls": len(facts.calls),
            "effects": sum(effect.happened for effect in facts.effects),
            "faults": len(facts.faults),
            "recoveries": sum(event.name == "workflow_recovered" for event in facts.events),
            "violations": len(violations),
        }
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        path = os.environ.get("CHAOS_REPORT")
        if path:
            with Path(path).open("a") as report:
                report.write(json.dumps(line) + "\n")


async def _ignore(_: Exception) -> None:
    """Connections break here all the time."""


def _now_ms() -> int:
    return int(time.time() * 1000)
