"""One transition, one append: whatever becomes of the answer."""

from __future__ import annotations

import pytest

from wpa.engine.commit import Lost, commit
from wpa.errors import Conflict, Unavailable
from wpa.model.events import Event
from wpa.ports.journal import Stored


def event(id: str) -> Event:
    return Event(
        id=id, seq=1, event="workflow_started", tenant_id="t", workflow_id="w", execution_id="x", timestamp=""
    )


class Journal:
    """A journal whose answers get lost as the script says."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.stored: list[Event] = []
        self.appends = self.reads = 0

    async def append(self, event: Event, after: int) -> int:
        self.appends += 1
        assert self.appends < 100, "it appends for ever"
        what = self.script.pop(0) if self.script else "ok"
        if what == "lost before":
            raise Unavailable("no answer")
        if len(self.stored) != after:
            raise Conflict("wrong last sequence")
        self.stored.append(event)
        if what == "lost after":
            raise Unavailable("no answer")
        return len(self.stored)

    async def read(self, tenant: str, execution: str, after: int = 0) -> list[Stored]:
        self.reads += 1
        what = self.script.pop(0) if self.script else "ok"
        if what == "unreadable":
            raise Unavailable("no answer")
        if what == "stale":
            return []
        return [(index + 1, event) for index, event in enumerate(self.stored) if index >= after]

    async def recent(self, tenant: str, most: int, before: int = 0) -> tuple[list[Stored], int]:
        return [], 0


@pytest.mark.parametrize(
    "script",
    [
        (),
        ("lost before",),
        ("lost after",),
        ("lost after", "unreadable"),
        ("lost after", "stale"),
        ("lost before", "ok", "lost after"),
        ("lost after", "stale", "lost before", "unreadable"),
    ],
)
async def test_an_event_is_stored_exactly_once_whatever_is_lost(script: tuple[str, ...]) -> None:
    journal = Journal(*script)
    assert await commit(journal, event("mine"), 0) == 1
    assert [found.id for found in journal.stored] == ["mine"]


async def test_somebody_elses_event_is_told_apart_from_ones_own() -> None:
    journal = Journal()
    journal.stored.append(event("theirs"))
    with pytest.raises(Lost) as caught:
        await commit(journal, event("mine"), 0)
    assert [found.id for _, found in caught.value.tail] == ["theirs"]


async def test_a_conflict_after_a_lost_answer_is_read_back_before_it_is_believed() -> None:
    """The server checks the expected sequence before it knows the message: a retry looks like a conflict."""
    journal = Journal("lost after", "unreadable")
    assert await commit(journal, event("mine"), 0) == 1
    assert journal.appends == 2
