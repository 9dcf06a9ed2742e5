"""``python -m tests.chaos.report FILE``: what ``CHAOS_REPORT`` has collected, as a table."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

__all__ = ["main"]

COLUMNS = ("runs", "executions", "events", "calls", "effects", "faults", "recoveries", "violations")


def main(path: str) -> None:
    """Print a line for each scenario, and the sums; then what is told of those that have failed."""
    rows: dict[str, Counter[str]] = {}
    failed: list[str] = []
    for line in Path(path).read_text().splitlines():
        told = json.loads(line)
        scenario = told.pop("scenario")
        if "failed" in told:
            failed.append(f"\n{scenario}: {told['failed']}")
        else:
            rows.setdefault(scenario, Counter()).update({"runs": 1, **told})
    total = Counter[str]()
    for row in rows.values():
        total.update(row)
    width = max(map(len, [*rows, "scenario"]))
    print(f"{'scenario':<{width}}", *(f"{column:>10}" for column in COLUMNS))
    for name, row in [*sorted(rows.items()), ("all", total)]:
        print(f"{name:<{width}}", *(f"{row[column]:>10}" for column in COLUMNS))
    for words in failed:
        print(words)


if __name__ == "__main__":
    main(sys.argv[1])
