"""What a flow comes by and has to be given again: values from outside, changes of its code, itself."""

from __future__ import annotations

import copy
import datetime
import inspect
import logging
from asyncio import _get_running_loop as running_loop
from asyncio import _set_running_loop as set_running_loop
from collections.abc import Callable, MutableMapping
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from wpa.flows.calls import failed
from wpa.flows.loop import current, running_flow
from wpa.flows.outcome import ContinueAsNew, kind_of
from wpa.flows.values import dump, dump_encoded, record
from wpa.kernel.program import ExecutionInfo
from wpa.model.events import Failure
from wpa.model.recordable import safe_text

__all__ = [
    "SIDE_EFFECT_BYTES_MAX",
    "FlowLog",
    "continue_as_new",
    "info",
    "log",
    "now",
    "patched",
    "side_effect",
]

T = TypeVar("T")

SIDE_EFFECT_BYTES_MAX: Final = 64 * 1024


async def side_effect(fn: Callable[[], T]) -> T:
    """Run a plain function once, outside of the flow's rules, and record what it returned.

    For small things that need no retries: an environment variable, a host's name. When the flow is replayed,
    ``fn`` is not run again, its value is given instead. It runs again if the worker dies before
    anything after it is recorded; what must not be lost, and what takes time, is a step.

    Args:
        fn: takes nothing, returns JSON data of at most 64 KiB (objects come back as :class:`Record`). It
            blocks the worker: it has to be quick.

    Raises StepFailed, of the exception's type, where ``fn`` raised or its value can't be recorded; that is
    recorded, too.
    """
    ledger = current("side_effect()").ledger
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        what = getattr(fn, "__qualname__", type(fn).__name__)
        raise TypeError(
            f"side_effect() takes a plain function; {what} is none: what has to be awaited is a step"
        )
    entry = ledger.recall()
    if entry is None:
        entry = _observe(fn)
        ledger.keep(entry)
    if "failed" in entry:
        raise failed(Failure(retryable=False, **entry["failed"]))
    value: T = record(entry["side_effect"])
    return value


def _observe(fn: Callable[[], Any]) -> dict[str, Any]:
    loop = running_loop()
    set_running_loop(None)  # for fn no flow is running: it sees the real clock, and may open files
    try:
        _, encoded = dump_encoded(fn())
    except Exception as error:
        return {"failed": {"type": kind_of(error), "message": safe_text(error)}}
    finally:
        set_running_loop(loop)
    if len(encoded) > SIDE_EFFECT_BYTES_MAX:
        most = f"the most is {SIDE_EFFECT_BYTES_MAX}: make it a step"
        message = f"a side effect returned {len(encoded)} bytes; {most}"
        return {"failed": {"type": "TooLarge", "message": message}}
    return {"side_effect": msgspec.json.decode(encoded)}


def patched(name: str) -> bool:
    """Whether an execution goes the new way of a changed flow.

    ::

        if patched("check-fraud-first"):
            await call("fraud.check", order=order)     # what the code does now
        await call("payments.charge", order=order)

    True for an execution that comes here first with the code that says so, and then for good: it is recorded.
    False where the journal tells that it was past this point already when the code was changed.

    Args:
        name: names the change; used for no other change of this flow.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"patched() takes the name of a change, not {name!r}")
    return current("patched()").ledger.patched(name)


def continue_as_new(**inputs: Any) -> NoReturn:
    """End here and start over with these inputs, under the same id, with an empty history.

    For flows that go on for ever. Call it in the flow's own coroutine, not in a task that it started. What is
    still running is cancelled; what was completed is not undone any more.
    """
    current("continue_as_new()")
    raise ContinueAsNew(dump(inputs))


def info() -> ExecutionInfo:
    """What may be known of the execution: its id, tenant, version, start, metadata and context. A copy: what
    a flow does to it changes nothing that is recorded."""
    told = current("info()").ledger.info
    return msgspec.structs.replace(
        told, metadata=copy.deepcopy(told.metadata), context=copy.deepcopy(told.context)
    )


def now() -> datetime.datetime:
    """The moment of the last thing that happened to the execution, in UTC."""
    return datetime.datetime.fromtimestamp(current("now()").now_ms / 1000, datetime.UTC)


class FlowLog(logging.LoggerAdapter[logging.Logger]):
    """A logger for flows: silent while the journal is replayed, so that everything is logged once.

    Records carry ``execution``, ``workflow`` and ``tenant``. Outside of flows it logs as any other.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  the name is logging's
        loop = running_flow()
        if loop is not None and (loop.discarded or loop.ledger.replaying):
            return False
        return self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        loop = running_flow()
        if loop is not None:
            told = loop.ledger.info
            own = {"execution": told.id, "workflow": told.workflow, "tenant": told.tenant}
            kwargs["extra"] = {**own, **(kwargs.get("extra") or {})}
        return msg, kwargs


log: Final = FlowLog(logging.getLogger("wpa.flows.log"), {})
"""The logger that flows use: ``log.info("charged %s", charge.id)``."""
