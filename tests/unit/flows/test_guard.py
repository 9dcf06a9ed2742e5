from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zoneinfo
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.flows.table import Table, run
from wpa.flows import FlowDeclarationError, NotDeterministic, call, flow, side_effect


async def _connect() -> Any:
    return await asyncio.open_connection("127.0.0.1", 1)


DEEDS: dict[str, Any] = {
    "opens a file": lambda: open("/etc/hosts"),  # noqa: SIM115
    "works on files": lambda: os.listdir("/"),
    "removes": lambda: Path("/nowhere/at/all").unlink(),
    "uses the network": lambda: socket.socket(),
    "resolves": lambda: socket.getaddrinfo("localhost", 80),
    "works on processes": lambda: subprocess.run(["true"]),
    "starts a thread": lambda: threading.Thread(target=print).start(),
    "opens a database": lambda: sqlite3.connect(":memory:"),
    "blocks its thread": lambda: time.sleep(0.001),
    "makes": lambda: tempfile.mkdtemp(),
    "asks somebody": lambda: input(),
    "starts an event loop of its own": lambda: asyncio.run(asyncio.sleep(0)),
    "an event loop of its own, where": lambda: asyncio.Runner(),
    "own, where it has one: just await": lambda: asyncio.new_event_loop(),
    "run_in_executor": lambda: asyncio.to_thread(print),
    "create_connection": _connect,
    "subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "add_signal_handler": lambda: asyncio.get_running_loop().add_signal_handler(2, print),
    "run_until_complete": lambda: asyncio.get_running_loop().run_until_complete(None),
    "call_soon_threadsafe": lambda: asyncio.get_running_loop().call_soon_threadsafe(print),
    "stop": lambda: asyncio.get_running_loop().stop(),
}


@pytest.mark.parametrize("what", DEEDS)
def test_what_a_replay_would_not_repeat_is_refused_where_it_stands(what: str) -> None:
    @flow("doer")
    async def doer() -> str:
        try:
            done = DEEDS[what]()
            if asyncio.iscoroutine(done):
                await done
        except NotDeterministic as error:
            await call("a.do")
            return str(error)
        return "done"

    said = run(doer).output
    assert said.startswith("tests.unit.flows.test_guard:"), said
    assert "@step(" in said
    if what in said:
        return
    assert what in ("removes", "resolves", "makes"), said


def test_the_error_ends_the_flow_under_its_own_name() -> None:
    @flow("opener")
    async def opener() -> None:
        await call("a.do")
        open("/etc/hosts")  # noqa: SIM115

    table = Table(opener)
    table.ok("a_do")
    assert table.error.type == "NotDeterministic"
    assert "in opener: the flow opens a file (open)" in table.error.message
    assert table.error.details["at"].endswith("in opener")


def test_foreign_futures_are_refused_where_they_are_awaited() -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "what?"

    other = asyncio.new_event_loop()
    try:
        foreign = [other.create_future(), Odd()]

        @flow("foreigner")
        async def foreigner() -> list[str]:
            said = []
            for awaitable in foreign:
                try:
                    await awaitable
                except NotDeterministic as error:
                    said.append(str(error))
                await call("a.do")
            return said

        said = run(foreigner).output
        assert "awaits what no slot settles (_asyncio.Future)" in said[0]
        assert "awaits what no slot settles (builtins.str)" in said[1]
        assert all("in foreigner" in each for each in said)
    finally:
        other.close()


def test_the_futures_of_threads_are_refused_too() -> None:
    future: Any = concurrent.futures.Future()
    future.set_result(1)

    @flow("threaded")
    async def threaded() -> None:
        await asyncio.wrap_future(future)

    assert Table(threaded).error.type == "FlowStuck"


def test_outside_of_flows_nothing_is_refused(tmp_path: Path) -> None:
    @flow("plain")
    async def plain() -> None:
        await call("a.do")

    Table(plain)
    (tmp_path / "file").write_text("written")
    assert subprocess.run(["true"]).returncode == 0
    with socket.socket():
        pass


def test_other_threads_may_do_everything_while_a_flow_runs(tmp_path: Path) -> None:
    stop, failures = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            try:
                (tmp_path / "file").write_text("written")
            except Exception as error:
                failures.append(error)

    @flow("busy")
    async def busy() -> int:
        return sum(range(20_000))

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(100):
        Table(busy)
    stop.set()
    thread.join()
    assert failures == []


def test_printing_logging_warnings_and_imports_work(tmp_path: Path, capsys) -> None:
    logger = logging.getLogger("tests.flow.guard")
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    logger.addHandler(handler)
    (tmp_path / "late_module.py").write_text("VALUE = 7\n")

    @flow("chatty")
    async def chatty() -> int:
        print("printed")
        logger.warning("logged")
        try:
            raise ValueError("traced")
        except ValueError:
            logger.exception("with its traceback")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("warned", stacklevel=1)
        import late_module

        return late_module.VALUE

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert Table(chatty).output == 7
    handler.close()
    logger.removeHandler(handler)
    assert capsys.readouterr().out == "printed\n"
    assert "logged" in (tmp_path / "log").read_text()
    assert "ValueError: traced" in (tmp_path / "log").read_text()


def test_a_side_effect_may_do_everything() -> None:
    @flow("effect")
    async def effect() -> Any:
        return await side_effect(lambda: [Path(__file__).read_text() != "", time.time() > 1_000])

    assert Table(effect).output == [True, True]


def test_time_zones_are_read_as_ever() -> None:
    zoneinfo.ZoneInfo.clear_cache()

    @flow("zones")
    async def zones() -> str:
        return datetime.now(zoneinfo.ZoneInfo("Europe/Lisbon")).isoformat()

    assert Table(zones).output == "2026-11-18T11:06:40+00:00"


def test_a_run_that_is_alive_when_the_process_ends_makes_no_noise() -> None:
    script = (
        "from tests.unit.flows.test_lifecycle import tidy\n"
        "from tests.unit.flows.table import Table\n"
        "table = Table(tidy)\n"
    )
    command = [sys.executable, "-X", "dev", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_imports_that_would_bring_the_real_clock_are_refused_at_once() -> None:
    with pytest.raises(
        FlowDeclarationError, match=r"flow late: .*test_guard:\d+ imports time inside the function"
    ):

        @flow("late")
        async def late() -> Any:
            import time

            return time.time()

    with pytest.raises(FlowDeclarationError, match="imports random inside"):

        @flow("later")
        async def later() -> Any:
            def inner() -> float:
                from random import random

                return random()

            return inner()


def test_what_a_function_around_holds_is_replaced_too() -> None:
    import time as held

    @flow("held")
    async def holder(at: Any = held.monotonic) -> list[float]:
        return [held.time(), at()]

    assert Table(holder, {}).output == [1_795_000_000.0, 1_795_000_000.0]
