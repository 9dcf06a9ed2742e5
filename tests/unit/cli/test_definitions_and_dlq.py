from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.cli.fakes import FakeClient, status, step
from wpa.errors import DefinitionError, Problem, TaskRejected

Wpa = Callable[..., Result]

GOOD = {"id": "greet", "version": "1", "steps": [{"id": "a", "uses": "core.echo", "with": {"x": 1}}]}


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "greet.json"
    path.write_text(json.dumps(GOOD))
    return str(path)


def test_deploy_sends_each_file(wpa: Wpa, client: FakeClient, good: str) -> None:
    result = wpa("deploy", good, good)
    assert result.exit_code == 0
    assert result.stdout == "greet 1 deployed\n" * 2
    assert [what for name, what in client.calls if name == "deploy"] == [GOOD, GOOD]


def test_what_is_wrong_with_a_definition_is_told_with_its_file(
    wpa: Wpa, client: FakeClient, good: str
) -> None:
    client.raises = DefinitionError([Problem("$.steps[0].uses", "no such step type", "did you mean x")])
    result = wpa("deploy", good)
    assert result.exit_code == 2
    for words in ("greet.json is not deployed", "$.steps[0].uses", "did you mean x", "1 problem\n"):
        assert words in result.stderr


def test_a_bad_file_keeps_no_other_from_being_deployed(
    wpa: Wpa, client: FakeClient, good: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    result = wpa("deploy", str(bad), good)
    assert result.exit_code == 2
    assert result.stdout == "greet 1 deployed\n"
    assert "bad.json is not deployed:" in result.stderr
    assert f"1 of 2 files not deployed: {bad}" in result.stderr
    client.raises = TaskRejected("version_conflict", "greet 1 is deployed already")
    taken = wpa("deploy", good)
    assert taken.exit_code == 2
    assert "greet.json is not deployed: version_conflict: greet 1 is deployed already" in taken.stderr


def test_as_json_it_is_one_list_of_what_became_of_each_file(
    wpa: Wpa, client: FakeClient, good: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    result = wpa("deploy", good, str(bad), "--json")
    assert result.exit_code == 2
    first, second = json.loads(result.stdout)
    assert first == {
        "file": good, "ok": True, "workflow_id": "greet", "version": "1", "hash": "abc", "created": True,
    }  # fmt: skip
    assert (second["file"], second["ok"]) == (str(bad), False)
    assert second["error"]["code"] == "invalid_definition"
    assert second["error"]["problems"]


def test_a_plan_that_hides_a_flow_is_told(wpa: Wpa, client: FakeClient, good: str) -> None:
    client.hides_flow = True
    assert "greet hides the flow of the same name" in wpa("deploy", good).stderr
    row = {"workflow_id": "greet", "version": "1", "latest": True, "deployed_at": "t", "deployed_by": "ana"}
    client.rows = [
        {**row, "kind": "plan", "hash": "a"},
        {**row, "kind": "flow", "hash": "b"},
        {**row, "workflow_id": "other", "kind": "flow", "hash": "c"},
    ]
    lines = wpa("definitions").stdout.splitlines()
    assert ["hidden by the plan" in line for line in lines] == [False, False, True, False]


def test_validate_knows_the_steps_of_a_module(
    wpa: Wpa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "greeting_steps.py").write_text(
        "from wpa import step\n\n@step('greeting.say')\ndef say(name: str) -> None: ...\n"
    )
    document = tmp_path / "greet.json"
    document.write_text(
        json.dumps({**GOOD, "steps": [{"id": "a", "uses": "greeting.say", "with": {"name": "x"}}]})
    )
    assert wpa("validate", str(document)).exit_code == 2
    assert wpa("validate", "--flows", str(tmp_path / "greeting_steps.py"), str(document)).exit_code == 0
    missing = wpa("validate", "--flows", "nowhere.py", str(document))
    assert missing.exit_code == 2
    assert "--flows: " in missing.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "line 1"), (b"\xff", "not UTF-8"), (None, "can't be read"), (b'{"id": 1, "id": 2}', "id")],
)
def test_an_unreadable_file_is_a_problem_not_a_traceback(
    wpa: Wpa, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "[bad].json"
    if content is not None:
        path.write_bytes(content)
    result = wpa("validate", "--any-step", str(path))
    assert result.exit_code == 2
    assert "[bad].json" in result.stderr
    assert words in result.stderr


def test_validate_goes_through_all_files(wpa: Wpa, good: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("id: bad\nversion: '1'\nsteps:\n- {id: a, uses: core.ecko}\n")
    result = wpa("validate", str(bad), good)
    assert result.exit_code == 2
    assert "core.echo" in result.stderr
    assert "greet.json is fine" in result.stdout


def test_graph_goes_to_a_file_or_to_the_terminal(
    wpa: Wpa, client: FakeClient, good: str, tmp_path: Path
) -> None:
    assert wpa("graph", good).stdout.startswith("flowchart")
    client.ended = status("FAILED", steps=[step("a", "failed")])
    out = tmp_path / "out.svg"
    assert wpa("graph", good, "-o", str(out), "--execution", "e1").exit_code == 0
    assert out.read_text().lstrip().startswith("<")
    assert wpa("graph", good, "-f", "png").exit_code == 2
    nowhere = wpa("graph", good, "-o", str(tmp_path / "no" / "out.svg"))
    assert nowhere.exit_code == 2
    assert "can't be written" in nowhere.stderr


def test_schemas_are_printed_written_and_compared(
    wpa: Wpa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(wpa("schema", "task").stdout)["$schema"]
    assert json.loads(wpa("schema", "asyncapi").stdout)["asyncapi"].startswith("3.")
    assert wpa("schema", "nope").exit_code == 2
    assert wpa("schema", "--check").exit_code == 1
    assert "4 changed" in wpa("schema", "--out-dir", "schemas").stdout
    assert wpa("schema", "--check").exit_code == 0
    (tmp_path / "schemas" / "task.schema.json").write_text("{}")
    stale = wpa("schema", "--check")
    assert stale.exit_code == 1
    assert stale.stderr.startswith("task.schema.json differ")


LETTER = {
    "sequence": 7,
    "code": "not_json",
    "message": "broken at [/byte] 3",
    "timestamp": "2026-01-02T03:04:05.678Z",
    "size": 9,
    "subject": "workflow.tasks.default",
    "headers": {},
    "text": "\x1b]0;owned\x07 [red]",
    "base64": "",
}


def test_dead_letters_are_listed_shown_and_retried(wpa: Wpa, client: FakeClient) -> None:
    assert "no dead letters" in wpa("dlq", "list").stdout
    client.letter = LETTER
    assert "broken at [/byte] 3" in wpa("dlq", "list").stdout
    assert json.loads(wpa("dlq", "list", "--json").stdout) == [LETTER]
    assert json.loads(wpa("dlq", "show", "7", "--json").stdout) == LETTER
    assert "task 42" in wpa("dlq", "retry", "7").stdout
    assert client.calls[-1] == ("dlq_retry", 7)


def test_a_dead_letter_cannot_command_the_terminal(wpa: Wpa, client: FakeClient) -> None:
    client.letter = LETTER
    shown = wpa("dlq", "show", "7").stdout
    assert "␛]0;owned␇ [red]" in shown
    assert "\x1b" not in shown
