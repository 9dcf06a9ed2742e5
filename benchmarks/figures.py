"""The figures that are shown, and what they should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workloads import ENDS

__all__ = [
    "FIGURES",
    "GOALS_FLOOR_PER_S",
    "GOALS_IN_EXECUTIONS",
    "LATENCY",
    "SPEED",
    "Figure",
    "headline",
    "on_ground",
    "rows_of_figures",
    "rows_of_workloads",
]

SPEED = {
    "/s": "per_s",
    "floor /s": "floor_per_s",
    "ratio": "ratio",
    "CPU µs": "cpu_us",
    "floor µs": "floor_cpu_us",
    "CPU ratio": "cpu_ratio",
}
LATENCY = {
    "p50": "p50_ms_at_1",
    "p95": "p95_ms_at_1",
    "p99": "p99_ms_at_1",
    "p50, 50": "p50_ms_at_50",
    "p95, 50": "p95_ms_at_50",
    "p99, 50": "p99_ms_at_50",
}


@dataclass(frozen=True)
class Figure:
    """One line: a figure of a scenario, in words, with its goal where there is one."""

    scenario: str
    key: str
    what: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        """The goal as text; empty where there is none."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    def verdict(self, value: float) -> str:
        """``met`` or ``missed``; empty where there is no goal."""
        if not self.goal:
            return ""
        missed = (self.at_most is not None and value > self.at_most) or (
            self.at_least is not None and value < self.at_least
        )
        return "missed" if missed else "met"


GOALS_FLOOR_PER_S = 6_200
"""What the floor did of ``seq3`` on the machine that the goals in executions a second were set on."""
GOALS_IN_EXECUTIONS = ("seq1", "seq3", "fan10", "saga3")

FIGURES = [
    Figure("seq1", "per_s", "seq1 at 200 in flight, executions/s", at_least=8000),
    Figure("seq3", "per_s", "seq3", at_least=5000),
    Figure("fan10", "per_s", "fan10", at_least=1800),
    Figure("saga3", "per_s", "saga3", at_least=3000),
    Figure("seq3", "floor_per_s", f"the floor's seq3 ({GOALS_FLOOR_PER_S:,} where the four goals were set)"),
    Figure("seq3", "ratio", "seq3, by those of the floor", at_least=0.8),
    Figure("flow3", "beside_seq3", "flow3, by those of the plan seq3", at_least=0.7),
    Figure("seq3", "p50_ms_at_1", "seq3, 1 in flight: latency in ms, p50", at_most=2),
    Figure("seq3", "p99_ms_at_1", "… p99", at_most=6),
    Figure("seq3", "p50_ms_at_50", "… 50 in flight, p50", at_most=15),
    Figure("always.seq3", "per_s", "seq3, each write synced, one node: executions/s", at_least=1500),
    Figure("always.seq3", "ratio", "… by those of the floor"),
    Figure("cluster.seq3", "per_s", "… three nodes on this machine"),
    Figure("cluster.seq3", "ratio", "… by those of the floor"),
    Figure("workers", "by_1_per_s", "seq3/s by one worker, 400 in flight"),
    Figure("workers", "second_adds", "… by two, by those of one", at_least=1),
    Figure("workers", "eight_of_best", "… by eight, by those of the best", at_least=0.8),
    Figure("workers", "eight_cpu_ratio", "… CPU for each, workers and server, eight by one"),
    Figure(
        "behind", "ratio", "seq3/s with 1,000,000 executions ended, by those of an empty store", at_least=0.9
    ),
    Figure("behind", "cpu_ratio", "… CPU for each, worker and server, likewise", at_least=0.9),
    Figure("behind", "server_mb", "… what the server's memory is more with them, MB"),
    Figure("behind", "disk_kb", "… on disk for each, KB"),
    Figure("plan1000", "ratio", "a plan of 1,000 steps, by 333 plans of three: time", at_most=1.3),
    Figure("plan1000", "cpu_ratio", "… the worker's CPU", at_most=1.3),
    Figure("state1mb", "sent_ratio", "1 MB of outputs in 200 steps: how often each byte is sent", at_most=3),
    Figure("behind100k", "p50_ms", "a start behind 100,000 tasks of another tenant: ms to its end, p50"),
    Figure("behind100k", "p99_ms", "… p99", at_most=50),
    Figure("behind100k", "new_tenant_ms", "… the first start of a tenant that has just deployed, ms"),
    Figure("tenants1000", "many_per_s", "seq1/s of 1,000 tenants in turn"),
    Figure("tenants1000", "ratio", "… by those of one tenant", at_least=0.5),
    Figure("worker_killed", "s", "500 in flight, worker killed and started again: s to the end", at_most=3),
    Figure("one_of_two_killed", "s", "… one of two killed, not started again", at_most=3),
    Figure("worker_stopped", "s", "… one of two stopped, with no time to finish", at_most=1.5),
    Figure("server_killed", "s", "… the server killed and started again", at_most=3),
    Figure("leader_killed", "s", "… of three nodes, the leader killed", at_most=10),
    Figure("held5000", "idle_mb", "a worker's memory, idle, MB", at_most=80),
    Figure("held5000", "many_mb", "… with 5,000 in flight, MB", at_most=150),
    Figure("held5000", "few_worker_percent", "… CPU that keeping 500 leases alive costs it, %"),
    Figure("held5000", "few_server_percent", "… the server, %"),
    Figure("held5000", "many_worker_percent", "… CPU that keeping 5,000 leases alive costs it, %"),
    Figure("held5000", "many_server_percent", "… the server, %"),
    Figure("soak", "grows_mb", "… grows under full load, once warm, by MB", at_most=3),
    Figure("cold", "s", "`wpa dev` to the end of the first workflow, from nothing, s", at_most=1.2),
    Figure("sleep10k", "start_s", "10,000 executions put to sleep, seconds", at_most=4),
    Figure("sleep10k", "start_cpu_us", "… the worker's CPU for each, µs"),
    Figure("sleep10k", "grows_mb", "… server and worker grow by, MB", at_most=120),
    Figure("sleep10k", "idle_more_percent", "… idle CPU that they cost, % of a core", at_most=1),
    Figure("sleep10k", "worker_idle_percent", "… idle worker, %", at_most=1),
    Figure("sleep10k", "server_idle_percent", "… idle server, %"),
    Figure("sleep10k", "server_empty_percent", "… idle server before there were any, %"),
    Figure("timers1000", "p50_ms", "1,000 timers due in one second: ms late, p50"),
    Figure("timers1000", "p99_ms", "… p99", at_most=1000),
    Figure("timers1000", "max_ms", "… the latest", at_most=1000),
    Figure("timers1000", "early", "… how many were early", at_most=0),
    Figure("signals", "per_s", "signals/s, each to an execution of its own"),
    Figure("signals", "in_turn_per_s", "… 1,000 to one, each after the one before"),
    Figure("signals", "at_once_per_s", "… 1,000 to one, all at once"),
    Figure("foreach1000", "s", "foreach of 1,000 items, seconds"),
    Figure("foreach1000", "item_ms", "… ms an item"),
    Figure("foreach1000", "many_item_ms", "… ms an item of 10,000"),
    Figure("foreach1000", "growth", "… CPU an item, of 10,000 against of 1,000", at_most=1.3),
    Figure("replay1000", "ms", "a flow of 1,000 steps replayed from its journal, ms"),
    Figure("load100k", "snapshot_ms", "100,000 events: snapshot and tail loaded, ms"),
    Figure("load100k", "decode_ms", "… the same snapshot decoded, in memory, ms"),
    Figure("load100k", "fold_ms", "… all events loaded, without a snapshot, ms"),
]


def on_ground(ground: str, workload: str) -> str:
    """What the figures of a workload are called that was measured on these servers."""
    return f"{ground}.{workload}" if ground else workload


def rows_of_workloads(found: dict[str, Any], columns: dict[str, str], ground: str = "") -> list[list[str]]:
    """Of each workload its name, and what ``columns`` (``SPEED`` or ``LATENCY``) say."""
    rows = [(workload, found.get(on_ground(ground, workload))) for workload in ENDS]
    return [[name, *(_shown(row[key]) for key in columns.values())] for name, row in rows if row]


def rows_of_figures(found: dict[str, Any]) -> list[list[str]]:
    """What is measured, the figure, its goal, and whether that is met."""
    rows = []
    for figure in FIGURES:
        value = found.get(figure.scenario, {}).get(figure.key)
        if value is not None:
            rows.append([figure.what, _shown(value), figure.goal, figure.verdict(value)])
    return rows


def headline(name: str, figures: dict[str, Any]) -> str:
    """In a line, what was found; the first of a scenario's figures stands for the others."""
    if "floor_per_s" in figures:
        return f"{_shown(figures['per_s'])}/s, {figures['ratio']:g} of the floor"
    return next((f"{f.what}: {_shown(figures[f.key])}" for f in FIGURES if f.scenario == name), "")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
