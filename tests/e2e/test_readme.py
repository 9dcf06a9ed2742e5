"""What the README shows is what happens: its commands and snippets are taken from it and run."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from tests.e2e.processes import EXAMPLES, WPA, Wpa, run_wpa
from tests.e2e.test_any_language import NODE, needs_node
from tests.waiting import PATIENCE_S
from wpa.testing import WorkflowEnvironment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str, containing: str) -> list[str]:
    """The fenced blocks of a language that contain a word."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for text in found if containing in text]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a user would have it: examples, and ``wpa dev`` with its data in .wpa."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(EXAMPLES, home / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    dev = Wpa("dev", "--port", "0", "--data-dir", str(home / ".wpa"), log=home / "dev.log").wait_ready()
    yield home
    assert dev.stop(signal.SIGINT) == 0


@pytest.fixture
def url(home: Path) -> str:
    done = run_wpa("deploy", "examples/decision.json", cwd=home)
    assert done.returncode == 0, done.stderr
    return str(json.loads((home / ".wpa" / "wpa.json").read_text())["url"])


async def sh(commands: str, home: Path) -> str:
    """What a shell in that folder prints for them; the first that fails ends it."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-e", "-c", commands, cwd=home,
        env={**os.environ, "PATH": f"{Path(WPA).parent}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_commands_of_the_second_shell(home: Path) -> None:
    (commands,) = blocks("", "wpa deploy examples/decision.json")
    out = await sh(commands, home)
    assert "COMPLETED" in out
    assert '{"taken": "review"}' in out


async def test_the_approval_that_waits(home: Path) -> None:
    (commands,) = blocks("", "wpa approvals list")
    out = await sh(commands, home)
    assert "Pay 250000 cents to Acme?" in out
    assert "0 of 2" in out
    assert '{"approved": true}' in out


def test_the_definition_is_valid() -> None:
    (text,) = blocks("json", '"steps"')
    done = run_wpa("validate", "/dev/stdin", stdin=text)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("cents", "approved"), [(5, None), (100_001, True), (100_001, False)])
def test_the_flow(cents: int, approved: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = blocks("python", "@flow(")
    (tmp_path / "readme_flow.py").write_text(snippet)
    monkeypatch.syspath_prepend(tmp_path)
    order = importlib.import_module("readme_flow").order
    mocks = {
        "orders.reserve": {"reservation_id": "r", "total_cents": cents},
        "orders.release": {"id": "r", "changed": True},
        "orders.ship": {"shipment_id": "s", "tracking": "WPA1"},
        "orders.cancel_shipment": None,
    }
    with WorkflowEnvironment(order, mocks=mocks) as env:
        run = env.start({"order_id": "o", "items": [], "address": {}})
        if approved is not None:
            answer = run.approve if approved else run.reject
            answer("approval", user="eva", roles=["finance"], at="2h")
        result = run.result()
    assert (result.status, result.output) == (
        ("ROLLED_BACK", None) if approved is False else ("COMPLETED", "WPA1")
    )


async def test_the_python_snippet(url: str) -> None:
    (snippet,) = blocks("python", "nats.connect")
    ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def on_event(message: Msg) -> None:
        event = json.loads(message.data)
        if event["event"] == "workflow_completed" and not ended.done():
            ended.set_result(event)

    names: dict[str, Any] = {"on_event": on_event, "nats": nats}
    code = compile(
        snippet.replace("nats://127.0.0.1:4222", url), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    await eval(code, names)
    event = await asyncio.wait_for(ended, PATIENCE_S)
    assert event["data"]["output"] == {"taken": "approve"}
    await names["nc"].close()


@needs_node
async def test_the_node_snippet(url: str) -> None:
    (snippet,) = blocks("js", "connect(")
    assert "import { connect }" in snippet
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "--eval", snippet.replace("nats://127.0.0.1:4222", url),
        cwd=NODE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[str] = []
    try:
        async with asyncio.timeout(30):
            while not seen or seen[-1] != "workflow_completed":
                line = (await process.stdout.readline()).decode()
                assert line, f"it ended after {seen}"
                seen.append(line.strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert seen[0] == "workflow_started"
    assert "workflow_decision_point" in seen
