"""Follows what is deployed: tells of the latest version of every workflow, at first and at each change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from wpa.engine.library import is_reserved
from wpa.engine.services import Services
from wpa.errors import PlatformError, WpaError
from wpa.plan import Plan

__all__ = ["Deployments", "OnLatest"]

log = logging.getLogger("wpa.worker")

AT_A_TIME: Final = 16
RETRY_S: Final = 1.0
FOLLOW_WITHIN_S: Final = 2.0

OnLatest = Callable[[str, Plan], Awaitable[None]]
"""(tenant, plan): the version that was deployed last. A PlatformError is tried again, all else is logged."""


class _Starts(msgspec.Struct):
    """Of a document: only whether it starts anything by itself. Most don't, and need not be compiled."""

    triggers: msgspec.Raw = msgspec.Raw()
    schedule: msgspec.Raw = msgspec.Raw()


class Deployments:
    """Tells ``listeners``, in turn, of plans that start by themselves, and of those that did before."""

    def __init__(self, services: Services, listeners: list[OnLatest]) -> None:
        self._services = services
        self._listeners = listeners
        self._told: dict[tuple[str, str], tuple[str, bool]] = {}
        """The version last told of, or looked at, and whether it starts by itself."""
        self._news: set[tuple[str, str]] = set()
        self._all = True
        self._changed = asyncio.Event()
        self._awaiting: list[asyncio.Future[None]] = []
        """Who wants to know when all that is news now was looked at."""

    async def run(self) -> None:
        """Follow for ever."""
        self._services.ports.definitions.on_change(self._on_change)
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                done = await self._look()
            except PlatformError as error:
                log.warning("can't follow what is deployed: %s", error)
                done = False
            if not done:
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def follow(self, tenant: str, workflow: str) -> None:
        """Return when the listeners were told of what is deployed now: a message that is published after it
        finds them listening. Where they can't be told yet, return after two seconds; they will be."""
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaiting.append(looked)
        self._on_change(tenant, workflow)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_WITHIN_S):
                await looked

    def _on_change(self, tenant: str, workflow: str) -> None:
        if not tenant:
            self._all = True
        elif not is_reserved(tenant):
            self._news.add((tenant, workflow))
        self._changed.set()

    async def _look(self) -> bool:
        """Look at all that is news. False where some of it has to be looked at again."""
        awaiting, self._awaiting = self._awaiting, []
        if self._all:
            workflows = await self._services.ports.definitions.workflows()
            self._news |= {key for key in workflows if not is_reserved(key[0])}
            self._all = False
        gate = asyncio.Semaphore(AT_A_TIME)

        async def look(key: tuple[str, str]) -> bool:
            async with gate:
                return await self._look_at(*key)

        done = all(await asyncio.gather(*(look(key) for key in sorted(self._news))))
        for looked in awaiting:
            if not looked.done():
                looked.set_result(None)
        return done

    async def _look_at(self, tenant: str, workflow: str) -> bool:
        """Look at one workflow. False where that fails for now; it stays among the news then."""
        key, definitions = (tenant, workflow), self._services.ports.definitions
        self._news.discard(key)
        try:
            version = await definitions.latest(tenant, workflow)
            told = self._told.get(key)
            if version is None or (told is not None and told[0] == version):
                return True
            stored = await definitions.get(tenant, workflow, version)
            if stored is None or stored.kind != "plan":
                return True
            starts = msgspec.json.decode(stored.document, type=_Starts)
            begins = any(
                bytes(raw) not in (b"", b"null", b"[]") for raw in (starts.triggers, starts.schedule)
            )
            if begins or told is None or told[1]:
                plan = await self._services.library.program(tenant, workflow, version)
                if isinstance(plan, Plan):
                    for listener in self._listeners:
                        await listener(tenant, plan)
            self._told[key] = (version, begins)
        except PlatformError as error:
            self._news.add(key)
            log.warning("%s.%s is looked at again: %s", tenant, workflow, error)
            return False
        except WpaError as error:
            log.error("what starts %s.%s by itself is not in force: %s", tenant, workflow, error)
        except Exception:
            log.exception("what starts %s.%s by itself is not in force; please report it", tenant, workflow)
        return True
