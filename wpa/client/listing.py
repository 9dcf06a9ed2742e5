"""Looking over all executions: which there are, and which of them wait for somebody.

A worker looks at a thousand executions for one request. Here it is asked until enough is found, or all
were looked at: what is open is found however much has ended since.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from wpa.client.channel import Body, Channel

__all__ = ["Listing", "Looked"]

Looked = Callable[[int], None]
"""Is told before each further request how many executions have been looked at so far."""
ROWS_AT_ONCE: Final = 200
"""A worker ends an answer before that where it is full."""


class Listing(Channel):
    """Lists executions and approvals."""

    async def executions(
        self, *, limit: int | None = 20, status: str = "", workflow: str = "", looked: Looked | None = None
    ) -> list[Body]:
        """The most recently active executions.

        Args:
            limit: so many at most; None for all.
            status: only those in this status, or in these, with commas between.
            workflow: only those of this workflow.
            looked: is told how far it has come: with a filter, this may mean to look at all there are.
        """
        found: dict[str, Body] = {}
        asked = {"status": status, "workflow_id": workflow, "limit": min(limit or ROWS_AT_ONCE, ROWS_AT_ONCE)}
        async for answer in self._looking_back("list", asked, looked):
            for row in answer["executions"]:
                found.setdefault(row["execution_id"], row)
            if limit is not None and len(found) >= limit:
                break
        return list(found.values())[:limit]

    async def approvals(self, *, limit: int | None = 100, looked: Looked | None = None) -> list[Body]:
        """What waits for somebody's approval, the oldest first: who may answer, and who has.

        Args:
            limit: so many at most; None for all.
            looked: is told how far it has come: all executions have to be looked at.
        """
        found: dict[tuple[str, str], Body] = {}
        async for answer in self._looking_back("approvals", {"limit": ROWS_AT_ONCE}, looked):
            for row in [*answer["approvals"], *await self._rest(answer)]:
                found.setdefault((row["execution_id"], row["slot"]), row)
        return sorted(found.values(), key=lambda row: str(row["since"]))[:limit]

    async def _rest(self, answer: Body) -> list[Body]:
        """The approvals of an execution for which the answer had no room."""
        found: list[Body] = []
        while "rest" in answer:
            answer = await self.request("approvals", answer["rest"])
            found += answer["approvals"]
        return found

    async def _looking_back(self, verb: str, asked: Body, looked: Looked | None) -> AsyncIterator[Body]:
        """The answers, one after the other. Who goes on meanwhile may be in more than one of them."""
        before = looked_at = 0
        while True:
            answer = await self.request(verb, {**asked, "before": before})
            yield answer
            if not answer.get("more"):  # a worker of before looks once, and says nothing of it
                return
            before = answer["next"]
            looked_at += answer["looked_at"]
            if looked is not None:
                looked(looked_at)
