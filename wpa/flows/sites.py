"""Which line of a flow's code it is that something is said about, and whose code a module is."""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = [
    "UNKNOWN",
    "current_site",
    "is_beside",
    "is_within",
    "root_of",
    "site_from",
    "suspended_site",
    "traceback_site",
]

OURS: Final = ("wpa.flows.", "asyncio.")
"""The packages between a flow's line and what it has called; they are never the line meant."""

LOOP: Final = "wpa.flows.loop"

UNKNOWN: Final = "an unknown line"

INSTALLED: Final = frozenset(
    Path(folder) for name, folder in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))
)
"""What lies side by side there is different people's."""


def current_site(root: str) -> str:
    """The line of the package ``root`` that is being run, as ``orders.flows:41 in order``."""
    return site_from(sys._getframe(1), root)  # noqa: SLF001  there is no other way to look up the stack


def site_from(innermost: FrameType, root: str) -> str:
    """The same, for a flow that may be running in another thread."""
    nearest = ""
    for frame in _up_from(innermost):
        if not _is_ours(frame):
            if _module(frame).partition(".")[0] == root:
                return _site(frame, frame.f_lineno)
            nearest = nearest or _site(frame, frame.f_lineno)
    return nearest or UNKNOWN


def is_within(innermost: FrameType, packages: Collection[str]) -> bool:
    """Whether one of the packages runs somewhere between the frame and the flow's loop."""
    return any(_module(frame).partition(".")[0] in packages for frame in _up_from(innermost))


def _up_from(innermost: FrameType) -> Iterator[FrameType]:
    """The frames of a flow, ours included, up to its loop's own."""
    frame: FrameType | None = innermost
    while frame is not None and not (frame.f_code.co_name == "_inside" and _module(frame) == LOOP):
        yield frame
        frame = frame.f_back


def suspended_site(coroutine: Any, root: str) -> str:
    """The innermost line of the package ``root`` at which a suspended coroutine waits."""
    found = ""
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None and not _is_ours(frame) and (not found or _module(frame).startswith(root)):
            found = _site(frame, frame.f_lineno)
        coroutine = getattr(coroutine, "cr_await", None)
    return found or UNKNOWN


def traceback_site(traceback: TracebackType | None, root: str) -> str:
    """The innermost line of the package ``root`` that an exception came through; empty if none."""
    found = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if _module(frame).partition(".")[0] == root and not _is_ours(frame):
            found = _site(frame, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


@functools.lru_cache(maxsize=4096)
def is_beside(root: str, other: str) -> bool:
    """Whether two packages, or modules that are in none, lie in the same folder, and belong together: a
    file of flows, and the files that it imports from. Ours is never meant, nor what is installed."""
    if "wpa" in (root, other):
        return False
    folder = _folder(root)
    return folder is not None and folder not in INSTALLED and folder == _folder(other)


def _folder(root: str) -> Path | None:
    module = sys.modules.get(root)
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        path = Path(file).absolute()
        return path.parent.parent if hasattr(module, "__path__") else path.parent
    places = list(getattr(module, "__path__", ()))  # a namespace package
    return Path(places[0]).absolute().parent if places else None


def root_of(frame: FrameType) -> str:
    """The package that a frame's code belongs to."""
    return _module(frame).partition(".")[0]


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _is_ours(frame: FrameType) -> bool:
    return f"{_module(frame)}.".startswith(OURS)


def _site(frame: FrameType, line: int) -> str:
    return f"{_module(frame)}:{line} in {frame.f_code.co_name}"
