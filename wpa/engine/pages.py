"""Answers that fit into one message: rows, as many as there is room for.

How much that is depends on the server (``Limits.answer_bytes_max``). What there may be much of is told in
pages: a page ends where the next row would not fit, and its answer says where to go on. A row that has no
room even alone is cut, and says so (``cut``): what is long in it, to its beginning. So nothing that is stored
keeps what is behind it from being told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final

import msgspec

from wpa.engine.api_common import Body, text
from wpa.model.events import Event

__all__ = ["Page", "fitting", "page_by_key"]

PAGE_BYTES_MAX: Final = 1024 * 1024
"""More is not told at once where the server would take it: a worker has others to answer, too."""


class Page:
    """The rows of one answer.

    Args:
        bytes_max: so many bytes of JSON may they have, with the commas.
        rows_max: so many rows, however small they are; None for as many as fit.
    """

    def __init__(self, bytes_max: int, rows_max: int | None = None) -> None:
        self.rows: list[Any] = []
        self._bytes_max = bytes_max
        self._left = min(bytes_max, PAGE_BYTES_MAX)
        self._rows_max = rows_max

    def add(self, row: Body | Event) -> bool:
        """Take ``row``, cut if need be. False where it belongs on the next page; never for the first one."""
        size = _size(row) + 1  # the comma
        if self.rows and (size > self._left or len(self.rows) == self._rows_max):
            return False
        self.rows.append(row if size <= self._bytes_max else fitting(row, self._bytes_max - 1))
        self._left -= size
        return True

    def add_all(self, rows: Sequence[Body]) -> int:
        """Take ``rows`` up to the first that belongs on the next page; how many."""
        return next((place for place, row in enumerate(rows) if not self.add(row)), len(rows))


def page_by_key(rows: Iterable[tuple[str, Body]], body: Body, bytes_max: int) -> tuple[list[Any], Body]:
    """The rows that come after what a request names (``after``), in the order of their keys; and where the
    next page goes on: ``next`` is its ``after``. No two rows may have the same key."""
    after, last, page = text(body, "after"), "", Page(bytes_max)
    for key, row in sorted(rows, key=itemgetter(0)):
        if key > after:
            if not page.add(row):
                return page.rows, {"more": True, "next": last}
            last = key
    return page.rows, {"more": False, "next": ""}


def fitting(row: Body | Event, bytes_max: int) -> Any:
    """``row``, or what ``bytes_max`` bytes of JSON have room for of it: then with ``cut``, its bytes in full.

    What is short stays as it is. A long text is cut to its beginning, a long list to its first items;
    ``{"$omitted": {"size"}}`` stands for an object of too many members.
    """
    encoded = msgspec.json.encode(row)
    if len(encoded) <= bytes_max:
        return row
    mark = {"cut": len(encoded)}
    return {**_members(msgspec.json.decode(encoded), bytes_max - _size(mark)), **mark}


def _beginning(value: Any, most: int) -> Any:
    size = _size(value)
    if size <= most:
        return value
    if isinstance(value, str):
        return _text(value, most)
    if isinstance(value, list | dict):
        shortened = _items(value, most) if isinstance(value, list) else _members(value, most)
        if _size(shortened) <= most:
            return shortened
    return {"$omitted": {"size": size}}


def _text(value: str, most: int) -> str:
    note = f"… ({len(value)} characters)"
    room = most - _size(note)
    kept = value[: max(0, room)]
    while kept and (size := _size(kept) - 2) > room:  # a character is up to six bytes
        kept = kept[: len(kept) * room // size]
    return kept + note


def _items(value: list[Any], most: int) -> list[Any]:
    """As many as there is room for; where it is too little for the first one, the beginning of that."""
    ends = accumulate((_size(item) + 1 for item in value), initial=1)
    count = sum(end <= most for end in ends) - 1
    return value[:count] or [_beginning(item, most - 2) for item in value[:1]]


def _members(value: Body, most: int) -> Body:
    """The short ones whole; the long ones share what is left."""
    sizes = {key: _size(item) for key, item in value.items()}
    left = most - 2 - sum(_size(key) + 2 for key in value)
    kept: Body = {}
    for place, key in enumerate(sorted(value, key=lambda key: sizes[key])):
        kept[key] = _beginning(value[key], left // (len(value) - place))
        left -= _size(kept[key])
    return {key: kept[key] for key in value}


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
