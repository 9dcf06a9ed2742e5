"""The floor: the same fetches, appends, snapshots and acks as the engine makes, without an engine.

Through nats-py's own convenience layer, as an ordinary program would write it. What is left out is
what the engine adds: decoding and checking the task, the program, the fold, the steps, the status.
The number of messages for each workload is what wpa's protocol writes: one event for the start, one
for each step, decision, compensation and end, one snapshot, one ack.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import nats
from nats.js.api import ConsumerConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

EXPECT = "Nats-Expected-Last-Subject-Sequence"
WRITE_IN_FLIGHT = 10164
RETRY_S = 0.005
PAYLOAD = b"x" * 600
"""About the size of an event with a 200-byte output, in its envelope."""

APPENDS = {"seq1": 3, "seq3": 5, "fan10": 14, "saga3": 8, "flow3": 5}
SNAPSHOT_BYTES = {"seq1": 900, "seq3": 1_700, "fan10": 5_000, "saga3": 2_200, "flow3": 1_700}
HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "floor-000000",
    "ce-source": "/wpa/default/bench",
    "ce-type": "wpa.workflow_step_completed",
    "ce-time": "2026-11-20T10:00:00.000Z",
    "content-type": "application/json",
}


async def one(js: JetStreamContext, number: str, appends: int, snapshot: bytes) -> None:
    """One execution's writes: a chain of compare-and-set appends, then the snapshot."""
    subject = f"wpa.journal.floor.{number}"
    sequence = 0
    for _ in range(appends):
        sequence = await put(js, subject, PAYLOAD, {**HEADERS, EXPECT: str(sequence)})
    await put(js, f"$KV.wpa_executions.floor.{number}", snapshot, {EXPECT: "0"})


async def put(js: JetStreamContext, subject: str, data: bytes, headers: dict[str, str]) -> int:
    """Publish until it is stored: a cluster refuses one in some thousands, for a write that is on its way,
    and all while it has no leader."""
    while True:
        try:
            return (await js.publish(subject, data, headers=headers)).seq
        except APIError as error:
            if error.err_code != WRITE_IN_FLIGHT:
                raise
        except NoStreamResponseError:
            pass
        await asyncio.sleep(RETRY_S)


async def work(url: str, in_flight: int) -> None:
    """Fetch tasks, make the writes of their workloads, ack, until told to stop; ``in_flight`` at a time."""
    nc = await nats.connect(url.split(","))
    js = nc.jetstream()
    snapshots = {workload: b"s" * size for workload, size in SNAPSHOT_BYTES.items()}
    # A short idle keeps the durable from outliving a benchmark that is interrupted.
    config = ConsumerConfig(ack_wait=30, max_ack_pending=20_000, inactive_threshold=60)
    sub = await js.pull_subscribe("workflow.tasks.floor", durable="tasks-floor", config=config)
    room = asyncio.Semaphore(in_flight)

    async def drive(message: nats.aio.msg.Msg) -> None:
        try:
            task = json.loads(message.data)
            workload = task["workflow_id"]
            await one(js, task["execution_id"], APPENDS[workload], snapshots[workload])
            await message.ack()
        finally:
            room.release()

    print("ready", flush=True)
    async with asyncio.TaskGroup() as running:  # one that fails ends it all, and is seen
        while True:
            try:
                messages = await sub.fetch(min(100, in_flight), timeout=2)
            except TimeoutError:
                continue
            except ServiceUnavailableError:  # a cluster that has no leader for the moment
                await asyncio.sleep(RETRY_S)
                continue
            for message in messages:
                await room.acquire()
                running.create_task(drive(message))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=200)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(work(args.url, args.in_flight))


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
