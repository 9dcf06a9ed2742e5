"""Random plans and flows, random asks, workers that die, freeze and are cut off: all has ended rightly.

``make sim SEEDS=5000`` runs more of them; ``make sim SEED=4711`` runs one again, exactly as it was.
"""

from __future__ import annotations

import os

import pytest

from tests.sim.simulation import simulate

FROM = int(os.environ.get("SIM_FROM", "0"))
SEEDS = range(FROM, FROM + int(os.environ.get("SIM_SEEDS", "400")))
SHARES = 12


@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_happens_everything_ends_rightly(share: int) -> None:
    for seed in SEEDS[share::SHARES]:
        simulate(seed)
