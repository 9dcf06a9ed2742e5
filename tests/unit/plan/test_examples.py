"""Every definition in ``examples/`` may be deployed, can be drawn, and runs to its end."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit.plan.player import Player
from wpa.hooks.host import PluginHost
from wpa.kernel.program import Finished
from wpa.plan import check, json_schema, load, mermaid, parse, svg

EXAMPLES = Path(__file__).parents[3] / "examples"
DEFINITIONS = sorted(
    path.name
    for path in EXAMPLES.iterdir()
    if path.suffix in (".json", ".yaml") and ".input." not in path.name
)
PLUGINS = ("orders.", "documents.")


def read(name: str) -> Any:
    return parse((EXAMPLES / name).read_text(encoding="utf-8"), name)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_example_is_fine(name: str) -> None:
    document = read(name)
    catalog = (
        None if any(_uses(document, prefix) for prefix in PLUGINS) else PluginHost.discover().signatures()
    )
    assert check(document, catalog) == []
    assert document["id"] == Path(name).stem
    jsonschema.Draft202012Validator(json_schema()).validate(document)


def _uses(document: Any, prefix: str) -> bool:
    return any(step.get("uses", "").startswith(prefix) for step in document["steps"])


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_example_can_be_drawn(name: str) -> None:
    document = read(name)
    drawn, text = svg(document), mermaid(document)
    ET.fromstring(drawn)
    for step in document["steps"]:
        assert step["id"] in drawn
        assert step["id"] in text
    assert text.count("-->") == drawn.count("marker-end")


def player(name: str, data: Any = None) -> Player:
    return Player(load(json.loads((EXAMPLES / name).read_text())), data)


def test_approval_pays_what_was_approved_and_nothing_else() -> None:
    for approved, last in ((True, "pay"), (False, "decline")):
        played = player("approval.json", {"payee": "ACME", "amount_cents": 5})
        wait = played.open["ask"].wait
        assert wait is not None
        assert wait.approval is not None
        assert (wait.approval.count, wait.approval.message) == (2, "Pay 5 cents to ACME?")
        played.settle("ask", {"approved": approved, "answers": []}).settle("verdict")
        assert played.slots() == [last]
        assert played.play().output == {"approved": approved}


def test_reminder_is_written_unless_it_was_paid() -> None:
    played = player("reminder.json", {"invoice": "4711"})
    assert played.slots() == ["paid", "wait"]
    played.settle("paid", {"amount_cents": 5})
    assert (played.dropped, played.slots()) == (["wait"], ["done"])
    assert played.play().output == {"paid": True}
    played = player("reminder.json", {"invoice": "4711", "after": "5s"})
    assert played.open["wait"].wait.delay_ms == 5_000  # type: ignore[union-attr]
    played.settle("wait").settle("remind")
    assert (played.dropped, played.play().output) == (["paid"], {"paid": False})


def test_fanout_gives_results_in_the_order_of_the_list() -> None:
    played = player("fanout.json", {"documents": ["a", "b", "c"]})
    assert played.play(pick=lambda count: count - 1).output == {
        "results": [{"number": n + 1, "document": name} for n, name in enumerate("abc")],
        "errors": [],
    }


def test_race_takes_the_first_offer() -> None:
    played = player("race.json").settle("near").settle("near-offer", {"supplier": "near"})
    assert (played.dropped, played.play().output) == (["far"], {"supplier": "near"})


def test_parent_starts_a_child_for_each_customer() -> None:
    played = player("parent.json", {"customers": ["Ann", "Bob"]})
    children = [want.wait.child for want in played.open.values() if want.wait]
    assert [(child.workflow, child.input) for child in children if child] == [
        ("child", {"name": "Ann"}),
        ("child", {"name": "Bob"}),
    ]
    assert played.play(lambda want: "Hello").output == {"greetings": ["Hello", "Hello"]}
    assert player("child.json", {"name": "Ann"}).play().output == "Hello, Ann"


def test_pipeline_starts_with_a_message_and_is_woken_by_another() -> None:
    raw, reviewed = load(read("pipeline.json")).triggers
    assert raw.match("data.raw.s1", {"id": 7, "sensor": "s1", "value": 0}, {}) is None
    start = raw.match("data.raw.s1", {"id": 7, "sensor": "s1", "value": 3}, {})
    assert start is not None
    assert start == type(start)(
        input={"sensor": "s1", "value": 3, "from": "data.raw.s1"}, execution_id="reading-7"
    )
    signal = reviewed.match("data.reviewed.s1", {"id": 7, "good": False}, {"Nats-Msg-Id": "m1"})
    assert signal is not None
    assert signal == type(signal)(name="reviewed", execution_id="reading-7", payload={"good": False})
    played = player("pipeline.json", {"sensor": "s1", "value": 3, "from": ""}).settle("clean")
    assert isinstance(played.settle("review", {"good": False}).play().outcome, Finished)
    assert "publish" not in played.seen


def test_nightly_has_a_schedule() -> None:
    plan = load(read("nightly.json"))
    assert plan.schedule is not None
    assert (plan.schedule.cron, plan.schedule.time_zone) == ("0 0 6 * * *", "Europe/Madrid")
    assert plan.timeout_ms == 2 * 3_600_000
