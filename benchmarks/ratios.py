"""``make ratios``: has the engine become slower? What CI asks, of any machine and however busy it is.

What is compared is not time but a **ratio**: the CPU that the worker takes for an execution, by what the
floor's bare loop (``floor.py``) takes for the same writes. Both are measured at the same time, each on a
server of its own, so what the machine does to one it does to the other; a ratio is the median over the
rounds. ``ratios.json`` holds what was recorded. A workload whose ratio has grown by more than is allowed is
measured again, and again, and the best counts: only what is slower each time fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from floor import APPENDS
from load import Load, connect
from processes import HERE, Usage, process, server, worker
from throughput import FLOOR
from workloads import ENDS, WORKLOADS

from wpa import wire
from wpa.adapters.nats import open_ports
from wpa.client import Client

RECORDED = HERE / "ratios.json"
ALLOWED = 0.25
"""How much a ratio may have grown. In seven runs, on two cores for which ten to twenty-five processes waited,
none was more than 8 % off the recorded one."""
ROUNDS, RECORDED_ROUNDS, TRIES = 5, 9, 3
EXECUTIONS = {"seq1": 1_000, "seq3": 800, "flow3": 600, "fan10": 250, "saga3": 500}
"""Of the engine, in one round: half a second on a quiet machine."""
FLOOR_MORE = 1.3
"""As many more of the floor's, which is faster: so they end at about the same time."""
IN_FLIGHT = 50
SETTLE_S = 0.05
"""What is written behind the last end, a snapshot and an ack, counts as well."""


@dataclass(frozen=True)
class Side:
    """The engine or the floor: its process, and a client for each workload."""

    pid: int
    loads: dict[str, Load]

    async def cpu_us(self, workload: str, executions: int) -> float:
        """Microseconds of the process's CPU for each of so many executions."""
        before = Usage.of(self.pid).cpu_s
        result = await self.loads[workload].run(executions, IN_FLIGHT)
        await asyncio.sleep(SETTLE_S)
        used = Usage.of(self.pid).cpu_s - before
        if set(result.ended) - {ENDS[workload], "floor"}:
            raise RuntimeError(f"{workload} ended as {result.ended}")
        return used / executions * 1e6


async def main(args: argparse.Namespace) -> int:
    """Measure, compare or record; the exit status."""
    recorded: dict[str, float] = json.loads(RECORDED.read_text())
    names = [name for name in ENDS if name in (args.only or ENDS)]
    async with _sides() as (engine, floor):
        await _ratios(engine, floor, names, 1)  # warms up
        if args.record:
            ratios = await _ratios(engine, floor, names, RECORDED_ROUNDS)
            RECORDED.write_text(json.dumps(recorded | ratios, indent=2) + "\n")
            print(f"recorded in {RECORDED}: {json.dumps(ratios)}")
            return 0
        best, slower = dict[str, float](), names
        for _ in range(TRIES):
            for name, ratio in (await _ratios(engine, floor, slower, ROUNDS)).items():
                best[name] = min(ratio, best.get(name, ratio))
            slower = [name for name in slower if best[name] > recorded[name] * (1 + ALLOWED)]
            if not slower:
                break
    for name in names:
        print(f"{name:5} takes {best[name]:.2f} times the floor's CPU; {recorded[name]:.2f} is recorded")
    for name in slower:
        print(complaint(name, best[name], recorded[name]), file=sys.stderr)
    return 1 if slower else 0


def complaint(name: str, found: float, recorded: float) -> str:
    """What got slower, by how much, and what to do."""
    return (
        f"{name} has become slower: it takes {found:.2f} times the floor's CPU where {recorded:.2f} was "
        f"recorded, {found / recorded - 1:.0%} more ({ALLOWED:.0%} is allowed), in each of {TRIES} tries.\n"
        f'  look closer:  make bench ARGS="--only {name}", here and on the commit before\n'
        f'  meant to be?  make ratios ARGS="--record --only {name}", and say why in the commit'
    )


async def _ratios(engine: Side, floor: Side, names: Iterable[str], rounds: int) -> dict[str, float]:
    """The worker's CPU by the floor's, for each workload; the median of so many rounds."""
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, found in ratios.items():
            count = EXECUTIONS[name]
            used, least = await asyncio.gather(
                engine.cpu_us(name, count), floor.cpu_us(name, int(count * FLOOR_MORE))
            )
            found.append(used / least)
    return {name: round(statistics.median(found), 2) for name, found in ratios.items()}


@contextlib.asynccontextmanager
async def _sides() -> AsyncIterator[tuple[Side, Side]]:
    """A worker and the floor. A worker takes all tenants' tasks, the floor's too: so they share no server."""
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(server("100ms"))).url for _ in range(2)]
        await (await open_ports(urls[1], worker="bench")).aclose()  # makes the streams
        pids = [
            await stack.enter_async_context(worker(urls[0])),
            await stack.enter_async_context(process(FLOOR, urls[1])),
        ]
        async with await Client.connect(urls[0]) as client:
            for name, steps in WORKLOADS.items():
                await client.deploy({"id": name, "version": "1", "steps": steps})
        connections = [await connect(url) for url in urls]
        for connection in connections:
            stack.push_async_callback(connection.close)
        yield (
            Side(pids[0], {name: Load(connections[0], "default", name) for name in ENDS}),
            Side(
                pids[1],
                {name: Load(connections[1], "floor", name, last_event=APPENDS[name]) for name in ENDS},
            ),
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=ENDS, help=", ".join(ENDS))
    parser.add_argument("--record", action="store_true", help="write ratios.json anew")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(wire.run(main(arguments())))
