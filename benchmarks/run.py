"""``make bench``: throughput and latency of the engine, beside the floor, in one run.

One client process (this one), one worker process (or one floor process), the embedded server. Engine and
floor take turns, round by round, so that a machine whose speed drifts is fair to both; the figures are
medians over the rounds. Latency is from a start's publish to its terminal event, as the client sees them.
Written to ``benchmarks/latest.json``. See ``docs/benchmarks.md`` for the method.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from floor import APPENDS
from load import Load, Result, connect
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from workloads import ENDS, WORKLOADS

from wpa import wire
from wpa.client import Client
from wpa.settings import Settings

HERE = Path(__file__).parent
TOTALS = {"seq1": 6_000, "seq3": 4_000, "fan10": 1_500, "saga3": 3_000}
WARM_UP = 300

console = Console()


@contextlib.asynccontextmanager
async def process(*command: str, ends: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that says ``ready``; one that ``ends`` by itself is waited for, another is told to stop."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert started.stdout is not None
    try:
        while b"ready" not in (line := await started.stdout.readline()):
            if not line:
                raise RuntimeError(f"{command} ended before it was ready")
        yield started
    finally:
        if started.returncode is None and not ends:
            started.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await started.communicate()
        if started.returncode is None:
            started.kill()


class Bench:
    def __init__(self, url: str, args: argparse.Namespace, progress: Progress) -> None:
        self.url, self.args, self.progress = url, args, progress
        self.per_s: dict[str, list[float]] = {name: [] for name in WORKLOADS}
        self.floor_per_s: dict[str, list[float]] = {name: [] for name in WORKLOADS}
        self.at: dict[str, dict[int, list[Result]]] = {name: {1: [], 50: []} for name in WORKLOADS}
        steps = args.rounds * len(args.workloads) * 4
        self.bar = progress.add_task("benchmarks", total=steps)

    def total(self, name: str) -> int:
        return max(100, int(TOTALS[name] * self.args.scale))

    def step(self, what: str) -> None:
        self.progress.update(self.bar, advance=1, description=what)

    async def engine(self) -> None:
        async with process("-c", "from wpa.cli import main; main()", "worker", "--nats", self.url):
            nc = await connect(self.url)
            async with await Client.connect(self.url) as client:
                for name in self.args.workloads:
                    await client.deploy({"id": name, "version": "1", "steps": WORKLOADS[name]})
            for name in self.args.workloads:
                load = Load(nc, "default", name)
                await load.run(WARM_UP, 50)
                result = await load.run(self.total(name), 200)
                if set(result.ended) != {ENDS[name]}:
                    raise RuntimeError(f"{name} ended as {result.ended}")
                self.per_s[name].append(result.per_s)
                self.step(f"{name} {result.per_s:.0f}/s")
                for in_flight, share in ((1, 0.1), (50, 0.25)):
                    self.at[name][in_flight].append(
                        await load.run(max(100, int(self.total(name) * share)), in_flight)
                    )
                    self.step(f"{name}, {in_flight} in flight")
            await nc.close()

    async def floor(self) -> None:
        for name in self.args.workloads:
            total = self.total(name)
            nc = await connect(self.url)
            async with process(
                str(HERE / "floor.py"), self.url, name, "--total", str(total + WARM_UP), ends=True
            ):
                load = Load(nc, "floor", name, last_event=APPENDS[name])
                await load.run(WARM_UP, 50)
                result = await load.run(total, 200)
                self.floor_per_s[name].append(result.per_s)
                self.step(f"floor {name} {result.per_s:.0f}/s")
            await nc.close()

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.args.workloads:
            per_s, floor = statistics.median(self.per_s[name]), statistics.median(self.floor_per_s[name])
            ratios = [a / b for a, b in zip(self.per_s[name], self.floor_per_s[name], strict=True)]
            row: dict[str, Any] = {
                "per_s": round(per_s),
                "floor_per_s": round(floor),
                "ratio": round(statistics.median(ratios), 3),
                "per_s_all": [round(value) for value in self.per_s[name]],
                "floor_per_s_all": [round(value) for value in self.floor_per_s[name]],
            }
            for in_flight, suffix in ((1, ""), (50, "_at_50")):
                runs = self.at[name][in_flight]
                for label, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                    row[f"{label}_ms{suffix}"] = round(
                        statistics.median(run.percentile(share) for run in runs), 2
                    )
            found[name] = row
        return found


async def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="wpa-bench-") as folder, Progress(console=console) as progress:
        server = wire.embedded_server(Settings(), data_dir=Path(folder), port=0, sync=args.sync)
        url = await server.start()
        try:
            bench = Bench(url, args, progress)
            for _ in range(args.rounds):
                await bench.engine()
                await bench.floor()
        finally:
            await server.stop()
    found = bench.report()
    show(found)
    document = {
        **found,
        "about": {
            "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "wpa": wire.version(),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "sync": args.sync,
            "rounds": args.rounds,
            "in_flight": 200,
            "load_1m": round(os.getloadavg()[0], 2),
        },
    }
    args.output.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"written to {args.output}", highlight=False)


def show(found: dict[str, Any]) -> None:
    table = Table(
        title="executions per second (200 in flight), latency in ms", box=None, padding=(0, 2, 0, 0)
    )
    columns = ["workload", "/s", "floor /s", "ratio", "p50", "p95", "p99", "p50 @50", "p95 @50", "p99 @50"]
    for column in columns:
        table.add_column(column, justify="left" if column == "workload" else "right")
    for name, row in found.items():
        keys = ["per_s", "floor_per_s", "ratio", "p50_ms", "p95_ms", "p99_ms", "p50_ms_at_50", "p95_ms_at_50"]
        table.add_row(name, *(str(row[key]) for key in [*keys, "p99_ms_at_50"]))
    console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], help="all of them by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how many executions, against the default")
    parser.add_argument("--sync", default="100ms", help="the server's sync_interval: 100ms, or always")
    parser.add_argument("--output", type=Path, default=HERE / "latest.json")
    args = parser.parse_args()
    args.workloads = args.workloads or list(WORKLOADS)
    return args


if __name__ == "__main__":
    wire.run(main(arguments()))
