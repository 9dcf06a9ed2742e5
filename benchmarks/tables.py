"""What was measured, as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = {
    "/s": "per_s",
    "floor /s": "floor_per_s",
    "ratio": "ratio",
    "p50": "p50_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "p50 @50": "p50_ms_at_50",
    "p95 @50": "p95_ms_at_50",
    "p99 @50": "p99_ms_at_50",
}

MEASURES: list[tuple[str, str, str, str]] = [
    ("sleep10k", "start_s", "seconds until all are asleep", "<= 4"),
    ("sleep10k", "grows_mb", "MB that server and worker grow by", "<= 120"),
    ("sleep10k", "idle_percent", "% of a core, server and worker, asleep", ""),
    ("sleep10k", "idle_more_percent", "... more than before there was any", "< 1"),
    ("timers1000", "p50_ms", "ms late, p50, due within one second", ""),
    ("timers1000", "p99_ms", "... p99", "<= 1000"),
    ("timers1000", "max_ms", "... most", "<= 1000"),
    ("timers1000", "early", "timers that were early", "0"),
    ("signals", "per_s", "signals/s, one to each execution", ""),
    ("signals", "in_turn_per_s", "... to one, each after the one before", ""),
    ("signals", "at_once_per_s", "... to one, all at once", ""),
    ("foreach1000", "s", "seconds for 1,000 items", ""),
    ("foreach1000", "item_ms", "ms an item", ""),
    ("foreach1000", "many_item_ms", "... of 10,000 items", ""),
    ("foreach1000", "growth", "CPU an item: of 10,000 / of 1,000", "~ 1"),
    ("replay1000", "ms", "ms to replay a flow of 1,000 steps", ""),
    ("load100k", "fold_ms", "ms to load 100,000 events", ""),
    ("load100k", "snapshot_ms", "... with their snapshot", ""),
]


def show_workloads(console: Console, found: dict[str, Any]) -> None:
    """Throughput and latency."""
    if not found:
        return
    table = _table("executions per second (200 in flight), latency in ms", "workload")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, row in found.items():
        table.add_row(name, *(str(row[key]) for key in COLUMNS.values()))
    console.print(table)
    for name, row in found.items():
        for key in row:
            if key.startswith("beside_"):
                console.print(f"{name} runs at {row[key]} of {key[7:]} (target >= 0.7)", highlight=False)


def show_scenarios(console: Console, found: dict[str, Any]) -> None:
    """What waits, what is made while it runs, and what is long; beside the targets where there are any."""
    if not found:
        return
    table = _table("waiting, dynamic work, long histories", "scenario")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    for name, key, what, target in MEASURES:
        if name in found:
            table.add_row(name, what, f"{found[name][key]:g}", target)
    console.print(table)


def _table(title: str, first: str) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    return table
