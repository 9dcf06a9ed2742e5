from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from wpa.errors import DefinitionError
from wpa.plan import mermaid, parse, svg

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_yaml_is_read_as_the_same_thing_as_json() -> None:
    text = """
id: p
version: 1
steps:
  - id: a
    uses: core.echo
    if: "true"
    with: {on: yes, at: 2026-01-01}
"""
    document = parse(text, "p.yaml")
    assert document["steps"][0]["with"] == {"on": True, "at": "2026-01-01"}
    assert parse(json.dumps(document), "p.json") == document


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ('{"a": 1,}', "x.json", "line 1"),
        ('{"a": 1, "a": 2}', "x.json", "stands twice"),
        ('{"a": NaN}', "x.json", "NaN is not JSON"),
        ("a: 1\na: 2", "x.yaml", "stands twice"),
        ("a: [1", "x.yaml", "line 1"),
        ("a: &x [1]\nb: *x", "x.yaml", "aliases"),
        ("a: !!python/object:os.system {}", "x.yaml", "not YAML"),
        ("[" * 100_000, "x.json", "not JSON"),
    ],
)
def test_what_cannot_be_read_says_why_and_where(text: str, name: str, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text, name)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["order", "document", "decision"])
def test_pictures_name_every_step_and_are_well_formed(name: str) -> None:
    document = json.loads((EXAMPLES / f"{name}.json").read_text())
    states = {step["id"]: "completed" for step in document["steps"]}
    drawn, text = svg(document, states), mermaid(document, states)
    ET.fromstring(drawn)
    for step in document["steps"]:
        assert step["id"] in drawn
        assert step["id"] in text
    assert text.count("-->") == drawn.count("<path") - 1 == drawn.count("marker-end")


def test_text_in_pictures_is_escaped() -> None:
    step = {"id": "a", "uses": "x.<script>&\"'"}
    drawn = svg({"id": "p", "version": "1", "steps": [step]})
    assert "<script>" not in drawn
    ET.fromstring(drawn)


def test_nodes_do_not_overlap() -> None:
    steps = [
        {"id": f"s{n}", "uses": "core.noop", "needs": [f"s{m}" for m in range(n) if (n + m) % 3 == 0]}
        for n in range(20)
    ]
    root = ET.fromstring(svg({"id": "p", "version": "1", "steps": steps}))
    boxes = [
        (float(r.get("x", 0)), float(r.get("y", 0)))
        for r in root.iter("{http://www.w3.org/2000/svg}rect")
        if r.get("rx")
    ]
    assert len(boxes) == len(set(boxes)) == 20


def picture(**fields: Any) -> tuple[str, str]:
    document = {"id": "p", "version": "1", "steps": [{"id": "a", "uses": "core.noop", **fields}]}
    drawn = svg(document)
    ET.fromstring(drawn)
    return drawn, mermaid(document)


def cards(drawn: str) -> int:
    return drawn.count(' rx="')


def test_a_step_that_runs_more_than_once_is_a_stack_of_cards() -> None:
    drawn, text = picture(foreach={"in": "${input.orders}", "as": "order"}, compensate={"uses": "x.undo"})
    assert cards(drawn) == 3
    assert "each order in input.orders" in drawn
    assert "each order in input.orders" in text
    drawn, text = picture(repeat={"until": "output > 1"})
    assert cards(drawn) == 3
    assert "↻ until output &gt; 1" in drawn
    assert "↻ until output &gt; 1" in text
    assert "each item in 2 items" in picture(foreach={"in": [1, 2]})[0]


@pytest.mark.parametrize(
    ("uses", "glyph", "shape"),
    [
        ("core.sleep", "⏱", '(["a'),
        ("core.wait", "✉", '>"a'),
        ("core.approval", "✋", '[/"a'),
        ("core.workflow", "⧉", '[["a'),
    ],
)
def test_each_kind_of_wait_looks_different(uses: str, glyph: str, shape: str) -> None:
    drawn, text = picture(uses=uses)
    assert glyph in drawn
    assert f"n0{shape}" in text
    assert cards(drawn) == (2 if uses == "core.workflow" else 1)


def test_joins_say_how_they_join() -> None:
    for join, words in (("any", "any"), ("race", "race"), (2, "2 of 3")):
        drawn, text = _joined(join)
        assert f">{words}<" in drawn
        assert f"join: {words}" in text
    assert "join" not in _joined("all")[1]


def _joined(join: Any) -> tuple[str, str]:
    steps = [{"id": name, "uses": "core.noop"} for name in "bcd"]
    last = {"id": "a", "uses": "core.noop", "needs": ["b", "c", "d"], "join": join}
    document = {"id": "p", "version": "1", "steps": [*steps, last]}
    return svg(document), mermaid(document)


def test_what_starts_and_wakes_executions_is_drawn() -> None:
    document = {
        "id": "p",
        "version": "1",
        "schedule": {"every": "5m"},
        "triggers": [
            {"subject": "data.raw", "start": {}},
            {"subject": "data.paid", "signal": {"name": "paid", "correlation": "${message.id}"}},
        ],
        "steps": [
            {"id": "a", "uses": "core.noop"},
            {"id": "w", "uses": "core.wait", "needs": ["a"], "with": {"signal": "paid"}},
        ],
    }
    drawn, text = svg(document), mermaid(document)
    ET.fromstring(drawn)
    for words in ("every 5m", "data.raw", "data.paid"):
        assert words in drawn
        assert words in text
    assert {line.strip() for line in text.splitlines() if "-->" in line} == {
        "n0 --> n1", "n2 --> n0", "n3 --> n0", "n4 --> n1",
    }  # fmt: skip
    assert drawn.count("marker-end") == 4
