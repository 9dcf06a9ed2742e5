"""What an expression may take is counted before; what may be evaluated gives what CEL gives."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import fuzz
from wpa.plan import costs, expressions, plain, trees
from wpa.plan.expressions import ExpressionError, compile_expression
from wpa.plan.templates import compile_template

SOON_S = 20
"""Takes some milliseconds; what it is held against took minutes, and gigabytes."""

TEXT = "a" * 4_000_000
NUMBERS = list(range(9_900))


def value(text: str, data: Any) -> Any:
    return compile_expression(text).evaluate({"input": data})


DOUBLED = "['x']" + ".map(a, [a, a, a, a])" * 13
HOSTILE: list[tuple[str, Any]] = [
    ("input.items.all(i, input.big.contains('zz'))", {"items": NUMBERS, "big": TEXT}),
    ("input.items.all(i, input.big == input.same)", {"items": NUMBERS, "big": TEXT, "same": TEXT[:-1] + "a"}),
    ("input.items.all(i, size(input.big) > 0)", {"items": NUMBERS, "big": TEXT}),
    ("input.items.all(i, input.big.lowerAscii() != '')", {"items": NUMBERS, "big": TEXT}),
    ("input.items.map(i, input.big + 'x')", {"items": NUMBERS, "big": TEXT}),
    ("input.items.map(i, '%s'.format([input.big]))", {"items": NUMBERS, "big": TEXT}),
    ("input.items.map(i, input.big.split('')).size()", {"items": NUMBERS, "big": TEXT[:100_000]}),
    ("input.items.map(i, 'x').all(j, input.big.trim() != '')", {"items": NUMBERS[:4_000], "big": TEXT}),
    ("input.items.all(i, i in input.numbers)", {"items": NUMBERS, "numbers": list(range(10_000, 400_000))}),
    ("input.items.all(i, input.a == input.b)", {"items": NUMBERS, "a": NUMBERS * 10, "b": NUMBERS * 10}),
    ("input.items.map(i, input)", {"items": NUMBERS}),
    ("[[input.big]].all(b, input.items.all(i, b[0].trim() != ''))", {"items": NUMBERS[:900], "big": TEXT}),
    ("input.a.contains(input.b)", {"a": TEXT, "b": TEXT[:2_000_000] + "b"}),
    ("input.a.split(input.b)", {"a": TEXT, "b": TEXT[:2_000_000] + "b"}),
    ("[" + ", ".join(["input.big.indexOf('b')"] * 150) + "]", {"big": TEXT}),
    ("[1]" + ".map(x, [x, x])" * 25, {}),
    ("input.items.map(i, [" + "[], " * 400 + "[]])", {"items": NUMBERS}),
    (f"{DOUBLED} == {DOUBLED}", {}),
    (r"input.name.matches('\\p{L}{1000}')", {"name": "x"}),
    (r"input.name.matches('((\\pL{10}){10}){9}')", {"name": "x"}),
    ("input.name.matches(input.pattern)", {"name": "x", "pattern": r"\p{L}{1000}"}),
    ("matches(input.name, '' + input.pattern)", {"name": "x", "pattern": r"\p{L}{1000}"}),
    ("input.name.matches(input.pattern)", {"name": "x", "pattern": "x" * 3_000_000}),
    ("input.items.all(i, 'x'.matches(i) || true)", {"items": [r"\pL{20}"] * 5_000}),
    ("input.items.all(i, input.big.matches('b'))", {"items": NUMBERS, "big": TEXT}),
    (" || ".join(["input.big.matches('(x+x+)+y')"] * 100), {"big": TEXT}),
]


@pytest.mark.parametrize(("text", "data"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_would_hold_the_loop_is_refused_before_it_does(text: str, data: Any) -> None:
    began = time.monotonic()
    with pytest.raises(ExpressionError, match=r"could take [\d.]+ s|its patterns take more|a pattern of"):
        value(text, data)
    assert time.monotonic() - began < SOON_S


def test_a_refusal_is_one_whatever_stands_beside_it() -> None:
    data = {"name": "x", "pattern": r"\p{L}{1000}"}
    with pytest.raises(ExpressionError, match="its patterns take more than 100,000 steps"):
        value("input.name.matches(input.pattern) || true", data)
    assert value("input.name.matches('x') || true", data) is True


ITEMS = [
    {
        "id": f"key{number}",
        "status": "open",
        "total": number,
        "text": "lorem ipsum " * 9,
        "like": "^lorem .*$",
    }
    for number in range(5_000)
]
LARGE: dict[str, Any] = {
    "items": ITEMS,
    "table": {item["id"]: {"n": item["total"]} for item in ITEMS},
    "allowed": [item["id"] for item in ITEMS],
    "words": [f"word{number}" for number in range(30)],
    "big": "lorem ipsum " * 100_000,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.items.filter(i, i.status == 'open' && i.total >= 4999)", ITEMS[4_999:]),
        ("input.items.map(i, i.id)", [item["id"] for item in ITEMS]),
        ("input.items.map(i, {'id': i.id, 'n': i.total * 2}).size()", 5_000),
        ("input.items.map(i, [i.id, i.total]).size()", 5_000),
        ("input.items.map(i, input.table[i.id].n)", list(range(5_000))),
        ("input.items.filter(i, i.id in input.allowed).size()", 5_000),
        ("input.items.filter(i, i.id in input.table).size()", 5_000),
        ("input.items.exists(i, i.text.contains('zz'))", False),
        ("input.items.all(i, i.text.matches(i.like))", True),
        ("input.items.all(i, i.text.matches('^[a-z ]+$'))", True),
        ("input.items.map(i, i.id + ': ' + i.status).join(', ').startsWith('key0: open, key1')", True),
        ("input.items.map(i, '%s-%d'.format([i.id, i.total]))[77]", "key77-77"),
        ("input.items.map(i, i.text.upperAscii().replace('X', 'y').trim()).size()", 5_000),
        ("(has(input.items) ? input.items : []).map(i, size(input.items))[9]", 5_000),
        ("math.greatest(input.items.map(i, i.total))", 4_999),
        ("input.words.filter(w, input.big.lowerAscii().contains(w))", []),
        ("input.big.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;').size()", 1_200_000),
        ("input.big.split(' ').size()", 200_001),
        ("input.table.map(k, k).size()", 5_000),
    ],
)  # fmt: skip
def test_what_is_usual_is_evaluated_on_much_data(text: str, expected: Any) -> None:
    assert value(text, LARGE) == expected


def test_the_rounds_of_all_macros_are_bounded() -> None:
    with pytest.raises(ExpressionError, match="take 10,000 rounds or more; walk shorter lists"):
        value("input.map(i, i)", list(range(10_000)))


@pytest.mark.parametrize(
    "text",
    [
        "input.text.split('').map(x, x)",
        "(input.list + input.list).map(x, x)",
        "(input.list + input.list).filter(x, true)",
    ],
)
def test_lists_that_it_makes_itself_are_long_too(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(expressions, "eased", lambda environment, program: made.append(program) or program)
    value(text, {"text": "abc" * 70, "list": list(range(150))})
    assert made


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 200, 201, 250, 1_000])
def test_lists_are_made_in_blocks_and_in_order(count: int) -> None:
    data = [{"n": number} for number in range(count)]
    with_all(data)
    assert value("input.map(i, i.n)", data) == list(range(count))
    assert value("input.filter(i, i.n % 3 == 0).map(i, i.n)", data) == list(range(0, count, 3))
    assert value("input.map(i, i.n % 2 == 1, [i.n])", data) == [[n] for n in range(1, count, 2)]


def with_all(data: Any) -> None:
    """Nothing of what is passed on is lost or shuffled."""
    assert value("input", data) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("${input.rows}", {"rows": [[]] * 1_000_000}),
        ("${input.big}", {"big": TEXT}),
        ("${size(input.rows)}", {"rows": [[]] * 1_000_000}),
        ("${input.rows.map(r, r.n)}", {"rows": [{"n": number} for number in range(9_000)]}),
        ("${input.name.matches(input.pattern)}", {"name": "x", "pattern": r"\pL{300}"}),
        ("${input.big.upperAscii()}", {"big": TEXT}),
    ],
    ids=range(6),
)
def test_expressions_of_one_template_are_counted_together(text: str, data: Any) -> None:
    one, _ = compile_template([text], "$.with")
    many, _ = compile_template([text] * 3_000, "$.with")
    one.render({"input": data})
    began = time.monotonic()
    with pytest.raises(ExpressionError, match="expressions of one template"):
        many.render({"input": data})
    assert time.monotonic() - began < SOON_S * 3


def test_what_comes_first_is_passed_on_however_much_it_is() -> None:
    data = {"rows": [{"n": number} for number in range(50_000)], "text": "x" * 90_000_000}
    template, _ = compile_template(["${input.rows}", "${input.text}"] + ["${input.rows[7].n}"] * 3, "$.with")
    assert template.render({"input": data})[1:] == [data["text"], 7, 7, 7]


def test_many_small_ones_are_evaluated() -> None:
    rows = [{"n": number, "name": f"row{number}"} for number in range(50)]
    texts = [f"${{input.rows.filter(r, r.n > {number % 50}).map(r, r.name)}}" for number in range(1_000)]
    template, _ = compile_template(texts, "$.with")
    assert template.render({"input": {"rows": rows}})[49] == []


# -- as CEL does -----------------------------------------------------------------------------

DATA: dict[str, Any] = {
    "n": 3,
    "text": "ab,c",
    "list": [1, 2, 3],
    "objects": [{"k": "a", "v": [1]}, {"k": "b", "v": []}, {"k": ","}],
    "table": {"a": 1, "b": "x"},
    "none": None,
}
LEAVES = st.sampled_from(
    ["input.n", "input.text", "input.list", "input.objects", "input.table", "input.none", "input", "x", "y", "x.k",
     "x.v", "1", "2u", "1.5", "'a'", "','", "''", "[]", "true", "[1, 'a']", "{'a': 1}", "input.missing",
     "has(x.v)", "timestamp('2020-01-01T00:00:00.000000001Z')"]
)  # fmt: skip
FORMS = st.sampled_from(
    ["({0} + {1})", "({0} == {1})", "({0} in {1})", "({0} < {1})", "({0} && {1})", "({0} || {1})", "!{0}",
     "({0} ? {1} : {2})", "{0}.map(x, {1})", "{0}.filter(x, {1})", "{0}.map(y, {1}, {2})", "{0}.all(x, {1})",
     "{0}.exists(y, {1})", "{0}.exists_one(x, {1})", "{0}[{1}]", "[{0}, {1}]", "{{'k': {0}, 'v': {1}}}",
     "size({0})", "string({0})", "{0}.contains({1})", "{0}.matches({1})", "{0}.split({1})", "{0}.join({1})",
     "{0}.replace({1}, {2})", "{0}.indexOf({1})", "{0}.upperAscii()", "'%s'.format([{0}])", "matches({0}, {1})",
     "dyn({0})", "{0}.k"]
)  # fmt: skip
TEXTS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(FORMS, inner, inner, inner).map(lambda drawn: drawn[0].format(*drawn[1:])),
    max_leaves=8,
)


def outcome(text: str, **ways: Any) -> str | None:
    """What an expression gives, as JSON; None for an error. ``ways`` take the place of what the module uses."""
    with pytest.MonkeyPatch.context() as patch:
        for name, way in ways.items():
            patch.setattr(expressions, name, way)
        try:
            return json.dumps(compile_expression(text).evaluate({"input": DATA}), sort_keys=True)
        except ExpressionError:
            return None


def no_shortcut(scope: Any, path: Any) -> Any:
    raise ValueError


@fuzz(400)
@given(TEXTS)
@example("input.objects.map(x, x.v)")
@example("input.objects.filter(x, has(x.v)).map(y, x.k == 'a', y.v)")
@example("input.table.map(x, [x, 2u])")
@example(".input.list.map(x, x + 1)")
@example("input.objects.map(x, x.k.matches(x.k) ? [x] : [])")
def test_whatever_is_counted_gives_what_cel_gives(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "BLOCK", 2)
        found = outcome(text, SMALL_CHARS=-1, SMALL_ITEMS=-1)
    assert found == outcome(
        text,
        _GROWING=re.compile("(?!)"),
        SMALL_CHARS=10**9,
        SMALL_ITEMS=10**9,
        SMALL_WORK=10**30,
        eased=lambda environment, program: program,
        narrowed=lambda scope, paths: scope,
        passed_on=no_shortcut,
    )
    if found is not None:
        holds_at_least(text, json.loads(found))


def holds_at_least(text: str, given: Any) -> None:
    """What is counted is no less than there is."""
    counting = costs._Costs()
    tree = trees.read(compile_expression(text)._program.serialize())
    counted = counting.sized(counting.of(tree, {"input": costs._Amount(known=[DATA])}, 1))
    chars, values = costs._Costs()._size(given)
    assert counted.values + 1 >= values
    assert counted.chars + 1 >= chars
