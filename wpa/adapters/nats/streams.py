"""The streams and buckets of the public contract, and how they are made.

Made at a worker's start, idempotently: what is there already is left as it is (an operator may have
given it more replicas or other limits); only what would break a promise is refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any, Final

from wpa.adapters.nats.api import NO_SUCH, NOT_READY, STREAM_NAME_IN_USE, ApiError, api
from wpa.adapters.nats.transport import Transport
from wpa.connection import NOT_PERMITTED
from wpa.errors import PlatformError, Unavailable

__all__ = [
    "DLQ",
    "EVENTS",
    "MESSAGE_BYTES_MIN",
    "TASKS",
    "TIMERS",
    "allow_batches",
    "ensure",
    "examine",
    "is_at_least",
    "may_have_replicas",
    "server_version",
]

TASKS: Final = "WPA_TASKS"
EVENTS: Final = "WPA_EVENTS"
DLQ: Final = "WPA_DLQ"
TIMERS: Final = "WPA_TIMERS"

JOURNAL: Final = "wpa.journal"

EXECUTIONS_BUCKET: Final = "wpa_executions"
DEFINITIONS_BUCKET: Final = "wpa_definitions"
WORKERS_BUCKET: Final = "wpa_workers"
PAYLOADS_BUCKET: Final = "wpa_payloads"
RECORDS_BUCKET: Final = "wpa_records"

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
SERVER_MIN: Final = (2, 12)
MESSAGE_BYTES_MIN: Final = 256 * 1024
"""A server that takes less in one message has no room for the limits of wpa to shrink to."""

SIZE: Final = "max_msg_size"
LIFTS: Final = {
    "max_age": "--max-age=0s",
    "max_msgs": "--max-msgs=-1",
    "max_bytes": "--max-bytes=-1",
    "max_msgs_per_subject": "--max-msgs-per-subject=-1",
    SIZE: "--max-msg-size=-1",
}
"""The limits that a stream may have, and what lifts them."""
NEEDED: Final = (
    "subjects",
    "subject_transform",
    "republish",
    "retention",
    "deny_delete",
    "deny_purge",
    "allow_direct",
    "allow_rollup_hdrs",
    "allow_msg_schedules",
)
"""What has to be as it was made. Without the transform, events are stored where nobody reads a journal."""
QUOTAS: Final = ("max_msgs", "max_bytes")
LOSS: Final = {
    TIMERS: "loses timers without a word",
    EVENTS: "loses journals: what waits never goes on, and what has ended may run again",
}

READY_WITHIN_S: Final = 30.0
TELL_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 0.5
INFO_TIMEOUT_S: Final = 2.0
"""Without a leader nobody answers; where there is one, it does at once."""

log = logging.getLogger("wpa.nats")


def _bucket(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        **more,
    }


def _wanted(replicas: int) -> list[dict[str, Any]]:
    common = {"storage": "file", "num_replicas": replicas, "duplicate_window": _SECOND}
    streams: list[dict[str, Any]] = [
        {
            "name": TASKS,
            "subjects": ["workflow.tasks.*", "workflow.steps.*.*"],
            "retention": "workqueue",
            "discard": "new",
            "description": "tasks: what is asked of wpa",
        },
        {
            "name": EVENTS,
            # Drivers append under a subject of their own; what is stored is stored, and republished,
            # under the public one. So whoever listens sees only what was stored: an append that lost
            # its compare-and-set is seen by nobody (docs/adr/0003).
            "subjects": [f"{JOURNAL}.*.*"],
            "subject_transform": {
                "src": f"{JOURNAL}.*.*",
                "dest": "workflow.events.{{wildcard(1)}}.{{wildcard(2)}}",
            },
            "republish": {
                "src": "workflow.events.*.*",
                "dest": "workflow.events.{{wildcard(1)}}.{{wildcard(2)}}",
            },
            "retention": "limits",
            "deny_delete": True,
            "deny_purge": True,
            "allow_direct": True,
            "description": "the journals of all executions",
        },
        {
            "name": DLQ,
            "subjects": ["workflow.dlq.*"],
            "retention": "limits",
            "max_age": 30 * _DAY,
            "allow_direct": True,
            "description": "tasks that could not be understood or may not run, kept for 30 days",
        },
        {
            "name": TIMERS,
            # Schedules and what they deliver are in one stream, as the server demands. No consumer reads
            # the schedules, so the work queue keeps them; what has rung is kept until it is acked.
            "subjects": ["workflow.timers.*.>", "workflow.due.*"],
            "retention": "workqueue",
            "allow_msg_schedules": True,
            "allow_rollup_hdrs": True,  # a schedule replaces the one that was on its subject before
            "description": "timers: alarms and schedules, and those that have rung",
        },
        _bucket(EXECUTIONS_BUCKET),
        _bucket(DEFINITIONS_BUCKET),
        _bucket(RECORDS_BUCKET),
        _bucket(WORKERS_BUCKET, max_age=30 * _SECOND, discard="new"),
        {
            "name": f"OBJ_{PAYLOADS_BUCKET}",
            "subjects": [f"$O.{PAYLOADS_BUCKET}.C.>", f"$O.{PAYLOADS_BUCKET}.M.>"],
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        },
    ]
    return [{**common, **stream} for stream in streams]


async def ensure(transport: Transport, replicas: int) -> None:
    """Make what is missing, check what is there. Safe to run from many workers at once.

    A cluster that has just started has no leader yet, or not all of its nodes: that is waited for, and told.

    Raises PlatformError, at once, where what is there won't do, and Unavailable where JetStream isn't ready
    within ``READY_WITHIN_S``.
    """
    if unfit := await _unfit(transport):
        raise PlatformError(unfit)
    clock = asyncio.get_running_loop().time
    began = tell_at = clock()
    while (missing := await _ensure_all(transport, replicas)) is not None:
        left = began + READY_WITHIN_S - clock()
        if left <= 0:
            raise Unavailable(
                f"JetStream is not ready after {READY_WITHIN_S:g} s: {missing}; start the nodes that are "
                f"down: a cluster needs more than half of them, and {replicas} for WPA_REPLICAS={replicas}"
            )
        if clock() >= tell_at:
            log.warning("waiting for JetStream and its leader, up to %.0f s more: %s", left, missing)
            tell_at = clock() + TELL_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)


async def examine(transport: Transport) -> list[str]:
    """What :func:`ensure` would refuse a server for, and what of ours is gone; nothing is made, or changed.

    Raises PlatformError where it can't be asked. A server that has nothing of ours yet has no faults.
    """
    if unfit := await _unfit(transport):
        return [unfit]
    faults: list[str] = []
    missing: list[str] = []
    streams = _wanted(replicas=1)
    for wanted in streams:
        try:
            found = (await api(transport, f"STREAM.INFO.{wanted['name']}"))["config"]
        except ApiError as error:
            if error.code != NO_SUCH:
                raise
            missing.append(wanted["name"])
        else:
            faults += _faults(wanted["name"], wanted, found)
    if len(missing) < len(streams):
        faults += (
            f"stream {name} is missing, while others are there: what it held is lost, if it was ever there; "
            "restore a backup, or start a worker, which makes it, empty"
            for name in missing
        )
    return faults


async def _unfit(transport: Transport) -> str:
    """Why the server as such won't do; empty where it does."""
    if not is_at_least(transport, SERVER_MIN):
        version = server_version(transport)
        return f"nats-server {version} is too old: wpa needs {SERVER_MIN[0]}.{SERVER_MIN[1]} or newer"
    if not await _has_jetstream(transport):
        return (
            "this NATS server runs without JetStream; start it with `-js` and a store_dir; "
            "where it has them, its disk was full: make room, then restart it"
        )
    if transport.nc.max_payload < MESSAGE_BYTES_MIN:
        return (
            f"this NATS server takes messages of {transport.nc.max_payload} bytes at most, and wpa needs "
            f"{MESSAGE_BYTES_MIN}: set max_payload in the server's configuration, best to 8MB"
        )
    return ""


async def _has_jetstream(transport: Transport) -> bool:
    """Whether this server has it, or others of its cluster, which may have no leader just now.

    A node may do without, or have given it up.
    """
    if transport.nc._server_info.get("jetstream"):  # noqa: SLF001
        return True
    try:
        await api(transport, "INFO")
    except ApiError as error:
        return error.err_code in NOT_READY
    except PlatformError:
        return False
    return True


async def _ensure_all(transport: Transport, replicas: int) -> Unavailable | None:
    """Why it can't be done yet; None once it is. Raises PlatformError where it never will be."""
    outcomes = await asyncio.gather(
        *(_ensure_one(transport, wanted) for wanted in _wanted(replicas)), return_exceptions=True
    )
    missing: Unavailable | None = None
    for outcome in outcomes:
        if isinstance(outcome, Unavailable):
            missing = outcome
        elif outcome is not None:
            raise outcome
    if missing is not None:
        trouble = str(transport.nc.last_error or "")
        if NOT_PERMITTED in trouble.lower():  # whoever may not ask is given no answer
            raise PlatformError(f"the NATS user may not do what a worker has to: {trouble}")
    return missing


async def _ensure_one(transport: Transport, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    for tried in range(10):
        try:
            found = await _find_or_make(transport, wanted)
        except ApiError as error:
            if error.err_code in NOT_READY:
                raise Unavailable(str(error)) from None
            raise
        if found is not None:
            if (fault := next(_faults(name, wanted, found), None)) is not None:
                raise PlatformError(fault)
            return
        # A cluster may say that it is made before it is there, others may be making it: look again.
        await asyncio.sleep(0.05 * tried)
    raise Unavailable(f"stream {name} can be neither found nor made")


async def _find_or_make(transport: Transport, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of a stream that is there; None for one that should be there in a moment."""
    name = wanted["name"]
    try:
        async with asyncio.timeout(INFO_TIMEOUT_S):
            found: dict[str, Any] = (await api(transport, f"STREAM.INFO.{name}"))["config"]
            return found
    except TimeoutError:
        raise Unavailable(f"nobody has told of stream {name} within {INFO_TIMEOUT_S:g} s") from None
    except ApiError as error:
        if error.code != NO_SUCH:
            raise
    try:
        await api(transport, f"STREAM.CREATE.{name}", wanted)
    except ApiError as error:
        if error.err_code != STREAM_NAME_IN_USE:  # another worker made it in between
            raise
    return None


async def allow_batches(transport: Transport) -> None:
    """Let the journals' stream take atomic batches. Raises PlatformError where that can't be."""
    found = (await api(transport, f"STREAM.INFO.{EVENTS}"))["config"]
    if not found.get("allow_atomic"):
        await api(transport, f"STREAM.UPDATE.{EVENTS}", {**found, "allow_atomic": True})


def _faults(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """What would break a promise; other differences are the operator's business."""
    for key in NEEDED:
        if key in wanted and found.get(key, False) != wanted[key]:
            yield (
                f"stream {name} has {key} = {found.get(key)!r} where wpa needs {wanted[key]!r}; "
                f"change it with `nats stream edit {name}`, or let wpa make a new one"
            )
    for limit in _losing(name, found):
        value = f"{found[limit] / _SECOND:g} s" if limit == "max_age" else found[limit]
        loss = "takes less than its server" if limit == SIZE else LOSS.get(name, "loses data without a word")
        hint = " (a quota may stay, with --discard=new)" if limit in QUOTAS and name != TIMERS else ""
        yield (
            f"stream {name} has {limit} = {value}, which {loss}; "
            f"lift it with `nats stream edit {name} {LIFTS[limit]}`{hint}"
        )
    if found.get("persist_mode") == "async":
        yield f"stream {name} has persist_mode: async, which loses acknowledged writes; wpa refuses it"


def _losing(name: str, found: dict[str, Any]) -> Iterator[str]:
    """The limits by which a stream loses what it has, or does not take what the server would.

    A quota that refuses what is new is the operator's business: whoever stores something waits for room. So
    is how long dead letters are kept.
    """
    kept = name not in (DLQ, f"KV_{WORKERS_BUCKET}")
    # A stream with schedules can't refuse what is too much: it would drop the oldest alarms.
    refuses = found.get("discard") == "new" and name != TIMERS
    history = name.startswith("KV_") or (refuses and found.get("discard_new_per_subject", False))
    for limit in LIFTS:
        harmless = (refuses and limit in QUOTAS) or (history and limit == "max_msgs_per_subject")
        if found.get(limit, 0) > 0 and (limit == SIZE or (kept and not harmless)):
            yield limit


def may_have_replicas(transport: Transport) -> bool:
    """Whether streams may have replicas by now: where there is a cluster, an operator may give them some.

    There is none where the server we are connected to has JetStream, and no other to share it with.
    """
    info = transport.nc._server_info  # noqa: SLF001
    return not info.get("jetstream") or bool(info.get("cluster"))


def server_version(transport: Transport) -> str:
    """As the server gives it: ``2.15.1``."""
    return str(transport.nc._server_info.get("version", ""))  # noqa: SLF001


def is_at_least(transport: Transport, version: tuple[int, int]) -> bool:
    """Whether the server is of this version, or newer, or says nothing that could be compared."""
    match = re.match(r"v?(\d+)\.(\d+)", server_version(transport))
    return match is None or (int(match[1]), int(match[2])) >= version
