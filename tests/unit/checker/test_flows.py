"""Journals of flows are replayed against their code: today's goes their way, another does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checker.__main__ import main
from tests.checker.flows import replay
from tests.e2e.processes import EXAMPLES
from tests.unit.checker.tampering import RECORDED, Run

FLOWS = [str(EXAMPLES / "flows" / name) for name in ("hello.py", "digest.py")]
BLOB = {"$blob": {"key": "acme/flow-hello/text", "size": 70_000}}


def test_todays_code_goes_the_way_of_the_journals() -> None:
    assert replay(Run().facts, FLOWS) == []


def test_other_code_is_found(tmp_path: Path) -> None:
    other = tmp_path / "hello.py"
    other.write_text(Path(FLOWS[0]).read_text().replace('call("core.log"', 'call("core.echo"'))
    (found,) = replay(Run().facts, [str(other), FLOWS[1]])
    assert (found.promise, found.tenant, found.execution) == ("I10", "acme", "flow-hello")
    assert "core.echo" in str(found)


def test_another_end_is_found() -> None:
    run = Run()
    run.data(run.event("flow-hello", "completed"), output="nobody said anything")
    (found,) = replay(run.facts, FLOWS)
    assert "nobody said anything" in str(found)


def test_large_payloads_are_put_in_their_place() -> None:
    run = Run()
    event = run.event("flow-hello", "completed")
    run.facts.payloads[BLOB["$blob"]["key"]] = event.data["output"]
    run.data(event, output=BLOB)
    assert replay(run.facts, FLOWS) == []


def test_the_command_replays_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    flows = [word for path in FLOWS for word in ("--flows", path)]
    assert main([str(RECORDED), "--settle-ms", "0", *flows]) == 0
    assert "I10  kept" in capsys.readouterr().out


def test_without_their_code_nothing_is_found_out() -> None:
    with pytest.raises(RuntimeError, match="flow-hello ran workflow hello, which is not here"):
        replay(Run().facts, FLOWS[1:])


def test_without_flows_there_is_nothing_to_replay() -> None:
    run = Run()
    run.facts.events = run.journal("line-0")
    assert replay(run.facts, []) == []
