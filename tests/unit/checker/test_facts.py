"""What is recorded can be kept and judged later; the checker shares no code with what it judges."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from tests import checker
from tests.checker.choose import choose
from tests.checker.facts import Bounds, Effect, Facts, Fault, load, read_ledger, save
from tests.checker.judge import judge
from tests.unit.checker.tampering import BOUNDS, Run

LOADERS = {"importlib", "pkgutil", "runpy"}
"""What imports without saying so."""
FILES = sorted(Path(checker.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_checker_imports_nothing_of_the_engine(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    roots = {name.partition(".")[0] for name in imported}
    assert not {root for root in roots if root.startswith("wpa") or root in LOADERS}
    assert all(name.startswith("tests.checker") for name in imported if name.startswith("tests"))


def test_the_reference_interpreter_stays_small_enough_to_be_read() -> None:
    (path,) = (path for path in FILES if path.stem == "interpreter")
    assert len(path.read_text().splitlines()) <= 400


def test_a_run_is_kept_in_a_file_and_is_the_same_when_it_comes_back(tmp_path: Path) -> None:
    facts = Run().facts
    facts.bounds = Bounds(settle_ms=1, late_ms=2, return_ms=3, skew_ms=4, pause_ms=5)
    save(facts, tmp_path / "facts.json")
    assert load(tmp_path / "facts.json") == facts


def test_some_executions_of_a_run_can_be_kept() -> None:
    facts = choose(Run().facts, [("acme", "line-0"), ("acme", "waiter-19")])
    assert set(facts.journals()) == {("acme", "line-0"), ("acme", "waiter-19")}
    assert judge(facts, BOUNDS) == []


def test_the_ledger_is_read_as_steps_write_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(
        '{"what":"start","execution":"x","step":"a","attempt":1,"key":"x:a:1","pid":7,"at":1.5}\n'
    )
    assert list(read_ledger(path)) == [Effect("x", "a", "x:a:1", 1, "start", 1500)]
    assert list(read_ledger(tmp_path / "none")) == []


def test_a_journal_that_makes_no_sense_breaks_promises_and_never_the_judge() -> None:
    for name in ("line-0", "saga-4", "many-3", "waiter-7"):
        run = Run()
        for event in run.journal(name):
            run.put(
                event, replace(event, body={**event.body, "data": {"slot": 7, "next": [None], "undo": 3}})
            )
        assert "I3" in run.broken()


def test_quiet_is_when_the_last_of_the_faults_that_hang_together_is_over() -> None:
    facts = Facts(faults=[Fault("a", 100, 200), Fault("b", 190, 300), Fault("c", 900, 950)])
    assert facts.quiet_after(150, 50) == 300
    assert facts.quiet_after(60, 50) == 300
    assert facts.quiet_after(40, 50) == 40
    assert facts.quiet_after(400, 50) == 400


@pytest.mark.parametrize(("late_ms", "kept"), [(5_000, True), (8_000, False)])
def test_what_is_due_just_after_a_fault_may_be_as_late_as_what_was_due_in_it(
    late_ms: int, kept: bool
) -> None:
    run = Run()
    event = run.event("sleeper-6", "step_completed", slot="nap")
    run.facts.faults = [Fault("away", event.stored_ms - 1_000, event.stored_ms - 200)]
    for later in run.journal("sleeper-6")[event.seq - 1 :]:
        run.stored(later, late_ms)
    assert ("I7" not in run.broken()) is kept
