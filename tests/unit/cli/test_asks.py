from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.unit.cli.fakes import FakeClient, event, status
from wpa.errors import NotFound, TaskRejected, Unavailable

Wpa = Callable[..., Result]

ADA = {"source": "cli", "user_id": "ada"}
ENDED = TaskRejected("execution_ended", "it has ended [/red]")


def calls(client: FakeClient, name: str) -> list[Any]:
    return [what for called, what in client.calls if called == name]


def test_a_signal_with_a_payload_from_everywhere(wpa: Wpa, client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"n": 1}')
    for given, payload in (((), None), (("-p", "[1]"), [1]), (("-p", f"@{tmp_path}/p.json"), {"n": 1})):
        result = wpa("signal", "e1", "go", *given, "--id", "7", "--as", "ada")
        assert (result.exit_code, result.stdout) == (0, "e1 is told: go\n")
        assert calls(client, "signal")[-1] == ("e1", "go", payload, {"id": "7", "metadata": ADA})
    client.duplicate = True
    assert "before" in wpa("signal", "e1", "go").stdout
    assert json.loads(wpa("signal", "e1", "go", "--json").stdout)["duplicate"] is True
    refused = wpa("signal", "e1", "go", "-p", "{")
    assert refused.exit_code == 2
    assert "--payload: not JSON" in refused.stderr


def test_who_asks_is_who_is_named_or_wpa_user_or_who_is_logged_in(
    wpa: Wpa, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "login")
    wpa("pause", "e1")
    monkeypatch.setenv("WPA_USER", "env")
    wpa("pause", "e1")
    wpa("pause", "e1", "--user", "ada")
    users = [options["metadata"]["user_id"] for _, options in calls(client, "pause")]
    assert users == ["login", "env", "ada"]


@pytest.mark.parametrize(
    ("command", "words", "known"),
    [
        ("pause", "is paused", "was paused before"),
        ("resume", "goes on", "neither paused nor blocked"),
        ("cancel", "is being cancelled", "was cancelled before"),
        ("terminate", "is being terminated", "had been cancelled before"),
        ("retry", "is tried again", "under way"),
    ],
)
def test_several_at_once_and_one_that_refuses_does_not_keep_the_others(
    wpa: Wpa, client: FakeClient, command: str, words: str, known: str
) -> None:
    client.refuses["e2"] = ENDED
    result = wpa(command, "e1", "e2", "e3", "e1", "--reason", "why")
    assert result.exit_code == 2
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["e1", "e3"]
    assert words in result.stdout
    assert "execution_ended: it has ended [/red]" in result.stderr
    assert [what[0] for what in calls(client, command)] == ["e1", "e2", "e3"]
    assert calls(client, command)[0][1]["reason"] == "why"
    rows = json.loads(wpa(command, "e1", "e2", "--json").stdout)
    assert [(row["execution_id"], row["ok"]) for row in rows] == [("e1", True), ("e2", False)]
    assert rows[1]["error"]["code"] == "execution_ended"
    client.duplicate = True
    again = wpa(command, "e1")
    assert again.exit_code == 0
    assert known in again.stdout


def test_a_cancel_compensates_unless_it_is_told_not_to(wpa: Wpa, client: FakeClient) -> None:
    wpa("cancel", "e1")
    wpa("cancel", "e1", "--no-compensate")
    assert [options["compensate"] for _, options in calls(client, "cancel")] == [True, False]


def test_without_a_worker_nothing_is_asked_twice(wpa: Wpa, client: FakeClient) -> None:
    client.raises = Unavailable("no worker answers")
    result = wpa("pause", "e1", "e2")
    assert result.exit_code == 3
    assert len(calls(client, "pause")) == 1


def test_a_rerun_with_and_without_another_input(wpa: Wpa, client: FakeClient) -> None:
    assert wpa("rerun", "e1").stdout == "made\n"
    result = wpa("rerun", "e1", "--from", "b", "-i", "null", "--id", "new", "--as", "ada", "--json")
    assert json.loads(result.stdout)["forked_from"] == "e1"
    (_, first), (_, second) = calls(client, "rerun")
    assert "input" not in first
    assert second == {"from_step": "b", "new_execution_id": "new", "metadata": ADA, "input": None}


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("FAILED", 1)])
def test_a_rerun_may_be_waited_for(wpa: Wpa, client: FakeClient, state: str, code: int) -> None:
    client.ended = status(state)
    client.events = [event("workflow_started", next=["a"])]
    result = wpa("rerun", "e1", "--wait")
    assert result.exit_code == code
    assert state in result.stdout
    assert calls(client, "watch") == ["made"]


def test_migrate_moves_what_fits_and_says_why_the_others_do_not(wpa: Wpa, client: FakeClient) -> None:
    client.refuses["e2"] = TaskRejected("does_not_fit", "- recorded: a\n+ asked now: b")
    result = wpa("migrate", "e1", "e2", "--to", "2", "--as", "ada")
    assert result.exit_code == 1
    assert "e2  does_not_fit: - recorded: a" in result.stderr
    assert "1 moved to 2, 1 not" in result.stdout
    assert calls(client, "migrate")[0] == ("e1", "2", {"metadata": ADA})
    found = json.loads(wpa("migrate", "e1", "e2", "--to", "2", "--json").stdout)
    assert found["moved"] == ["e1"]
    assert found["refused"][0]["error"]["code"] == "does_not_fit"


@pytest.mark.parametrize(("version", "moved"), [("2", ["e1"]), ("1", [])])
def test_migrate_says_moved_of_what_was_seen_to_have_moved_only(
    wpa: Wpa, client: FakeClient, monkeypatch: pytest.MonkeyPatch, version: str, moved: list[str]
) -> None:
    monkeypatch.setattr("wpa.cli.asks.TAKEN_UP_WITHIN_S", 0.2)
    client.queued, client.ended = True, status("WAITING", version=version)
    found = json.loads(wpa("migrate", "e1", "--to", "2", "--json").stdout)
    assert (found["moved"], found["queued"]) == (moved, [] if moved else ["e1"])
    result = wpa("migrate", "e1", "--to", "2")
    assert (f"{len(moved)} moved to 2" in result.stdout, "1 queued" in result.stdout) == (True, not moved)
    assert ("e1  queued: see `wpa status`" in result.stderr) == (not moved)


def test_migrate_finds_those_of_a_workflow_and_a_version(wpa: Wpa, client: FakeClient) -> None:
    client.rows = [{"execution_id": "e1", "status": "WAITING"}, {"execution_id": "e2", "status": "PAUSED"}]
    client.rows.append({"execution_id": "e3", "status": "RUNNING"})
    client.ended = status(version="1")
    result = wpa("migrate", "--workflow", "order", "--from", "1", "--to", "2")
    assert result.exit_code == 0
    asked = {"limit": None, "status": "WAITING,PAUSED,RUNNING", "workflow": "order"}
    assert calls(client, "executions") == [asked]
    assert "1 are running" in result.stderr
    assert [what[0] for what in calls(client, "migrate")] == ["e1", "e2"]
    client.calls.clear()
    assert "0 moved" in wpa("migrate", "--workflow", "order", "--from", "7", "--to", "2").stdout
    assert calls(client, "migrate") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "2"), "give the executions' ids, or --workflow"),
        (("e1", "--workflow", "w", "--to", "2"), "give the executions' ids, or --workflow"),
        (("e1", "--from", "1", "--to", "2"), "goes with --workflow"),
        (("e1",), "--to"),
    ],
)
def test_migrate_says_how_it_is_used(
    wpa: Wpa, client: FakeClient, arguments: tuple[str, ...], words: str
) -> None:
    result = wpa("migrate", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert client.calls == []


def test_a_version_that_is_not_there_is_one_error(wpa: Wpa, client: FakeClient) -> None:
    client.raises = NotFound("unknown_version", "workflow order has no version '9'")
    result = wpa("migrate", "--workflow", "order", "--to", "9")
    assert result.exit_code == 2
    assert calls(client, "executions") == []


# -- approvals -------------------------------------------------------------------------------


def test_approvals_are_listed_with_those_who_may_and_those_who_have(wpa: Wpa, client: FakeClient) -> None:
    assert "nothing waits" in wpa("approvals", "list").stdout
    answer = {"by": {"user_id": "bob"}, "decision": "approved", "comment": "", "at": "t"}
    client.rows = [
        {
            "execution_id": "e1",
            "workflow_id": "order",
            "slot": "review:2",
            "step": "review",
            "since": "2026-01-02T03:04:05.678Z",
            "approval": {
                "message": "[/ship] it?", "users": ["ada"], "roles": ["boss"], "count": 2, "answers": [answer],
            },
        }
    ]  # fmt: skip
    text = wpa("approvals", "list").stdout
    for words in ("review:2", "ada, role boss", "1 of 2 (bob)", "2026-01-02T03:04:05Z", "[/ship] it?"):
        assert words in text
    assert json.loads(wpa("approvals", "list", "--json").stdout) == client.rows
    client.rows *= 3
    cut = wpa("approvals", "list", "--limit", "2", "--json")
    assert len(json.loads(cut.stdout)) == 2
    assert "2 of 3" in cut.stderr


def test_who_may_approve_is_not_made_up(wpa: Wpa, client: FakeClient) -> None:
    nothing = {"message": "", "users": [], "roles": [], "count": 1, "answers": [], "unknown": True}
    row = {"execution_id": "e1", "workflow_id": "order", "slot": "review", "step": "review", "since": "t"}
    client.rows = [{**row, "approval": nothing}]
    text = wpa("approvals", "list").stdout
    assert "0 of ?" in text
    assert "whom its code names" in text
    assert "anybody" not in text


@pytest.mark.parametrize(("command", "verdict"), [("approve", "approved"), ("reject", "rejected")])
def test_answers_are_given_in_somebodys_name(
    wpa: Wpa, client: FakeClient, command: str, verdict: str
) -> None:
    given = ("--as", "ada", "--role", "boss", "--role", "cfo", "--comment", "fine")
    result = wpa("approvals", command, "e1", "review", *given)
    assert (result.exit_code, result.stdout) == (0, f"e1: review is {verdict} by ada\n")
    options = {"user": "ada", "roles": ["boss", "cfo"], "comment": "fine"}
    assert calls(client, command) == [("e1", "review", options)]
    client.duplicate = True
    assert "the first answer counts" in wpa("approvals", command, "e1", "review").stdout
    client.refuses["e1"] = TaskRejected("not_allowed", "eve may not answer review; those who may: ada")
    refused = wpa("approvals", command, "e1", "review", "--as", "eve")
    assert refused.exit_code == 2
    assert "those who may: ada" in refused.stderr


# -- schedules and workers -------------------------------------------------------------------


def test_schedules_are_listed_and_steered(wpa: Wpa, client: FakeClient) -> None:
    assert "nothing is scheduled" in wpa("schedule", "list").stdout
    row = {
        "workflow_id": "report",
        "version": "1",
        "schedule": "0 0 6 * * *",
        "time_zone": "Europe/Zurich",
        "paused": False,
        "next_at": "2026-01-02T05:00:00.000Z",
        "last_fired_at": None,
        "last_execution_id": None,
        "started": 3,
        "skipped": 1,
        "missed": 0,
    }
    client.rows = [row, {**row, "workflow_id": "other", "paused": True}]
    text = wpa("schedule", "list").stdout
    assert "0 0 6 * * * Europe/Zurich" in text
    assert "2026-01-02T05:00:00Z" in text
    assert "paused" in text.splitlines()[2]
    assert json.loads(wpa("schedule", "list", "--json").stdout) == client.rows
    client.rows = [
        {**row, "schedule": f"@every {seconds}s", "time_zone": ""} for seconds in (600, 90, 86_400)
    ]
    assert [
        line
        for line in ("@every 10m ", "@every 90s ", "@every 1d ")
        if line in wpa("schedule", "list").stdout
    ] == [
        "@every 10m ",
        "@every 90s ",
        "@every 1d ",
    ]
    for command, words in (("pause", "is paused"), ("resume", "goes on"), ("delete", "is deleted")):
        assert words in wpa("schedule", command, "report").stdout
        assert calls(client, f"{command}_schedule") == ["report"]
    assert wpa("schedule", "trigger", "report").stdout == "report-now\n"
    named = wpa("schedule", "trigger", "report", "--id", "r1", "--json").stdout
    assert json.loads(named)["execution_id"] == "r1"


def test_workers_are_listed(wpa: Wpa, client: FakeClient) -> None:
    client.rows = [
        {
            "worker": "w1", "host": "h", "pid": 7, "version": "1", "started_at": "t", "queues": ["gpu"],
            "step_types": ["a.b", "a.c.d", "core.echo"],
        }
    ]  # fmt: skip
    text = wpa("workers").stdout
    assert "gpu" in text
    assert "a 2, core 1" in text
    assert "a.b" not in text
    assert "a.b, a.c.d, core.echo" in wpa("workers", "--steps").stdout
