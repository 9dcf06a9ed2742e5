"""The definitions a worker has at hand: plans, compiled once and kept, and the flows that are installed.

A version of a plan never changes, so a compiled one is good for ever. Which version is the latest does
change: it is remembered only until the store says that something was deployed, and for a few seconds
at most in any case.

A flow is code, and the code that runs is the one that is installed, whatever version was asked for: the
kernel finds out whether it fits what is recorded. The store knows the flows' names and versions, under a
tenant's name that no tenant can have, so that a worker that lacks one can tell whether another has it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from wpa import plan
from wpa.errors import DefinitionError, FlowMissing, Newer, NotFound, TaskRejected
from wpa.kernel.program import Program
from wpa.model.times import rfc3339
from wpa.plan.suggest import suggest
from wpa.ports.clock import Clock
from wpa.ports.definitions import Definitions, StoredDefinition

__all__ = ["FLOWS", "Library", "is_reserved"]

log = logging.getLogger("wpa.engine")

FLOWS: Final = "_flows"
"""Where the store keeps the flows of all workers."""
LATEST_KEPT_S: Final = 5.0
PROGRAMS_KEPT: Final = 2_000


def is_reserved(tenant: str) -> bool:
    """Whether this is no tenant but a name under which the engine keeps something of its own."""
    return tenant.startswith("_")


class Library:
    """Programs by tenant, workflow and version.

    Args:
        definitions: what is deployed.
        clock: the time.
        flows: the flows that are installed in this worker, by id; they serve every tenant.
    """

    def __init__(
        self, definitions: Definitions, clock: Clock, flows: Mapping[str, Program] | None = None
    ) -> None:
        self._definitions = definitions
        self._clock = clock
        self._flows = dict(flows or {})
        self._programs: OrderedDict[tuple[str, str, str], Program] = OrderedDict()
        self._latest: dict[tuple[str, str], tuple[str | None, float]] = {}
        self._names: dict[str, tuple[list[str], float]] = {}
        definitions.on_change(self._forget)

    def _forget(self, tenant: str, workflow: str) -> None:
        if tenant:
            self._latest.pop((tenant, workflow), None)
        else:
            self._latest.clear()

    # -- programs ----------------------------------------------------------------------------

    async def program(self, tenant: str, workflow: str, version: str = "") -> Program:
        """The program of a version, or of the version deployed last. The tenant's own comes before a flow.

        Raises NotFound (``unknown_workflow``, ``unknown_version``, ``broken_definition``), FlowMissing for a
        flow that only other workers have, Newer for what this worker can't load, or Unavailable.
        """
        kept = self.at_hand(tenant, workflow, version)
        if kept is not None:
            return kept
        latest = await self._latest_version(tenant, workflow)
        if latest is not None:
            wanted = version or latest
            program = self._programs.get((tenant, workflow, wanted)) or await self._load(
                tenant, workflow, wanted
            )
            if program is not None:
                return program
        if workflow in self._flows:
            return self._flows[workflow]
        if await self._latest_version(FLOWS, workflow) is not None:
            raise FlowMissing(workflow)
        if latest is None:
            raise await self._unknown(tenant, workflow)
        raise NotFound(
            "unknown_version", f"workflow {workflow} has no version {version!r}; the latest is {latest!r}"
        )

    def at_hand(self, tenant: str, workflow: str, version: str = "") -> Program | None:
        """What :meth:`program` answers, where the store need not be asked."""
        if not version:
            latest, kept_until = self._latest.get((tenant, workflow), (None, 0.0))
            if latest is None or kept_until <= self._clock.monotonic_s():
                return None
            version = latest
        return self._programs.get((tenant, workflow, version))

    async def _load(self, tenant: str, workflow: str, version: str) -> Program | None:
        stored = await self._definitions.get(tenant, workflow, version)
        if stored is None:
            return None
        if stored.kind != "plan":
            raise TaskRejected(
                "unsupported_definition",
                f"{workflow} {version} is a {stored.kind}; this worker does not know what that is",
            )
        try:
            program = plan.load(msgspec.json.decode(stored.document))
        except (ValueError, DefinitionError) as error:
            # No deploy lets such a one through: not one of this version.
            raise Newer(
                f"the definition under wpa_definitions {tenant}.{workflow}.{version} can't be loaded by this "
                f"worker: upgrade it, or deploy a definition under another version: {error}"
            ) from None
        self._programs[(tenant, workflow, version)] = program
        if len(self._programs) > PROGRAMS_KEPT:
            self._programs.popitem(last=False)
        return program

    async def _latest_version(self, tenant: str, workflow: str) -> str | None:
        now = self._clock.monotonic_s()
        known = self._latest.get((tenant, workflow))
        if known is not None and known[1] > now:
            return known[0]
        version = await self._definitions.latest(tenant, workflow)
        # That there is none is only remembered where a flow takes its place: a start that follows hard upon
        # the first deploy of a workflow must not be rejected.
        if version is not None or workflow in self._flows:
            self._latest[(tenant, workflow)] = (version, now + LATEST_KEPT_S)
        return version

    async def _unknown(self, tenant: str, workflow: str) -> NotFound:
        now = self._clock.monotonic_s()
        names, kept_until = self._names.get(tenant, ([], 0.0))
        if kept_until <= now:
            own = {tenant, FLOWS}
            found = await self._definitions.workflows()
            names = sorted({name for owner, name in found if owner in own} | self._flows.keys())
            self._names[tenant] = (names, now + LATEST_KEPT_S)
        hint = suggest(workflow, names)
        return NotFound(
            "unknown_workflow",
            f"tenant {tenant} has no workflow {workflow!r}; {f'{hint}; ' if hint else ''}"
            "deploy it with `wpa deploy FILE`, or see `wpa definitions`",
        )

    # -- flows -------------------------------------------------------------------------------

    @property
    def installed(self) -> list[str]:
        """The flows of this worker."""
        return sorted(self._flows)

    async def publish_flows(self, documents: Mapping[str, Mapping[str, Any]], worker: str) -> None:
        """Make the flows of this worker known to all. Idempotent.

        Args:
            documents: what is shown of each, by id.
            worker: who has them.

        Raises Unavailable.
        """
        for workflow, program in sorted(self._flows.items()):
            stored = StoredDefinition(
                workflow=workflow,
                version=program.version,
                hash=program.hash,
                kind="flow",
                document=msgspec.Raw(msgspec.json.encode(documents.get(workflow, {}))),
                deployed_at=rfc3339(self._clock.now_ms()),
                deployed_by=worker,
            )
            if await self._definitions.put(FLOWS, stored):
                continue
            found = await self._definitions.get(FLOWS, workflow, program.version)
            if found is not None and found.hash != program.hash:
                log.warning(
                    "flow %s has the version %s of another code; give it a new version, or none at all",
                    workflow,
                    program.version,
                )

    async def flows(self) -> list[StoredDefinition]:
        """Every version of every flow that any worker has ever had, by name and time."""
        found: Iterable[StoredDefinition] = await self._definitions.list(FLOWS)
        return sorted(found, key=lambda stored: (stored.workflow, stored.deployed_at))
