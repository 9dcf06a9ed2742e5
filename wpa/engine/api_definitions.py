"""The verbs about definitions: deploy, validate, list, show."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from wpa import plan
from wpa.engine.api_common import Body, Handler, text, workflow_of
from wpa.engine.api_fleet import Schedules
from wpa.engine.inlets import InletKeeper
from wpa.engine.library import FLOWS
from wpa.engine.pages import fitting, page_by_key
from wpa.engine.services import Services
from wpa.errors import DefinitionError, NotFound, Problem, TaskRejected
from wpa.model.ids import check_version
from wpa.model.steptype import StepSignature
from wpa.model.times import rfc3339
from wpa.ports.definitions import StoredDefinition

__all__ = ["DefinitionVerbs", "Follow"]

Follow = Callable[[str, str], Awaitable[None]]
"""(tenant, workflow): returns when what the deployed version starts by itself is in force, or soon after."""


_ORDER: Final = ("workflow_id", "deployed_at", "kind", "version")


class DefinitionVerbs:
    """Keeps definitions, and shows them. What a new version starts by itself is set up with it."""

    def __init__(
        self,
        services: Services,
        signatures: Mapping[str, StepSignature],
        schedules: Schedules | None,
        follow: Follow | None,
    ) -> None:
        self._services = services
        self._signatures = signatures
        self._schedules = schedules
        self._follow = follow
        self._inlets = InletKeeper(services)

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {
            "deploy": self.deploy,
            "validate": self.validate,
            "definitions": self.definitions,
            "definition": self.definition,
        }

    async def deploy(self, tenant: str, body: Body) -> Body:
        document = body.get("document")
        problems = await self._problems(tenant, document)
        if problems or not isinstance(document, dict):
            raise DefinitionError(problems)
        workflow, version = str(document["id"]), str(document["version"])
        digest = plan.content_hash(document)
        stored = StoredDefinition(
            workflow=workflow,
            version=version,
            hash=digest,
            kind="plan",
            document=msgspec.Raw(msgspec.json.encode(document)),
            deployed_at=rfc3339(self._services.clock.now_ms()),
            deployed_by=str(body.get("deployed_by") or ""),
        )
        created = await self._services.ports.definitions.put(tenant, stored)
        if not created:
            found = await self._services.ports.definitions.get(tenant, workflow, version)
            if found is not None and found.hash != digest:
                raise TaskRejected(
                    "version_conflict",
                    f"{workflow} {version} is deployed already with other content; versions are immutable: "
                    "give the changed document a new version",
                )
        # For a version that is there already, too: whoever deployed it may have died right here.
        program = await self._services.library.program(tenant, workflow, version)
        if self._schedules is not None:
            await self._schedules.deployed(tenant, program)
        if isinstance(program, plan.Plan):
            await self._inlets.deployed(tenant, program)
            if self._follow is not None:
                await self._follow(tenant, workflow)
        return {
            "workflow_id": workflow,
            "version": version,
            "hash": digest,
            "created": created,
            "hides_flow": await self._services.ports.definitions.latest(FLOWS, workflow) is not None,
        }

    async def validate(self, tenant: str, body: Body) -> Body:
        problems = await self._problems(tenant, body.get("document"))
        told = {"problems": [problem.as_dict() for problem in problems]}
        shown: Body = fitting(told, self._services.limits.answer_bytes_max)
        return shown

    async def _problems(self, tenant: str, document: Any) -> list[Problem]:
        """All that is wrong with a document; with the streams that it names, if that is nothing."""
        problems = plan.check(document, self._signatures)
        return problems or await self._inlets.problems(tenant, document)

    async def definitions(self, tenant: str, body: Body) -> Body:
        """Every version of the tenant's plans, and of the flows, which serve every tenant: by workflow, the
        oldest first."""
        store = self._services.ports.definitions
        rows = []
        for owner, stored in (
            (tenant, await store.list(tenant)),
            (FLOWS, await self._services.library.flows()),
        ):
            latest = {name: await store.latest(owner, name) for name in {one.workflow for one in stored}}
            rows += [_row(one, latest[one.workflow]) for one in stored]
        keyed = ((" ".join(row[name] for name in _ORDER), row) for row in rows)
        page, where = page_by_key(keyed, body, self._services.limits.answer_bytes_max)
        return {"definitions": page, **where}

    async def definition(self, tenant: str, body: Body) -> Body:
        """One document: a plan of the tenant's, or else what is known of a flow."""
        workflow, asked = workflow_of(body), text(body, "version")
        store = self._services.ports.definitions
        if asked:
            check_version(asked)
        for owner in (tenant, FLOWS):
            version = asked or await store.latest(owner, workflow)
            found = await store.get(owner, workflow, version) if version else None
            if found is not None:
                return {
                    "workflow_id": workflow,
                    "version": found.version,
                    "hash": found.hash,
                    "kind": found.kind,
                    "document": found.document,
                }
        await self._services.library.program(tenant, workflow, asked)  # it knows why there is none
        raise NotFound("unknown_version", f"workflow {workflow} has no version {asked!r}")


def _row(stored: StoredDefinition, latest: str | None) -> Body:
    return {
        "workflow_id": stored.workflow,
        "version": stored.version,
        "hash": stored.hash,
        "deployed_at": stored.deployed_at,
        "deployed_by": stored.deployed_by,
        "latest": latest == stored.version,
        "kind": stored.kind,
    }
