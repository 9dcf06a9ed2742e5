"""Which line of a flow's code it is that something is said about."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = ["current_site", "suspended_site", "traceback_site"]

OURS: Final = ("wpa.flow.", "asyncio.")
"""The modules between a flow's line and what it has called; they are never the line meant."""


def current_site(root: str) -> str:
    """The line of the package ``root`` that is being run, as ``orders.flows:41 in order``."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  there is no other way to look up the stack
    nearest = ""
    while frame is not None:
        if _module(frame).partition(".")[0] == root and not _is_ours(frame):
            return _site(frame, frame.f_lineno)
        if not nearest and not _is_ours(frame):
            nearest = _site(frame, frame.f_lineno)
        if _module(frame) == "wpa.flow.loop":
            break
        frame = frame.f_back
    return nearest or "an unknown line"


def suspended_site(coroutine: Any, root: str) -> str:
    """The innermost line of the package ``root`` at which a suspended coroutine waits."""
    found = ""
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None and not _is_ours(frame) and (not found or _module(frame).startswith(root)):
            found = _site(frame, frame.f_lineno)
        coroutine = getattr(coroutine, "cr_await", None)
    return found or "an unknown line"


def traceback_site(traceback: TracebackType | None, root: str) -> str:
    """The innermost line of the package ``root`` that an exception came through; empty if none."""
    found = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if _module(frame).partition(".")[0] == root and not _is_ours(frame):
            found = _site(frame, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _is_ours(frame: FrameType) -> bool:
    return f"{_module(frame)}.".startswith(OURS)


def _site(frame: FrameType, line: int) -> str:
    return f"{_module(frame)}:{line} in {frame.f_code.co_name}"
