"""Expressions: CEL, behind a small interface of our own.

CEL ends always, but it has no cost limit: macros nested over long lists, or lists that double in every
step of a chain, run for minutes and take gigabytes. What an expression may cost is therefore bounded
before it is evaluated, from its text (length, macros, their nesting, additions) and, for nested macros,
from the longest list it could walk. And its Python binding ends every text at a NUL: an expression that is a
path only gives such texts as they are, any other refuses them. Objects have their keys in order: CEL's own
is another in each process (see :mod:`wpa.plan.walks`).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Final

import msgspec

from wpa.model.integers import INT_MAX, INT_MIN
from wpa.plan import growth
from wpa.plan.walks import IN_ORDER, Walk, in_order, keys_in_order, unordered_walks

__all__ = ["LOCALS", "RESERVED", "ROOTS", "Expression", "ExpressionError", "compile_expression"]

ROOTS: Final = ("input", "vars", "steps", "execution")
LOCALS: Final = ("index", "output")
"""What the expressions of a repeated step see besides, and its item under a name of its own."""
RESERVED: Final = re.compile(
    "all|as|bool|break|bytes|const|continue|double|duration|dyn|else|exists|exists_one|false|filter|for|function|"
    "has|if|import|in|int|let|list|loop|map|matches|math|namespace|null|null_type|package|return|size|string|"
    "strings|timestamp|true|type|uint|var|void|while"
)
"""Words that CEL keeps for itself: no name of a variable."""
LENGTH_MAX: Final = 4_096
NESTING_MAX: Final = 3
GROWTH_MAX: Final = 10_000
WALK_MAX: Final = 1_000_000

_MACRO = re.compile(r"\.\s*(map|filter|all|exists|exists_one|sortBy|transformList|transformMap)\s*\(")
_STRING = re.compile(
    r"""(?<!\w)(?:[bB]?[rR]|[rR][bB])(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|"{3}(?:[^\\]|\\.)*?"{3}|'{3}(?:[^\\]|\\.)*?'{3}"""
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|//[^\n]*""",
    re.DOTALL,
)
"""Literals and comments: whatever stands in them is no part of the expression."""
_LINKS = r"""((?:\s*\.\s*[A-Za-z_]\w*|\s*\[\s*(?:"[^"\\]*"|'[^'\\]*')\s*\])*)"""
_LINK = re.compile(r"""\.\s*([A-Za-z_]\w*)|\[\s*["']([^"']*)["']\s*\]""")
_NO_KEY = re.compile(r'NOT_FOUND: Key not found in map : "(.*)"')
_NO_WALK = re.compile(rf"\((\w+)\)\.{IN_ORDER}\(\)|<iter_range>")
_MANY_DIGITS: Final = re.compile(r"\d{40,}")
_NO_FIELDS: Final = "INVALID_ARGUMENT: Applying SELECT to non-message type"
_COMPLAINT = re.compile(r"ERROR: <input>:\d+:(\d+): (.*)")


class ExpressionError(ValueError):
    """An expression that can't be compiled, may not be evaluated, or failed."""


class Expression:
    """A compiled expression. ``references`` are the paths it reads, such as ("steps", "charge", "output")."""

    __slots__ = ("_depth", "_error", "_ordered", "_path", "_program", "_walks", "references", "text")

    def __init__(
        self,
        text: str,
        program: Any,
        references: tuple[tuple[str, ...], ...],
        depth: int,
        error: Any,
        walks: tuple[Walk, ...] = (),
        ordered: Any = None,
    ) -> None:
        self.text = text
        self._program = program
        self._walks = walks
        self._ordered = ordered
        """The program for data in which one of the walks may be over an object."""
        self._error = error
        """CEL's type of a value that is an error."""
        self.references = references
        self._depth = depth
        is_path = len(references) == 1 and text == ".".join(references[0])
        self._path = references[0] if is_path else None
        """What it reads, where it does nothing else: most expressions only pass on a field."""

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """The value, as JSON-ready data. Raises ExpressionError: what is wrong with the data, or the cost."""
        if self._path is not None and (passed_on := _scalar_at(scope, self._path)) is not None:
            return passed_on
        if self._depth > 1:
            longest = max((_longest(scope.get(path[0])) for path in self.references), default=0)
            if longest**self._depth > WALK_MAX:
                raise ExpressionError(
                    f"`{self.text}` would walk lists of {longest} elements, nested {self._depth} deep"
                )
        for path in self.references:
            found = _at(scope, path)
            if _holds_nul(found):
                if self.text == ".".join(path):
                    return found
                name = ".".join(path)
                raise ExpressionError(f"`{self.text}`: {name} holds a NUL character, which CEL can't take")
        try:
            value = self._program_for(scope).eval(data=scope)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise ExpressionError(f"`{self.text}`: {self._told(str(error), scope)}") from None
        if value.type() == self._error:
            raise ExpressionError(f"`{self.text}`: {self._told(str(value.value()), scope)}")
        plain = value.plain_value()
        return plain if type(plain) in (str, bool, int) else _json(plain, self.text)

    def _program_for(self, scope: Mapping[str, Any]) -> Any:
        """To have walks in order costs as much as they do: not where all of them are over lists."""
        for walk in self._walks:
            if walk.path is None or type(_at(scope, walk.path)) is not list:
                return self._ordered
        return self._program

    def _told(self, complaint: str, scope: Mapping[str, Any]) -> str:
        """What CEL says, of the usual mistakes in words that need no knowledge of CEL."""
        complaint = growth.as_written(complaint)
        if found := _NO_KEY.fullmatch(complaint):
            return f"there is no field {found[1]}"
        if found := _NO_WALK.search(complaint):
            return f"only a list or an object can be walked over; this is {found[1] or 'neither'}"
        if complaint != _NO_FIELDS:
            return _MANY_DIGITS.sub(lambda run: f"{run[0][:20]}... ({len(run[0])} digits)", complaint)
        for path in self.references:
            value = scope.get(path[0])
            for depth, link in enumerate(path[1:], start=1):
                if not isinstance(value, dict):
                    return f"{'.'.join(path[:depth])} is no object, it has no field {link}"
                value = value.get(link, {})
        return "a field is asked of what is no object"


class _Dialect:
    """CEL with certain variables, and no others."""

    def __init__(self, names: tuple[str, ...]) -> None:
        # Late: CEL takes 12 MB, and many workers never see an expression.
        from cel_expr_python import cel
        from cel_expr_python.ext import ext_math, ext_strings

        self.error = cel.Type.ERROR
        self._cel = cel
        self._known = {
            "variables": dict.fromkeys(names, cel.Type.DYN),
            "extensions": [ext_strings.ExtStrings(), ext_math.ExtMath()],
        }
        self.environment = cel.NewEnv(**self._known)
        self.chain = re.compile(rf"(?<![\w.])({'|'.join(names)})(?!\w){_LINKS}")

    @cached_property
    def extended(self) -> Any:
        """The same with :func:`keys_in_order` and :mod:`wpa.plan.growth`: few expressions need it."""
        cel = self._cel
        overloads = [
            cel.Overload(f"{IN_ORDER}_{kind}", cel.Type.LIST, [kind], is_member=True, impl=keys_in_order)
            for kind in (cel.Type.MAP, cel.Type.LIST)
        ]
        functions = [cel.FunctionDecl(IN_ORDER, overloads), *growth.functions(cel)]
        return cel.NewEnv(**self._known, functions=functions)


_dialect = lru_cache(maxsize=64)(_Dialect)


def compile_expression(text: str, names: tuple[str, ...] = ROOTS) -> Expression:
    """Compile one expression, in which the variables ``names`` may be used.

    Raises ExpressionError: what is wrong, and in which column.
    """
    if len(text) > LENGTH_MAX:
        raise ExpressionError(f"the expression has {len(text)} characters; the most is {LENGTH_MAX}")
    bare = _bare(text)
    depth = _bound(bare)
    dialect = _dialect(names)
    try:
        program = dialect.environment.compile(text)
    except (RuntimeError, TypeError, ValueError) as error:
        found = _COMPLAINT.search(str(error))
        message = f"column {found[1]}: {found[2]}" if found else str(error).splitlines()[0]
        raise ExpressionError(message.replace(" (in container '')", "")) from None
    references, called = _references(text, dialect.chain)
    walks = unordered_walks(bare, _MACRO, called)
    if (bounded := growth.bounded(text, bare)) != text:
        if growth.holds_nul(text):
            raise ExpressionError("a NUL character, which CEL can't take, with replace or join")
        program = dialect.extended.compile(bounded)
    in_turn = in_order(text, walks)
    ordered = dialect.extended.compile(growth.bounded(in_turn, _bare(in_turn))) if walks else None
    return Expression(text, program, references, depth, dialect.error, walks, ordered)


def _bare(text: str) -> str:
    """An expression, its literals and comments blanked."""
    return _STRING.sub(lambda match: '"' + "_" * (len(match[0]) - 2) + '"', text)


def _bound(bare: str) -> int:
    """How deep macros are nested. Raises ExpressionError for what could cost too much on any data."""
    if not _MACRO.search(bare):
        return 0
    opened = {match.end() - 1 for match in _MACRO.finditer(bare)}
    stack: list[bool] = []
    deepest = 0
    for index, char in enumerate(bare):
        if char == "(":
            stack.append(index in opened)
            deepest = max(deepest, sum(stack))
        elif char == ")" and stack:
            stack.pop()
    if deepest > NESTING_MAX:
        raise ExpressionError(
            f"macros (map, filter, all ...) are nested {deepest} deep; the most is {NESTING_MAX}"
        )
    if (bare.count("+") + 1) ** len(opened) > GROWTH_MAX:
        raise ExpressionError("too many additions together with macros: the result could grow without bound")
    return deepest


def _references(
    text: str, chain: re.Pattern[str]
) -> tuple[tuple[tuple[str, ...], ...], dict[int, tuple[str, ...]]]:
    """The paths that an expression reads, as far as they are written out; and those of them of which a method
    is called, by where its parenthesis opens."""
    # Literals are blanked, except where they index: steps["charge-card"] is a path.
    found = []
    called = {}
    inside = [match.span() for match in _STRING.finditer(text)]
    for match in chain.finditer(text):
        if any(start < match.start() < end for start, end in inside):
            continue
        links = [plain or quoted for plain, quoted in _LINK.findall(match[2])]
        behind = text[match.end() :].lstrip()
        if links and behind.startswith("("):
            links.pop()  # a method, not a field
            called[len(text) - len(behind)] = (match[1], *links)
        found.append((match[1], *links))
    return tuple(dict.fromkeys(found)), called


def _at(scope: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path, or as near to it as there is one."""
    value = scope.get(path[0])
    for link in path[1:]:
        if type(value) is not dict or link not in value:
            break
        value = value[link]
    return value


def _scalar_at(scope: Mapping[str, Any], path: tuple[str, ...]) -> str | bool | int | None:
    """The value at a path, where it surely comes out of CEL as it went in; CEL would first convert all that
    hangs on the variable. None for all else, and where there is no such field."""
    value = scope.get(path[0])
    for link in path[1:]:
        if type(value) is not dict:
            return None
        value = value.get(link)
    if type(value) is str:
        return value if value.isascii() else None  # half a surrogate pair, it refuses
    if type(value) is bool or (type(value) is int and INT_MIN <= value <= INT_MAX):
        return value
    return None


def _holds_nul(value: Any) -> bool:
    """Whether any text within ``value`` holds a NUL: on its way into CEL, it would silently end there."""
    kind = type(value)
    if kind is str:
        return "\0" in value
    if kind is not dict and kind is not list:
        return False
    # The encoder sees all of it at C speed; behind a backslash, what it has found may be something else.
    if b"\\u0000" not in msgspec.json.encode(value):
        return False
    inner = [*value, *value.values()] if kind is dict else value
    return any(map(_holds_nul, inner))


def _longest(value: Any) -> int:
    if isinstance(value, list):
        return max(len(value), max((_longest(item) for item in value[:1000]), default=0))
    if isinstance(value, dict):
        return max(len(value), max((_longest(item) for item in value.values()), default=0))
    return 0


def _json(value: Any, text: str) -> Any:
    """CEL's values as JSON: timestamps and durations as text, bytes as base64."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionError(f"`{text}` gives {value}, which JSON can't hold")
        return value
    if isinstance(value, dict):
        plain = {str(key): _json(item, text) for key, item in value.items()}
        return dict(sorted(plain.items()))
    if isinstance(value, list | tuple):
        return [_json(item, text) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | bool | int):
        return value
    raise ExpressionError(f"`{text}` gives a {type(value).__name__}, which JSON can't hold")
