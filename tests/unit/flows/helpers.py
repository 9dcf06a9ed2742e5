"""What a flow's module imports of its own package."""

from __future__ import annotations

import random
import time


def stamp() -> float:
    return time.time()


def draw() -> float:
    return random.random()
