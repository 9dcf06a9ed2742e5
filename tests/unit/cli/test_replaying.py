from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from tests.unit.cli.fakes import FakeClient
from wpa.testing import run
from wpa.wire import plugin_host

Wpa = Callable[..., Result]

PLAN: dict[str, Any] = {
    "id": "nap",
    "version": "1",
    "steps": [
        {"id": "sleep", "uses": "core.sleep", "with": {"for": "1h"}},
        {"id": "wake", "uses": "core.echo", "needs": ["sleep"], "with": {"text": "${input.text}"}},
        {"id": "rise", "uses": "core.noop", "needs": ["wake"]},
    ],
    "output": "${steps.wake.output.text}",
}
OTHER = {**PLAN, "steps": [{"id": "awake", "uses": "core.noop"}, *PLAN["steps"][1:2]], "version": "2"}
OTHER["steps"][1] = {**OTHER["steps"][1], "needs": ["awake"]}

FLOW = """
import asyncio

from wpa import call, flow


@flow("doze")
async def doze() -> None:
    {first}
    {second}
"""
SLEEP, LOG = "await asyncio.sleep(3600)", 'await call("core.log", message="awake")'


def recorded(text: str = "good morning") -> list[dict[str, Any]]:
    return json.loads(msgspec.json.encode(run(PLAN, {"text": text}).events))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nap.json").write_text(json.dumps(PLAN))
    (tmp_path / "other.json").write_text(json.dumps(OTHER))
    (tmp_path / "journals").mkdir()
    (tmp_path / "journals" / "n-1.json").write_text(json.dumps(recorded()))
    return tmp_path


@pytest.mark.parametrize("given", ["journals", "journals/n-1.json"])
def test_files_that_replay(wpa: Wpa, folder: Path, given: str) -> None:
    result = wpa("replay", given, "--definition", "nap.json")
    assert (result.exit_code, result.stdout) == (0, "nap-1  nap  7 events  replays\n")


def test_one_that_does_not(wpa: Wpa, folder: Path) -> None:
    result = wpa("replay", "journals", "--definition", "other.json")
    assert result.exit_code == 1
    assert "nap-1  nap  7 events  diverges at event 1\n" in result.stdout
    assert "  - recorded: timer sleep" in result.stdout


def test_as_json(wpa: Wpa, folder: Path) -> None:
    result = wpa("replay", "journals", "--definition", "other.json", "--json")
    (row,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (row["execution_id"], row["workflow_id"], row["events"], row["diverges_at"]) == (
        "nap-1",
        "nap",
        7,
        1,
    )


def test_flows(wpa: Wpa, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (folder / "doze_before.py").write_text(FLOW.format(first=SLEEP, second=LOG))
    (folder / "doze_after.py").write_text(FLOW.format(first=LOG, second=SLEEP))
    (folder / "d-1.json").write_bytes(
        msgspec.json.encode(run(plugin_host(["doze_before.py"]).flows()["doze"]).events)
    )
    assert wpa("replay", "d-1.json", "--flows", "doze_before.py").exit_code == 0
    changed = wpa("replay", "d-1.json", "--flows", "doze_after.py")
    assert (changed.exit_code, "+ asked now: step core_log" in changed.stdout) == (1, True)


def test_executions_with_their_large_payloads(wpa: Wpa, folder: Path, client: FakeClient) -> None:
    text = "x" * 100_000
    stored = {
        hashlib.sha256(data).hexdigest()[:32]: data
        for data in map(msgspec.json.encode, [text, {"text": text}])
    }
    fetched = []

    async def payload(key: str) -> bytes:
        fetched.append(key)
        return stored[key.rpartition("/")[2]]

    client.events = recorded(text)
    client.events[0]["data"]["variables"] = {"somebody": {"else": {"$blob": {"key": "no key of ours"}}}}
    client.payload = payload  # type: ignore[attr-defined]
    result = wpa("replay", "n-1", "--definition", "nap.json", "--tenant", "acme")
    assert result.exit_code == 0, result.output
    assert ("history", "n-1") in client.calls
    assert len(fetched) == len(stored)


def test_one_that_is_cut_is_not_checked(wpa: Wpa, folder: Path, client: FakeClient) -> None:
    client.events = [{**event, "cut": 9_000_000} for event in recorded("text")]
    result = wpa("replay", "n-1", "--definition", "nap.json", "--tenant", "acme")
    assert result.exit_code == 2
    assert "the journal is not whole: event 1 was cut" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["journals"], "nap-1 ran workflow nap, which is not here; give it with --flows or --definition"),
        (["nowhere.json", "--definition", "nap.json"], "nowhere.json can't be read"),
        (["journals", "--flows", "nowhere.py"], "--flows: "),
        (["journals", "--definition", "nowhere.json"], "nowhere.json can't be read"),
        (["nap.json", "--definition", "nap.json"], "nap.json is no list of events"),
    ],
)
def test_what_can_not_be_checked(wpa: Wpa, folder: Path, arguments: list[str], complaint: str) -> None:
    result = wpa("replay", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
