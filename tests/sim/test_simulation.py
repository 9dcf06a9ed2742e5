"""Random plans and flows, random asks, workers that die, freeze and are cut off: all has ended rightly, and
the checker, which shares no code with the engine, finds nothing.

``make sim SEEDS=5000 JUDGED=1`` runs more of them; ``make sim SEED=4711`` runs one again, exactly as it was.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Final

import pytest

from tests.sim.coverage import FAULTS, SUITE_SEEDS, Transition, table, uncovered
from tests.sim.simulation import listening, simulate
from tests.sim.world import SimWorld

JUDGED_EVERY: Final = 3
"""To judge a run takes half as long as the run."""


@pytest.mark.timeout(600)
def test_whatever_happens_everything_ends_rightly_and_every_transition_is_seen() -> None:
    seen: Counter[Transition] = Counter()
    faults: Counter[str] = Counter()
    with listening() as heard:
        for seed in range(SUITE_SEEDS):
            outcome = simulate(seed, heard, judged=seed % JUDGED_EVERY == 0)
            seen.update(outcome.transitions)
            faults.update(outcome.faults)
    assert set(faults) == FAULTS
    assert not uncovered(seen), table(seen, SUITE_SEEDS)


def test_a_seed_gives_the_same_run_each_time() -> None:
    with listening() as heard:
        for seed in range(60):
            first, second = (simulate(seed, heard, traced=True) for _ in range(2))
            assert first == second, f"seed {seed}"


@pytest.mark.parametrize("calm", [False, True])
def test_no_worker_is_killed_once_the_bad_day_is_over(*, calm: bool) -> None:
    world = SimWorld(0)
    try:
        node = world.add_node()
        world.at(world.now_ms + 1_000, partial(world.kill, node))
        if calm:
            world.be_calm()
        world.until(world.now_ms + 2_000)
        assert node.dead is not calm
    finally:
        world.close()
