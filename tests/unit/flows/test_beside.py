"""Flows in a file, with helpers in files beside it: they are the flow's own code, too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.flows.table import Table, run
from wpa.flows.sites import is_beside
from wpa.hooks.modules import load_module

FLOWS = """
import asyncio
import random
from beside_helpers import drawn, in_turn, numbered
from beside_package import clock

from wpa import call, flow

@flow("drawing")
async def drawing() -> list:
    first, helped, second = random.random(), drawn(), random.random()
    await call("a.do", drawn=[first, *helped, second, clock.told()])
    return [first, second]

@flow("turns")
async def turns() -> list[str]:
    return await in_turn(30)

@flow("sets")
async def sets(helped: bool) -> list[str]:
    await numbered() if helped else asyncio.ensure_future(asyncio.sleep(0))
    tasks = [asyncio.create_task(call("b.do"), name=f"{n}") for n in range(20)]
    done, pending = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
    return [task.get_name() for task in pending]
"""

HELPERS = """
import asyncio
import random
from uuid import uuid4
from secrets import token_hex

from wpa import call

def drawn() -> list:
    return [str(uuid4()), token_hex(4), random.randint(1, 1_000_000), random.Random().random()]

async def in_turn(count: int) -> list[str]:
    calls = [call("a.do", n=n) for n in range(count)]
    return [(await each).did for each in asyncio.as_completed(calls)]

async def numbered() -> None:
    await asyncio.gather(asyncio.sleep(0))
"""

CLOCK = """
import time
from datetime import datetime as when

def told() -> list:
    return [time.time(), when.now().isoformat()]
"""


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "beside_package").mkdir()
    (tmp_path / "beside_package/__init__.py").touch()
    (tmp_path / "beside_package/clock.py").write_text(CLOCK)
    (tmp_path / "beside_helpers.py").write_text(HELPERS)
    (tmp_path / "beside_flows.py").write_text(FLOWS)
    load_module(str(tmp_path / "beside_flows.py"))
    yield lambda name: getattr(sys.modules["beside_flows"], name)
    for name in set(sys.modules) - before:
        del sys.modules[name]
    is_beside.cache_clear()


def test_what_helpers_draw_and_read_is_replayed(flows: Callable[[str], Any]) -> None:
    table = run(flows("drawing"))
    [want] = [view for view in table.run.steps() if view.slot == "a_do"]
    assert len({str(value) for value in want.inputs["drawn"]}) == 7
    assert Table(flows("drawing"), seed="another").go().output != table.output


def test_what_helpers_draw_does_not_shift_what_the_flow_draws(flows: Callable[[str], Any]) -> None:
    import random

    own = random.Random("5eed")
    assert run(flows("drawing")).output == [own.random(), own.random()]


def test_what_helpers_start_is_started_in_order(flows: Callable[[str], Any]) -> None:
    table = Table(flows("turns"))
    assert [want.inputs["n"] for want in table.wants.values()] == list(range(30))


def test_what_helpers_gather_moves_nothing_in_the_flows_sets(flows: Callable[[str], Any]) -> None:
    assert run(flows("sets"), {"helped": True}).output == run(flows("sets"), {"helped": False}).output


def test_neither_ours_nor_what_is_installed_lies_beside_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_beside("msgspec", "pydantic")
    assert not is_beside("json", "random")
    assert not is_beside("tests", "wpa")
    assert not is_beside("tests", "no_such_module")
    there = ModuleType("beside_tests")
    there.__file__ = str(Path(__file__).parents[3] / "beside_tests.py")
    monkeypatch.setitem(sys.modules, "beside_tests", there)
    assert is_beside("tests", "beside_tests")
    is_beside.cache_clear()
