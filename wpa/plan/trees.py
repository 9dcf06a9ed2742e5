"""Expressions as trees: what CEL has read, taken apart and put together again.

CEL gives a checked expression as a message of ``cel.expr.CheckedExpr`` (protobuf), and takes one back. Here
it is read to be judged (:mod:`wpa.plan.costs`), and changed where CEL's own way is slow
(:mod:`wpa.plan.plain`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

__all__ = ["Tree", "read", "rewritten"]

_VARINT: Final = 0
_BYTES: Final = 2
_FIXED: Final = {1: 8, 5: 4}
# The fields of ``cel.expr.Expr``, by what it is.
_KINDS: Final = {3: "const", 4: "name", 5: "field", 6: "call", 7: "list", 8: "map", 9: "fold"}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_ID: Final = 2
_TREE: Final = 4  # in a CheckedExpr
_FOLD: Final = (
    2,
    4,
    5,
    6,
    7,
)  # in a Comprehension: the range; what is gathered: first, while, next, last

Field = tuple[int, int, Any]
Message = list[Field]


class Tree:
    """An expression.

    ``kind`` tells what the others mean: a ``const`` has its text, or none; a ``name`` and a ``field`` have
    their name as ``text``; a ``call`` its function. ``parts`` are what it is made of: the object of a field,
    the arguments of a call (first what a method is called on), the members of a ``list``, the keys and values
    of a ``map``; of a ``fold``, which is what macros become: the range, and what is gathered at first, for
    how long, in each round and at last. ``names`` are a fold's: of the item, and of what is gathered.
    """

    __slots__ = ("id", "is_method", "is_test", "kind", "names", "parts", "raw", "text")

    def __init__(self, kind: str, text: str = "", parts: Iterable[Tree] = (), id: int = 0) -> None:
        self.kind = kind
        self.text = text
        self.parts = list(parts)
        self.id = id
        self.names: tuple[str, str] = ("", "")
        self.is_method = False
        self.is_test = False
        """Whether a field is only asked for: ``has(x.y)``."""
        self.raw: bytes = b""
        """A constant, as it came."""


# -- reading ---------------------------------------------------------------------------------


def read(serialized: bytes) -> Tree:
    """The tree of a serialized expression. Its depth is bounded: CEL reads 32 levels at most."""
    return _tree(next(value for number, _, value in _checked(serialized) if number == _TREE))


def _checked(serialized: bytes) -> Message:
    return _fields(next(value for number, _, value in _fields(serialized) if number == 2))


def _tree(data: bytes) -> Tree:
    number, body, id = 0, b"", 0
    for field, _, value in _fields(data):
        if field == _ID:
            id = value
        else:
            number, body = field, value
    tree = Tree(_KINDS.get(number, ""), id=id)
    inner = _fields(body)
    if tree.kind == "const":
        tree.raw = body
        tree.text = next((value.decode() for field, _, value in inner if field == 6), "")
    elif tree.kind == "name":
        tree.text = _text(inner, 1)
    elif tree.kind == "field":
        tree.text = _text(inner, 2)
        tree.is_test = any(field == 3 and value for field, _, value in inner)
        tree.parts = [_tree(value) for field, _, value in inner if field == 1]
    elif tree.kind == "call":
        tree.text = _text(inner, 2)
        tree.is_method = any(field == 1 for field, _, _ in inner)
        args = sorted((field, at) for at, (field, _, _) in enumerate(inner) if field in (1, 3))
        tree.parts = [_tree(inner[at][2]) for _, at in args]
    elif tree.kind == "list":
        tree.parts = [_tree(value) for _, _, value in inner]
    elif tree.kind == "map":
        for _, _, entry in inner:
            known = {field: value for field, _, value in _fields(entry)}
            tree.parts += [_tree(known[3]), _tree(known[4])]
    elif tree.kind == "fold":
        known = {field: value for field, _, value in inner}
        tree.names = (known[1].decode(), known[3].decode())
        tree.parts = [_tree(known[field]) for field in _FOLD]
    return tree


def _text(fields: Message, wanted: int) -> str:
    return next((str(value, "utf-8") for field, _, value in fields if field == wanted), "")


def _fields(data: bytes) -> Message:
    """What a message of protobuf is made of: (number, wire type, value)."""
    at, found = 0, []
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value: Any
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                length, at = _varint(data, at)
            else:
                length = _FIXED[wire]
            value = data[at : at + length]
            at += length
        found.append((tag >> 3, wire, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


# -- writing ---------------------------------------------------------------------------------


def rewritten(serialized: bytes, tree: Tree) -> bytes:
    """A serialized expression, with ``tree`` in place of its own."""
    checked = [
        (field, wire, _expr(tree) if field == _TREE else value) for field, wire, value in _checked(serialized)
    ]
    return _message([_bytes(1, "type.googleapis.com/cel.expr.CheckedExpr"), _bytes(2, _message(checked))])


def _expr(tree: Tree) -> bytes:
    if tree.kind == "const":
        body = tree.raw
    elif tree.kind == "name":
        body = _message([_bytes(1, tree.text)])
    elif tree.kind == "field":
        test = [(3, _VARINT, 1)] if tree.is_test else []
        body = _message([_bytes(1, _expr(tree.parts[0])), _bytes(2, tree.text), *test])
    elif tree.kind == "call":
        first = 1 if tree.is_method else 3
        args = [_bytes(3 if at else first, _expr(part)) for at, part in enumerate(tree.parts)]
        body = _message([_bytes(2, tree.text), *args])
    elif tree.kind == "list":
        body = _message([_bytes(1, _expr(part)) for part in tree.parts])
    elif tree.kind == "map":
        pairs = zip(tree.parts[::2], tree.parts[1::2], strict=True)
        entries = [[_bytes(3, _expr(key)), _bytes(4, _expr(value))] for key, value in pairs]
        body = _message([_bytes(2, _message(entry)) for entry in entries])
    else:
        item, gathered = tree.names
        parts = [_bytes(field, _expr(part)) for field, part in zip(_FOLD, tree.parts, strict=True)]
        body = _message([_bytes(1, item), _bytes(3, gathered), *parts])
    return _message([(_ID, _VARINT, tree.id), _bytes(_NUMBERS[tree.kind], body)])


def _bytes(number: int, value: bytes | str) -> Field:
    return (number, _BYTES, value.encode() if isinstance(value, str) else value)


def _message(fields: Iterable[Field]) -> bytes:
    made = bytearray()
    for number, wire, value in fields:
        made += _as_varint(number << 3 | wire)
        if wire == _VARINT:
            made += _as_varint(value)
        else:
            made += (_as_varint(len(value)) if wire == _BYTES else b"") + value
    return bytes(made)


def _as_varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)
