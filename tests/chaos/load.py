"""The executions that chaos is let loose on: what they are, how they are started, and how they have to end.

Each uses another part of the engine, and all leave lines in the ledger of side effects. What a client asks
for is asked until somebody says yes, as a client does that was cut off: so everything may arrive twice.
What must hold on the way is for the judge to say; here is only said how each ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self

import msgspec

from tests.checker.calls import Caller
from tests.checker.facts import Call
from wpa.client import Client
from wpa.errors import TaskRejected, Unavailable

PATIENCE_S: Final = 120.0
AGAIN_S: Final = 0.2
WATCHED_MAX: Final = 100
"""So many ends are waited for at a time: thousands would keep the workers from what is waited for."""
STARTS_PER_S: Final = 8.0
WORK_S: Final = 0.3
"""Whatever happens, some steps are at work."""
CANARIES: Final = {"acme": "canary-of-acme-4711", "zeta": "canary-of-zeta-0815"}
"""The tenants; what they hand to their executions names them."""

WORK = {"uses": "e2e.work", "with": {"seconds": "${input.seconds}"}, "compensate": {"uses": "e2e.undo"}}
NAP = {"uses": "core.sleep", "with": {"for": "2100ms"}}
"""Longer than what a worker waits for itself: it comes to rest."""

PLANS: dict[str, dict[str, Any]] = {
    "chain": {
        "steps": [
            {"id": "a", **WORK, "with": {"answer": "${input.word}"}},
            {"id": "b", **WORK, "needs": ["a"]},
            {"id": "c", **WORK, "needs": ["b"], "with": {"answer": "${steps.a.output}"}},
        ]
    },
    "fan": {
        "steps": [
            {"id": "a", "uses": "e2e.work"},
            *(
                {"id": f"b{n}", "uses": "e2e.work", "with": {"seconds": 0.05}, "needs": ["a"]}
                for n in range(5)
            ),
            {"id": "z", "uses": "e2e.work", "needs": [f"b{n}" for n in range(5)]},
        ]
    },
    "loser": {
        "steps": [
            {"id": "a", **WORK},
            {"id": "b", **WORK, "needs": ["a"]},
            {"id": "c", "uses": "core.fail", "with": {"retryable": False}, "needs": ["b"]},
        ]
    },
    "sleeper": {
        "steps": [
            {"id": "a", **WORK},
            {"id": "nap", **NAP, "needs": ["a"]},
            {"id": "b", **WORK, "needs": ["nap"]},
        ]
    },
    "waiter": {
        "steps": [
            {"id": "go", "uses": "core.wait", "with": {"signal": "go"}},
            {"id": "b", "uses": "e2e.work", "with": {"answer": "${steps.go.output}"}, "needs": ["go"]},
        ]
    },
    "small": {"steps": [{"id": "x", "uses": "e2e.work"}, {"id": "nap", **NAP, "needs": ["x"]}]},
    "parent": {
        "steps": [
            {"id": "sub", "uses": "core.workflow", "with": {"workflow": "small"}},
            {"id": "z", "uses": "e2e.work", "needs": ["sub"]},
        ]
    },
    "each": {
        "steps": [
            {
                "id": "each",
                "uses": "e2e.work",
                "foreach": {"in": "${[1, 2, 3, 4, 5, 6]}", "concurrency": 3},
                "with": {"seconds": 0.03, "answer": "${item}"},
            }
        ]
    },
    "flaky": {
        "steps": [
            {
                "id": "a",
                "uses": "core.fail",
                "with": {"until_attempt": 2},
                "retry": {"max_attempts": 3, "backoff": {"initial": "2100ms", "jitter": 0}},
            },
            {"id": "b", "uses": "e2e.work", "needs": ["a"]},
        ]
    },
    "once": {
        "steps": [
            {"id": "a", **WORK, "at_most_once": True, "on_error": "continue"},
            {"id": "b", **WORK, "needs": ["a"]},
        ]
    },
    "paused": {
        "steps": [
            {"id": "a", **WORK},
            {"id": "b", **WORK, "needs": ["a"]},
            {"id": "c", **WORK, "needs": ["b"]},
        ]
    },
}
FLOWS = ("stroll", "regret")
KINDS = (*(name for name in PLANS if name != "small"), *FLOWS)
ENDS = dict.fromkeys(("loser", "regret"), "ROLLED_BACK")
"""How those end that don't complete."""
PAUSE_S = 0.2
HELD_S = {"paused": 3.0, "sale": 3.0}
"""After so long one is resumed that may be held: by a pause that nobody has answered, which may have come after
the resume; or blocked by a worker that has not the newest code."""


async def deploy(caller: Caller, tenant: str, plans: Mapping[str, dict[str, Any]] = PLANS) -> None:
    """Deploy the plans, by name."""
    for name, plan in plans.items():
        document = {"id": name, "version": "1", **plan}
        await acknowledged(caller, "deploy", tenant, "", document=document)


async def acknowledged(caller: Caller, kind: str, tenant: str, execution: str, **body: Any) -> Call:
    """Ask until somebody says yes."""
    return _sure(await caller.ask(kind, tenant, execution, body, PATIENCE_S), caller)


def _sure(call: Call, caller: Caller) -> Call:
    """Raise AssertionError for a call that nobody has said yes to, with what has become of each try."""
    if call.outcome != "ok":
        tries = [one for one in caller.calls if _asked(one) == _asked(call)]
        lasted_s = (call.answered_ms - tries[0].asked_ms) / 1000
        whys = Counter(f"{one.code} {one.why}" for one in tries)
        told = "\n".join(f"    {count} times: {why}" for why, count in whys.most_common())
        raise AssertionError(f"asked {len(tries)} times in {lasted_s:g} s, in vain: {call}\n{told}")
    return call


def _asked(call: Call) -> tuple[str, str, str]:
    return call.kind, call.tenant, call.execution


async def start(caller: Caller, tenant: str, kind: str, execution: str, seconds: float = 0.0) -> None:
    """Start an execution, some of whose steps work for ``seconds``, and tell it what it waits for."""
    await begin(caller, tenant, kind, execution, seconds)
    if kind == "paused":
        # It may be over before: then this is refused.
        await caller.ask("pause", tenant, execution, {"reason": "a while"}, PATIENCE_S, insist=False)
        await asyncio.sleep(PAUSE_S)
    await tell(caller, tenant, kind, execution)


async def begin(caller: Caller, tenant: str, kind: str, execution: str, seconds: float) -> None:
    given = {"word": CANARIES[tenant], "seconds": seconds}
    _sure(await caller.start(tenant, kind, given, execution, PATIENCE_S), caller)


async def tell(caller: Caller, tenant: str, kind: str, execution: str) -> None:
    """Tell an execution what it waits for, if it does."""
    if kind == "waiter":
        await acknowledged(caller, "signal", tenant, execution, signal="go", payload=7, id="one")
    elif kind == "paused":
        await resume(caller, tenant, execution)


async def resume(caller: Caller, tenant: str, execution: str) -> None:
    await caller.ask("resume", tenant, execution, {"reason": "go on"}, PATIENCE_S, insist=False)


async def check_end(caller: Caller, client: Client, kind: str, execution: str, within_s: float) -> None:
    """Raise AssertionError for an execution that did not end as if nothing had happened."""
    try:
        async with asyncio.timeout(within_s):
            found = await _end(caller, client, kind, execution)
    except TimeoutError:
        what = f"goes on after {within_s:g} s"
    else:
        if found["status"] == ENDS.get(kind, "COMPLETED"):
            return
        what = f"is {found['status']}, {found['error']}"
    raise AssertionError(f"{client.tenant}.{execution} {what}:\n{await _history(client, execution)}")


async def _history(client: Client, execution: str) -> str:
    try:
        events = await client.history(execution)
    except (TaskRejected, Unavailable) as error:
        return f"its journal can't be read: {error}"
    return "\n".join(msgspec.json.encode(event).decode() for event in events)


async def _end(caller: Caller, client: Client, kind: str, execution: str) -> dict[str, Any]:
    held_s = HELD_S.get(kind)
    while True:
        try:
            return await client.result(execution, timeout_s=held_s)
        except TimeoutError:
            await resume(caller, client.tenant, execution)
            held_s = held_s and held_s * 2  # it may have ended: workers that are busy are slow to say so
        except Unavailable:
            await asyncio.sleep(AGAIN_S)


class Load:
    """Starts executions of every kind, for every tenant, one after the other.

    Args:
        caller: asks, and keeps what was asked.
        url: of the server, for clients that wait for the ends.
        kinds: of executions: what the names of their workflows are.
        plans: to be deployed first.
    """

    def __init__(
        self,
        caller: Caller,
        url: str,
        kinds: Sequence[str] = KINDS,
        plans: Mapping[str, dict[str, Any]] = PLANS,
    ) -> None:
        self._plans = plans
        self._caller = caller
        self._url = url
        self._kinds = kinds
        self._starting: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        self._clients: dict[str, Client] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for tenant in CANARIES:
            client = await Client.connect(self._url, tenant)
            self._clients[tenant] = await self._stack.enter_async_context(client)
            await deploy(self._caller, tenant, self._plans)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._starting.values():
            task.cancel()
        await self._stack.aclose()

    @property
    def started(self) -> int:
        """How many executions were started."""
        return len(self._starting)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """In here, executions are started; at the end, each of them was acknowledged."""
        over = asyncio.Event()
        loading = asyncio.create_task(self._go_on(over))
        try:
            yield
        finally:
            over.set()
            await loading
        await asyncio.gather(*self._starting.values())

    async def _go_on(self, over: asyncio.Event) -> None:
        while not over.is_set():
            turn, place = divmod(self.started, len(self._kinds))
            tenant = list(CANARIES)[turn % len(CANARIES)]
            kind = self._kinds[place]
            name = f"{kind}-{self.started}"
            starting = asyncio.create_task(start(self._caller, tenant, kind, name, WORK_S))
            self._starting[tenant, kind, name] = starting
            await asyncio.sleep(1 / STARTS_PER_S)

    async def check_ends(self, within_s: float) -> None:
        """Wait for every end. Raises AssertionError for one that is not as if nothing had happened."""
        room = asyncio.Semaphore(WATCHED_MAX)

        async def check(tenant: str, kind: str, name: str) -> None:
            async with room:
                await check_end(self._caller, self._clients[tenant], kind, name, within_s)

        await asyncio.gather(*(check(*started) for started in self._starting))
