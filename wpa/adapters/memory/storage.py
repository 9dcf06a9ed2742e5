"""Streams and buckets, kept in dictionaries.

They keep to what was measured of the real ones: sequences grow over a whole stream, not over one
subject; an expected last sequence is that of the subject, 0 where it holds nothing, and is looked at
before the message's id, by which a message that was stored a moment ago is not stored again.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

from wpa.errors import Conflict
from wpa.model.subjects import matches
from wpa.ports.clock import Clock

__all__ = ["Bucket", "Message", "Stream"]


ID_HEADER: Final = "Nats-Msg-Id"
DUPLICATE_WINDOW_MS: Final = 1_000
"""So long the engine's own streams remember ids."""


class Message(NamedTuple):
    """A stored message."""

    sequence: int
    subject: str
    data: bytes
    headers: dict[str, str]
    stored_ms: int


class Stream:
    """Messages in one order over all subjects."""

    def __init__(self, clock: Clock, duplicate_window_ms: int = DUPLICATE_WINDOW_MS) -> None:
        self._clock = clock
        self._duplicate_window_ms = duplicate_window_ms
        self._last = 0
        self._messages: dict[int, Message] = {}
        self._subjects: dict[str, list[int]] = {}
        self._by_id: dict[str, Message] = {}
        """By id, of the messages that have one: what was stored last, the oldest first."""

    def append(self, subject: str, data: bytes, headers: dict[str, str], after: int | None = None) -> Message:
        """Store a message, if ``after`` is its subject's last sequence. Raises Conflict otherwise.

        Returns it; or the one that was stored under the same id a moment ago, be it still there or not.
        """
        sequences = self._subjects.get(subject, [])
        last = sequences[-1] if sequences else 0
        if after is not None and after != last:
            raise Conflict(f"{subject}: the last sequence is {last}, not {after}")
        now_ms = self._clock.now_ms()
        id = headers.get(ID_HEADER, "")
        if id:
            self._forget_ids(now_ms)
        known = self._by_id.get(id)
        if known is not None and now_ms < known.stored_ms + self._duplicate_window_ms:
            return known
        self._last += 1
        message = Message(self._last, subject, data, headers, now_ms)
        if id:
            self._by_id.pop(id, None)
            self._by_id[id] = message
        self._messages[self._last] = message
        self._subjects.setdefault(subject, []).append(self._last)
        return message

    def _forget_ids(self, now_ms: int) -> None:
        """Keep no more of them than may be asked for."""
        while self._by_id:
            id, oldest = next(iter(self._by_id.items()))
            if now_ms < oldest.stored_ms + self._duplicate_window_ms:
                return
            del self._by_id[id]

    @property
    def is_empty(self) -> bool:
        """Whether it holds no message."""
        return not self._messages

    @property
    def last_sequence(self) -> int:
        """That of the message stored last; 0 where there never was one."""
        return self._last

    def get(self, sequence: int) -> Message | None:
        return self._messages.get(sequence)

    def last(self, subject: str) -> Message | None:
        """The subject's last message."""
        sequences = self._subjects.get(subject)
        return self._messages[sequences[-1]] if sequences else None

    def read(self, subject: str, after: int = 0) -> list[Message]:
        """The subject's messages past a sequence, in order."""
        sequences = self._subjects.get(subject, [])
        return [self._messages[sequence] for sequence in sequences[bisect_left(sequences, after + 1) :]]

    def first(self, subject: str, after: int) -> Message | None:
        """The subject's first message past a sequence."""
        sequences = self._subjects.get(subject)
        if not sequences:
            return None
        place = bisect_left(sequences, after + 1)
        return self._messages[sequences[place]] if place < len(sequences) else None

    def read_matching(self, pattern: str, after: int = 0) -> list[Message]:
        """The messages past a sequence on all subjects that match, in order."""
        found = [
            sequence
            for subject, sequences in self._subjects.items()
            if matches(pattern, subject)
            for sequence in sequences[bisect_left(sequences, after + 1) :]
        ]
        return [self._messages[sequence] for sequence in sorted(found)]

    def remove(self, sequence: int) -> None:
        message = self._messages.pop(sequence, None)
        if message is not None:
            sequences = self._subjects[message.subject]
            del sequences[bisect_left(sequences, sequence)]
            if not sequences:
                del self._subjects[message.subject]

    def last_messages(self, pattern: str, before: int = 0) -> list[Message]:
        """The last message (before a sequence, if given) of each subject that matches, the newest first."""
        last = []
        for subject, sequences in self._subjects.items():
            place = bisect_left(sequences, before) if before else len(sequences)
            if place and matches(pattern, subject):
                last.append(sequences[place - 1])
        return [self._messages[sequence] for sequence in sorted(last, reverse=True)]

    @property
    def subjects(self) -> list[str]:
        return list(self._subjects)


class Bucket:
    """Values by key, replaced by compare-and-set on a revision that grows over the whole bucket."""

    def __init__(self) -> None:
        self._revision = 0
        self._values: dict[str, tuple[bytes, int]] = {}

    def get(self, key: str) -> tuple[bytes, int] | None:
        return self._values.get(key)

    def put(self, key: str, value: bytes, revision: int | None = None) -> int:
        """Replace ``revision`` (0: none yet; None: whatever is there). Raises Conflict."""
        found = self._values.get(key)
        now = found[1] if found else 0
        if revision is not None and revision != now:
            raise Conflict(f"{key}: the revision is {now}, not {revision}")
        self._revision += 1
        self._values[key] = (value, self._revision)
        return self._revision

    @property
    def keys(self) -> list[str]:
        return list(self._values)
