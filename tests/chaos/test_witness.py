"""The witness itself: it says nothing of a run in which nothing was lost, and finds what was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.chaos.load import CANARIES, acknowledged, check_end, deploy, start
from tests.chaos.report import main
from tests.chaos.site import Site
from tests.chaos.witness import BOUNDS, Witness
from tests.checker.facts import Call, load
from tests.checker.judge import judge
from wpa.client import Client

(TENANT, *_) = CANARIES


@pytest.mark.timeout(180)
async def test_what_is_lost_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    monkeypatch.setenv("CHAOS_REPORT", str(report))  # what is falsified here was never found
    async with Site(tmp_path) as site:
        await asyncio.to_thread(site.start_crashing)
        async with (
            Witness(site, "nothing is lost", CANARIES) as witness,
            await Client.connect(site.url, TENANT) as client,
        ):
            await deploy(witness.caller, TENANT)
            await start(witness.caller, TENANT, "chain", "x")
            await check_end(witness.caller, client, "chain", "x", within_s=60)
            facts = await witness.judge()
            assert list(facts.journals()) == [(TENANT, "x")]

            witness.caller.calls.append(Call("start", TENANT, "lost", "ok", workflow="chain"))
            first, *rest = site.ledger.read_text().splitlines()
            unknown = {**json.loads(first), "key": "x:a:2"}
            site.ledger.write_text("\n".join([*rest, json.dumps(unknown)]))
            with pytest.raises(AssertionError) as found:
                await witness.judge()
            words = await witness.tell(found.value, seed=7, executions=1)
    for what in (
        f"I1 {TENANT}.lost: a start was acknowledged, and there is no execution",
        f"I11 {TENANT}.x: x:a:1 is recorded as done, and never took effect",
        f"I11 {TENANT}.x: x:a:2 is the key of no slot that was opened",
    ):
        assert what in str(found.value)
    main(str(report))
    for shown in (words, capsys.readouterr().out):
        assert str(found.value) in shown
        assert f"the journal of {TENANT}.x:\n    #1 at 1, " in shown
        assert "the end of nats/server.log:\n" in shown
    kept = load(site.folder / "facts.json")
    assert (kept.bounds, kept.closed) == (BOUNDS, True)
    assert "\n".join(map(str, judge(kept))) in str(found.value)


@pytest.mark.timeout(180)
async def test_of_what_could_not_be_judged_the_facts_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHAOS_REPORT", raising=False)
    monkeypatch.setattr("tests.chaos.load.PATIENCE_S", 0.5)
    async with Site(tmp_path) as site:
        await asyncio.to_thread(site.start_crashing)
        async with Witness(site, "nothing is lost", CANARIES) as witness:
            await deploy(witness.caller, TENANT)
            with pytest.raises(
                AssertionError, match=r"asked \d+ times in .* in vain: Call\(kind='signal'"
            ) as found:
                await acknowledged(witness.caller, "signal", TENANT, "nobody", signal="go", id="one")
            words = await witness.tell(found.value, seed=7, executions=0)
    assert "times: unknown_execution tenant acme has no execution nobody" in words
    assert {call.kind for call in load(site.folder / "facts.json").calls} == {"deploy", "signal"}
