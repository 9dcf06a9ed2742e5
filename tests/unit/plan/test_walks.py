"""Expressions over objects: their order is the keys', whatever process evaluates them."""

from __future__ import annotations

from typing import Any

import pytest

from wpa.plan.expressions import ExpressionError, compile_expression

KEYS = ["quince", "medlar", "fig", "damson", "citron", "apricot", "lime", "plum", "sloe", "bilberry"]
SCOPE: dict[str, Any] = {
    "input": {
        "table": {key: number for number, key in enumerate(KEYS)},
        "list": KEYS,
        "orders": [{"id": "a", "lines": dict.fromkeys(KEYS, 1)}, {"id": "b", "lines": KEYS}],
        "days": ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"],
    },
    "steps": {"look-up": {"output": dict.fromkeys(KEYS, 1)}},
}
IN_ORDER = sorted(KEYS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("input.table.map(k, k)", IN_ORDER),
        ("input.table\n  .map (k, k)", IN_ORDER),
        ("input.table.filter(k, k != 'fig')", [key for key in IN_ORDER if key != "fig"]),
        ("input.table.map(k, input.table[k])", [KEYS.index(key) for key in IN_ORDER]),
        ('steps["look-up"].output.map(k, k)', IN_ORDER),
        ("(true ? input.table : input.table).map(k, k)", IN_ORDER),
        ("input.table.map(k, k).filter(k, k != 'fig')", [key for key in IN_ORDER if key != "fig"]),
        ("input.orders.map(o, o.lines.map(l, l))", [IN_ORDER, KEYS]),
        ("[input.table].map(t, t.map(k, k))", [IN_ORDER]),
        ("[input.table][0].map(k, k)", IN_ORDER),
        ("{'f': 1, 'e': 1, 'd': 1, 'c': 1, 'b': 1, 'a': 1}.map(k, k)", list("abcdef")),
        ("{5: 1, 4: 1, 3: 1, 2: 1, 1: 1, 'a': 1}.map(k, k)", [1, 2, 3, 4, 5, "a"]),
    ],
)
def test_objects_are_walked_in_the_order_of_their_keys(text: str, value: Any) -> None:
    assert compile_expression(text).evaluate(SCOPE) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("input.list.map(k, k)", KEYS),
        ("input.list.map(k, k == 'fig', k + '!')", ["fig!"]),
        ("'c b a'.split(' ').map(k, k)", ["c", "b", "a"]),
        ("['c', 'b'].map(k, k)", ["c", "b"]),
        ("[[2, 1], [3]].map(k, k)", [[2, 1], [3]]),
        ("input.days.map(d, timestamp(d)).map(d, d.getDate())", [2, 1]),
        ("input.days.map(d, timestamp(d)).filter(d, d > timestamp('2026-01-01T12:00:00Z')).size()", 1),
        ("[duration('2s'), duration('1s')].map(d, d)", ["2s", "1s"]),
        ("input.list.map(k, '.map(')", [".map("] * len(KEYS)),
        ("input.table.exists(k, k == 'fig')", True),
    ],
)
def test_lists_keep_their_own_order(text: str, value: Any) -> None:
    assert compile_expression(text).evaluate(SCOPE) == value


@pytest.mark.parametrize("text", ["input.table", "{'b': 1, 'a': {'d': 1, 'c': 2}}", "[input.table]"])
def test_objects_that_an_expression_gives_have_their_keys_in_order(text: str) -> None:
    def keys(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [list(value), *map(keys, value.values())]
        return [keys(item) for item in value] if isinstance(value, list) else []

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(item) for item in value] if isinstance(value, list) else value

    value = compile_expression(text).evaluate(SCOPE)
    assert keys(value) == keys(ordered(value)) != []


def test_the_order_is_nothing_that_an_expression_may_ask_for() -> None:
    with pytest.raises(ExpressionError, match="wpaInOrder"):
        compile_expression("input.table.wpaInOrder()")


@pytest.mark.parametrize("text", ["input.list[0].map(k, k)", "input.nothing.map(k, k)", "(5).map(k, k)"])
def test_what_can_not_be_walked_is_told_in_the_words_of_the_expression(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text).evaluate(SCOPE)
    assert "wpaInOrder" not in str(caught.value)
    assert "list" in str(caught.value) or "no field" in str(caught.value)
