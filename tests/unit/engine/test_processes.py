"""Steps in processes, through the runner: what they are given, what they may do, and how they end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, computed_field

from wpa.adapters.memory.clock import VirtualClock
from wpa.engine.runner import StepCall, StepRunner
from wpa.hooks.steps import step, step_type_of
from wpa.ports.steps import StepContext, StepType

ROOT = Path(__file__).parents[3]


class Total(BaseModel):
    """What it dumps to is not what it takes: another name, and a field that is computed."""

    net: int = Field(validation_alias="net", serialization_alias="NET")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> int:
        return self.net * 2


@step("p.do", isolation="process")
def do(ctx: StepContext, what: str, path: str = "", seconds: float = 60.0, value: Any = None) -> Any:
    if what == "hang":
        Path(path).write_text(str(os.getpid()))
        try:
            time.sleep(seconds)
        finally:
            Path(path).write_text("cleaned up")
    if what == "hang stubbornly":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(path).write_text(str(os.getpid()))
        time.sleep(seconds)
    if what == "say":
        ctx.log.info("a line")
        logging.getLogger("library").warning("another")
        ctx.progress_sync(10, "with", page=1)
        ctx.progress_sync(20, "without", page=object())
        ctx.heartbeat()
        return asyncio.run(ctx.emit("said", {"a": [1]}))
    if what == "emit anywhere":
        return asyncio.run(ctx.emit("a.>", 1))
    if what == "read":
        return sys.stdin.read()
    if what == "close the output":
        for fd in range(3, 20):
            try:
                os.close(fd)
            except OSError:
                continue
        time.sleep(0.1)
    if what == "nan":
        return [float("nan")]
    if what == "about":
        return [
            ctx.tenant,
            ctx.workflow,
            ctx.execution,
            ctx.step,
            ctx.attempt,
            ctx.idempotency_key,
            ctx.metadata,
        ]
    return value


@step("p.total", isolation="process")
def total(net: int) -> Total:
    return Total(net=net)


class Catalog:
    def __init__(self, *functions: Any) -> None:
        self.types = {found.name: found for found in map(step_type_of, functions) if found}

    def get(self, name: str) -> StepType | None:
        return self.types.get(name)

    def names(self) -> list[str]:
        return sorted(self.types)


class Heard:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.published: list[tuple[str, bytes]] = []

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        self.events.append(body)

    def publish(self, subject: str, data: bytes) -> None:
        self.published.append((subject, data))

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int) -> None: ...

    async def on_nudge(self, worker: str, callback: Any) -> None: ...


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def runner(heard: Heard) -> AsyncIterator[StepRunner]:
    runner = StepRunner(Catalog(do, total), heard, VirtualClock(), "w1", threads=1, processes=1)
    yield runner
    await runner.aclose()


def call(uses: str = "p.do", timeout_s: float | None = None, **inputs: Any) -> StepCall:
    return StepCall(
        tenant="t", workflow="w", execution="x", step="s", slot="s", uses=uses, inputs=inputs, attempt=2,
        idempotency_key="x:s:1", metadata={"source": "api"}, timeout_s=timeout_s,
    )  # fmt: skip


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Any, what: str) -> None:
    for _ in range(250):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail(what)


def pid_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().isdigit() else 0


async def test_it_knows_what_any_step_knows(runner: StepRunner) -> None:
    result = await runner.run(call(what="about"))
    assert result.output == ["t", "w", "x", "s", 2, "x:s:1", {"source": "api"}]


async def test_data_passes_unchanged_in_both_directions(runner: StepRunner) -> None:
    value = {"big": 2**63 - 1, "ñ": ["ü", None, 1.5, {"deep": [[]]}], "text": "x" * 300_000}
    result = await runner.run(call(what="return", value=value))
    assert result.output == value
    assert result.raw is not None
    assert json.loads(result.raw) == value


async def test_a_typed_output_is_dumped_once(runner: StepRunner) -> None:
    result = await runner.run(call("p.total", net=3))
    assert result.error is None
    assert result.output == {"NET": 3, "gross": 6}


async def test_what_it_says_is_said_by_the_worker(
    runner: StepRunner, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = await runner.run(call(what="say"))
    assert result.output == "workflow.emit.t.said"
    assert heard.published == [("workflow.emit.t.said", b'{"a":[1]}')]
    await asyncio.sleep(0)
    told = [(event["event"], event.get("message")) for event in heard.events]
    assert told[:2] == [("step_progress", "with"), ("step_progress", "without")]
    lines = {(record.name, record.levelno, record.getMessage()) for record in caplog.records}
    assert ("wpa.step", logging.INFO, "[t.x s#2] a line") in lines
    assert ("library", logging.WARNING, "another") in lines
    bound = next(record for record in caplog.records if record.getMessage().endswith("a line"))
    assert vars(bound)["execution"] == "x"


async def test_the_rules_are_those_of_any_step(runner: StepRunner) -> None:
    for what, kind in (("emit anywhere", "InvalidInput"), ("nan", "InvalidOutput")):
        error = (await runner.run(call(what=what))).error
        assert error is not None
        assert (error.type, error.retryable) == (kind, False)


async def test_it_cannot_read_the_frames_nor_hang_the_worker_by_closing_them(runner: StepRunner) -> None:
    assert (await runner.run(call(what="read"))).output == ""
    began = time.monotonic()
    error = (await runner.run(call(what="close the output"))).error
    assert error is not None
    assert error.type == "ProcessDied"
    assert time.monotonic() - began < 10
    assert (await runner.run(call(what="return", value=1))).output == 1


async def test_a_time_out_lets_it_clean_up(runner: StepRunner, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert (await runner.run(call(what="return", value=1))).output == 1  # a process is there
    attempt = asyncio.create_task(runner.run(call(what="hang", path=str(path), timeout_s=4.0)))
    await until(lambda: pid_in(path), "the step has not begun")
    pid = pid_in(path)
    error = (await attempt).error
    assert error is not None
    assert error.type == "Timeout"
    assert path.read_text() == "cleaned up"
    await until(lambda: not alive(pid), "the process is still there")


async def test_cancelling_ends_it_whether_it_wants_to_or_not(runner: StepRunner, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    attempt = asyncio.create_task(runner.run(call(what="hang stubbornly", path=str(path))))
    await until(lambda: pid_in(path), "the step has not begun")
    pid = pid_in(path)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert not alive(pid)
    assert (await runner.run(call(what="return", value=1))).output == 1


async def test_closing_ends_what_runs_and_starts_nothing_more(runner: StepRunner, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    attempt = asyncio.create_task(runner.run(call(what="hang", path=str(path))))
    waiting = asyncio.create_task(runner.run(call(what="return")))
    await until(lambda: pid_in(path), "the step has not begun")
    pid = pid_in(path)
    await runner.aclose()
    await until(lambda: not alive(pid), "the process is still there")
    for result in (await attempt, await waiting, await runner.run(call(what="return"))):
        assert result.error is not None
        assert result.error.retryable


ORPHANING = """
import asyncio, os, signal, sys
sys.path.insert(0, {root!r})
from tests.unit.engine.test_processes import Catalog, Heard, VirtualClock, StepRunner, call, do, pid_in
from pathlib import Path

async def main():
    runner = StepRunner(Catalog(do), Heard(), VirtualClock(), "w1", threads=1, processes=1)
    task = asyncio.ensure_future(runner.run(call(what={what!r}, path={path!r})))
    while not pid_in(Path({path!r})):
        await asyncio.sleep(0.01)
    print(pid_in(Path({path!r})), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["hang", "hang stubbornly"])
async def test_it_does_not_outlive_its_worker(tmp_path: Path, what: str) -> None:
    """Another worker is about to run the same step again."""
    script = ORPHANING.format(root=str(ROOT), what=what, path=str(tmp_path / "pid"))
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=30, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    pid = int(killed.stdout)
    await until(lambda: not alive(pid), "the process has outlived its worker")
