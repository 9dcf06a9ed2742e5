"""``make bench``: what executions cost: that work, beside the floor, and that wait, beside their targets.

One client process (this one), one worker process (or one floor process), the embedded server. Engine and
floor take turns, round by round, so that a machine whose speed drifts is fair to both; the figures are
medians over the rounds. Latency is from a start's publish to its terminal event, as the client sees them.
Each scenario of waiting has a new server and a new worker in each round.
Written to ``benchmarks/latest.json``. See ``docs/benchmarks.md`` for the method.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from floor import APPENDS
from load import Load, Result, connect
from processes import HERE, process, server, worker
from rich.console import Console
from rich.progress import Progress
from scenarios import SCENARIOS, play
from tables import show_scenarios, show_workloads
from workloads import BESIDE, ENDS, WORKLOADS

from wpa import wire
from wpa.client import Client

TOTALS = {"seq1": 6_000, "seq3": 4_000, "fan10": 1_500, "saga3": 3_000, "flow3": 4_000}
WARM_UP = 300

console = Console()


class Bench:
    def __init__(self, url: str, args: argparse.Namespace, progress: Progress) -> None:
        self.url, self.args, self.progress = url, args, progress
        self.per_s: dict[str, list[float]] = {name: [] for name in ENDS}
        self.floor_per_s: dict[str, list[float]] = {name: [] for name in ENDS}
        self.at: dict[str, dict[int, list[Result]]] = {name: {1: [], 50: []} for name in ENDS}
        self.bar = progress.add_task("workloads", total=args.rounds * len(args.workloads) * 4)

    def total(self, name: str) -> int:
        return max(100, int(TOTALS[name] * self.args.scale))

    def step(self, what: str) -> None:
        self.progress.update(self.bar, advance=1, description=what)

    async def engine(self) -> None:
        async with worker(self.url):
            nc = await connect(self.url)
            async with await Client.connect(self.url) as client:
                for name in set(self.args.workloads) & WORKLOADS.keys():
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
            if (plan := BESIDE.get(name)) in self.args.workloads:
                pairs = zip(self.per_s[name], self.per_s[plan], strict=True)
                row[f"beside_{plan}"] = round(statistics.median(a / b for a, b in pairs), 3)
            found[name] = row
        return found


async def main(args: argparse.Namespace) -> None:
    found: dict[str, Any] = {}
    with Progress(console=console) as progress:
        if args.workloads:
            async with server(args.sync) as embedded:
                bench = Bench(embedded.url, args, progress)
                for _ in range(args.rounds):
                    await bench.engine()
                    await bench.floor()
            found |= bench.report()
        if args.scenarios:
            bar = progress.add_task("scenarios", total=args.rounds * len(args.scenarios))
            for name in args.scenarios:
                rounds = []
                for _ in range(args.rounds):
                    rounds.append(await play(name, args.sync, args.scale))
                    progress.update(bar, advance=1, description=name)
                found[name] = {key: statistics.median(played[key] for played in rounds) for key in rounds[0]}
    show_workloads(console, {name: found[name] for name in args.workloads})
    show_scenarios(console, {name: found[name] for name in args.scenarios})
    args.output.write_text(json.dumps(found | {"about": about(args)}, indent=2) + "\n")
    console.print(f"written to {args.output}", highlight=False)


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Where and how it was measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "wpa": wire.version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "sync": args.sync,
        "rounds": args.rounds,
        "scale": args.scale,
        "in_flight": 200,
        "load_1m": round(os.getloadavg()[0], 2),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ENDS, *SCENARIOS, []], help="all of them by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of it, against the default")
    parser.add_argument("--sync", default="100ms", help="the server's sync_interval: 100ms, or always")
    parser.add_argument("--output", type=Path, default=HERE / "latest.json")
    args = parser.parse_args()
    names = args.names or [*ENDS, *SCENARIOS]
    args.workloads = [name for name in ENDS if name in names]
    args.scenarios = [name for name in SCENARIOS if name in names]
    return args


if __name__ == "__main__":
    wire.run(main(arguments()))
