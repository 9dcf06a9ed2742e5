"""``docs/benchmarks.md``: ``page.md``, with what was measured put in."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from figures import (
    GOALS_FLOOR_PER_S,
    GOALS_IN_EXECUTIONS,
    LATENCY,
    SPEED,
    rows_of_figures,
    rows_of_workloads,
)
from throughput import GROUNDS

__all__ = ["page"]

TEMPLATE = Path(__file__).with_name("page.md")


def page(found: dict[str, Any]) -> str:
    """The whole page. ``found`` is what ``latest.json`` holds."""
    about = found["about"]
    machine = (
        f"{about['machine']}, Python {about['python']}, nats-server {about['server']}, "
        f"`sync_interval` {about['sync']}, {about['rounds']} rounds, {about['at']}, "
        f"{about['minutes']:g} minutes; the machine's load was {about['load_before']:g} before and "
        f"{about['load_after']:g} after"
    )
    return Template(TEMPLATE.read_text()).substitute(
        idle_s=f"{about['idle_s']:g}",
        machine=machine,
        share=_share(found),
        figures=_table(["what", "measured", "goal", ""], rows_of_figures(found)),
        workloads="\n\n".join(_workloads(found, ground) for ground in GROUNDS),
        failed="".join(f"`{name}` failed: {why}.\n\n" for name, why in found["failed"].items()),
    )


def _share(found: dict[str, Any]) -> str:
    """How fast the machine is, and what the goals in executions a second come to by that."""
    rows = {name: found[name]["per_s"] for name in GOALS_IN_EXECUTIONS if name in found}
    if "seq3" not in rows:
        return ""
    floor = found["seq3"]["floor_per_s"]
    share = floor / GOALS_FLOOR_PER_S
    there = ", ".join(f"`{name}` {per_s / share:,.0f}" for name, per_s in rows.items())
    return (
        f"The floor does {floor:,.0f} `seq3` a second here, {share:.2f} of what it did on the machine that "
        f"the goals in executions a second were set on; by that share, that machine would do {there}.\n\n"
    )


def _workloads(found: dict[str, Any], ground: str) -> str:
    """Two tables: what was measured on these servers."""
    return "\n\n".join(
        [
            f"### {GROUNDS[ground].what[0].upper()}{GROUNDS[ground].what[1:]}",
            "Executions per second, and CPU for each, at 200 in flight:",
            _table(["workload", *SPEED], rows_of_workloads(found, SPEED, ground)),
            "Latency in milliseconds, at 1 and at 50 in flight:",
            _table(["workload", *LATENCY], rows_of_workloads(found, LATENCY, ground)),
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    align = ["---", *("---:" for _ in head[1:])]
    lines = ("|".join(f" {cell} " if cell else " " for cell in cells) for cells in [head, align, *rows])
    return "\n".join(f"|{line}|" for line in lines)
