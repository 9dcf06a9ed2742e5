"""What is recorded can be kept and judged later; the checker shares no code with what it judges."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from tests import checker
from tests.checker.__main__ import main
from tests.checker.choose import choose
from tests.checker.facts import Effect, Facts, Fault, load, read_ledger, save
from tests.checker.judge import PROMISES, judge
from tests.unit.checker.tampering import BOUNDS, RECORDED, Run

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
    assert not {root for root in roots if root.startswith("wpa")}
    assert all(name.startswith("tests.checker") for name in imported if name.startswith("tests"))


def test_the_reference_interpreter_stays_small_enough_to_be_read() -> None:
    (path,) = (path for path in FILES if path.stem == "interpreter")
    assert len(path.read_text().splitlines()) <= 400


def test_a_run_is_kept_in_a_file_and_is_the_same_when_it_comes_back(tmp_path: Path) -> None:
    facts = Run().facts
    save(facts, tmp_path / "facts.json")
    assert load(tmp_path / "facts.json") == facts


def test_some_executions_of_a_run_can_be_kept() -> None:
    facts = choose(Run().facts, [("acme", "line-0"), ("acme", "waiter-19")])
    assert set(facts.journals()) == {("acme", "line-0"), ("acme", "waiter-19")}
    assert judge(facts, BOUNDS) == []


def test_the_verdict_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(RECORDED), "--settle-ms", "0"]) == 0
    kept = capsys.readouterr().out
    assert kept.count("  kept  ") == len(PROMISES)
    run = Run()
    run.snapshot("line-0", lambda state: state.update(output=1))
    save(run.facts, tmp_path / "facts.json")
    assert main([str(tmp_path / "facts.json"), "--settle-ms", "0"]) == 1
    found = capsys.readouterr().out
    assert "I6 acme.line-0: the snapshot is not the fold: output" in found
    assert "broken 1 times" in found


@pytest.mark.parametrize("text", ["", "{}x", '{"events": [{"odd": 1}]}', '{"odd": 1}'])
def test_what_holds_no_facts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert "holds no facts" in capsys.readouterr().err


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
