"""``make bench``: what executions cost: that work, beside the floor, and that wait, beside their goals.

Prints the tables; a whole run writes ``benchmarks/latest.json`` and ``docs/benchmarks.md`` as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import LATENCY, SPEED, rows_of_figures, rows_of_workloads
from page import page
from processes import HERE, server, server_version
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scenarios import ONCE, SCENARIOS, play
from throughput import Throughput
from waiting import IDLE_S
from workloads import BESIDE, ENDS

from wpa import wire

LATEST = HERE / "latest.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
QUICK_SCALE = 0.1
STYLES = {"met": "green", "missed": "red"}

console = Console()


async def main(args: argparse.Namespace) -> None:
    load_before = round(os.getloadavg()[0], 2)
    found = await measure(args)
    found["about"] = about(args, load_before)
    show(found, args.scale)
    if args.output is None and not (args.only or args.scale != 1):
        LATEST.write_text(_json(found))
        PAGE.write_text(page(found))
        console.print(f"written to {LATEST} and {PAGE}", highlight=False)
    elif args.output is not None:
        args.output.write_text(_json(found))


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All that is asked for, round by round: what a machine does to one of them, it does to all."""
    workloads = [name for name in ENDS if name in args.names]
    scenarios = [name for name in SCENARIOS if name in args.names]
    played: dict[str, list[dict[str, Any]]] = {name: [] for name in scenarios}
    async with contextlib.AsyncExitStack() as stack:
        progress = stack.enter_context(Progress(console=console))
        times = args.rounds * (2 * len(workloads) + len(scenarios))
        bar = progress.add_task("", total=times - (args.rounds - 1) * len(ONCE.intersection(scenarios)))

        def told(what: str) -> None:
            progress.update(bar, advance=1, description=what)

        embedded = await stack.enter_async_context(server(args.sync))
        throughput = Throughput(embedded.url, workloads, args.scale, told)
        for number in range(args.rounds):
            await throughput.round()
            for name in scenarios:
                if number and name in ONCE:
                    continue
                played[name].append(await play(name, args.sync, args.scale))
                told(name)
    found: dict[str, Any] = throughput.report()
    for name, rounds in played.items():
        found[name] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    return found


def about(args: argparse.Namespace, load_before: float) -> dict[str, Any]:
    """Where and how it was measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "wpa": wire.version(),
        "server": server_version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "sync": args.sync,
        "rounds": args.rounds,
        "scale": args.scale,
        "idle_s": IDLE_S,
        "load_before": load_before,
        "load_after": round(os.getloadavg()[0], 2),
    }


def show(found: dict[str, Any], scale: float) -> None:
    """The tables, in the terminal."""
    if rows := rows_of_workloads(found, SPEED):
        console.print(_table("executions per second, and CPU for each, 200 in flight", SPEED, rows))
        rows = rows_of_workloads(found, LATENCY)
        console.print(_table("latency in ms, at 1 and at 50 in flight", LATENCY, rows))
    if rows := rows_of_figures(found):
        part = "" if scale == 1 else f" ({scale:g} of the counts below: goals are for all of it)"
        rows = [[*row[:3], f"[{STYLES.get(row[3], 'none')}]{row[3]}"] for row in rows]
        console.print(_table(f"figures and goals{part}", ["measured", "goal", ""], rows))


def _table(title: str, columns: Iterable[str], rows: list[list[str]]) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2) + "\n"


def arguments() -> argparse.Namespace:
    names = [*ENDS, *SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of everything")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of it, against the whole")
    parser.add_argument("--sync", default="100ms", help="the server's sync_interval: 100ms, or always")
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON, and no page")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.scale = 1, QUICK_SCALE
    args.names = set(args.only or names)
    # What is measured beside another needs that one, too.
    args.names |= {BESIDE[name] for name in args.names & BESIDE.keys()}
    return args


if __name__ == "__main__":
    wire.run(main(arguments()))
