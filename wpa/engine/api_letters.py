"""The verbs about dead letters: list, show, retry."""

from __future__ import annotations

import base64
import json

import msgspec

from wpa.engine.api_common import Body, Handler, whole
from wpa.engine.door import ONCE_HEADER
from wpa.engine.letters import REJECTED_HEADER, SIZE_HEADER, original
from wpa.engine.pages import Page, fitting
from wpa.engine.receipts import Receipt, find_receipt, keep_receipt
from wpa.engine.services import Services
from wpa.errors import NotFound

__all__ = ["LetterVerbs"]

LETTER_TEXT_MAX = 64 * 1024

Letter = tuple[bytes, dict[str, str]]
"""Its bytes, and its headers."""


class LetterVerbs:
    """Shows rejected tasks, and queues them again."""

    def __init__(self, services: Services) -> None:
        ports = services.ports
        self._answer_bytes_max = services.limits.answer_bytes_max
        self._tasks, self._blobs, self._records = ports.tasks, ports.blobs, ports.records

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {"dlq_list": self.list_letters, "dlq_show": self.show, "dlq_retry": self.retry}

    async def list_letters(self, tenant: str, body: Body) -> Body:
        limit, before = whole(body, "limit", 50, 1, 1_000), whole(body, "before", 0, 0, 1 << 53)
        page = Page(self._answer_bytes_max, limit)
        for sequence, data, headers in await self._tasks.buried(tenant, limit + 1, before):
            if not page.add(_letter(sequence, data, headers)):
                return {"letters": page.rows, "more": True, "next": before}
            before = sequence
        return {"letters": page.rows, "more": False, "next": 0}

    async def show(self, tenant: str, body: Body) -> Body:
        sequence = whole(body, "sequence", 0, 1, 1 << 53)
        data, headers = await self._opened(tenant, sequence, await self._tasks.exhume(tenant, sequence))
        letter = _letter(sequence, data, headers)
        letter["headers"] = headers
        letter["text"] = data[:LETTER_TEXT_MAX].decode(errors="replace")
        letter["base64"] = base64.b64encode(data).decode()
        if len(msgspec.json.encode(letter)) > self._answer_bytes_max:
            # It is kept all the same, and can be retried.
            letter = fitting(letter | {"base64": None}, self._answer_bytes_max)
        return {"letter": letter}

    async def retry(self, tenant: str, body: Body) -> Body:
        """Queue the original bytes again, then remove the letter.

        Asked for again after that, it is answered the same. Should it be queued twice, for what was asked
        first was never answered, nothing is done twice: both tasks have the rejected one's name.
        """
        sequence = whole(body, "sequence", 0, 1, 1 << 53)
        known = await find_receipt(self._records, tenant, sequence)
        found = await self._tasks.exhume(tenant, sequence)
        if known is None or (found is not None and found[1].get(REJECTED_HEADER, "") != known.rejected_at):
            data, headers = await self._opened(tenant, sequence, found)
            kept = {
                name: value
                for name, value in headers.items()
                if name == ONCE_HEADER or not name.startswith("Wpa-")
            }
            task_sequence = await self._tasks.publish(tenant, data, kept)
            known = Receipt(sequence, headers.get(REJECTED_HEADER, ""), task_sequence)
            await keep_receipt(self._records, tenant, known)
        await self._tasks.discard(tenant, sequence)
        return {"task_sequence": known.task}

    async def _opened(self, tenant: str, sequence: int, found: Letter | None) -> Letter:
        """A letter that was looked for, with the original bytes. Raises NotFound (``unknown_letter``)."""
        if found is None:
            raise NotFound(
                "unknown_letter",
                f"tenant {tenant} has no dead letter {sequence}, or it was queued again; see `wpa dlq list`",
            )
        data, headers = found
        return await original(self._blobs, data, headers), headers


def _letter(sequence: int, data: bytes, headers: dict[str, str]) -> Body:
    letter: Body = {
        "sequence": sequence,
        "code": headers.get("Wpa-Code", ""),
        "message": headers.get("Wpa-Reason", ""),
        "timestamp": headers.get(REJECTED_HEADER, ""),
        "subject": headers.get("Wpa-Subject", ""),
        "size": int(headers.get(SIZE_HEADER, len(data))),
    }
    if "Wpa-Problems" in headers:
        letter["problems"] = json.loads(headers["Wpa-Problems"])
    return letter
