"""What flow code gets in place of the clock and of chance.

A stand-in looks like what it stands for. Where a flow's code is running in this very thread, which is where
the thread's running loop is a :class:`FlowLoop`, it answers with the run's own time (that of the last
settlement) or from the run's own random generator (seeded when the execution was started). Anywhere else it
passes the call on, so that steps, tests, and other threads at the same moment see the real thing.

In a flow every clock (``time``, ``monotonic``, ``perf_counter``, ``process_time``) tells the same time, and
local time is UTC: the time zone of the worker it happens to run on is none of a flow's business.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import datetime
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from types import BuiltinMethodType, ModuleType
from typing import Any, Final

from wpa.flows.loop import FlowLoop, running_flow
from wpa.flows.sites import current_site, is_beside, root_of
from wpa.flows.tasks import refusal

__all__ = ["GUARDED", "genuine", "genuine_class", "stand_in_for"]

Seen = Callable[..., Any]
"""What a flow sees in place of a function: called with its loop, and the arguments."""


def _function(module: ModuleType, name: str, seen: Seen) -> Callable[..., Any]:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        loop = running_flow()
        if loop is not None:
            return seen(loop, *args, **kwargs)
        # Looked up at each call: what a test puts in its place is what steps are to see.
        return getattr(module, name)(*args, **kwargs)

    stand_in.__name__ = stand_in.__qualname__ = name
    stand_in.__doc__ = getattr(module, name).__doc__
    return stand_in


# -- clocks ----------------------------------------------------------------------------------


def _seconds(loop: FlowLoop) -> float:
    return loop.now_ms / 1000


def _nanoseconds(loop: FlowLoop) -> int:
    return loop.now_ms * 1_000_000


def _gmtime(loop: FlowLoop, seconds: float | None = None) -> time.struct_time:
    return time.gmtime(_seconds(loop) if seconds is None else seconds)


def _strftime(loop: FlowLoop, format: str, *moment: Any) -> str:
    return time.strftime(format, *(moment or (time.gmtime(_seconds(loop)),)))


def _asctime(loop: FlowLoop, *moment: Any) -> str:
    return time.asctime(*(moment or (time.gmtime(_seconds(loop)),)))


def _ctime(loop: FlowLoop, seconds: float | None = None) -> str:
    return time.asctime(_gmtime(loop, seconds))


def _mktime(loop: FlowLoop, moment: Any) -> float:
    return float(calendar.timegm(moment))


def _time_sleep(loop: FlowLoop, seconds: float) -> None:
    does = "blocks its thread (time.sleep); to wait durably, write await asyncio.sleep(...)"
    raise refusal(current_site(loop.root), does)


TIME: Final[dict[str, Seen]] = {
    **dict.fromkeys(("time", "monotonic", "perf_counter", "process_time", "thread_time"), _seconds),
    **dict.fromkeys(
        ("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns"), _nanoseconds
    ),
    "gmtime": _gmtime,
    "localtime": _gmtime,
    "mktime": _mktime,
    "strftime": _strftime,
    "asctime": _asctime,
    "ctime": _ctime,
    "sleep": _time_sleep,
}


class _LooksLike(type):
    """The class of stand-in classes: what they stand for is their instance and subclass, too."""

    stands_for: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.stands_for)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.stands_for)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.stands_for

    def __hash__(cls) -> int:
        return hash(cls.stands_for)

    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(cls.stands_for)


class _Datetime(datetime.datetime, metaclass=_LooksLike):
    stands_for = datetime.datetime

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime.datetime(*args, **kwargs)  # noqa: DTZ001  as the caller has it

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        loop = running_flow()
        if loop is None:
            return datetime.datetime.now(tz)
        moment = datetime.datetime.fromtimestamp(_seconds(loop), tz or datetime.UTC)
        return moment if tz is not None else moment.replace(tzinfo=None)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def fromtimestamp(cls, timestamp: float, tz: datetime.tzinfo | None = None) -> Any:
        if tz is not None or running_flow() is None:
            return datetime.datetime.fromtimestamp(timestamp, tz)
        return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).replace(tzinfo=None)


class _Date(datetime.date, metaclass=_LooksLike):
    stands_for = datetime.date

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime.date(*args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        return _Datetime.now().date()


# -- chance ----------------------------------------------------------------------------------


def _is_helper(loop: FlowLoop) -> bool:
    """Whether it is code beside the flow's own package that has called a stand-in."""
    frame = sys._getframe(1)  # noqa: SLF001  there is no other way to know who asks
    while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
        frame = frame.f_back
    root = root_of(frame)
    return root != loop.root and is_beside(loop.root, root)


def _generator(loop: FlowLoop) -> random.Random:
    # Journals know of draws from before there were stand-ins in helpers: the flow's own must not shift.
    return loop.helpers_random if _is_helper(loop) else loop.random


def _drawn(name: str) -> Seen:
    """A function of :mod:`random`, on the run's own generator."""

    def seen(loop: FlowLoop, *args: Any, **kwargs: Any) -> Any:
        return getattr(_generator(loop), name)(*args, **kwargs)

    return seen


def _bytes(loop: FlowLoop, count: int | None = None, flags: int = 0) -> bytes:
    return _generator(loop).randbytes(secrets.DEFAULT_ENTROPY if count is None else count)


def _token_urlsafe(loop: FlowLoop, count: int | None = None) -> str:
    return base64.urlsafe_b64encode(_bytes(loop, count)).rstrip(b"=").decode("ascii")


def _uuid(version: int) -> Seen:
    def seen(loop: FlowLoop, *args: Any, **kwargs: Any) -> uuid.UUID:
        return uuid.UUID(int=_generator(loop).getrandbits(128), version=version)

    return seen


def _uuid7(loop: FlowLoop) -> uuid.UUID:
    value = uuid.UUID(int=loop.now_ms << 80 | _generator(loop).getrandbits(80), version=4).int
    return uuid.UUID(int=value & ~(0xF << 76) | 7 << 76)


RANDOM: Final[dict[str, Seen]] = {
    name: _drawn(name) for name in random.__all__ if name not in ("Random", "SystemRandom")
}

SECRETS: Final[dict[str, Seen]] = {
    "choice": _drawn("choice"),
    "randbelow": _drawn("randrange"),
    "randbits": _drawn("getrandbits"),
    "token_bytes": _bytes,
    "token_hex": lambda loop, count=None: _bytes(loop, count).hex(),
    "token_urlsafe": _token_urlsafe,
}


class _Random(random.Random, metaclass=_LooksLike):
    stands_for = random.Random

    def __new__(cls, *seed: Any) -> Any:
        loop = running_flow()
        if loop is not None and (not seed or seed[0] is None):
            return random.Random(_generator(loop).getrandbits(64))
        return random.Random(*seed)


class _SystemRandom(random.SystemRandom, metaclass=_LooksLike):
    stands_for = random.SystemRandom

    def __new__(cls, *seed: Any) -> Any:
        loop = running_flow()
        return random.SystemRandom() if loop is None else random.Random(_generator(loop).getrandbits(64))


def _as_completed(loop: FlowLoop, futures: Iterable[Any], *, timeout: float | None = None) -> Any:
    # asyncio's own starts coroutines in the order of a set; a set of tasks has the same order in each replay.
    return asyncio.as_completed([asyncio.ensure_future(future) for future in futures], timeout=timeout)


def _gather(loop: FlowLoop, *awaitables: Any, return_exceptions: bool = False) -> Any:
    return loop.gather(*awaitables, return_exceptions=return_exceptions, numbered=not _is_helper(loop))


def _own_loop(loop: FlowLoop, *args: Any, **kwargs: Any) -> Any:
    for each in args:
        if asyncio.iscoroutine(each):
            each.close()  # nobody is told that it was never awaited
    raise refusal(current_site(loop.root), "starts an event loop of its own, where it has one: just await")


# -- all of them -----------------------------------------------------------------------------


class _Module(ModuleType):
    """A module some of whose members are stand-ins. What is set in it is set in the real one: a test that
    patches ``time.time`` means everybody's."""

    def __init__(self, real: ModuleType, replaced: dict[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(replaced)
        self.__dict__.update({key: value for key, value in vars(real).items() if key.startswith("__")})
        self.__dict__["_wpa_real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_wpa_real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_wpa_real"], name, _GENUINE.get(id(value), value))

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_wpa_real"], name)

    def __dir__(self) -> list[str]:
        return dir(self.__dict__["_wpa_real"])


def _members() -> dict[ModuleType, dict[str, Any]]:
    """The stand-ins by module and name."""
    seen: dict[ModuleType, dict[str, Seen]] = {
        time: TIME,
        random: RANDOM,
        secrets: SECRETS,
        uuid: {"uuid1": _uuid(1), "uuid4": _uuid(4), "uuid7": _uuid7},
        os: {"urandom": _bytes, "getrandom": _bytes},
        asyncio: {
            "as_completed": _as_completed,
            "gather": _gather,
            **dict.fromkeys(("run", "Runner", "new_event_loop"), _own_loop),
        },
    }
    members: dict[ModuleType, dict[str, Any]] = {
        module: {
            name: _function(module, name, see) for name, see in functions.items() if hasattr(module, name)
        }
        for module, functions in seen.items()
    }
    members[datetime] = {"datetime": _Datetime, "date": _Date}
    members[random] |= {"Random": _Random, "SystemRandom": _SystemRandom}
    members[secrets]["SystemRandom"] = _SystemRandom
    for module, replaced in members.items():
        for name, stand_in in replaced.items():
            if isinstance(stand_in, type):
                real = getattr(module, name)
                stand_in.__name__, stand_in.__qualname__ = real.__name__, real.__qualname__
                stand_in.__module__, stand_in.__doc__ = real.__module__, real.__doc__
    return members


_MEMBERS: Final = _members()

GUARDED: Final = frozenset(module.__name__ for module in _MEMBERS if module is not asyncio)
"""The modules that a flow must import at the top of its module, not in its function."""

_PAIRS: Final[list[tuple[Any, Any]]] = [
    *((module, _Module(module, replaced)) for module, replaced in _MEMBERS.items()),
    *(
        (getattr(module, name), stand_in)
        for module, replaced in _MEMBERS.items()
        for name, stand_in in replaced.items()
    ),
]

_STAND_INS: Final = {id(real): stand_in for real, stand_in in _PAIRS}
_GENUINE: Final = {id(stand_in): real for real, stand_in in _PAIRS}


def stand_in_for(value: object) -> Any:
    """What a flow is to have in place of ``value``; None where it may have ``value`` itself."""
    found = _STAND_INS.get(id(value))
    if found is None and isinstance(value, BuiltinMethodType) and isinstance(value.__self__, type):
        # datetime.now, a method bound to its class: another object each time it is asked for.
        cls = _STAND_INS.get(id(value.__self__))
        return None if cls is None else getattr(cls, value.__name__)
    return found


def genuine_class(cls: type) -> type | None:
    """The class that a stand-in stands for; None for any other class."""
    found = _GENUINE.get(id(cls))
    return found if isinstance(found, type) else None


def genuine(names: dict[str, Any]) -> dict[str, Any]:
    """A copy of a module's names with the real things in it, as type hints need them."""
    return {name: _GENUINE.get(id(value), value) for name, value in names.items()}
