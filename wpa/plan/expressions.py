"""Expressions: CEL, behind a small interface of our own.

CEL ends always, but it has no cost limit: macros nested over long lists, lists that double in every step of
a chain, or a function that goes over megabytes in each of thousands of rounds run for minutes and take
gigabytes. What an expression may cost is therefore bounded before it is evaluated: from its text (length,
macros, their nesting, additions), and, unless text and data are small, from both (:mod:`wpa.plan.costs`).
What patterns cost is counted meanwhile (:mod:`wpa.plan.meter`), and what a template's expressions cost is
added up (:mod:`wpa.plan.effort`). And CEL's Python binding ends every text at a NUL: an expression that is a
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

from wpa.plan import growth, trees
from wpa.plan.costs import ROUNDS_MAX, nanoseconds
from wpa.plan.effort import Effort, TooMuch
from wpa.plan.meter import Meter
from wpa.plan.paths import at, longest_in, measured, narrowed, passed_on
from wpa.plan.plain import eased
from wpa.plan.trees import Tree
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
NANOSECONDS_MAX: Final = 1_500_000_000
"""What an evaluation may take, counted before it begins (:mod:`wpa.plan.costs`)."""
SMALL_CHARS: Final = 8_000
SMALL_ITEMS: Final = 200
SMALL_WORK: Final = 30_000_000
"""Below these, nothing is counted: at 30 ns each, it is a second's work at the very most."""

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
_GROWING = re.compile(r"\b(?:matches|replace|join|format)\s*\(")
"""What may take long on small data."""
_MANY_DIGITS: Final = re.compile(r"\d{40,}")
_NO_ROUNDS: Final = "Iteration budget exceeded"
_NO_FIELDS: Final = "INVALID_ARGUMENT: Applying SELECT to non-message type"
_COMPLAINT = re.compile(r"ERROR: <input>:\d+:(\d+): (.*)")


class ExpressionError(ValueError):
    """An expression that can't be compiled, may not be evaluated, or failed."""


class Expression:
    """A compiled expression. ``references`` are the paths it reads, such as ("steps", "charge", "output")."""

    __slots__ = (
        "_bare",
        "_depth",
        "_dialect",
        "_eased",
        "_macros",
        "_ordered",
        "_path",
        "_program",
        "_reads",
        "_tree",
        "_walks",
        "references",
        "text",
    )

    def __init__(
        self, text: str, bare: str, dialect: _Dialect, program: Any, walks: tuple[Walk, ...]
    ) -> None:
        self.text = text
        self.references = tuple(dialect.references(text)[0])
        self._bare = bare
        self._dialect = dialect
        self._program = program
        self._walks = walks
        self._ordered: Any = None
        """The program for data in which one of the walks may be over an object."""
        self._eased: dict[int, Any] = {}
        """Either program as it is for much data, by its identity."""
        self._tree: Tree | None = None
        self._depth = _bound(bare)
        self._macros = len(_MACRO.findall(bare))
        self._reads = dialect.reads(bare, self.references)
        """What it may read at most."""
        is_path = len(self.references) == 1 and text == ".".join(self.references[0])
        self._path = self.references[0] if is_path else None
        """What it reads, where it does nothing else: most expressions only pass on a field."""

    def evaluate(self, scope: Mapping[str, Any], effort: Effort | None = None) -> Any:
        """The value, as JSON-ready data. Raises ExpressionError: what is wrong with the data, or the cost.

        Args:
            scope: the variables.
            effort: what is counted together with others' effort; None where there are no others.
        """
        try:
            return self._evaluate(scope, effort or Effort())
        except TooMuch as error:
            raise ExpressionError(f"`{self.text}`: {error}") from None

    def _evaluate(self, scope: Mapping[str, Any], effort: Effort) -> Any:
        if self._path is not None:
            try:
                value = passed_on(scope, self._path)
            except ValueError:
                pass  # CEL says what is wrong
            else:
                effort.pass_on(*measured(value)[:2])
                return value
        if self._depth > 1:
            longest = max((longest_in(scope.get(path[0]), 1_000) for path in self.references), default=0)
            if longest**self._depth > WALK_MAX:
                raise ExpressionError(
                    f"`{self.text}` would walk lists of {longest} elements, nested {self._depth} deep"
                )
        chars = self._read(scope, effort)
        data = narrowed(scope, self._reads)
        longest = self._longest(data, chars)
        if not self._is_small(chars, longest, effort):
            self._count(data, effort)
        meter = self._dialect.meter
        meter.begin()
        try:
            program = self._program_for(scope)
            if longest > SMALL_ITEMS or "matches" in self._bare:
                program = self._eased_of(program)
            value = program.eval(data=data)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise ExpressionError(f"`{self.text}`: {self._told(str(error), scope)}") from None
        effort.spend(meter.nanoseconds)
        if refused := meter.refused:
            raise ExpressionError(f"`{self.text}`: {refused}")
        if value.type() == self._dialect.error:
            raise ExpressionError(f"`{self.text}`: {self._told(str(value.value()), scope)}")
        plain = value.plain_value()
        return plain if type(plain) in (str, bool, int) else _json(plain, self.text)

    def _read(self, scope: Mapping[str, Any], effort: Effort) -> int:
        """How long what it reads is as JSON, about. Raises ExpressionError for what CEL would cut short."""
        chars, values, seen = 0, 0, set()
        for path in self._reads:
            found = at(scope, path)
            if id(found) in seen:
                continue
            seen.add(id(found))
            length, count, has_nul = measured(found)
            if has_nul:
                name = ".".join(path)
                raise ExpressionError(f"`{self.text}`: {name} holds a NUL character, which CEL can't take")
            chars += length
            values += count
        effort.read(chars, values)
        return chars

    def _longest(self, data: Mapping[str, Any], chars: int) -> int:
        """How long the lists may be that macros walk over: those of the data, and such as it makes itself."""
        if not self._macros:
            return 0
        if chars > SMALL_CHARS or "split" in self._bare:
            return max(chars, len(self.text))
        longest = max(self._bare.count(","), *map(longest_in, data.values()), 0)
        return longest * (1 + self._bare.count("+"))

    def _is_small(self, chars: int, longest: int, effort: Effort) -> bool:
        """Whether it surely takes no time worth counting, whatever it does."""
        if chars > SMALL_CHARS or longest > SMALL_ITEMS or _GROWING.search(self._bare):
            return False
        if self._macros:
            parts = len(self._bare) // 2
            effort.small += (chars + len(self.text)) * max(longest, parts) ** self._macros * parts
        return effort.small <= SMALL_WORK

    def _count(self, data: Mapping[str, Any], effort: Effort) -> None:
        """Raises ExpressionError where it could take too long, TooMuch where it is too much with others."""
        if self._tree is None:
            self._tree = trees.read(self._program.serialize())
        if (spent := nanoseconds(self._tree, data)) > NANOSECONDS_MAX:
            raise ExpressionError(
                f"`{self.text}` could take {spent / 1e9:.1f} s on so much data; read less inside of macros "
                "(map, filter, all ...), walk shorter lists, or leave it to a step"
            )
        effort.spend(spent)

    def _eased_of(self, program: Any) -> Any:
        known = self._eased.get(id(program))
        if known is None:
            known = self._eased[id(program)] = eased(self._dialect.extended, program)
        return known

    def _program_for(self, scope: Mapping[str, Any]) -> Any:
        """To have walks in order costs as much as they do: not where all of them are over lists."""
        for walk in self._walks:
            if walk.path is None or type(at(scope, walk.path)) is not list:
                if self._ordered is None:
                    in_turn = in_order(self.text, self._walks)
                    self._ordered = self._dialect.extended.compile(growth.bounded(in_turn, _bare(in_turn)))
                return self._ordered
        return self._program

    def _told(self, complaint: str, scope: Mapping[str, Any]) -> str:
        """What CEL says, of the usual mistakes in words that need no knowledge of CEL."""
        complaint = growth.as_written(complaint)
        if found := _NO_KEY.fullmatch(complaint):
            return f"there is no field {found[1]}"
        if found := _NO_WALK.search(complaint):
            return f"only a list or an object can be walked over; this is {found[1] or 'neither'}"
        if _NO_ROUNDS in complaint:
            return f"its macros (map, filter, all ...) take {ROUNDS_MAX:,} rounds or more; walk shorter lists"
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
        self.meter = Meter()
        self._chain = re.compile(rf"(?<![\w.])({'|'.join(names)})(?!\w){_LINKS}")
        self._absolute = re.compile(rf"(?:^|\bin|[^\w\s)\]}}\"'])\s*\.\s*(?:{'|'.join(names)})(?!\w)")
        self._names = names

    @cached_property
    def extended(self) -> Any:
        """The same with :func:`keys_in_order`, :mod:`wpa.plan.growth` and ``matches``: few need it."""
        cel = self._cel
        overloads = [
            cel.Overload(f"{IN_ORDER}_{kind}", cel.Type.LIST, [kind], is_member=True, impl=keys_in_order)
            for kind in (cel.Type.MAP, cel.Type.LIST)
        ]
        in_order = cel.FunctionDecl(IN_ORDER, overloads)
        functions = [in_order, *growth.functions(cel), *self.meter.functions(cel)]
        return cel.NewEnv(**self._known, functions=functions)

    def references(self, text: str) -> tuple[dict[tuple[str, ...], None], dict[int, tuple[str, ...]]]:
        """The paths that an expression reads, as far as they are written out; and those of them of which a
        method is called, by where its parenthesis opens."""
        # Literals are blanked, except where they index: steps["charge-card"] is a path.
        found: dict[tuple[str, ...], None] = {}
        called = {}
        inside = [match.span() for match in _STRING.finditer(text)]
        for match in self._chain.finditer(text):
            if any(start < match.start() < end for start, end in inside):
                continue
            links = [plain or quoted for plain, quoted in _LINK.findall(match[2])]
            behind = text[match.end() :].lstrip()
            if links and behind.startswith("("):
                links.pop()  # a method, not a field
                called[len(text) - len(behind)] = (match[1], *links)
            found[match[1], *links] = None
        return found, called

    def reads(self, bare: str, references: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        """What an expression may read: its references, or all, where a name is written as ``.input``."""
        return tuple((name,) for name in self._names) if self._absolute.search(bare) else references


_dialect = lru_cache(maxsize=64)(_Dialect)


def compile_expression(text: str, names: tuple[str, ...] = ROOTS) -> Expression:
    """Compile one expression, in which the variables ``names`` may be used.

    Raises ExpressionError: what is wrong, and in which column.
    """
    if len(text) > LENGTH_MAX:
        raise ExpressionError(f"the expression has {len(text)} characters; the most is {LENGTH_MAX}")
    bare = _bare(text)
    _bound(bare)
    dialect = _dialect(names)
    try:
        program = dialect.environment.compile(text)
    except (RuntimeError, TypeError, ValueError) as error:
        found = _COMPLAINT.search(str(error))
        message = f"column {found[1]}: {found[2]}" if found else str(error).splitlines()[0]
        raise ExpressionError(message.replace(" (in container '')", "")) from None
    walks = unordered_walks(bare, _MACRO, dialect.references(text)[1])
    if (bounded := growth.bounded(text, bare)) != text:
        if growth.holds_nul(text):
            raise ExpressionError("a NUL character, which CEL can't take, with replace or join")
        program = dialect.extended.compile(bounded)
    return Expression(text, bare, dialect, program, walks)


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
