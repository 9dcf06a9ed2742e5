from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.unit.cli.fakes import FakeClient, event, status
from wpa.cli import executions
from wpa.cli.common import make_console
from wpa.errors import TaskRejected, Unavailable

Wpa = Callable[..., Result]


def started(client: FakeClient) -> tuple[str, Any, dict[str, Any]]:
    (call,) = [what for name, what in client.calls if name == "start"]
    return call


def test_start_sends_what_was_typed(wpa: Wpa, client: FakeClient) -> None:
    result = wpa(
        *("start", "order", "-i", '{"n": 1}', "--id", "o1", "--version", "2", "--priority", "9"),
        *("--var", "a=1", "--var", "b=plain text", "--var", 'c={"d": null}', "--tenant", "acme"),
        *("--nats", "nats://h:1", "--start-at", "2026-11-20T10:00:00Z", "--as", "ada"),
    )
    assert (result.exit_code, result.stdout) == (0, "o1\n")
    assert client.calls[0] == ("connect", ("nats://h:1", "acme"))
    workflow, data, options = started(client)
    assert (workflow, data) == ("order", {"n": 1})
    assert options["variables"] == {"a": 1, "b": "plain text", "c": {"d": None}}
    assert (options["execution_id"], options["version"], options["priority"]) == ("o1", "2", 9)
    assert options["start_at"] == "2026-11-20T10:00:00Z"
    assert options["metadata"] == {"source": "cli", "user_id": "ada"}


def test_a_start_in_the_past_says_that_it_is_now(wpa: Wpa, client: FakeClient) -> None:
    result = wpa("start", "order", "--id", "o1", "--start-at", "2020-01-01T00:00:00Z")
    assert (result.exit_code, result.stdout) == (0, "o1\n")
    assert "2020-01-01T00:00:00Z is past: it begins at once" in result.stderr
    assert "past" not in wpa("start", "order", "--start-at", "2999-01-01T00:00:00Z").stderr


def test_input_comes_from_a_file_or_standard_input_too(wpa: Wpa, client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"from": "file ü"}', encoding="utf-8")
    assert wpa("start", "w", "-i", f"@{tmp_path}/in.json").exit_code == 0
    assert started(client)[1] == {"from": "file ü"}
    client.calls.clear()
    assert wpa("start", "w", "-i", "-", input='{"from": "stdin"}').exit_code == 0
    assert started(client)[1] == {"from": "stdin"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-i", "{"), "--input: not JSON"),
        (("-i", '{"a": NaN}'), "NaN is not JSON"),
        (("-i", '{"a": 1e400}'), "1e400 is more than a number can be"),
        (("-i", "[-Infinity]"), "-Infinity is not JSON"),
        (("-i", "@[/red].json"), "[/red].json can't be read"),
        (("-i", "[" * 100_000), "nested too deeply"),
        (("--var", "[/x]"), "'[/x]' must look like NAME=JSON"),
        (("--var", "=1"), "must look like NAME=JSON"),
        (("--priority", "10"), "--priority"),
    ],
)
def test_bad_input_is_named_and_sends_nothing(
    wpa: Wpa, client: FakeClient, arguments: tuple[str, ...], words: str
) -> None:
    result = wpa("start", "w", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert client.calls == []


@pytest.mark.parametrize(
    ("state", "code"), [("COMPLETED", 0), ("FAILED", 1), ("ROLLED_BACK", 1), ("CANCELLED", 1)]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_start_and_wait_exits_as_the_execution_ended(
    wpa: Wpa, client: FakeClient, state: str, code: int, as_json: bool
) -> None:
    client.ended = status(state, error={"type": "Refused", "message": "no"} if code else None)
    client.events = [event("workflow_started", next=["a"])]
    result = wpa("start", "w", "--wait", *(["--json"] if as_json else []))
    assert result.exit_code == code
    if as_json:
        assert json.loads(result.stdout)["status"] == state
    else:
        assert state in result.stdout
        assert ("Refused: no" in result.stdout) is bool(code)


def test_who_waits_is_told_what_for_at_once(wpa: Wpa, client: FakeClient) -> None:
    client.ended = status("COMPLETED")
    result = wpa("start", "w", "--wait", "--json", "--id", "o-1")
    assert result.stderr == "o-1\n"
    assert json.loads(result.stdout)["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("error", "code"), [(TaskRejected("unknown_workflow", "w"), 2), (Unavailable("no worker"), 3)]
)
def test_what_the_engine_refuses_is_told(wpa: Wpa, client: FakeClient, error: Exception, code: int) -> None:
    client.raises = error
    result = wpa("start", "w")
    assert result.exit_code == code
    assert result.stdout == ""
    assert str(error.args[0]).split(":")[0] in result.stderr


def test_history_as_a_table_in_full_and_as_json(wpa: Wpa, client: FakeClient) -> None:
    client.events = [
        event("workflow_started", 1, next=["a"], input={"n": 1}),
        event(
            "workflow_step_failed",
            2,
            step="a",
            attempt=1,
            final=True,
            error={"type": "Boom", "message": "at \x1b[31mnight", "retryable": False},
        ),
    ]
    table = wpa("history", "e1").stdout
    assert "next: a" in table
    assert "a #1: Boom: at ␛[31mnight; gives up" in table
    assert '"input": {"n": 1}' in wpa("history", "e1", "--full").stdout
    assert json.loads(wpa("history", "e1", "--json").stdout) == client.events


def test_what_is_cut_says_so(wpa: Wpa, client: FakeClient) -> None:
    client.events = [event("workflow_paused", 1, reason="rrr… (9000 characters)", by={}) | {"cut": 9_400}]
    assert "rrr… (9000 characters)  (cut: 9,400 bytes in all)" in wpa("history", "e1").stdout
    client.ended = status("COMPLETED") | {"cut": 2_000_000}
    assert "(cut: 2,000,000 bytes in all)" in wpa("status", "e1").stdout


def test_a_list_in_a_pipe_is_not_cut(wpa: Wpa, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr(executions, "console", make_console())
    name = "x" * 128
    client.rows = [
        {
            "execution_id": name,
            "workflow_id": "order",
            "status": "RUNNING",
            "last_event": "workflow_started",
            "timestamp": "2026-01-02T03:04:05.678Z",
            "events": 1,
        }
    ]
    result = wpa("list", "--status", "running", "--workflow", "order", "-n", "5")
    assert name in result.stdout
    assert client.calls[-1] == ("executions", {"limit": 5, "status": "running", "workflow": "order"})


def test_a_list_shows_what_is_waited_for(wpa: Wpa, client: FakeClient) -> None:
    row = {"workflow_id": "w", "last_event": "workflow_waiting", "timestamp": "2026-01-02T03:04:05.678Z"}
    row |= {"status": "WAITING", "events": 3}
    signal = {"slot": "a", "step": "a", "kind": "signal", "name": "[/x]", "until": "2026-01-03T00:00:00.000Z"}
    failure = {"type": "NonDeterminism", "message": "m"}
    client.rows = [
        {**row, "execution_id": "e1", "waiting_for": [signal, signal, signal]},
        {**row, "execution_id": "e2", "waiting_for": [], "until": "2026-01-04T00:00:00.000Z"},
        {**row, "execution_id": "e3", "waiting_for": [], "blocked": failure},
        {**row, "execution_id": "e4"},
    ]
    lines = wpa("list").stdout.splitlines()
    assert "signal [/x] (a) until 2026-01-03T00:00:00Z and 2 more" in lines[1]
    assert lines[2].rstrip().endswith("until 2026-01-04T00:00:00Z")
    assert lines[3].rstrip().endswith("blocked: NonDeterminism")


def test_an_empty_list_says_why(wpa: Wpa, client: FakeClient) -> None:
    assert "no executions yet" in wpa("list").stdout
    assert "no execution is like that" in wpa("list", "--status", "FAILED").stdout
    refused = wpa("list", "--status", "done")
    assert refused.exit_code == 2
    assert "COMPLETED" in refused.stderr


@pytest.mark.parametrize(("last", "code"), [("workflow_completed", 0), ("workflow_rolled_back", 1)])
def test_watch_as_json_is_one_event_a_line(wpa: Wpa, client: FakeClient, last: str, code: int) -> None:
    client.events = [event("workflow_started", next=["a"]), event(last, 2)]
    result = wpa("watch", "e1", "--json")
    assert result.exit_code == code
    assert [json.loads(line) for line in result.stdout.splitlines()] == client.events
