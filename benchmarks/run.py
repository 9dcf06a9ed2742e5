"""``make bench``: what executions cost: that work, beside the floor, and that wait, beside their goals.

Prints what it finds as it goes, and the tables at the end; a whole run writes ``benchmarks/latest.json`` and
``docs/benchmarks.md`` as well. What fails is told at the end and loses nothing else; what a run that is
interrupted had found by then is in ``benchmarks/partial.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import LATENCY, SPEED, headline, on_ground, rows_of_figures, rows_of_workloads
from page import page
from processes import HERE, server_version
from rich.console import Console
from rich.table import Table
from scenarios import ONCE, SCENARIOS, play
from throughput import GROUNDS, measure
from waiting import IDLE_S
from workloads import BESIDE, ENDS

from wpa import wire

LATEST = HERE / "latest.json"
PARTIAL = HERE / "partial.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
QUICK_SCALE = 0.1
GIVE_UP_S = 900.0
"""After so long one measurement has failed; more, where a larger scale is asked for."""
STYLES = {"met": "green", "missed": "red"}
WORKLOADS = {on_ground(ground, workload): (workload, ground) for ground in GROUNDS for workload in ENDS}
GROUPS = {ground: [on_ground(ground, workload) for workload in ENDS] for ground in GROUNDS if ground}
EACH_ROUND = ("per_s", "floor_per_s")
"""What is told of each round, not only the median."""

console = Console()

Rounds = dict[str, dict[int, dict[str, Any]]]
"""What was measured, by name and by the number of the round."""


class Bench:
    """Measures all that is asked for, round by round: what a machine does to one of them, it does to all."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._rounds: Rounds = {}
        self._failed: dict[str, str] = {}
        self._began, self._load_before = time.monotonic(), round(os.getloadavg()[0], 2)

    async def run(self) -> dict[str, Any]:
        """Measure; what was found, and what has failed."""
        todo = list(self._todo())
        for done, (name, number) in enumerate(todo, start=1):
            told = await self._measure(name, number)
            minutes = (time.monotonic() - self._began) / 60
            console.print(
                f"{done:3}/{len(todo)} {minutes:5.1f} min  {name:18} {told}", highlight=False, soft_wrap=True
            )
            PARTIAL.write_text(_json(self.found()))
        return self.found()

    def found(self) -> dict[str, Any]:
        """What was measured until now: medians over the rounds; ratios are those within a round."""
        found: dict[str, Any] = {"about": self._about(), "failed": self._failed}
        for name, rounds in self._rounds.items():
            row: dict[str, Any] = {}
            for key in next(iter(rounds.values())):
                values = [one[key] for one in rounds.values()]
                row[key] = statistics.median(values)
                if name in WORKLOADS and key in EACH_ROUND:
                    row[f"{key}_all"] = values
            found[name] = row | self._beside(name)
        return found

    def _todo(self) -> Iterator[tuple[str, int]]:
        for number in range(self._args.rounds):
            for name in [*WORKLOADS, *SCENARIOS]:
                if name in self._args.names and not (number and name in ONCE):
                    yield name, number

    async def _measure(self, name: str, number: int) -> str:
        """Measure one thing; what is to be told of it."""
        args = self._args
        try:
            async with asyncio.timeout(GIVE_UP_S * max(1.0, args.scale)):
                if name in WORKLOADS:
                    workload, ground = WORKLOADS[name]
                    figures = await measure(workload, GROUNDS[ground], args.sync, args.scale)
                else:
                    figures = await play(name, args.sync, args.scale)
        except Exception as error:  # whatever it is, the rest is measured
            why = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())
            rounds = 1 if name in ONCE else args.rounds
            self._failed[name] = why if rounds == 1 else f"in round {number + 1} of {rounds}: {why}"
            return f"[red]failed[/red]: {why}"
        self._rounds.setdefault(name, {})[number] = figures
        return headline(name, figures)

    def _beside(self, name: str) -> dict[str, float]:
        """A flow's executions per second, by those of the plan that does the same, on the same servers."""
        workload, ground = WORKLOADS.get(name, ("", ""))
        if workload not in BESIDE:
            return {}
        these, those = self._rounds[name], self._rounds.get(on_ground(ground, BESIDE[workload]), {})
        ratios = [these[number]["per_s"] / those[number]["per_s"] for number in these.keys() & those]
        return {f"beside_{BESIDE[workload]}": round(statistics.median(ratios), 2)} if ratios else {}

    def _about(self) -> dict[str, Any]:
        """Where and how it was measured."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "wpa": wire.version(),
            "server": server_version(),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "sync": self._args.sync,
            "rounds": self._args.rounds,
            "scale": self._args.scale,
            "minutes": round((time.monotonic() - self._began) / 60, 1),
            "idle_s": IDLE_S,
            "load_before": self._load_before,
            "load_after": round(os.getloadavg()[0], 2),
        }


async def main(args: argparse.Namespace) -> int:
    """Measure, show, write; the exit status."""
    found = await Bench(args).run()
    show(found, args.scale)
    if args.output is not None:
        args.output.write_text(_json(found))
    elif not (args.only or args.scale != 1):
        LATEST.write_text(_json(found))
        PAGE.write_text(page(found))
        console.print(f"written to {LATEST} and {PAGE}", highlight=False)
    PARTIAL.unlink(missing_ok=True)
    for name, why in found["failed"].items():
        console.print(f"[red]{name} failed[/red]: {why}", highlight=False)
    return 1 if found["failed"] else 0


def show(found: dict[str, Any], scale: float) -> None:
    """The tables, in the terminal."""
    for name, ground in GROUNDS.items():
        if rows := rows_of_workloads(found, SPEED, name):
            title = f"executions per second, and CPU for each, 200 in flight: {ground.what}"
            console.print(_table(title, SPEED, rows))
            rows = rows_of_workloads(found, LATENCY, name)
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
    names = [*WORKLOADS, *GROUPS, *SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of everything")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of it, against the whole")
    parser.add_argument("--sync", default="100ms", help="the embedded server's sync_interval")
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON, and no page")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.scale = 1, QUICK_SCALE
    args.names = {each for name in args.only or names for each in GROUPS.get(name, [name])}
    # What is measured beside another needs that one, too.
    for name in args.names & WORKLOADS.keys():
        workload, ground = WORKLOADS[name]
        if workload in BESIDE:
            args.names |= {on_ground(ground, BESIDE[workload])}
    return args


if __name__ == "__main__":
    sys.exit(wire.run(main(arguments())))
