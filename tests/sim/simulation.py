"""One simulation, from its seed to its end."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.sim.asks import random_ask, send, settle_all
from tests.sim.checks import check
from tests.sim.flows import FLOW, act, input_for
from tests.sim.plans import CHILDREN, document
from tests.sim.world import SimWorld
from wpa import plan
from wpa.model.state import is_terminal
from wpa.model.steptype import StepSignature
from wpa.model.times import rfc3339
from wpa.testing.journal import as_text, state_of
from wpa.testing.loop import VirtualLoop
from wpa.testing.workflows import program_of

__all__ = ["simulate"]

BAD_DAY_MS = 60_000
ROUNDS = 14
"""So often, at the end, everybody is told what they may be waiting for."""
ROUND_MS = 3_600_000
PATIENCE = 200
"""Of the loop's watchdog: so many times two thousand turns may a run take."""
SIGNATURES = {
    name: StepSignature(name=name, input_schema={}, output_schema={}) for name in ("sim.work", "sim.undo")
}


class SimulationFailed(AssertionError):
    """What doesn't hold, and how to see it again."""


def simulate(seed: int) -> None:
    """Raises SimulationFailed."""
    random.seed(seed)  # what the engine itself leaves to chance: how long it backs off
    loop = VirtualLoop()
    loop.watchdog = _Patience()
    world = SimWorld(seed, loop, {FLOW: program_of(act)})
    try:
        with _listening() as heard:
            loop.run_until_complete(_simulate(world))
        assert not heard, "the engine reports errors of its own:\n" + "\n".join(heard)
    except AssertionError as error:
        journals = "\n".join(
            f"--- {name}\n{as_text(event for _, event in world.journal(name))}" for name in world.executions()
        )
        raise SimulationFailed(f"seed {seed}: {error}\n{journals}\nagain: make sim SEED={seed}") from error
    finally:
        loop.run_until_complete(world.close())
        loop.close()


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The errors that the engine logs: there are none that are right."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(logging.Formatter().format(record))

    loggers = [logging.getLogger("wpa"), logging.getLogger("asyncio")]
    listener = Listener(logging.ERROR)
    was = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
        logger.setLevel(logging.ERROR)
    try:
        yield heard
    finally:
        for logger, (propagate, level) in zip(loggers, was, strict=True):
            logger.removeHandler(listener)
            logger.propagate, logger.level = propagate, level


class _Patience:
    """Ends a run that turns and turns: in virtual time, hanging is being busy for ever."""

    def __init__(self) -> None:
        self._asked = 0

    def __call__(self) -> None:
        self._asked += 1
        assert self._asked < PATIENCE, "it comes to no end"


def _plan(chance: random.Random) -> dict[str, Any]:
    while True:
        made = document(chance)
        if not plan.check(made, SIGNATURES):
            return made


async def _simulate(world: SimWorld) -> None:
    chance = world.chance
    made = _plan(chance)
    executions = {f"x{number}": chance.random() < 0.25 for number in range(chance.randint(1, 3))}
    text = json.dumps(made)
    children = [each for each in CHILDREN if any(executions.values()) or f'"{each["id"]}"' in text]
    await world.open([made, *children], workers=chance.randint(1, 3))
    world.once = {step["id"] for step in made["steps"] if step.get("at_most_once")}
    for execution, flows in executions.items():
        task: dict[str, Any] = {"type": "workflow_start", "workflow_id": "sim", "execution_id": execution}
        if flows:
            task |= {"workflow_id": FLOW, "payload": {"input_data": input_for(chance)}}
        begins = world.now_ms + chance.randrange(3_000)
        if chance.random() < 0.1:
            task["start_at"] = rfc3339(begins + chance.choice((500, 1_500, 30_000)))
        world.at(begins, lambda task=task: send(world, task, chance))
    for _ in range(chance.randrange(12)):
        world.at(
            world.now_ms + int(BAD_DAY_MS * chance.random() ** 3),
            lambda: send(world, random_ask(world, list(executions)), chance),
        )
    for _ in range(chance.randrange(8)):
        world.at(world.now_ms + int(BAD_DAY_MS * chance.random() ** 2), lambda: _mishap(world))
    await world.until(world.now_ms + BAD_DAY_MS)
    world.be_calm()
    if not world.alive:
        await world.add_node()
    await world.until(world.now_ms + 10_000)
    for _ in range(ROUNDS):
        left = _left(world)
        if not left:
            break
        for execution in left:
            await settle_all(world, execution)
        await world.until(world.now_ms + ROUND_MS)
    await world.until(world.now_ms + 10_000)
    check(world)


async def _mishap(world: SimWorld) -> None:
    chance = world.chance
    node = chance.choice(world.alive) if world.alive else None
    what = chance.choice(("die", "die", "freeze", "add", "stop"))
    if node is None or what == "add":
        await world.add_node()
    elif what == "freeze":
        node.chaos.freeze(chance.choice((0.05, 1.0, 6.0, 12.0)))
    elif what == "stop":
        node.stop.set()
    else:
        node.die()
        if chance.random() < 0.7:
            world.at(world.now_ms + chance.randrange(3_000), world.add_node)


def _left(world: SimWorld) -> list[str]:
    """The executions that have not ended."""
    states = {name: state_of(event for _, event in world.journal(name)) for name in world.executions()}
    return [name for name, state in states.items() if state is not None and not is_terminal(state.status)]
