"""``python -m tests.checker.choose FACTS.json OUT.json TENANT.EXECUTION ...``: some executions of a run, to keep."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.checker.facts import Facts, load, save

__all__ = ["choose"]


def choose(facts: Facts, keys: Iterable[tuple[str, str]]) -> Facts:
    """The facts about these executions (and what is about none)."""
    chosen = set(keys)
    tenants = {tenant for tenant, _ in chosen}
    return replace(
        facts,
        calls=[one for one in facts.calls if (one.tenant, one.execution) in chosen],
        events=[one for one in facts.events if one.key in chosen],
        snapshots=[one for one in facts.snapshots if (one.tenant, one.execution) in chosen],
        statuses=[one for one in facts.statuses if (one.tenant, one.execution) in chosen],
        effects=[one for one in facts.effects if (one.tenant, one.execution) in chosen],
        definitions=[one for one in facts.definitions if one.tenant in tenants],
        timers=[one for one in facts.timers if (one.tenant, one.subject.split(".")[3]) in chosen],
        payloads={key: value for key, value in facts.payloads.items() if tuple(key.split("/")[:2]) in chosen},
    )


if __name__ == "__main__":
    source, target, *names = sys.argv[1:]
    wanted = [(name.partition(".")[0], name.partition(".")[2]) for name in names]
    save(choose(load(Path(source)), wanted), Path(target))
