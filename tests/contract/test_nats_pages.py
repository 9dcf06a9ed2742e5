"""Reading more than the server has patience for at a time: it ends a batch where 64 MB wait to be sent."""

from __future__ import annotations

from tests.contract.test_journal import event
from tests.contract.worlds import NatsWorld
from tests.servers import NatsServer
from wpa.adapters.nats import NatsPorts, streams
from wpa.adapters.nats.pages import BATCH_BYTES, read_page

MEGABYTE = 1_000_000
MANY = 70


async def connect(server: NatsServer) -> NatsPorts:
    ports = await NatsWorld(server.url).connect()
    assert isinstance(ports, NatsPorts)
    return ports


async def test_a_journal_of_many_megabytes_is_read_whole(server: NatsServer) -> None:
    ports = await connect(server)
    after = 0
    for seq in range(1, MANY + 1):
        after = await ports.journal.append(event("acme", seq, data={"output": "x" * MEGABYTE}), after)
    assert [stored.seq for _, stored in await ports.journal.read("acme", "x1")] == [*range(1, MANY + 1)]
    assert len(await ports.journal.read("acme", "x1", most=MANY - 1)) == MANY - 1
    await ports.close()


async def test_whoever_was_active_last_is_not_missed_behind_many_megabytes(server: NatsServer) -> None:
    ports = await connect(server)
    names = [f"x{number}" for number in range(MANY)]
    for name in names:
        await ports.journal.append(event("acme", 1, name, data={"output": "x" * MEGABYTE}), 0)
    last, following = await ports.journal.recent("acme", MANY)
    assert [stored.execution_id for _, stored in last] == names[::-1]
    assert following == 0
    await ports.close()


async def test_the_last_dead_letters_are_shown_behind_many_megabytes(server: NatsServer) -> None:
    ports = await connect(server)
    for number in range(MANY):
        await ports.tasks.bury("acme", b"%d" % number + b"x" * MEGABYTE, {})
    letters = await ports.tasks.buried("acme", 2)
    assert [data[:2] for _, data, _ in letters] == [b"69", b"68"]
    await ports.close()


async def test_all_records_are_listed_however_large(server: NatsServer) -> None:
    ports = await connect(server)
    for number in range(MANY):
        await ports.records.put("acme", "schedule", f"r{number}", b"x" * MEGABYTE, 0)
    assert len(await ports.records.list("acme", "schedule")) == MANY
    await ports.close()


async def test_a_page_has_at_least_one_message_and_says_whether_there_are_more(server: NatsServer) -> None:
    ports = await connect(server)
    for size in (1, BATCH_BYTES + 1, 1):
        await ports.tasks.bury("acme", b"x" * size, {})
    subject = "workflow.dlq.acme"
    first = await read_page(ports.transport, streams.DLQ, subject, 1)
    assert ([len(letter.data) for letter in first.messages], first.more) == ([1, BATCH_BYTES + 1], True)
    rest = await read_page(ports.transport, streams.DLQ, subject, 3)
    assert ([len(letter.data) for letter in rest.messages], rest.more) == ([1], False)
    assert await read_page(ports.transport, streams.DLQ, subject, 4) == ([], False)
    await ports.close()
