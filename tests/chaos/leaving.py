"""What workers of an older release leave behind: the server's data, in the midst of work.

``python -m tests.chaos.leaving WPA_FOLDER`` records it anew, with the wpa that lies in that folder, into
``releases/left.tar.gz`` and ``releases/left.json``: the data directory, and the facts known by then.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.chaos.load import CANARIES, KINDS, begin, deploy
from tests.chaos.site import Site
from tests.chaos.witness import Witness
from tests.checker.dump import dump
from tests.checker.facts import Facts, Fault, load, read_ledger, save
from tests.waiting import until

__all__ = ["TENANT", "left", "restore"]

RELEASES: Final = Path(__file__).with_name("releases")
DATA, FACTS = RELEASES / "left.tar.gz", RELEASES / "left.json"
(TENANT, *_) = CANARIES
AT_WORK: Final = {"chain": 1.5, "loser": 1.5, "paused": 1.5, "stroll": 1.5}
"""Those that are left in the midst of a step, and how long that takes, in seconds."""


def left(now_ms: int) -> Facts:
    """The facts known when the workers went; nobody has been there since."""
    facts = load(FACTS)
    facts.faults = [Fault("nobody is there", facts.taken_ms, now_ms)]
    return facts


def restore(folder: Path) -> None:
    """Put the data where a server finds it."""
    shutil.unpack_archive(DATA, folder)


async def record(wpa: str) -> None:
    """Leave executions of every kind behind."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        async with site, Witness(site, "left behind") as witness:
            worker = await asyncio.to_thread(site.start_worker, env={"PYTHONPATH": wpa})
            await deploy(witness.caller, TENANT)
            for kind in KINDS:
                await begin(witness.caller, TENANT, kind, kind, AT_WORK.get(kind, 0))
            await witness.caller.ask("pause", TENANT, "paused", {"reason": "for years"}, 10)
            await until(lambda: all_begun(site))
            await asyncio.sleep(1)
            worker.kill()
            facts = await dump(site.url, statuses=False)
            await asyncio.to_thread(site.server.stop)
            known = Facts(taken_ms=int(time.time() * 1000), calls=witness.caller.calls)
            known.effects = list(read_ledger(site.ledger))
            save(known, FACTS)
            with tarfile.open(DATA, "w:gz") as archive:
                archive.add(site.folder / "nats" / "data", arcname="data")
    ends = {journal[-1].name for journal in facts.journals().values()}
    print(f"{len(facts.journals())} executions, {len(facts.events)} events, the last of each: {sorted(ends)}")


async def all_begun(site: Site) -> bool:
    """Whether every execution has its journal."""
    facts = await dump(site.url, statuses=False)
    return {key[1] for key in facts.journals()} >= set(KINDS)


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
