"""What a type checker knows of flows and calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
import asyncio
from dataclasses import dataclass
from typing import Any, assert_type

from wpa import StepContext, call, child, flow, patched, saga, side_effect, step

@dataclass
class Receipt:
    id: str

async def charge(ctx: StepContext, amount: int) -> list[int]:
    return [amount]

def plain(amount: int) -> str:
    return str(amount)

@step("x.declared")
async def declared(ctx: StepContext, amount: int) -> Receipt | None:
    return None

@step("x.blocking")
def blocking(ctx: StepContext) -> tuple[Receipt, int]:
    return Receipt("1"), 1

async def nothing(ctx: StepContext) -> None: ...

@flow("order")
async def order(n: int) -> dict[str, int]:
    assert_type(await call(declared, 5), Receipt | None)
    assert_type(await call(blocking), tuple[Receipt, int])
    receipt, count = await asyncio.gather(call(declared, amount=5, undo=plain), call(plain, 1, retry=3, timeout=5))
    assert_type(receipt, Receipt | None)
    assert_type(count, str)
    task = asyncio.create_task(call(charge, 5))
    assert_type(await task, list[int])
    assert_type(await asyncio.wait_for(call(charge, 5), 3), list[int])
    assert_type(patched("x"), bool)
    async with saga(), asyncio.TaskGroup() as group:
        other = group.create_task(call(blocking))
    assert_type(other.result(), tuple[Receipt, int])
    assert_type(await call(charge, 5, undo="x.y"), list[int])
    assert_type(await call(plain, amount=5), str)
    assert_type(await call("x.y", amount=5), Any)
    assert_type(await side_effect(lambda: 1), int)
    return {}

async def other() -> None:
    assert_type(await order(1), dict[str, int])
    assert_type(await child(order, n=1), dict[str, int])
    assert_type(await child("order", n=1), Any)
    first, second = await asyncio.gather(order(1), child(order, n=2))
    assert_type(first, dict[str, int])
    assert_type(second, dict[str, int])
    for each in asyncio.as_completed([call(charge, 1), call(charge, 2)]):
        assert_type(await each, list[int])
    await order("one")
"""


def test_a_type_checker_knows_what_calls_return(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(SOURCE)
    command = [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "typed.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    complaints = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(complaints) == 1, done.stdout + done.stderr
    assert 'Argument 1 to "order" has incompatible type "str"; expected "int"' in complaints[0]
