"""One simulation, from its seed to its end.

Nineteen of twenty are small: a plan of two to five steps or a flow, a worker or two, a few asks and faults. What
goes wrong in them is found fast and easy to read. Every twentieth is large, with all that there is at once: it
takes as long as four small ones, which find more of the planted bugs in that time.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple
from unittest import mock

import msgspec

from tests.sim.asks import random_ask, send, settle_all
from tests.sim.chaos import Weather
from tests.sim.checks import check
from tests.sim.flows import FLOW, act, input_for, older
from tests.sim.judged import JudgedWorld
from tests.sim.node import SimNode, mark_of
from tests.sim.plans import CHILDREN, Version, draw, ticking, version_of
from tests.sim.world import TENANT, Began, Key, SimWorld
from wpa.engine import worker as engine_worker
from wpa.model.times import rfc3339
from wpa.plan import templates
from wpa.plan.expressions import compile_expression
from wpa.testing.journal import as_text
from wpa.testing.workflows import program_of

__all__ = ["Outcome", "SimulationFailed", "listening", "simulate"]

BAD_DAY_MS: Final = 60_000
CALM_MS: Final = 40_000
"""So long, then, nothing is asked: who could not look for tenants has looked again."""
ROUNDS: Final = 14
"""So often, at the end, everybody is told what they may be waiting for."""
ROUND_MS: Final = 3_600_000
SOON_MS: Final = 60_000
"""What nobody has taken on by then is handed back for ever."""
LARGE_EVERY: Final = 20
HEARD_MAX: Final = 3
_IN_MID_STEP: Final = ("die", "redeliver", "pause", "pause", "cancel")
_IN_MID_UNDO: Final = ("die", "redeliver", "terminate")
IN_MID_STEP: Final = 0.1
IN_MID_UNDO: Final = 0.3
"""In so many attempts something happens while they are made."""
DISCOVER_EVERY_S: Final = 30.0
"""Of the workers: what they would find is told to them anyway, and each look is a dozen steps of a run. One that
could not look is blind for as long."""
FOLLOWING: Final = 0.1
"""In so many runs, workers look for what is to start by itself though nothing does."""
BEATS_PER_HEARTBEAT: Final = 1
"""Of the workers: leases are extended as often as ever, and nobody wakes in between only to look."""
FLOWS: Final = {FLOW: program_of(act)}
OLDER_FLOWS: Final = {FLOW: program_of(older)}
_compile_expression = lru_cache(maxsize=64)(compile_expression)
"""Random plans are made of few expressions, over and over; to compile one takes as long as the rest of a step."""
CHILD_VERSIONS: Final = {child["id"]: version_of(child) for child in CHILDREN}


class SimulationFailed(AssertionError):
    """What doesn't hold, and how to see it again."""


class Outcome(NamedTuple):
    """What came of a run."""

    transitions: set[tuple[str, str]]
    """The transitions of the state machine that it went through: statuses, and the events that came then."""
    trace: str
    """A digest of all that was stored, and of when: the same each time. Empty where it is not wanted."""
    executions: int
    faults: Counter[str]
    """What went wrong, by kind."""


def simulate(seed: int, heard: list[str], *, judged: bool = False, traced: bool = False) -> Outcome:
    """Run one seed.

    Args:
        seed: all that happens follows from it.
        heard: the errors that the engine logs, of :func:`listening`; left empty.
        judged: whether the checker judges it, too.
        traced: whether its trace is wanted.

    Raises SimulationFailed.
    """
    random.seed(seed)  # what the engine itself leaves to chance: how long it backs off
    chance = random.Random(f"size of {seed}")
    large = seed % LARGE_EVERY == 0
    world = (JudgedWorld if judged else SimWorld)(seed, FLOWS, Weather.draw(chance, rough=large))
    try:
        transitions = _Simulation(world, seed, heard, large=large).run()
        if isinstance(world, JudgedWorld):
            world.check_promises()
        trace = trace_of(world) if traced else ""
        return Outcome(transitions, trace, len(world.executions()), world.faults)
    except Exception as error:
        journals = "\n".join(
            f"--- {tenant}.{name}\n{as_text(event for _, event in world.journal(tenant, name))}"
            for tenant, name in world.executions()
        )
        what = f"{type(error).__name__}: {error}"
        raise SimulationFailed(f"seed {seed}: {what}\n{journals}\nagain: make sim SEED={seed}") from error
    finally:
        heard.clear()
        world.close()
        del world
        gc.collect(0)


@contextmanager
def listening() -> Iterator[list[str]]:
    """The errors that the engine logs: none is right, but that an execution is blocked, where one may be."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(heard) < HEARD_MAX and "is blocked" not in record.msg:
                heard.append(logging.Formatter().format(record))

    loggers = [logging.getLogger("wpa"), logging.getLogger("asyncio")]
    listener = Listener(logging.ERROR)
    was = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
        logger.setLevel(logging.ERROR)
    try:
        with (
            _collecting_between_runs(),
            _listing_no_tasks(),
            mock.patch.object(templates, "compile_expression", _compile_expression),
            mock.patch.object(engine_worker, "DISCOVER_EVERY_S", DISCOVER_EVERY_S),
            mock.patch.object(engine_worker, "BEATS_PER_HEARTBEAT", BEATS_PER_HEARTBEAT),
            warnings.catch_warnings(),
        ):
            # Of what a worker was about to do at the very moment of its death.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield heard
    finally:
        for logger, (propagate, level) in zip(loggers, was, strict=True):
            logger.removeHandler(listener)
            logger.propagate, logger.level = propagate, level


@contextmanager
def _collecting_between_runs() -> Iterator[None]:
    """No garbage is collected but after each run: then hardly anything that has to be looked at is alive."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _listing_no_tasks() -> Iterator[None]:
    """No record of all tasks for ``asyncio.all_tasks``, which nobody here asks for.

    It is a set, and those tasks of a flow that are the same task of one replay after the other have one hash.
    In the seconds in which asyncio would wait for the garbage collector there are few of them; here, hundreds.
    """
    with ExitStack() as patches:
        for name in {"_all_tasks", "_scheduled_tasks"} & vars(asyncio.tasks).keys():  # until 3.11, and since
            patches.enter_context(mock.patch.object(vars(asyncio.tasks)[name], "add", id))
        yield


def trace_of(world: SimWorld) -> str:
    """A digest of all that is stored."""
    digest = hashlib.blake2b(digest_size=12)
    server = world.server
    for stream in (server.events, server.dead):
        for subject in sorted(stream.subjects):
            for message in stream.read(subject):
                digest.update(f"{message.sequence} {message.subject} {message.stored_ms}".encode())
                digest.update(message.data)
    for attempt in world.began:
        digest.update(repr(attempt).encode())
    return digest.hexdigest()


class _Simulation:
    """The course of one run."""

    def __init__(self, world: SimWorld, seed: int, heard: list[str], *, large: bool) -> None:
        self._world = world
        self._heard = heard
        self._chance = world.chance
        self._seed = seed
        self._large = large
        self._started: list[Key] = []
        self._ticks = False
        self._door = random.Random(f"door of {seed}")
        """Which starts go through it, and what is deployed then. All else is the same as without it."""

    def run(self) -> set[tuple[str, str]]:
        """All of it. Raises AssertionError with what doesn't hold."""
        world, chance, large = self._world, self._chance, self._large
        tenants = (TENANT, "u") if chance.random() < (0.4 if large else 0.1) else (TENANT,)
        world.has_queue, world.follows = False, chance.random() < FOLLOWING
        for tenant in tenants:
            self._prepare(tenant)
        for _ in range(chance.randint(1, 3) if large else chance.choice((1, 1, 1, 2))):
            world.add_node()
        if chance.random() < (0.1 if large else 0.02):
            world.add_node(OLDER_FLOWS)
        self._disturb()
        self._pass(BAD_DAY_MS)
        self._calm_down(tenants)
        for _ in range(ROUNDS):
            left = world.left()
            if not left:
                break
            for key in left:
                settle_all(world, *key)
                if world.is_blocked(key):  # begun by code that is gone: only a person can end it
                    world.publish({"type": "workflow_terminate", "execution_id": key[1]}, key[0])
            self._pass(SOON_MS)
            self._end_what_is_stuck()
            self._pass(ROUND_MS - SOON_MS)
        self._pass(10_000)
        return check(world, prefixes=3 if large else 1)

    def _pass(self, ms: int) -> None:
        """Let time pass. What the engine reports of itself is the end of a run: it would go on for ever."""
        world = self._world
        world.until(world.now_ms + ms)
        troubles = self._heard + world.loop.troubles
        assert not troubles, "the engine reports errors of its own:\n" + "\n".join(troubles)

    # -- the beginning -----------------------------------------------------------------------

    def _prepare(self, tenant: str) -> None:
        """Deploy for a tenant, and start a few executions."""
        world, chance, large = self._world, self._chance, self._large
        made, later = draw(self._seed, chance, large=large)
        count = chance.randint(1, 3) if large else 1
        inputs = [
            input_for(chance, mark_of(tenant)) if chance.random() < 0.25 else None for _ in range(count)
        ]
        text = msgspec.json.encode(inputs).decode()
        world.has_queue |= b'"far"' in bytes(made.stored.document) or '"far"' in text
        children = [name for name in CHILD_VERSIONS if name in made.children or f'"{name}"' in text]
        world.deploy([made, *(CHILD_VERSIONS[name] for name in children)], tenant)
        if chance.random() < 0.4:
            moment = world.now_ms + chance.randrange(20_000)
            world.at(moment, lambda: world.deploy([later()], tenant))
            if chance.random() < 0.5:
                world.at(moment + chance.randrange(3_000), lambda: self._upgrade(tenant))
        if chance.random() < (0.1 if large else 0.01):
            self._ticks = world.follows = True
            world.deploy([ticking(mark_of(tenant))[0]], tenant)
        for number, acts in enumerate(inputs):
            self._start(tenant, f"x{number}", acts, later)

    def _start(
        self, tenant: str, execution: str, acts: dict[str, Any] | None, later: Callable[[], Version]
    ) -> None:
        """Start a flow that plays ``acts``, or the plan, of which there may be a ``later`` version by then."""
        world, chance = self._world, self._chance
        task: dict[str, Any] = {
            "type": "workflow_start",
            "workflow_id": FLOW if acts else "sim",
            "execution_id": execution,
            "payload": {"input_data": acts or {"mark": mark_of(tenant)}},
        }
        begins = world.now_ms + chance.randrange(3_000)
        if chance.random() < 0.1:
            task["start_at"] = rfc3339(begins + chance.choice((500, 1_500, 30_000)))
        if acts or self._door.random() < 0.5:
            world.at(begins, lambda: send(world, tenant, task))
        else:
            world.at(begins, lambda: send(world, tenant, task, world.latest(tenant, "sim")))
            if self._door.random() < 0.2:
                world.at(begins, lambda: world.deploy([later()], tenant))
        self._started.append((tenant, execution))

    def _upgrade(self, tenant: str) -> None:
        """Have all that a tenant runs go on with the later version; some of it in a pause."""
        world, chance = self._world, self._chance
        for owner, execution in world.left():
            if owner != tenant:
                continue
            if chance.random() < 0.3:
                send(world, tenant, {"type": "workflow_pause", "execution_id": execution})
            migrate = {"type": "workflow_migrate", "execution_id": execution, "payload": {"version": "2"}}
            wait_ms = chance.choice((0, 3_000, 10_000))
            world.at(world.now_ms + wait_ms, partial(send, world, tenant, migrate))

    # -- the bad day -------------------------------------------------------------------------

    def _disturb(self) -> None:
        world, chance, large = self._world, self._chance, self._large
        world.on_attempt = self._in_mid_step
        for _ in range(chance.randrange(12 if large else 3)):
            moment = world.now_ms + int(BAD_DAY_MS * chance.random() ** 3)
            for _ in range(
                chance.choice((1, 1, 1, 1, 3 if large else 2))
            ):  # several at once contend for one journal
                world.at(moment, self._ask)
        for _ in range(chance.randrange(8 if large else 3)):
            world.at(world.now_ms + int(BAD_DAY_MS * chance.random() ** 2), self._mishap)

    def _ask(self) -> None:
        send(self._world, *random_ask(self._world, self._started))

    def _in_mid_step(self, node: SimNode, began: Began, ms: int) -> None:
        """What happens while a step is at work, or just as it ends: then several append at once."""
        world, chance = self._world, self._chance
        undoes = began.key.endswith(":undo")
        if chance.random() > (IN_MID_UNDO if undoes else IN_MID_STEP):
            return
        moment = world.now_ms + chance.choice((ms // 2, ms, ms + 3, ms + 9))
        what = chance.choice(_IN_MID_UNDO if undoes else _IN_MID_STEP)
        self._interfere(what, node, began, moment)
        if what == "pause" and chance.random() < 0.6:
            self._interfere(chance.choice(("die", "terminate", "cancel")), node, began, moment + ms)

    def _interfere(self, what: str, node: SimNode, began: Began, moment_ms: int) -> None:
        if what == "die":
            self._world.at(moment_ms, partial(self._world.kill, node))
        elif what == "redeliver":
            self._world.at(moment_ms, self._redeliver)
        else:
            task = {"type": f"workflow_{what}", "execution_id": began.execution}
            self._world.at(moment_ms, partial(send, self._world, began.tenant, task))

    def _mishap(self) -> None:
        world, chance = self._world, self._chance
        node = chance.choice(world.alive) if world.alive else None
        what = chance.choice(("die", "die", "freeze", "add", "stop", "clock", "redeliver"))
        if node is None or what == "add":
            world.add_node()
        elif what == "freeze":
            node.chaos.freeze(chance.choice((0.05, 1.0, 4.0, 9.0)))
        elif what == "stop":
            node.stop.set()
        elif what == "clock":
            node.jump(chance.choice((-1, 1)) * chance.choice((300, 2_000, 30_000, 600_000)))
        elif what == "redeliver":
            self._redeliver()
        else:
            world.kill(node)

    def _redeliver(self) -> None:
        """Two workers hold one task; perhaps one of them dies of it, and its work is the other's."""
        world, chance = self._world, self._chance
        wait_ms = 0
        if len(world.alive) < 2:
            world.add_node()
            wait_ms = 500  # until it has looked around
        world.at(world.now_ms + wait_ms, world.redeliver)
        if chance.random() < 0.5:
            victim = chance.choice(world.alive)
            world.at(world.now_ms + wait_ms + chance.randrange(2_000), partial(world.kill, victim))

    # -- the end -----------------------------------------------------------------------------

    def _end_what_is_stuck(self) -> None:
        """End the flows that were begun by code that is gone: only a person can.

        What is asked of them is handed back again and again, and that for hours is many runs' work.
        """
        world = self._world
        if world.has_stale and not world.server.tasks.is_empty:
            for tenant, execution in world.left():
                if world.is_flow((tenant, execution)):
                    world.publish({"type": "workflow_terminate", "execution_id": execution}, tenant)

    def _calm_down(self, tenants: tuple[str, ...]) -> None:
        """What goes on from here is undisturbed; nothing starts by itself any more."""
        world = self._world
        world.on_attempt = None
        world.be_calm()
        for node in world.alive:
            if node.stale:
                node.die()
        if not world.alive:
            world.add_node()
        if self._ticks:
            for tenant in tenants:
                world.deploy([ticking(mark_of(tenant))[1]], tenant)
        self._pass(CALM_MS)
