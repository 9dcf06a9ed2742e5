"""The end of code that never awaits.

A turn of a flow takes microseconds. While one goes on, its worker does nothing else: after a few seconds
its leases run out, and whoever takes over hangs in the same place. So a thread looks at the turns in hand
a few times a second, and interrupts one that takes too long: the flow fails, with the line, and nothing else.

What hangs in C code (a lock, an enormous regular expression) can't be interrupted: that is logged, with the
line.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
import threading
import time
from typing import Final

from wpa.flows.sites import UNKNOWN, is_within, site_from

__all__ = ["TURN_S", "Overrun", "Turn", "Watchdog", "watchdog"]

TURN_S: Final = 2.0
"""How long a turn may take. Together with the time since the last heartbeat it is less than a lease."""

LOOKS_PER_S: Final = 5

GLANCES: Final = 50
GLANCE_S: Final = 0.001

EXCUSED: Final = frozenset(
    {"_frozen_importlib", "_frozen_importlib_external", "importlib", "bdb", "pdb", "pydevd", "debugpy"}
    | {"_pydevd_bundle", "_pydevd_frame_eval"}
)
"""What is being imported takes its time once, and who debugs takes it often."""

log = logging.getLogger("wpa.flows")


class Overrun(BaseException):
    """Raised at whatever line a turn has come to when its time is over."""


class Turn:
    """One turn that is going on in some thread.

    Args:
        execution: whose turn it is.
        root: the package that its flow's code belongs to.
    """

    __slots__ = ("around", "execution", "looks", "root", "site")

    def __init__(self, execution: str, root: str) -> None:
        self.execution = execution
        self.root = root
        self.around: Turn | None = None
        self.looks = 0
        self.site = ""
        """Where it was interrupted; empty while it was not."""


class Watchdog:
    """Looks after the turns of all threads of a process.

    Args:
        turn_s: how long a turn may take, in seconds.
    """

    def __init__(self, turn_s: float = TURN_S) -> None:
        # Looks are counted, not seconds: a process that was stopped and goes on has lost no time.
        self._looks = max(1, round(turn_s * LOOKS_PER_S))
        self._turns: dict[int, Turn] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, unless that was done. To be called again in a process that was forked."""
        if self._thread is None or not self._thread.is_alive():
            self._turns.clear()
            self._lock = threading.Lock()
            self._thread = threading.Thread(target=self._watch, name="wpa-flows-watchdog", daemon=True)
            self._thread.start()

    def enter(self, turn: Turn) -> None:
        """A turn begins, in this thread; perhaps inside of another one."""
        ident = threading.get_ident()
        turn.around = self._turns.get(ident)
        self._turns[ident] = turn

    def leave(self, turn: Turn) -> None:
        """The turn is over. An interrupt that is under way arrives in here, or not at all."""
        ident = threading.get_ident()
        with self._lock:
            if turn.around is None:
                self._turns.pop(ident, None)
            else:
                self._turns[ident] = turn.around
        if turn.site:
            _raise_in(ident, None)

    def _watch(self) -> None:
        while True:
            time.sleep(1 / LOOKS_PER_S)
            for ident, turn in list(self._turns.items()):
                turn.looks += 1
                if turn.looks >= self._looks:
                    self._interrupt(ident, turn)

    def _interrupt(self, ident: int, turn: Turn) -> None:
        site = _site(ident, turn)
        if site is None:
            turn.looks = 0
            return
        with self._lock:
            if self._turns.get(ident) is not turn:
                return
            if turn.site:
                log.error(
                    "%s: the flow holds up its worker at %s and can't be interrupted", turn.execution, site
                )
            turn.site = site
            # Tried again a while later: an `except` without a type catches this, too.
            turn.looks = 0
            _raise_in(ident, Overrun)


def _site(ident: int, turn: Turn) -> str | None:
    """The line that the turn has come to; None where it may take its time there."""
    site = UNKNOWN
    for _ in range(GLANCES):
        frame = sys._current_frames().get(ident)  # noqa: SLF001  the only way to see another thread
        if frame is None or is_within(frame, EXCUSED):
            return None
        site = site_from(frame, turn.root)
        if site != UNKNOWN:
            break
        time.sleep(GLANCE_S)  # the loop's own code is being run: between two lines of the flow's
    return site


def _raise_in(ident: int, error: type[BaseException] | None) -> None:
    """Have a thread raise an exception at its next line; None takes back one that it has not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), None if error is None else ctypes.py_object(error)
    )


@functools.cache
def watchdog() -> Watchdog:
    """The one of this process."""
    return Watchdog()
