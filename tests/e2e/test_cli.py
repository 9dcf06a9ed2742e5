"""The command line, as a user types it."""

from __future__ import annotations

import json
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from wpa_orders import inspect, seed

from tests.e2e.processes import EXAMPLES, Wpa, invoke_wpa, run_wpa

Invoke = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def dev(home: Path) -> Iterator[Wpa]:
    seed(home / "shop.db")
    arguments = ("dev", "--port", "0", "--data-dir", str(home / ".wpa"), "--definitions", str(EXAMPLES))
    dev = Wpa(*arguments, log=home / "dev.log", env={"WPA_SHOP_DB": str(home / "shop.db")}).wait_ready()
    yield dev
    assert dev.stop(signal.SIGINT) == 0


@pytest.fixture
def wpa(dev: Wpa, home: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Commands as they are typed in the folder of ``wpa dev``, but in this process."""
    monkeypatch.chdir(home)
    return invoke_wpa


def test_dev_says_where_it_is_and_what_it_has(dev: Wpa) -> None:
    text = dev.log.read_text()
    assert "nats://127.0.0.1:" in text
    assert "order 1 deployed" in text
    assert "orders.charge" in text


def test_start_and_wait(dev: Wpa, home: Path) -> None:
    done = run_wpa(
        "start", "order", "--input", f"@{EXAMPLES}/order.input.json", "--wait", "--id", "o1", cwd=home
    )
    assert done.returncode == 0, done.stderr
    assert "COMPLETED" in done.stdout
    assert "step_completed  ship" in done.stdout
    assert inspect(home / "shop.db")["shipped"] == 1


def test_a_failed_execution_exits_with_1_and_gives_the_reason(dev: Wpa, home: Path) -> None:
    data = json.loads((EXAMPLES / "order.input.json").read_text())
    data["address"]["country"] = "XA"
    done = run_wpa("start", "order", "-i", json.dumps(data), "--wait", "--id", "o2", cwd=home)
    assert done.returncode == 1
    assert "ROLLED_BACK" in done.stdout
    assert "AddressRefused" in done.stdout
    watched = run_wpa("watch", "o2", cwd=home)
    assert watched.returncode == 1
    assert "undone: charge, reserve" in watched.stdout


def test_status_history_list_as_text_and_as_json(wpa: Invoke) -> None:
    wpa("start", "decision", "-i", '{"amount_cents": 5}', "--wait", "--id", "d1")
    assert "approve" in wpa("status", "d1").stdout
    status = json.loads(wpa("status", "d1", "--json").stdout)
    assert status["output"] == {"taken": "approve"}
    assert "decision_point" in wpa("history", "d1").stdout
    events = json.loads(wpa("history", "d1", "--json").stdout)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    rows = json.loads(wpa("list", "--json", "--workflow", "decision").stdout)
    assert "d1" in [row["execution_id"] for row in rows]
    assert {row["workflow_id"] for row in rows} == {"decision"}


def test_watch_into_a_pipe_is_plain_lines(dev: Wpa, home: Path) -> None:
    run_wpa("start", "decision", "-i", '{"amount_cents": 5}', "--wait", "--id", "watched", cwd=home)
    done = run_wpa("watch", "watched", cwd=home)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "decision_point  check -> approve" in done.stdout
    events = [
        json.loads(line) for line in run_wpa("watch", "watched", "--json", cwd=home).stdout.splitlines()
    ]
    assert [event["seq"] for event in events if "seq" in event] == [1, 2, 3, 4, 5]


def test_deploying_again_changes_nothing_and_other_content_is_refused(wpa: Invoke, tmp_path: Path) -> None:
    again = wpa("deploy", str(EXAMPLES / "decision.json"))
    assert again.returncode == 0, again.stderr
    other = tmp_path / "decision.json"
    other.write_text((EXAMPLES / "decision.json").read_text().replace("100000", "5"))
    refused = wpa("deploy", str(other))
    assert refused.returncode == 2
    assert "immutable" in refused.stderr
    # YAML is read as the same thing.
    newer = tmp_path / "decision.yaml"
    newer.write_text(yaml.safe_dump({**json.loads(other.read_text()), "version": "2"}))
    assert wpa("deploy", str(newer)).returncode == 0
    rows = json.loads(wpa("definitions", "--json").stdout)
    versions = {row["version"]: row["latest"] for row in rows if row["workflow_id"] == "decision"}
    assert versions == {"1": False, "2": True}
    started = wpa("start", "decision", "-i", '{"amount_cents": 7}', "--wait", "--id", "v2")
    assert started.returncode == 0, started.stderr
    status = json.loads(wpa("status", "v2", "--json").stdout)
    assert (status["version"], status["output"]) == ("2", {"taken": "review"})


def test_the_same_start_again_is_known_and_another_one_is_a_conflict(wpa: Invoke) -> None:
    start = ("start", "decision", "--version", "1", "--id", "twice", "-i")
    assert wpa(*start, '{"amount_cents": 5}', "--wait").returncode == 0
    again = wpa(*start, '{"amount_cents": 5}', "--json")
    assert json.loads(again.stdout)["duplicate"] is True
    conflict = wpa(*start, '{"amount_cents": 6}')
    assert conflict.returncode == 2
    assert "conflict" in conflict.stderr


def test_input_from_standard_input_variables_and_priority(dev: Wpa, home: Path) -> None:
    done = run_wpa(
        "start", "decision", "--version", "1", "-i", "-", "--var", "limit_cents=5", "--priority", "9",
        "--id", "piped", "--wait", "--json", cwd=home, stdin='{"amount_cents": 6}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(run_wpa("status", "piped", "--json", cwd=home).stdout)["output"] == {"taken": "review"}


def test_the_schemas_and_the_version(tmp_path: Path) -> None:
    assert run_wpa("schema", "--out-dir", str(tmp_path)).returncode == 0
    assert run_wpa("schema", "--out-dir", str(tmp_path), "--check").returncode == 0
    (tmp_path / "task.schema.json").write_text("{}")
    stale = run_wpa("schema", "--out-dir", str(tmp_path), "--check")
    assert stale.returncode == 1
    assert "task.schema.json" in stale.stderr
    assert json.loads(run_wpa("schema", "asyncapi").stdout)["asyncapi"].startswith("3.")
    assert run_wpa("--version").stdout.startswith("wpa ")


def test_errors_have_words_and_exit_codes(wpa: Invoke) -> None:
    for arguments, code, words in [
        (("start", "nope"), 2, "unknown_workflow"),
        (("start", "order", "-i", "{}"), 2, "'order_id' is a required property"),
        (("start", "order", "-i", "{"), 2, "not JSON"),
        (("start", "order", "-i", "@missing.json"), 2, "can't be read"),
        (("status", "nobody"), 2, "no execution nobody"),
        (("status", "a.b"), 2, "not a valid name"),
        (("dlq", "show", "99999"), 2, "no dead letter 99999"),
        (("list", "--tenant", "Not A Tenant"), 2, "not a valid name"),
        (("list", "--nats", "nats://127.0.0.1:1"), 3, "no NATS server answers"),
    ]:
        done = wpa(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert words in done.stderr, arguments


def test_a_second_dev_on_the_same_folder_says_who_holds_it(dev: Wpa, home: Path) -> None:
    done = run_wpa("dev", "--port", "0", "--data-dir", str(home / ".wpa"), cwd=home)
    assert done.returncode == 3
    assert f"in use by process {dev.process.pid}" in done.stderr


def test_a_taken_port_is_named(dev: Wpa, home: Path, tmp_path: Path) -> None:
    port = json.loads((home / ".wpa" / "wpa.json").read_text())["url"].rpartition(":")[2]
    done = run_wpa("dev", "--port", port, "--data-dir", str(tmp_path / "other"))
    assert done.returncode == 3
    assert f"port {port} is taken" in done.stderr


def test_validate_shows_all_problems_with_paths_and_hints(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(
        json.dumps(
            {
                "id": "bad",
                "version": "1",
                "steps": [
                    {"id": "a", "uses": "core.ecko", "with": {"x": "${inptu.y}"}},
                    {"id": "b", "uses": "core.echo", "needs": ["a"], "with": {"x": "${steps.aa.output}"}},
                ],
            }
        )
    )
    done = run_wpa("validate", str(bad))
    assert done.returncode == 2
    for words in (
        "$.steps[0].uses",
        "'core.echo'",
        "undeclared reference to 'inptu",
        "did you mean 'a'",
        "3 problems",
    ):
        assert words in done.stderr


def test_graph_writes_well_formed_svg_and_mermaid(dev: Wpa, home: Path) -> None:
    out = home / "order.svg"
    run_wpa("start", "order", "--input", f"@{EXAMPLES}/order.input.json", "--wait", "--id", "drawn", cwd=home)
    done = run_wpa("graph", str(EXAMPLES / "order.json"), "-o", str(out), "--execution", "drawn", cwd=home)
    assert done.returncode == 0, done.stderr
    root = ET.parse(out).getroot()
    assert root.tag.endswith("svg")
    assert "orders.refund" in out.read_text()
    assert run_wpa("graph", str(EXAMPLES / "decision.json")).stdout.startswith("flowchart TD")


def test_plugins_are_listed_from_where_they_come(dev: Wpa) -> None:
    done = run_wpa("plugins")
    assert done.returncode == 0
    for words in ("wpa-orders 0.1.0", "http.request", "wpa_steps", "core.echo"):
        assert words in done.stdout


def test_the_data_is_kept_between_starts(home: Path, tmp_path: Path) -> None:
    folder = ("--port", "0", "--data-dir", str(tmp_path / "d"))
    first = Wpa("dev", *folder, "--definitions", str(EXAMPLES), log=tmp_path / "1.log").wait_ready()
    run_wpa("start", "decision", "-i", '{"amount_cents": 5}', "--wait", "--id", "kept", url=_url(tmp_path))
    assert first.stop(signal.SIGINT) == 0
    second = Wpa("dev", *folder, log=tmp_path / "2.log").wait_ready()
    status = json.loads(run_wpa("status", "kept", "--json", url=_url(tmp_path)).stdout)
    assert status["status"] == "COMPLETED"
    assert second.stop(signal.SIGINT) == 0


def _url(tmp_path: Path) -> str:
    return str(json.loads((tmp_path / "d" / "wpa.json").read_text())["url"])


def test_server_and_worker_apart(tmp_path: Path) -> None:
    server = Wpa("server", "--port", "0", "--data-dir", str(tmp_path / "d"), log=tmp_path / "s.log")
    server.wait_ready("NATS server")
    worker = Wpa("worker", "--nats", _url(tmp_path), log=tmp_path / "w.log").wait_ready()
    assert run_wpa("deploy", str(EXAMPLES / "decision.json"), url=_url(tmp_path)).returncode == 0
    done = run_wpa("start", "decision", "-i", '{"amount_cents": 5}', "--wait", url=_url(tmp_path))
    assert done.returncode == 0, done.stderr
    assert worker.stop() == 0
    assert server.stop() == 0
