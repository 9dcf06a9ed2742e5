"""Limits at the door. Over one of them there is a clear error, never a stuck execution."""

from __future__ import annotations

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant may ask of a worker. Units are in the names."""

    task_bytes_max: int = 4 * 1024 * 1024
    nesting_max: int = 64
    steps_max: int = 2_000
    events_max: int = 200_000
    inline_bytes_max: int = 64 * 1024
    """A payload larger than this travels through the object store, by reference."""
    blob_bytes_max: int = 256 * 1024 * 1024
    answer_bytes_max: int = 4 * 1024 * 1024
    """What an answer has to tell may have so many; it goes into one message."""
    lost_attempts_max: int = 10
    """So many workers may die during one step before the step is given up."""
