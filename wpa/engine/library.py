"""The definitions a worker has at hand, compiled once and kept.

A version never changes, so a compiled program is good for ever. Which version is the latest does
change: it is remembered only until the store says that something was deployed, and for a few seconds
at most in any case.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from wpa import plan
from wpa.errors import NotFound, TaskRejected
from wpa.kernel.program import Program
from wpa.ports.clock import Clock
from wpa.ports.definitions import Definitions, StoredDefinition

__all__ = ["Library"]

LATEST_KEPT_S = 5.0
PROGRAMS_KEPT = 2_000


class Library:
    """Programs by tenant, workflow and version."""

    def __init__(self, definitions: Definitions, clock: Clock) -> None:
        self._definitions = definitions
        self._clock = clock
        self._programs: OrderedDict[tuple[str, str, str], Program] = OrderedDict()
        self._latest: dict[tuple[str, str], tuple[str, float]] = {}
        definitions.on_change(self._forget)

    def _forget(self, tenant: str, workflow: str) -> None:
        if tenant:
            self._latest.pop((tenant, workflow), None)
        else:
            self._latest.clear()

    async def program(self, tenant: str, workflow: str, version: str = "") -> Program:
        """The program of a version, or of the version deployed last.

        Raises NotFound (``unknown_workflow``, ``unknown_version``), or Unavailable.
        """
        if not version:
            version = await self._latest_version(tenant, workflow)
        key = (tenant, workflow, version)
        program = self._programs.get(key)
        if program is None:
            program = self._compile(await self._stored(tenant, workflow, version))
            self._programs[key] = program
            if len(self._programs) > PROGRAMS_KEPT:
                self._programs.popitem(last=False)
        return program

    @staticmethod
    def _compile(stored: StoredDefinition) -> Program:
        if stored.kind != "plan":
            raise TaskRejected(
                "unsupported_definition",
                f"{stored.workflow} {stored.version} is a {stored.kind}; this worker runs plans only",
            )
        return plan.load(msgspec.json.decode(stored.document))

    async def _latest_version(self, tenant: str, workflow: str) -> str:
        now = self._clock.monotonic_s()
        known = self._latest.get((tenant, workflow))
        if known is not None and known[1] > now:
            return known[0]
        version = await self._definitions.latest(tenant, workflow)
        if version is None:
            raise NotFound(
                "unknown_workflow",
                f"tenant {tenant} has no workflow {workflow!r}; deploy it with `wpa deploy FILE`, "
                "or see `wpa definitions`",
            )
        self._latest[(tenant, workflow)] = (version, now + LATEST_KEPT_S)
        return version

    async def _stored(self, tenant: str, workflow: str, version: str) -> StoredDefinition:
        stored = await self._definitions.get(tenant, workflow, version)
        if stored is not None:
            return stored
        latest = await self._definitions.latest(tenant, workflow)
        if latest is None:
            raise NotFound(
                "unknown_workflow",
                f"tenant {tenant} has no workflow {workflow!r}; deploy it with `wpa deploy FILE`",
            )
        raise NotFound(
            "unknown_version", f"workflow {workflow} has no version {version!r}; the latest is {latest!r}"
        )
