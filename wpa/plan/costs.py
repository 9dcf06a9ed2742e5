"""What an expression takes at most, on certain data: counted before it is evaluated, never measured.

CEL holds the interpreter's lock for as long as an evaluation lasts, and has no limit but that on the rounds
of its macros, some ten thousand. A round may go over megabytes, though, and ``x + x`` in each of a chain of
macros doubles what there is. So here the expression's tree is gone over once, with the data: of each part is
told how often it is evaluated, in all rounds together, and how much there is, in all of them together. What
a loop's item is, is known, and counts once in all; what is read from outside counts in each round.

It is an upper bound: both branches of ``? :`` are counted, and what ``&&`` would not come to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from wpa.plan.growth import TEXT_CHARS_MAX
from wpa.plan.pattern_price import PER_STEP_US, price
from wpa.plan.plain import gathered
from wpa.plan.trees import Tree

__all__ = ["ROUNDS_MAX", "nanoseconds"]

ROUNDS_MAX: Final = 10_000
"""CEL gives up there, all macros of an evaluation together."""
# What it takes, in nanoseconds of a slow core.
PART_NS: Final = 200
GATHERED_NS: Final = 5_000
CHAR_NS: Final = 30
VALUE_NS: Final = 300
MADE_CHAR_NS: Final = 10  # by a function of ours
GIVEN_CHAR_NS: Final = 3
COMPARED_CHARS: Final = 6  # in a nanosecond
SOUGHT_CHARS: Final = 32  # likewise; each character of the text with each of what is looked for
COMPARED_VALUE_NS: Final = 150
LOOKED_AT_NS: Final = 40
ADDED_VALUE_NS: Final = 100
CALLED_NS: Final = 30_000  # a function of ours
GIVEN_VALUE_NS: Final = 2_000
FORMATTED_CHARS: Final = 70
PRECISE_CHARS: Final = 1_400
"""So long may be what ``format`` makes of a number; with a precision, where it has no limit of its own."""
NUMBER_CHARS: Final = 40

_COMPARING: Final = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "startsWith", "endsWith")
_DECIDING: Final = ("_&&_", "_||_", "!_", "@not_strictly_false", "__not_strictly_false__")
_SEEKING: Final = ("contains", "indexOf", "lastIndexOf", "split")
_TELLING: Final = ("contains", "indexOf", "lastIndexOf", "int", "uint", "double", "bool")
"""What they give is small, whatever they are given."""


class _Amount:
    """How much there is of something, in all evaluations of it.

    Where the values themselves are known, they are ``known``, each of them evaluated ``each`` times at most;
    lists that were made of them count as one there, and ``lists`` of them there may be besides.
    """

    __slots__ = ("chars", "each", "known", "lists", "values")

    def __init__(
        self,
        chars: int = 0,
        values: int = 0,
        known: list[Any] | None = None,
        each: int = 1,
        lists: int = 0,
    ) -> None:
        self.chars = chars
        self.values = values
        self.known = known
        self.each = each
        self.lists = lists

    def more(self, times: int) -> _Amount:
        """The same, in each of so many rounds."""
        each = min(self.each * times, ROUNDS_MAX)
        return _Amount(self.chars * times, self.values * times, self.known, each, self.lists * times)


def nanoseconds(tree: Tree, data: Mapping[str, Any]) -> int:
    """What an evaluation takes at most, on a slow core; but for matching patterns that come with the data."""
    costs = _Costs()
    names = {name: _Amount(known=[value]) for name, value in data.items()}
    given = costs.sized(costs.of(tree, names, 1))
    return costs.spent + given.values * GIVEN_VALUE_NS + given.chars * GIVEN_CHAR_NS


Names = Mapping[str, _Amount]


class _Costs:
    def __init__(self) -> None:
        self.spent = 0
        self._sizes: dict[int, tuple[int, int]] = {}
        """By the identity of what is a part of the data: it lives as long."""

    # -- how much there is -------------------------------------------------------------------

    def _size(self, value: Any) -> tuple[int, int]:
        """Characters and values in it, all the way down."""
        if type(value) is str:
            return len(value), 1
        if not isinstance(value, dict | list):
            return 0, 1
        known = self._sizes.get(id(value))
        if known is None:
            members = value.values() if isinstance(value, dict) else value
            chars, values = self._all(members)
            values += 1
            if isinstance(value, dict):
                chars += sum(map(len, value))
                values += len(value)
            known = self._sizes[id(value)] = chars, values
        return known

    def _all(self, values: Collection[Any]) -> tuple[int, int]:
        kinds = set(map(type, values))
        if kinds == {str}:
            return sum(map(len, values)), len(values)
        if not kinds & {str, dict, list}:
            return 0, len(values)
        sizes = [self._size(value) for value in values]
        return sum(chars for chars, _ in sizes), sum(count for _, count in sizes)

    def sized(self, amount: _Amount) -> _Amount:
        """The amount, counted where that was not done before."""
        if amount.known is not None and not amount.values:
            chars, values = self._all(amount.known)
            amount.chars = amount.each * chars
            amount.values = amount.each * values + amount.lists
        return amount

    def _sum(self, *amounts: _Amount) -> _Amount:
        counted = [self.sized(amount) for amount in amounts]
        return _Amount(sum(amount.chars for amount in counted), sum(amount.values for amount in counted))

    # -- the parts of an expression ----------------------------------------------------------

    def of(self, tree: Tree, names: Names, times: int) -> _Amount:
        """How much a part gives, evaluated so many times; what that takes is spent."""
        self.spent += PART_NS * times
        kind = tree.kind
        if kind == "const":
            return _Amount(known=[tree.text or len(tree.raw)], each=times)
        if kind == "name":
            return names.get(tree.text) or _Amount(0, times)
        if kind == "fold":
            return self._fold(tree, names, times)
        parts = [self.of(part, names, times) for part in tree.parts]
        if kind == "field":
            return _Amount(0, times) if tree.is_test else self._field(parts[0], tree.text)
        if kind == "call":
            return self._call(tree, parts, times)
        if kind == "list":
            return self._members(parts, times, len(parts))
        whole = self._sum(*parts)
        return _Amount(whole.chars, whole.values + times)

    @staticmethod
    def _field(owner: _Amount, name: str) -> _Amount:
        if owner.known is None:
            return owner
        found = [value[name] for value in owner.known if isinstance(value, dict) and name in value]
        return _Amount(known=found, each=owner.each)

    def _members(self, parts: list[_Amount], times: int, count: int) -> _Amount:
        """Lists of so many members at most; where these are known, one that holds them all."""
        if not parts:
            return _Amount(known=[[]], each=times)
        members = [value for part in parts for value in part.known or ()]
        is_known = all(part.known is not None and part.each == parts[0].each for part in parts)
        if is_known and len(members) >= count:
            lists = times + sum(part.lists for part in parts)
            return _Amount(known=[members], each=parts[0].each, lists=lists)
        whole = self._sum(*parts)
        return _Amount(whole.chars, whole.values + times)

    def _fold(self, tree: Tree, names: Names, times: int) -> _Amount:
        walked = self.of(tree.parts[0], names, times)
        self.of(tree.parts[1], names, times)
        if walked.known is not None:
            lists = [list(value) for value in walked.known if isinstance(value, dict | list)]
            members = [member for members in lists for member in members]
            item = _Amount(known=members, each=walked.each, lists=walked.lists)
            longest = max(map(len, lists), default=0)
            rounds = walked.each * sum(map(len, lists))
        else:
            item = walked
            longest = rounds = walked.values
        longest, rounds = min(longest, ROUNDS_MAX), min(rounds, ROUNDS_MAX)
        self.spent += VALUE_NS * rounds
        name, gathers = tree.names
        inner = {other: amount.more(longest) for other, amount in names.items()}
        inner |= {name: item, gathers: _Amount(0, rounds)}
        found = gathered(tree)
        if found is None:
            for part in tree.parts[2:]:
                self.of(part, inner, rounds)
            return _Amount(0, times)
        taken, made = found
        if taken is not None:
            self.of(taken, inner, rounds)
        member = self.of(made, inner, rounds)
        self.spent += GATHERED_NS * rounds
        return self._members([member], times, longest)

    # -- functions ---------------------------------------------------------------------------

    def _call(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        name = tree.text
        if name in _DECIDING:
            return _Amount(0, times)
        if name == "_?_:_":
            return self._either(parts[1], parts[2])
        if name == "_[_]":
            return self._child(tree, parts[0], times)
        special = _FUNCTIONS.get(name)
        if special is not None:
            return special(self, tree, parts, times)
        if name in _COMPARING:
            first, second = map(self.sized, parts)
            self.spent += min(first.chars, second.chars) // COMPARED_CHARS
            self.spent += min(first.values, second.values) * COMPARED_VALUE_NS
            return _Amount(0, times)
        whole = self._sum(*parts)
        self.spent += whole.chars * (0 if name == "contains" else CHAR_NS) + whole.values * VALUE_NS
        if name in _SEEKING:
            self.spent += self.sized(parts[0]).chars * self._longest_text(parts[1]) // SOUGHT_CHARS
        if name in _TELLING:
            return _Amount(0, times)
        return _Amount(whole.chars + NUMBER_CHARS * times, whole.values + times)

    def _either(self, first: _Amount, second: _Amount) -> _Amount:
        if second.known == [[]]:
            return first
        if first.known == [[]]:
            return second
        if first.known is not None and second.known is not None and first.each == second.each:
            lists = first.lists + second.lists
            return _Amount(known=first.known + second.known, each=first.each, lists=lists)
        return self._sum(first, second)

    def _child(self, tree: Tree, owner: _Amount, times: int) -> _Amount:
        key = tree.parts[1]
        if owner.known is None:
            return owner
        if key.kind == "const" and key.text:
            return self._field(owner, key.text)
        holders = [value for value in owner.known if isinstance(value, dict | list)]
        children = [
            child for value in holders for child in (value.values() if type(value) is dict else value)
        ]
        if not {dict, list, str} & set(map(type, children)):
            return _Amount(0, times)
        sizes = [self._size(child) for child in children]
        return _Amount(max(chars for chars, _ in sizes) * times, max(count for _, count in sizes) * times)

    def _longest_text(self, amount: _Amount) -> int:
        if amount.known is None:
            return min(amount.chars, TEXT_CHARS_MAX)
        return max((len(value) for value in amount.known if isinstance(value, str)), default=0)

    def _in(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        what, where = parts
        if where.known is None or not all(isinstance(value, dict) for value in where.known):
            self.sized(where)
            is_flat = what.known is not None and not {dict, list} & set(map(type, what.known))
            self.spent += where.values * (LOOKED_AT_NS if is_flat else COMPARED_VALUE_NS)
            self.spent += where.chars // COMPARED_CHARS
        return _Amount(0, times)

    def _length(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        known = parts[0].known
        if known is None:
            self.spent += parts[0].chars * CHAR_NS
        else:
            self.spent += sum(len(v) for v in known if isinstance(v, str)) * parts[0].each * CHAR_NS
        return _Amount(0, times)

    def _added(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        whole = self._sum(*parts)
        self.spent += whole.chars * CHAR_NS + whole.values * ADDED_VALUE_NS
        return whole

    def _matches(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        text = self.sized(parts[0])
        pattern = tree.parts[1]
        if pattern.kind == "const":
            steps = times * price(pattern.text, 0) + price(pattern.text, text.chars)
            self.spent += steps * PER_STEP_US * 1_000
        else:
            self.spent += times * CALLED_NS + (text.chars + self.sized(parts[1]).chars) * CHAR_NS
        return _Amount(0, times)

    def _replaced(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        text, old, new = map(self.sized, parts[:3])
        shortest = min(map(len, (v for v in old.known or [""] if isinstance(v, str))), default=0)
        spots = (text.chars + times) // max(1, shortest)
        chars = min(text.chars + spots * self._longest_text(parts[2]), TEXT_CHARS_MAX * times)
        self.spent += times * CALLED_NS + (text.chars + old.chars + new.chars + chars) * MADE_CHAR_NS
        return _Amount(chars, times)

    def _joined(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        whole = self.sized(parts[0])
        between = self._longest_text(parts[1]) if len(parts) > 1 else 0
        chars = min(whole.chars + whole.values * between, TEXT_CHARS_MAX * times)
        self.spent += times * CALLED_NS + whole.values * VALUE_NS + (whole.chars + chars) * MADE_CHAR_NS
        return _Amount(chars, times)

    def _formatted(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        whole = self._sum(*parts)
        form = tree.parts[0]
        is_short = form.kind == "const" and "%." not in form.text
        chars = whole.chars + whole.values * (FORMATTED_CHARS if is_short else PRECISE_CHARS)
        self.spent += whole.values * VALUE_NS + chars * CHAR_NS
        return _Amount(chars, times)

    def _split(self, tree: Tree, parts: list[_Amount], times: int) -> _Amount:
        text, by = self.sized(parts[0]), tree.parts[1]
        pieces = text.chars + times
        if text.known is not None and by.kind == "const" and by.text:
            pieces = text.each * sum(v.count(by.text) + 1 for v in text.known if isinstance(v, str))
        self.spent += text.chars + pieces * VALUE_NS
        self.spent += text.chars * self._longest_text(parts[1]) // SOUGHT_CHARS
        return _Amount(text.chars, pieces + times)


_FUNCTIONS: Final[Mapping[str, Callable[[_Costs, Tree, list[_Amount], int], _Amount]]] = {
    "@in": _Costs._in,  # noqa: SLF001
    "size": _Costs._length,  # noqa: SLF001
    "_+_": _Costs._added,  # noqa: SLF001
    "matches": _Costs._matches,  # noqa: SLF001
    "replace": _Costs._replaced,  # noqa: SLF001
    "wpa_replace": _Costs._replaced,  # noqa: SLF001
    "join": _Costs._joined,  # noqa: SLF001
    "wpa_join": _Costs._joined,  # noqa: SLF001
    "format": _Costs._formatted,  # noqa: SLF001
    "split": _Costs._split,  # noqa: SLF001
}
