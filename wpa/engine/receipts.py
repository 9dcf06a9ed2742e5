"""Receipts: which dead letters were queued again.

Such a letter is gone. Who asks for it again, because the answer was lost, is told the same as before, and not
that there is no such letter.
"""

from __future__ import annotations

from typing import Final

import msgspec

from wpa.errors import Conflict
from wpa.ports.records import Records

__all__ = ["RECEIPTS_MAX", "Receipt", "find_receipt", "keep_receipt"]

KIND: Final = "letters"
RETRIED: Final = "retried"
"""The record of a tenant's letters that were queued again."""
RECEIPTS_MAX: Final = 200
"""The last ones are remembered."""


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """A letter was queued again.

    Args:
        letter: its sequence.
        rejected_at: when it was written: sequences come again where the stream is made anew.
        task: the sequence of the task that it became.
    """

    letter: int
    rejected_at: str
    task: int


_RECEIPTS: Final = msgspec.json.Decoder(list[Receipt])


async def find_receipt(records: Records, tenant: str, letter: int) -> Receipt | None:
    """The last receipt for a letter, if it is remembered. Raises Unavailable."""
    receipts, _ = await _receipts(records, tenant)
    return next((each for each in reversed(receipts) if each.letter == letter), None)


async def keep_receipt(records: Records, tenant: str, new: Receipt) -> None:
    """Remember that a letter was queued again. Raises Unavailable."""
    while True:
        receipts, revision = await _receipts(records, tenant)
        data = msgspec.json.encode([*receipts, new][-RECEIPTS_MAX:])
        try:
            await records.put(tenant, KIND, RETRIED, data, revision)
        except Conflict:
            continue
        return


async def _receipts(records: Records, tenant: str) -> tuple[list[Receipt], int]:
    """The oldest first, and the record's revision."""
    found = await records.get(tenant, KIND, RETRIED)
    return ([], 0) if found is None else (_RECEIPTS.decode(found[0]), found[1])
