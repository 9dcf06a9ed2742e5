"""The command: it judges a kept run as strictly as it was judged first, and says of what it can judge nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.checker.__main__ import main
from tests.checker.facts import Bounds, Call, Facts, save
from tests.checker.judge import PROMISES
from tests.unit.checker.tampering import RECORDED, Run

Capture = pytest.CaptureFixture[str]
LONG = Bounds(late_ms=20_000, return_ms=45_000, pause_ms=10_000)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[Facts], str]:
    """Keeps a run in a file."""

    def keep(facts: Facts) -> str:
        save(facts, tmp_path / "facts.json")
        return str(tmp_path / "facts.json")

    return keep


def cut_short() -> Run:
    """An execution in whose midst everything has stopped."""
    run = Run()
    run.cut(run.journal("line-0")[-2])
    return run


def verdicts(text: str) -> dict[str, str]:
    """What is said of each promise, without its text."""
    lines = (line for line in text.splitlines() if line.strip().partition("  ")[0] in PROMISES)
    return {line[:4].strip(): line[6:22].strip() for line in lines}


def test_the_verdict_is_printed(kept: Callable[[Facts], str], capsys: Capture) -> None:
    assert main([str(RECORDED)]) == 0
    assert verdicts(capsys.readouterr().out) == dict.fromkeys(PROMISES, "kept")
    run = Run()
    run.snapshot("line-0", lambda state: state.update(output=1))
    assert main([kept(run.facts)]) == 1
    found = capsys.readouterr().out
    assert "I6 acme.line-0: the snapshot is not the fold: output" in found
    assert verdicts(found)["I6"] == "broken 1 times"


# -- bounds ----------------------------------------------------------------------------------


def test_a_kept_run_is_judged_by_its_own_bounds(kept: Callable[[Facts], str], capsys: Capture) -> None:
    run = cut_short()
    assert main([kept(run.facts)]) == 1
    found = capsys.readouterr().out
    assert "settle_ms 0 late_ms 1500 return_ms 7000 skew_ms 5 pause_ms 1500 (those of the run)" in found
    assert verdicts(found)["I2"] == "broken 1 times"


def test_without_bounds_of_its_own_it_is_judged_by_the_defaults(
    kept: Callable[[Facts], str], capsys: Capture
) -> None:
    run = cut_short()
    run.facts.bounds = None
    main([kept(run.facts)])
    found = capsys.readouterr().out
    assert "settle_ms 15000" in found
    assert "(the defaults)" in found
    assert verdicts(found)["I2"] == "kept"


def a_timer_late_after_a_fault(run: Run) -> None:
    run.facts.faults.clear()
    for event in run.journal("sleeper-6")[run.event("sleeper-6", "step_completed", slot="nap").seq - 1 :]:
        run.stored(event, 5_000)


def an_effect_in_a_pause(run: Run) -> None:
    run.facts.faults.clear()
    paused = run.event("paused-9", "paused")
    run.put(paused, replace(paused, stored_ms=paused.stored_ms - 3_000))
    run.change_effect(run.effect("paused-9:b:1"), at_ms=paused.stored_ms)


@pytest.mark.parametrize(
    ("promise", "option", "falsify"),
    [("I7", "--late-ms", a_timer_late_after_a_fault), ("I8", "--pause-ms", an_effect_in_a_pause)],
)
def test_each_bound_can_be_asked_for(
    promise: str,
    option: str,
    falsify: Callable[[Run], None],
    kept: Callable[[Facts], str],
    capsys: Capture,
) -> None:
    run = Run()
    falsify(run)
    run.facts.bounds = replace(LONG, settle_ms=0)
    path = kept(run.facts)
    main([path])
    assert verdicts(capsys.readouterr().out)[promise] == "kept"
    main([path, option, "1500", "--return-ms", "7000", "--skew-ms", "5"])
    found = capsys.readouterr().out
    assert "(those of the run, but as asked: " in found
    assert verdicts(found)[promise].startswith("broken")


def test_it_says_whether_every_start_is_known(kept: Callable[[Facts], str], capsys: Capture) -> None:
    run = Run()
    main([kept(run.facts)])
    assert "all starts are known" in capsys.readouterr().out
    run.facts.closed = False
    main([kept(run.facts)])
    assert "others may have started some, too" in capsys.readouterr().out


# -- nothing to judge ------------------------------------------------------------------------


def test_what_nothing_was_judged_of_is_not_said_to_be_kept(
    kept: Callable[[Facts], str], capsys: Capture
) -> None:
    facts = Facts(calls=[Call("start", "acme", "x", "failed", code="unknown_workflow")])
    assert main([kept(facts)]) == 0
    silent = dict.fromkeys(PROMISES, "nothing to judge")
    assert verdicts(capsys.readouterr().out) == {**silent, "I1": "kept"}


def test_a_broken_promise_is_told_in_any_case(kept: Callable[[Facts], str], capsys: Capture) -> None:
    facts = Facts(calls=[Call("start", "acme", "x", "ok", workflow="w")])
    assert main([kept(facts)]) == 1
    assert verdicts(capsys.readouterr().out)["I1"] == "broken 1 times"


def without_pauses(run: Run) -> None:
    for event in run.journal("paused-9"):
        run.drop(event)


def without_canaries(run: Run) -> None:
    run.facts.canaries.clear()


def without_effects(run: Run) -> None:
    run.facts.effects.clear()
    run.facts.ledgered.clear()


def without_children(run: Run) -> None:
    for event in [one for one in run.facts.events if one.data.get("parent")]:
        run.data(event, parent=None)


def without_plans(run: Run) -> None:
    run.facts.definitions.clear()


@pytest.mark.parametrize(
    ("promise", "leave_out"),
    [
        ("I8", without_pauses),
        ("I9", without_canaries),
        ("I11", without_effects),
        ("I10", without_plans),
        ("I12", without_children),
    ],
)
def test_each_promise_has_its_own_subject(
    promise: str, leave_out: Callable[[Run], None], kept: Callable[[Facts], str], capsys: Capture
) -> None:
    run = Run()
    leave_out(run)
    main([kept(run.facts)])
    assert verdicts(capsys.readouterr().out)[promise] == "nothing to judge"


def test_flows_that_were_not_replayed_are_named(capsys: Capture) -> None:
    main([str(RECORDED)])
    assert "1 executions of flows were not replayed: that takes --flows" in capsys.readouterr().out


# -- no facts --------------------------------------------------------------------------------

NO_FACTS: dict[str, str] = {
    "": "Expecting value",
    "{}x": "Extra data",
    "{}": "it lacks taken_ms, calls, faults, events, tasks, timers, letters, snapshots, definitions, statuses",
    "[]": "facts is not an object",
    "7": "facts is not an object",
    "[" * 100_000: "it is nested too deeply",
}


@pytest.mark.parametrize("text", NO_FACTS, ids=[text[:8] or "nothing" for text in NO_FACTS])
def test_what_holds_no_facts_is_refused(tmp_path: Path, capsys: Capture, text: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert f"{path} holds no facts: {NO_FACTS[text]}" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "facts.json").write_bytes(b"\xff\xfe\x00")
    assert main([str(tmp_path / "facts.json")]) == 2
    assert "holds no facts" in capsys.readouterr().err
    assert main([str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("odd", 1, "facts holds odd, which nobody knows"),
        ("events", {}, "facts.events is not a list"),
        ("events", [1], "facts.events[0] is not an object"),
        ("events", [{"odd": 1}], "facts.events[0] holds odd, which nobody knows"),
        ("events", [{"subject": "s", "sequence": 1, "body": {}}], "facts.events[0] lacks stored_ms"),
        ("statuses", [{"tenant": "t", "execution": "x", "document": 1}], "facts.statuses[0].document is not an"),
        ("faults", [{"what": "w", "at_ms": "1", "until_ms": 2}], "facts.faults[0].at_ms is not a whole number"),
        ("taken_ms", True, "facts.taken_ms is not a whole number"),
        ("closed", 0, "facts.closed is not true or false"),
        ("canaries", {"acme": 1}, "facts.canaries.acme is not a string"),
        ("bounds", {"settle_ms": "1s"}, "facts.bounds.settle_ms is not a whole number"),
        ("calls", [{"kind": "start", "tenant": "t", "execution": "x", "outcome": "so"}],
         "facts.calls[0].outcome is none of ok, failed, unknown"),
    ],
)  # fmt: skip
def test_facts_of_another_form_are_refused(
    tmp_path: Path, capsys: Capture, name: str, value: Any, what: str
) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({**json.loads(RECORDED.read_text()), name: value}))
    assert main([str(path)]) == 2
    assert what in capsys.readouterr().err


def test_a_run_in_which_nothing_happened_is_none(kept: Callable[[Facts], str], capsys: Capture) -> None:
    assert main([kept(Facts())]) == 2
    assert "holds no run: neither an event nor a call" in capsys.readouterr().err


def test_facts_that_make_no_sense_are_judged_all_the_same(
    kept: Callable[[Facts], str], capsys: Capture
) -> None:
    run = Run()
    for event in run.journal("line-0"):
        run.envelope(event, workflow_id=["line"], data={"waits": [], "uses": {}, "until": 7})
    assert main([kept(run.facts)]) == 1
    assert verdicts(capsys.readouterr().out)["I3"].startswith("broken")


def test_flows_that_are_not_there_are_no_verdict(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty.py").write_text("")
    assert main([str(RECORDED), "--flows", str(tmp_path / "empty.py")]) == 2
    assert "can't be replayed" in capsys.readouterr().err
