"""``python -m tests.checker FACTS.json``: judge a recorded run, and say what was broken."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path

from tests.checker.facts import Bounds, Facts, load
from tests.checker.flows import flows_of, replay
from tests.checker.judge import PROMISES, Violation, judge
from tests.checker.subjects import judged

__all__ = ["main"]

BOUNDS = tuple(bound.name for bound in fields(Bounds))


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 where every promise was kept, 1 where one was broken, 2 where nothing could be judged:
    a file that holds no facts, or flows that can't be replayed."""
    asked = _parser().parse_args(arguments)
    try:
        facts = load(asked.facts)
    except (OSError, ValueError) as error:
        print(f"{asked.facts} holds no facts: {error}", file=sys.stderr)
        return 2
    if not facts.events and not facts.calls:
        print(f"{asked.facts} holds no run: neither an event nor a call", file=sys.stderr)
        return 2
    given = {name: value for name in BOUNDS if (value := getattr(asked, name)) is not None}
    bounds = replace(facts.bounds or Bounds(), **given)
    violations = judge(facts, bounds)
    try:
        violations += replay(facts, asked.flows) if asked.flows else []
    except RuntimeError as error:
        print(f"the flows of {asked.facts} can't be replayed: {error}", file=sys.stderr)
        return 2
    for violation in violations:
        print(violation)
    _tell_run(facts, bounds, given, replayed=bool(asked.flows))
    _tell_verdicts(violations, judged(facts, flows=bool(asked.flows)))
    return 1 if violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("facts", type=Path, help="a run, as tests.checker.facts.save has written it")
    for name in BOUNDS:
        option = f"--{name.replace('_', '-')}"
        told = f"see Bounds.{name}; by default what the run was judged with first, or {getattr(Bounds, name)}"
        parser.add_argument(option, type=int, metavar="MS", help=told)
    parser.add_argument("--flows", action="append", help="their code, as wpa worker takes it; once for each")
    return parser


def _tell_run(facts: Facts, bounds: Bounds, given: dict[str, int], *, replayed: bool) -> None:
    """What was judged, and how strictly."""
    starts = "all starts are known" if facts.closed else "others may have started some, too"
    print(
        f"{len(facts.journals())} executions, {len(facts.events)} events, {len(facts.calls)} calls, "
        f"{len(facts.effects)} effects, {len(facts.faults)} faults; {starts}"
    )
    source = "the defaults" if facts.bounds is None else "those of the run"
    asked = f", but as asked: {', '.join(given)}" if given else ""
    print("bounds", *(f"{name} {value}" for name, value in asdict(bounds).items()), f"({source}{asked})")
    if (flows := len(flows_of(facts))) and not replayed:
        print(f"{flows} executions of flows were not replayed: that takes --flows")


def _tell_verdicts(violations: list[Violation], subjects: set[str]) -> None:
    counts = Counter(violation.promise for violation in violations)
    for promise, text in PROMISES.items():
        verdict = "kept" if promise in subjects else "nothing to judge"
        if counts[promise]:
            verdict = f"broken {counts[promise]} times"
        print(f"{promise:>4}  {verdict:<16}  {text}")


if __name__ == "__main__":
    sys.exit(main())
