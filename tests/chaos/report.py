"""``python -m tests.chaos.report FILE``: what ``CHAOS_REPORT`` has collected, as a table."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

__all__ = ["main"]

COLUMNS = ("runs", "executions", "events", "calls", "effects", "faults", "recoveries", "violations")


def main(path: str) -> None:
    """Print a line for each scenario, and the sums."""
    rows: dict[str, Counter[str]] = {}
    for line in Path(path).read_text().splitlines():
        told = json.loads(line)
        rows.setdefault(told.pop("scenario"), Counter()).update({"runs": 1, **told})
    total = Counter[str]()
    for row in rows.values():
        total.update(row)
    width = max(map(len, [*rows, "scenario"]))
    print(f"{'scenario':<{width}}", *(f"{column:>10}" for column in COLUMNS))
    for name, row in [*sorted(rows.items()), ("all", total)]:
        print(f"{name:<{width}}", *(f"{row[column]:>10}" for column in COLUMNS))


if __name__ == "__main__":
    main(sys.argv[1])
