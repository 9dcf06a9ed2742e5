"""``python -m tests.checker FACTS.json``: judge a recorded run, and say what was broken."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.checker.facts import load
from tests.checker.flows import replay
from tests.checker.judge import PROMISES, Bounds, judge

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 where every promise was kept, 1 where one was broken, 2 for no facts."""
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("facts", type=Path, help="a run, as tests.checker.facts.save has written it")
    parser.add_argument("--settle-ms", type=int, default=Bounds.settle_ms, help="see Bounds.settle_ms")
    parser.add_argument("--late-ms", type=int, default=Bounds.late_ms, help="see Bounds.late_ms")
    parser.add_argument("--flows", action="append", help="their code, as wpa worker takes it; once for each")
    asked = parser.parse_args(arguments)
    try:
        facts = load(asked.facts)
    except (OSError, ValueError, TypeError) as error:
        print(f"{asked.facts} holds no facts: {error}", file=sys.stderr)
        return 2
    violations = judge(facts, Bounds(settle_ms=asked.settle_ms, late_ms=asked.late_ms))
    violations += replay(facts, asked.flows) if asked.flows else []
    for violation in violations:
        print(violation)
    counts = Counter(violation.promise for violation in violations)
    print(
        f"{len(facts.journals())} executions, {len(facts.events)} events, {len(facts.calls)} calls, "
        f"{len(facts.effects)} effects, {len(facts.faults)} faults"
    )
    for promise, text in PROMISES.items():
        verdict = f"broken {counts[promise]} times" if counts[promise] else "kept"
        print(f"{promise:>4}  {verdict:<16}  {text}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
