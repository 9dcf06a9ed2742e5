"""What a type checker knows of flows and calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
from typing import Any, assert_type

from wpa.flows import call, child, flow, side_effect
from wpa.sdk import StepContext

async def charge(ctx: StepContext, amount: int) -> list[int]:
    return [amount]

def plain(amount: int) -> str:
    return str(amount)

@flow("order")
async def order(n: int) -> dict[str, int]:
    assert_type(await call(charge, 5, undo="x.y"), list[int])
    assert_type(await call(plain, amount=5), str)
    assert_type(await call("x.y", amount=5), Any)
    assert_type(await side_effect(lambda: 1), int)
    return {}

async def other() -> None:
    assert_type(await order(1), dict[str, int])
    assert_type(await child(order, n=1), dict[str, int])
    assert_type(await child("order", n=1), Any)
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
