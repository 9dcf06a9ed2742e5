from __future__ import annotations

from typing import Any

import pytest

from wpa.plan import growth
from wpa.plan.expressions import ExpressionError, compile_expression

DATA = {
    "text": "banana",
    "letters": "añ\U0001f600b",
    "list": ["a", "b"],
    "none": [],
    "numbers": [1],
    "five": 5,
}


def value(text: str, **data: Any) -> Any:
    return compile_expression(text).evaluate({"input": DATA | data})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.text.replace('a', 'bb')", "bbbnbbnbb"),
        ("input.text.replace('a', '', 1)", "bnana"),
        ("input.text.replace('a', 'b', 0)", "banana"),
        ("input.text . replace ('', '-', 2)", "-b-anana"),
        ("input.letters.replace('', '-')", "-a-ñ-\U0001f600-b-"),
        ("'.replace(' + input.text.replace('banana', '.join()')", ".replace(.join()"),
        ("input.list.join() + input.list.join('-')", "aba-b"),
        ("input.none.join('-')", ""),
        ("input.list.map(x, x.replace('a', 'c')).join(',')", "c,b"),
        ("input.map(key, key).join(' ').replace('list ', '')", "five letters none numbers text"),
    ],
)
def test_they_do_what_cel_s_do(text: str, expected: str) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "'x'" + ".replace('x', 'xxxxxxxxxx')" * 25,
        "input.long.replace('', input.long).replace('', input.long)",
        "input.long.replace('x', input.long).replace('x', input.long, 9999)",
        "input.long.split('').map(x, input.long + input.long).join()",
        "input.map(key, 'x').join(input.long.replace('x', input.long))",
    ],
)
def test_a_text_that_would_take_all_memory_is_not_made(text: str) -> None:
    with pytest.raises(
        ExpressionError,
        match=r"it would make a text of \d+ characters; the most is 16777216|could take [\d.]+ s on so much data",
    ):
        value(text, long="x" * 4_000)


def test_the_longest_text_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "TEXT_CHARS_MAX", 12)
    assert len(value("input.text.replace('a', 'aaa')")) == 12
    assert len(value("(input.list + input.list).join('12')")) == 10
    for text in ("input.text.replace('a', 'aaaa')", "(input.list + input.list).join('123')"):
        with pytest.raises(ExpressionError, match=r"1[35] characters"):
            value(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("input.numbers.join()", "No matching overloads found : join"),
        (
            "input.five.replace('a', 'b')",
            r"No matching overloads found : \(int64\)\.replace\(string, string\)",
        ),
        ("'abc'.replace('b', 1)", "column 14: found no matching overload for 'replace'"),
    ],
)
def test_what_is_wrong_is_told_with_the_names_that_were_written(text: str, complaint: str) -> None:
    with pytest.raises(ExpressionError, match=complaint):
        value(text)


@pytest.mark.parametrize("nul", [r"\u0000", r"\x00", r"\000", "\0"])
def test_a_nul_is_not_lost_on_the_way(nul: str) -> None:
    with pytest.raises(ExpressionError, match="NUL character"):
        compile_expression(f"input.text.replace('a', '{nul}')")
