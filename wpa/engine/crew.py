"""Who can drive a plan: this worker, or only another one that is there.

Workers may have different plugins. A plan's step types are known beforehand, so a worker that lacks one
leaves the plan to a worker that has them all, before anything is recorded under its own name. Where no
worker has them, waiting would help nobody: then the plan is driven here, and its step fails by name.

A flow's step types show only as it runs; which workers can run a flow is its own matter (FlowMissing). While
workers are exchanged for newer ones, some have older code for it, which may not ask for what newer code has
recorded: such an execution is for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from wpa.errors import CodeDiffers, StepsMissing
from wpa.kernel.program import Program
from wpa.plan import Plan
from wpa.ports.clock import Clock

__all__ = ["Crew", "Roster"]

Roster = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Everything that the workers that are there say of themselves."""

ROSTER_KEPT_S: Final = 3.0
"""How long it is believed that an abler worker is there."""


class Crew:
    """This worker among the others.

    Args:
        worker: this worker's name.
        has: whether this worker has a step type.
        clock: the time.
        roster: who is there; None where this worker is alone.
    """

    def __init__(self, worker: str, has: Callable[[str], bool], clock: Clock, roster: Roster | None) -> None:
        self._worker = worker
        self._has = has
        self._clock = clock
        self._roster = roster
        self._others: list[frozenset[str]] = []
        """The step types of each other worker."""
        self._kept_until = 0.0
        self._asking = asyncio.Lock()

    @property
    def is_alone(self) -> bool:
        """Whether there are no other workers, by design."""
        return self._roster is None

    async def others(self) -> dict[str, dict[str, Any]]:
        """What the other workers say of themselves, by name. Raises Unavailable."""
        rows = [] if self._roster is None else await self._roster()
        return {row["worker"]: row for row in rows if row["worker"] != self._worker}

    async def has_flow(self, flow: str) -> bool:
        """Whether another worker has a flow. Raises Unavailable."""
        return any(flow in about.get("flows", ()) for about in (await self.others()).values())

    def is_able(self, program: Program) -> bool:
        """Whether this worker has what it takes, as far as that can be known, or is alone."""
        if self._roster is None or not isinstance(program, Plan):
            return True
        return all(map(self._has, program.step_types))

    async def check(self, program: Program) -> None:
        """Return where this worker should drive ``program``: it has what it takes, or no other has.

        Raises StepsMissing where another worker has to, Unavailable where the roster can't be read.
        """
        if self._roster is None or not isinstance(program, Plan) or self.is_able(program):
            return
        async with self._asking:
            known = self._clock.monotonic_s() < self._kept_until
            # That nobody can is never believed of old: a worker that has just come must not be overlooked.
            if not (known and self._has_abler(program)) and not await self._look(self._roster, program):
                return
        lacking = sorted(name for name in program.step_types if not self._has(name))
        raise StepsMissing(
            f"{program.id} {program.version} needs {', '.join(lacking)}: no plugin of this worker has that; "
            "another worker has to take it"
        )

    async def check_code(self, program: Program) -> None:
        """Return where no other worker has other code for a flow than this one has.

        Raises CodeDiffers where one has, Unavailable where the roster can't be read.
        """
        if self._roster is None or program.pinned:
            return
        for row in await self._roster():
            if row.get("codes", {}).get(program.id, program.hash) != program.hash:
                raise CodeDiffers(
                    f"this worker's code for the flow {program.id} does not ask for what is recorded; "
                    f"{row['worker']} has other code"
                )

    async def _look(self, roster: Roster, program: Plan) -> bool:
        """Whether an abler worker is there now, or may be."""
        rows = await roster()
        self._others = [
            frozenset(row.get("step_types") or ()) for row in rows if row.get("worker") != self._worker
        ]
        self._kept_until = self._clock.monotonic_s() + ROSTER_KEPT_S
        # A roster that has forgotten this very worker (the server was away for long) may lack others, too.
        forgotten = all(row.get("worker") != self._worker for row in rows)
        return forgotten or self._has_abler(program)

    def _has_abler(self, program: Plan) -> bool:
        return any(program.step_types <= types for types in self._others)
