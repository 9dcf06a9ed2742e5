"""What the expressions of one template take, all together.

A step may have thousands of expressions, each over the same megabytes; they are evaluated in one go.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Effort", "TooMuch"]

NANOSECONDS_MAX: Final = 2_000_000_000
CHARS_MAX: Final = 256 * 1024 * 1024
"""So long is what is passed on at most; no payload may be longer."""
READ_VALUE_NS: Final = 200
READ_CHAR_NS: Final = 1


class TooMuch(ValueError):
    """The expressions of a template take more than a worker does in one go."""


class Effort:
    """Counts. What comes first is always done, however much it is."""

    __slots__ = ("_chars", "_ns", "small")

    def __init__(self) -> None:
        self._ns = self._chars = 0
        self.small = 0
        """The work of what was too small to be looked into."""

    def spend(self, ns: int) -> None:
        """Raises TooMuch where too much was spent before."""
        if self._ns > NANOSECONDS_MAX:
            raise TooMuch(
                "the expressions of one template take too long together; let fewer of them read so much data"
            )
        self._ns += ns

    def read(self, chars: int, values: int) -> None:
        """Data is given to CEL, or passed on. Raises TooMuch."""
        self.spend(chars * READ_CHAR_NS + values * READ_VALUE_NS)

    def pass_on(self, chars: int, values: int) -> None:
        """Data becomes part of what is made. Raises TooMuch."""
        self.read(chars, values)
        if self._chars > CHARS_MAX:
            raise TooMuch(f"what the expressions of one template pass on is longer than {CHARS_MAX:,} bytes")
        self._chars += chars
