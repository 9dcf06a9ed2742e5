"""The witness itself: it says nothing of a run in which nothing was lost, and finds what was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.chaos.load import CANARIES, check_end, deploy, start
from tests.chaos.site import Site
from tests.chaos.witness import BOUNDS, Witness
from tests.checker.facts import Call, load
from tests.checker.judge import judge
from wpa.client import Client

(TENANT, *_) = CANARIES


@pytest.mark.timeout(180)
async def test_what_is_lost_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAOS_REPORT", raising=False)  # what is falsified here was never found
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
    for what in (
        f"I1 {TENANT}.lost: a start was acknowledged, and there is no execution",
        f"I11 {TENANT}.x: x:a:1 is recorded as done, and never took effect",
        f"I11 {TENANT}.x: x:a:2 is the key of no slot that was opened",
    ):
        assert what in str(found.value)
    kept = load(site.folder / "facts.json")
    assert (kept.bounds, kept.closed) == (BOUNDS, True)
    assert "\n".join(map(str, judge(kept))) in str(found.value)
