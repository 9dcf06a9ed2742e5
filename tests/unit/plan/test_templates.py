from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wpa.plan.expressions import ExpressionError, compile_expression
from wpa.plan.scope import narrow
from wpa.plan.templates import compile_template

SCOPE: dict[str, Any] = {
    "input": {"a": 3, "b": 1.5, "s": "x", "list": [1, 2, 3], "none": None, "o": {"k": [True]}},
    "vars": {},
    "steps": {"charge-card": {"output": {"id": 7}, "status": "completed", "error": None}},
    "execution": {"id": "x1"},
}


def render(value: Any) -> Any:
    template, complaints = compile_template(value, "$")
    assert complaints == []
    return template.render(SCOPE)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("${input.a}", 3),
        ("${ input.o }", {"k": [True]}),
        ("${input.none}", None),
        ("${input.a > 2}", True),
        ("n=${input.a}, l=${input.list}, ${input.s}", "n=3, l=[1,2,3], x"),
        ("$${input.a}", "${input.a}"),
        ("cost: $5", "cost: $5"),
        ('${steps["charge-card"].output.id}', 7),
        ("${steps['charge-card'].status}", "completed"),
        ("${{'a': input.a}}", {"a": 3}),
        ("${'}' + \"{\"}", "}{"),
        ("${input.list.map(x, x * 2)}", [2, 4, 6]),
        ("${has(input.zap) ? 1 : 0}", 0),
        ("${timestamp('2026-01-01T00:00:00Z')}", "2026-01-01T00:00:00Z"),
        ("${duration('90s')}", "90s"),
        ("${b'hi'}", "aGk="),
        ({"x": ["${input.a}", {"y": "${execution.id}"}], "z": 1}, {"x": [3, {"y": "x1"}], "z": 1}),
    ],
)
def test_templates_keep_types_alone_and_interpolate_in_text(value: Any, wanted: Any) -> None:
    assert render(value) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("input.zap", "there is no field zap"),
        ("input['zap']", "there is no field zap"),
        ("input.a > 1 && input.s.zap", "input.s is no object, it has no field zap"),
        ("input.none.zap.zip", "input.none is no object, it has no field zap"),
        ("input.list.map(x, x.zap)", "a field is asked of what is no object"),
        ("1 / 0", "INVALID_ARGUMENT: divide by zero"),
    ],
)
def test_the_usual_mistakes_are_told_in_plain_words(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text).evaluate(SCOPE)
    assert str(caught.value) == f"`{text}`: {words}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text().filter(lambda t: "${" not in t),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_data_without_expressions_is_returned_as_it_is(value: Any) -> None:
    template, complaints = compile_template(value, "$")
    assert complaints == []
    assert template.render({}) is value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${input.a", "not closed"),
        ("${inptu.a}", "undeclared reference to 'inptu"),
        ("${input.}", "Syntax error"),
        ("${}", "`"),
        ("${" + "1+" * 3000 + "1}", "the most is 4096"),
    ],
)
def test_what_cannot_be_compiled_is_named(value: str, words: str) -> None:
    _, complaints = compile_template({"k": [value]}, "$.with")
    assert [path for path, _ in complaints] == ["$.with.k[0]"]
    assert words in complaints[0][1]


@pytest.mark.parametrize(
    "text",
    [
        "input.l.map(a, input.l.map(b, input.l.map(c, input.l.map(d, 1))))",
        "[[1]].map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a)",
    ],
)
def test_expressions_that_could_run_for_ever_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text)


def test_nested_macros_over_long_lists_are_refused_before_they_run() -> None:
    expression = compile_expression("input.l.map(a, input.l.map(b, a * b))")
    assert expression.evaluate({"input": {"l": [1, 2]}}) == [[1, 2], [2, 4]]
    with pytest.raises(ExpressionError, match="would walk lists of 5000"):
        expression.evaluate({"input": {"l": list(range(5_000))}})


@pytest.mark.parametrize("text", ["input.zap", "input.list[9]", "1 / 0", "1.0 / 0.0", "input.a + input.b"])
def test_a_failure_at_run_time_says_which_expression(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        render({"k": f"${{{text}}}"})
    assert text in str(caught.value)
    assert "$.k" in str(caught.value)


def test_references_are_what_is_written_out() -> None:
    expression = compile_expression(
        "steps.a.output.x + size(steps['b-c'].output) + input.s.size() + 'vars.no'.size()"
    )
    assert set(expression.references) == {
        ("steps", "a", "output", "x"),
        ("steps", "b-c", "output"),
        ("input", "s"),
    }


@pytest.mark.parametrize(
    "text",
    [
        '''"""a"b""" + input.x + "c"''',
        "'''it's''' + input.x + 'c'",
        """r'\\d' + input.x + R"\\d" """,
        "'a' // it's\n + input.x + 'c'",
        "'a\\'' + input.x + 'c\\''",
    ],
)
def test_what_stands_between_literals_is_seen(text: str) -> None:
    assert compile_expression(text).references == (("input", "x"),)


def test_macros_cannot_hide_between_literals() -> None:
    macros = "input.l.map(a, input.l.map(b, input.l.map(c, input.l.map(d, 1))))"
    with pytest.raises(ExpressionError, match="nested 4 deep"):
        compile_expression(f'''size("""a"b""") + size({macros}) + size("c")''')


def test_an_expression_sees_the_names_it_is_given_and_no_others() -> None:
    expression = compile_expression("item.x + index", ("item", "index"))
    assert expression.evaluate({"item": {"x": 1}, "index": 2}) == 3
    assert expression.references == (("item", "x"), ("index",))
    with pytest.raises(ExpressionError, match="undeclared reference to 'input"):
        compile_expression("input.x", ("item",))
    with pytest.raises(ExpressionError, match="undeclared reference to 'item"):
        compile_expression("item.x")


def test_a_narrowed_scope_holds_what_is_read_and_nothing_else() -> None:
    template, complaints = compile_template(
        ["${input.o.k}", "${has(input.o.zap)}", "${input.list[0]}", "${steps['charge-card'].output}"], "$"
    )
    assert complaints == []
    narrowed = narrow(SCOPE, template)
    assert narrowed == {
        "input": {"o": {"k": [True]}, "list": [1, 2, 3]},
        "steps": {"charge-card": {"output": {"id": 7}}},
    }
    assert template.render(narrowed) == template.render(SCOPE) == [[True], False, 1, {"id": 7}]
    whole, _ = compile_template("${input[execution.id]}", "$")
    assert narrow(SCOPE, whole) == {"input": SCOPE["input"], "execution": SCOPE["execution"]}


SCALARS = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.booleans() | st.none()
SCALARS |= st.integers(-(2**64), 2**64) | st.floats()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("xy"), inner)))
def test_a_field_that_is_passed_on_is_what_cel_would_make_of_it(value: Any) -> None:
    def evaluated(text: str) -> str:
        try:
            return repr(compile_expression(text).evaluate({"input": {"x": value}}))
        except ExpressionError:
            return "an error"

    assert evaluated("input.x") == evaluated("(input.x)")
    assert evaluated("input.x.y") == evaluated("(input.x.y)")


def test_a_complaint_holds_no_hundreds_of_digits() -> None:
    template, _ = compile_template("${input.n + 1}", "$.x")
    with pytest.raises(ExpressionError, match=r"10{19}\.\.\. \(401 digits\)") as caught:
        template.render({**SCOPE, "input": {"n": 10**400}})
    assert len(str(caught.value)) < 300
