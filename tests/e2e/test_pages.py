"""What the documentation pages show is what happens: their sessions are run against a real ``wpa dev``."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import comes_to_rest, resume_blocked, status_when
from tests.e2e.pages import Session, blocks, rewritten, run_page, same
from tests.e2e.processes import EXAMPLES, WPA, Wpa, environment
from wpa.client import Client
from wpa.errors import StepFailed
from wpa.flows import flow_of
from wpa.testing import Result, Run, WorkflowEnvironment

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("waiting.md", "signals-and-approvals.md", "flows.md", "versions.md", "triggers-and-schedules.md")
FLOWS = ",".join(f"examples/flows/{path.name}" for path in sorted((EXAMPLES / "flows").glob("*.py")))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as a reader has it."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def session(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A shell in that folder, beside ``wpa dev`` with the examples."""
    monkeypatch.chdir(home)
    flows = {"WPA_FLOWS": FLOWS}
    dev = Wpa("dev", "--port", "0", "--definitions", "examples", log=home / "dev.log", env=flows).wait_ready()
    url = json.loads((home / ".wpa" / "wpa.json").read_text())["url"]
    env = {
        **environment(),
        "PATH": f"{Path(WPA).parent}:{os.environ['PATH']}",
        "WPA_NATS_URL": url,
        "WPA_USER": "you",
        "NO_COLOR": "1",
        "COLUMNS": "160",
    }

    def run(line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=home, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout

    yield run
    assert dev.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("name", PAGES)
def test_sessions(name: str, session: Session) -> None:
    path = DOCS / name
    page = path.read_text(encoding="utf-8")
    rewrite = bool(os.environ.get("WPA_REWRITE_PAGES"))
    done = run_page(page, session, patient=not rewrite)
    if rewrite:
        path.write_text(rewritten(page, done), encoding="utf-8")
        return
    for command, printed in done:
        if not same(command.shown, printed):
            pytest.fail(f"{name} shows for `{command.text}`\n\n{command.shown}\nbut it prints\n\n{printed}")


# -- the flows that docs/flows.md shows ------------------------------------------------------

ITEMS = [{"sku": "tea", "quantity": 2}]
HOME = {"name": "Ada", "street": "Calle Mayor 1", "city": "Madrid", "country": "ES"}
ATLANTIS = {"name": "Plato", "street": "Temple of Poseidon", "city": "Atlantis", "country": "XA"}
SHOWN = {
    "hello": ({"name": "Ada"}, "Ada said nothing"),
    "buy": ({"order_id": "o", "items": ITEMS}, 1790),
    "offers": ({"suppliers": ["near", "remote"]}, [400, 600]),
    "deliver": ({"order_id": "o", "address": ATLANTIS, "pickup": HOME}, "WPA1"),
    "meter": ({"rounds": 2}, 300),
}
"""What the flows of the page are given, and what they give."""


def ship(address: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The carrier, as in the orders plugin."""
    if address["country"] == "XA":
        raise StepFailed("the carrier does not deliver there", type="AddressRefused", retryable=False)
    return {"shipment_id": "s", "tracking": "WPA1"}


MOCKS = {
    "orders.reserve": {"reservation_id": "r", "total_cents": 1790},
    "orders.release": None,
    "orders.charge": lambda amount_cents, **_: {"charge_id": "c", "amount_cents": amount_cents},
    "orders.ship": ship,
    "orders.refund": {"id": "c", "changed": True},
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The flows of docs/flows.md by name: its Python, in order, as one module."""
    page = (DOCS / "flows.md").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("page") / "flows_page.py"
    path.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield {name: item for name, item in vars(module).items() if flow_of(item)}
    del sys.modules[path.stem]


@pytest.fixture
def run(shown: dict[str, Any]) -> Callable[..., Result]:
    """Run one of them in memory, in a shop of mocks, with time skipped."""

    def run(name: str, data: dict[str, Any], act: Callable[[Run], None] = lambda run: None) -> Result:
        others = [other for known, other in shown.items() if known != name]
        with WorkflowEnvironment(shown[name], *others, mocks=MOCKS) as env:
            started = env.start(data)
            act(started)
            return started.result()

    return run


@pytest.mark.parametrize("name", SHOWN)
def test_the_flows_shown_do_what_is_said(name: str, run: Callable[..., Result]) -> None:
    data, expected = SHOWN[name]
    result = run(name, data)
    assert result.status == "COMPLETED", result
    assert result.output == expected


def test_the_fee_is_paid_back(run: Callable[..., Result]) -> None:
    result = run("deliver", SHOWN["deliver"][0])
    assert [call.uses for call in result.calls].count("orders.refund") == 1


def test_what_is_called_off_is_told_and_undone(run: Callable[..., Result]) -> None:
    result = run("charter", {"order_id": "o", "items": ITEMS}, lambda run: run.cancel("sunk", at="1h"))
    assert (result.status, result.undone) == ("CANCELLED", ["orders_reserve"])
    assert result.steps["core_log"].status == "completed"


def test_the_board_may_approve_a_payout_after_four_hours(run: Callable[..., Result]) -> None:
    def act(run: Run) -> None:
        run.approve("approval", user="eva", roles=["board"], at="5h")

    result = run("payout", {"order_id": "o", "items": ITEMS}, act)
    assert (result.status, result.output) == ("COMPLETED", True)


def test_time_and_chance_are_repeatable(run: Callable[..., Result]) -> None:
    result = run("numbers", {})
    assert result.status == "COMPLETED"
    assert len(result.output) == 6


def test_what_is_refused_is_refused_in_those_words(run: Callable[..., Result]) -> None:
    page = (DOCS / "flows.md").read_text(encoding="utf-8")
    (told,) = blocks(page, "text")
    error = run("prices", {}).error
    assert error is not None
    assert re.sub(r"\w+:\d+ in", "", f"{error.type}: {error.message}") == re.sub(
        r"\w+:\d+ in", "", told.strip()
    )


def test_the_first_flow_is_the_one_in_the_examples() -> None:
    page = (DOCS / "flows.md").read_text(encoding="utf-8")
    assert next(blocks(page, "python")).strip() in (EXAMPLES / "flows" / "hello.py").read_text()


# -- the change of a flow that docs/versions.md shows ----------------------------------------


async def test_a_changed_flow_blocks_and_goes_on(
    tmp_path: Path, client: Client, start_worker: Callable[..., Wpa]
) -> None:
    page = (DOCS / "versions.md").read_text(encoding="utf-8")
    before, wrong, right = blocks(page, "python")
    (told,) = blocks(page, "text")
    code = tmp_path / "invoices.py"

    def deploy(text: str) -> Wpa:
        code.write_text(text, encoding="utf-8")
        return start_worker("--flows", str(code))

    worker = deploy(before)
    await client.start("invoice", {"number": "I-1"}, execution_id="i-1")
    await comes_to_rest(client, "i-1")
    await asyncio.to_thread(worker.stop)
    worker = deploy(wrong)
    await client.signal("i-1", "paid")
    blocked = (await status_when(client, "i-1", lambda found: found["blocked"]))["blocked"]
    assert same(told, f"{blocked['type']}: {blocked['message']}")
    await asyncio.to_thread(worker.stop)
    deploy(right)
    await resume_blocked(client, "i-1")
    old = await client.result("i-1", timeout_s=30)
    assert (old["status"], [step["step"] for step in old["steps"]]) == (
        "COMPLETED",
        ["core_log", "signal_paid"],
    )
    await client.start("invoice", {"number": "I-2"}, execution_id="i-2")
    await client.signal("i-2", "paid")
    new = await client.result("i-2", timeout_s=30)
    assert [step["step"] for step in new["steps"]] == ["core_log", "book", "signal_paid"]
