"""Templates: JSON data in which strings may hold ``${ expression }``.

A string that is one expression and nothing else gives the expression's typed value. Within other text,
strings are inserted as they are and other values as JSON. ``$${`` is a literal ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from wpa.plan.effort import Effort
from wpa.plan.expressions import ROOTS, Expression, ExpressionError, compile_expression

__all__ = ["Template", "compile_condition", "compile_template", "has_expression"]

_OPEN: Final = re.compile(r"\$\$\{|\$\{")

Scope = Mapping[str, Any]
Render = Callable[[Scope, Effort], Any]


class Template:
    """Compiled data. A constant costs nothing to render: the same object is returned every time."""

    __slots__ = ("_render", "constant", "expressions")

    def __init__(
        self, constant: Any, render: Render | None, expressions: tuple[tuple[str, Expression], ...]
    ) -> None:
        self.constant = constant
        self._render = render
        self.expressions = expressions
        """Every expression within, with its JSON path below the template."""

    def render(self, scope: Scope) -> Any:
        """The data with its expressions evaluated. Raises ExpressionError, with the path."""
        return self.constant if self._render is None else self._render(scope, Effort())


class _Compiler:
    """Collects the expressions, and every complaint, of one template."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.expressions: list[tuple[str, Expression]] = []
        self.complaints: list[tuple[str, str]] = []

    def compile(self, value: Any, path: str) -> Render | None:
        """How to render ``value``; None for a constant."""
        if isinstance(value, str):
            return self._text(value, path) if "${" in value else None
        if isinstance(value, dict):
            parts = {key: self.compile(item, f"{path}.{key}") for key, item in value.items()}
            if any(parts.values()):
                return self._mapping(value, parts)
        elif isinstance(value, list):
            items = [self.compile(item, f"{path}[{index}]") for index, item in enumerate(value)]
            if any(items):
                return self._sequence(value, items)
        return None

    @staticmethod
    def _mapping(value: dict[str, Any], parts: dict[str, Render | None]) -> Render:
        def render(scope: Scope, effort: Effort) -> Any:
            return {key: value[key] if part is None else part(scope, effort) for key, part in parts.items()}

        return render

    @staticmethod
    def _sequence(value: list[Any], items: list[Render | None]) -> Render:
        def render(scope: Scope, effort: Effort) -> Any:
            return [
                old if item is None else item(scope, effort) for old, item in zip(value, items, strict=True)
            ]

        return render

    def _text(self, text: str, path: str) -> Render | None:
        try:
            pieces = list(_split(text))
        except ExpressionError as error:
            self.complaints.append((path, str(error)))
            return None
        renders: list[Render | str] = []
        for piece, is_expression in pieces:
            if not is_expression:
                renders.append(piece)
                continue
            try:
                expression = compile_expression(piece, self.names)
            except ExpressionError as error:
                self.complaints.append((path, f"`{piece}`: {error}"))
                continue
            self.expressions.append((path, expression))
            renders.append(_at(path, expression))
        if len(renders) == 1 and not isinstance(renders[0], str):
            return renders[0]
        return _joined(renders)


def _at(path: str, expression: Expression) -> Render:
    def render(scope: Scope, effort: Effort) -> Any:
        try:
            return expression.evaluate(scope, effort)
        except ExpressionError as error:
            raise ExpressionError(f"{path}: {error}") from None

    return render


def _joined(renders: list[Render | str]) -> Render:
    def render(scope: Scope, effort: Effort) -> str:
        return "".join(part if isinstance(part, str) else _insert(part(scope, effort)) for part in renders)

    return render


def _insert(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _split(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a string: (text, False) and (expression, True)."""
    start, literal = 0, ""
    while match := _OPEN.search(text, start):
        literal += text[start : match.start()]
        if match[0] == "$${":
            literal += "${"
            start = match.end()
            continue
        end = _closing(text, match.end())
        if literal:
            yield literal, False
            literal = ""
        yield text[match.end() : end].strip(), True
        start = end + 1
    literal += text[start:]
    if literal:
        yield literal, False


def _closing(text: str, start: int) -> int:
    """Where the ``}`` is that ends the expression beginning at ``start``; CEL has braces and strings, too."""
    depth, quote, index = 0, "", start
    while index < len(text):
        char = text[index]
        if quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return index
            depth -= 1
        index += 1
    raise ExpressionError("'${' is not closed with '}'; write '$${' for a literal '${'")


def compile_template(
    value: Any, path: str, names: tuple[str, ...] = ROOTS
) -> tuple[Template, list[tuple[str, str]]]:
    """The template, and every complaint as (JSON path, message); ``names`` are the variables it may use."""
    compiler = _Compiler(names)
    render = compiler.compile(value, path)
    return Template(value, render, tuple(compiler.expressions)), compiler.complaints


def has_expression(value: Any) -> bool:
    """Whether any string within ``value`` holds an expression (or an escaped one)."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict):
        return any(has_expression(item) for item in value.values())
    return isinstance(value, list) and any(has_expression(item) for item in value)


def compile_condition(
    text: str, path: str, names: tuple[str, ...] = ROOTS
) -> tuple[Template | None, list[tuple[str, str]]]:
    """An ``if`` or ``when``: one expression, with or without ``${ }`` around it."""
    bare = text.strip()
    if bare.startswith("${") and bare.endswith("}"):
        bare = bare[2:-1].strip()
    try:
        expression = compile_expression(bare, names)
    except ExpressionError as error:
        return None, [(path, f"`{bare}`: {error}")]
    return Template(text, _at(path, expression), ((path, expression),)), []
