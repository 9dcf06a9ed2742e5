"""What goes together, what goes alone, and what becomes of each when the server refuses or is gone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from wpa.adapters.nats.group_commit import BATCH_MAX, BATCH_MIN, BYTES_MAX, GroupCommit
from wpa.adapters.nats.headers import read_headers
from wpa.adapters.nats.transport import Refused, Transport
from wpa.errors import Conflict, TooLarge, Unavailable

FULL = 10077
"""The server's code for a stream that takes no more."""


class Server(Transport):
    """A stream that takes atomic batches: all of one, or nothing. Each call is answered a few turns later."""

    def __init__(self) -> None:
        super().__init__()
        self.nc._server_info = {"max_payload": 1024 * 1024}
        self.nc._max_payload = 1024 * 1024
        self.stored: list[str] = []
        self.commits: list[int] = []
        """How many messages each commit had; 1 is a message alone."""
        self.conflicting: set[str] = set()
        self.away = False
        self.refusing = False
        self._staged: dict[str, list[str]] = {}

    def send(self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        if self.away:
            raise Unavailable("the connection to NATS is down")
        lines = read_headers(headers)
        staged = self._staged.setdefault(lines["Nats-Batch-Id"], [])
        assert int(lines["Nats-Batch-Sequence"]) == len(staged) + 1
        staged.append(subject)

    async def publish_acked(self, subject: str, payload: bytes, headers: bytes = b"") -> int:
        lines = read_headers(headers)
        batch = self._staged.pop(lines.get("Nats-Batch-Id", ""), [])
        if len(payload) > self.nc.max_payload:
            raise TooLarge(subject)
        if "Nats-Batch-Id" in lines:
            assert lines["Nats-Batch-Commit"] == "1"
            assert int(lines["Nats-Batch-Sequence"]) == len(batch) + 1
        for _ in range(3):
            await asyncio.sleep(0)
        if self.away:
            raise Unavailable("no answer: the outcome is unknown")
        subjects = [*batch, subject]
        self.commits.append(len(subjects))
        if self.refusing:
            raise Refused("the disk is full", FULL)
        if self.conflicting.intersection(subjects):
            raise Conflict("wrong last sequence")
        self.stored += subjects
        return len(self.stored)


@pytest.fixture
async def server() -> Server:
    return Server()


async def publish_all(group: GroupCommit, subjects: list[str]) -> list[int | BaseException]:
    """Publish them in one turn of the loop: sequences, or what was raised."""
    publishing = (group.publish_acked(subject, subject.encode()) for subject in subjects)
    return await asyncio.gather(*publishing, return_exceptions=True)


def subjects_of(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


async def test_what_comes_at_once_is_one_batch_and_each_learns_its_own_sequence(server: Server) -> None:
    subjects = subjects_of(50)
    assert await publish_all(GroupCommit(server), subjects) == list(range(1, 51))
    assert server.stored == subjects
    assert server.commits == [50]


async def test_a_few_go_one_by_one(server: Server) -> None:
    assert await publish_all(GroupCommit(server), subjects_of(BATCH_MIN - 1)) == list(range(1, BATCH_MIN))
    assert set(server.commits) == {1}


async def test_a_batch_has_an_end(server: Server) -> None:
    outcomes = await publish_all(GroupCommit(server), subjects_of(2 * BATCH_MAX + BATCH_MIN))
    assert outcomes == list(range(1, 2 * BATCH_MAX + BATCH_MIN + 1))
    assert server.commits == [BATCH_MAX, BATCH_MAX, BATCH_MIN]


async def test_what_comes_meanwhile_goes_together_afterwards(server: Server) -> None:
    group = GroupCommit(server)
    first = asyncio.create_task(group.publish_acked("first", b""))
    while not group._worker:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(group.publish_acked(subject, b"")) for subject in subjects_of(BATCH_MIN)]
    await asyncio.gather(first, *rest)
    assert server.commits == [1, BATCH_MIN]
    assert server.stored[0] == "first"
    assert await group.publish_acked("later", b"") == BATCH_MIN + 2


@pytest.mark.parametrize("conflicting", [["s0"], ["s99"], ["s13", "s14", "s77"], subjects_of(100)])
async def test_a_lost_compare_and_set_takes_no_other_with_it(server: Server, conflicting: list[str]) -> None:
    server.conflicting.update(conflicting)
    subjects = subjects_of(100)
    outcomes = dict(zip(subjects, await publish_all(GroupCommit(server), subjects), strict=True))
    assert {subject for subject, one in outcomes.items() if isinstance(one, Conflict)} == set(conflicting)
    assert server.stored == [subject for subject in subjects if subject not in conflicting]
    for subject in server.stored:
        position = outcomes[subject]
        assert isinstance(position, int)
        assert server.stored[position - 1] == subject


async def test_one_conflict_among_many_costs_a_few_commits(server: Server) -> None:
    server.conflicting.add("s100")
    await publish_all(GroupCommit(server), subjects_of(BATCH_MAX))
    assert len(server.commits) < BATCH_MAX / 4


async def test_two_of_one_subject_are_stored_in_their_order(server: Server) -> None:
    assert await publish_all(GroupCommit(server), ["same"] * 50) == list(range(1, 51))


async def test_an_unknown_outcome_is_each_ones_own(server: Server) -> None:
    server.away = True
    outcomes = await publish_all(GroupCommit(server), subjects_of(50))
    assert all(type(one) is Unavailable for one in outcomes)
    assert Counter(map(id, outcomes)).most_common(1)[0][1] == 1
    server.away = False
    assert server.stored == []


async def test_it_goes_on_when_the_server_is_back(server: Server) -> None:
    group = GroupCommit(server)
    server.away = True
    await publish_all(group, subjects_of(50))
    server.away = False
    assert await publish_all(group, subjects_of(50)) == list(range(1, 51))


async def test_a_server_that_refuses_all_refuses_each(server: Server) -> None:
    server.refusing = True
    outcomes = await publish_all(GroupCommit(server), subjects_of(50))
    assert all(isinstance(one, Refused) and one.err_code == FULL for one in outcomes)


async def test_who_does_not_wait_any_longer_keeps_nobody_waiting(server: Server) -> None:
    group = GroupCommit(server)
    tasks = [asyncio.create_task(group.publish_acked(subject, b"")) for subject in subjects_of(40)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[7].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [number for number, one in enumerate(outcomes) if isinstance(one, asyncio.CancelledError)]
    assert cancelled == [3, 7]
    for number, position in enumerate(outcomes):
        if isinstance(position, int):
            assert server.stored[position - 1] == f"s{number}"


async def test_what_is_large_goes_alone_and_what_is_too_large_does_not_go(server: Server) -> None:
    group = GroupCommit(server)
    large = group.publish_acked("large", b"x" * (BYTES_MAX + 1))
    too_large = group.publish_acked("too large", b"x" * (server.nc.max_payload + 1))
    others = publish_all(group, subjects_of(50))
    outcomes = await asyncio.gather(large, too_large, others, return_exceptions=True)
    assert isinstance(outcomes[1], TooLarge)
    assert sorted(server.commits) == [1, 50]
    assert sorted(server.stored) == sorted(["large", *subjects_of(50)])


async def test_nobody_waits_for_ever_when_the_work_is_cancelled(server: Server) -> None:
    group = GroupCommit(server)
    subjects = subjects_of(BATCH_MAX + 50)
    publishing = [asyncio.create_task(group.publish_acked(subject, b"")) for subject in subjects]
    while not group._worker:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    group._worker.cancel()
    outcomes = await asyncio.gather(*publishing, return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in outcomes)
