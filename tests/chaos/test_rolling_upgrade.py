"""Workers are exchanged under load, one by one, for those of a newer release: nothing is lost, what was begun
before is finished after, and the judge finds nothing.

What is released is a plugin, with its steps, a flow and a plan. ``CHAOS_OLDER`` names a folder with an older
release of wpa itself, as ``make chaos OLDER=REVISION`` exports one: then the first workers run that, too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import leaving
from tests.chaos.load import CANARIES, KINDS, PLANS, Load, acknowledged, check_end, tell
from tests.chaos.site import Site
from tests.chaos.test_faults import ENDS_WITHIN_S, SECONDS
from tests.chaos.witness import Witness
from tests.checker.facts import Facts
from tests.e2e.processes import Wpa
from wpa.client import Client

RELEASES = Path(__file__).with_name("releases")
OLDER = os.environ.get("CHAOS_OLDER", "")
LEDGERED = ("shop.price", "shop.label", "shop.pack", "shop.unpack")

PRICE = {"id": "price", "uses": "shop.price", "with": {"word": "${input.word}"}}
NAP = {"id": "nap", "uses": "core.sleep", "with": {"for": "2100ms"}}
PACK = {
    "id": "pack",
    "uses": "shop.pack",
    "with": {"seconds": "${input.seconds}"},
    "compensate": {"uses": "shop.unpack"},
}


def parcel(*steps: dict[str, Any]) -> dict[str, Any]:
    """A plan of steps that follow one another."""
    needs = [[], *([before["id"]] for before in steps)]
    return {"steps": [{**step, "needs": need} for step, need in zip(steps, needs, strict=False)]}


SHOP = {"1": parcel(PRICE, NAP, PACK), "2": parcel(PRICE, {"id": "label", "uses": "shop.label"}, NAP, PACK)}
"""The plan ``parcel``, by version: the second needs a step of the second release."""


def install(version: str, folder: Path, wpa: str = "") -> dict[str, str]:
    """A release of the plugin, installed in a folder: what a worker's environment has to be for it.

    Args:
        version: of the plugin.
        folder: where to install it.
        wpa: a folder with another wpa than the one that is tested.
    """
    folder.mkdir()
    shutil.copy(RELEASES / f"v{version}" / "wpa_shop.py", folder)
    told = folder / f"wpa_shop-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: wpa-shop\nVersion: {version}\n")
    (told / "entry_points.txt").write_text("[wpa]\nshop = wpa_shop\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [wpa, str(folder)]))}


@pytest.mark.timeout(SECONDS + 420)
@pytest.mark.parametrize(
    "wpa", [pytest.param("", id="plugin"), *([pytest.param(OLDER, id="wpa")] if OLDER else [])]
)
async def test_workers_are_exchanged_for_newer_ones(tmp_path: Path, wpa: str) -> None:
    old, new = install("1", tmp_path / "v1", wpa), install("2", tmp_path / "v2")
    scenario = f"rolling upgrade of {'wpa and ' if wpa else ''}a plugin"
    async with Site(tmp_path) as site:
        before = await asyncio.gather(*(asyncio.to_thread(site.start_worker, env=old) for _ in range(2)))
        async with (
            Witness(site, scenario, CANARIES, ledgered=LEDGERED, code=new) as witness,
            Load(
                witness.caller, site.url, (*KINDS, "sale", "parcel"), {**PLANS, "parcel": SHOP["1"]}
            ) as load,
        ):
            async with load.going_on():
                await asyncio.sleep(SECONDS / 3)
                for place, worker in enumerate(before):
                    with witness.fault("a worker is exchanged"):
                        await asyncio.to_thread(site.start_worker, env=new)
                        await asyncio.to_thread(worker.kill if place else worker.stop)
                    # Not every release of wpa leaves a plan to workers that have its steps.
                    for tenant in CANARIES if place == bool(wpa) else ():
                        document = {"id": "parcel", "version": "2", **SHOP["2"]}
                        await acknowledged(witness.caller, "deploy", tenant, "", document=document)
                    await asyncio.sleep(SECONDS / 3)
            await load.check_ends(ENDS_WITHIN_S)
            facts = await witness.judge()
    assert finished_by_others(facts, before) > 0, "nothing was under way when workers were exchanged"
    started = {event.data["version"] for event in facts.events if starts(event.name, event.body, "parcel")}
    assert started == {"1", "2"}


@pytest.mark.timeout(180)
async def test_what_an_older_release_of_wpa_left_is_finished(tmp_path: Path) -> None:
    """The data directory of a server, as ``leaving`` has recorded it: an execution of each kind, named so."""
    leaving.restore(tmp_path / "nats")
    async with Site(tmp_path) as site:
        await asyncio.to_thread(site.start_worker)
        before = leaving.left(int(time.time() * 1000))
        kinds = [call.execution for call in before.calls if call.kind == "start" and call.outcome == "ok"]
        async with (
            Witness(site, "left by an older release", before=before) as witness,
            await Client.connect(site.url, leaving.TENANT) as client,
        ):
            for kind in kinds:
                await tell(witness.caller, leaving.TENANT, kind, kind)
            await asyncio.gather(
                *(check_end(witness.caller, client, kind, kind, ENDS_WITHIN_S) for kind in kinds)
            )
            facts = await witness.judge()
    assert {execution for _, execution in facts.journals()} == {*kinds, "parent-sub"}
    assert all(journal[0].stored_ms < before.taken_ms for journal in facts.journals().values())


def starts(name: str, body: dict[str, Any], workflow: str) -> bool:
    return name == "workflow_started" and body["workflow_id"] == workflow


def finished_by_others(facts: Facts, workers: list[Wpa]) -> int:
    """How many executions were begun by one of ``workers``, and ended by none of them."""
    pids = {f"-{worker.process.pid}-" for worker in workers}

    def theirs(worker: str) -> bool:
        return any(pid in worker for pid in pids)

    ends = [(journal[0].body["worker"], journal[-1].body["worker"]) for journal in facts.journals().values()]
    return sum(theirs(first) and not theirs(last) for first, last in ends)
