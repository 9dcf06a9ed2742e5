"""Requests and answers over one connection, for one tenant; and patience while nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import msgspec
import nats.errors

from wpa.connection import Connection
from wpa.errors import DefinitionError, OverLimit, Problem, TaskRejected, Unavailable

__all__ = ["Away", "Body", "Channel", "LockedOut", "Unanswered", "check_json"]

log = logging.getLogger("wpa.client")

REQUEST_TIMEOUT_S: Final = 5.0
TRIES: Final = 3
NOBODY_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.75)
"""Between the tries while nobody listens: a worker that is about to start is there in a moment."""
AWAY_FOR_S: Final = 10.0
AWAY_RETRY_S: Final = 0.5

Body = dict[str, Any]
T = TypeVar("T")


class _ServerAway(Unavailable):
    """A worker answered, but it can't reach what it needs."""


class Channel:
    """Asks the workers of wpa, in the name of one tenant."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._nc = connection
        self.tenant = tenant

    async def close(self) -> None:
        """Send what is still to be sent, and close the connection."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._nc.flush(timeout=1)
        await self._nc.close()

    async def request(self, verb: str, body: Body | None = None) -> Body:
        """One request to ``workflow.api.<tenant>.<verb>``; every verb may be repeated.

        Tried again while nobody answers, and for ten seconds while a worker answers that the server is
        away (a cluster that elects a leader takes about seven). Raises TaskRejected or DefinitionError
        with the engine's reasons, OverLimit for more than the server takes, Unavailable when it stays so.
        """
        deadline = time.monotonic() + AWAY_FOR_S
        while True:
            try:
                return await self._request(verb, body)
            except _ServerAway as error:
                if time.monotonic() > deadline:
                    raise Unavailable(str(error)) from None
                await asyncio.sleep(AWAY_RETRY_S)

    async def _request(self, verb: str, body: Body | None) -> Body:
        subject = f"workflow.api.{self.tenant}.{verb}"
        pauses = iter(NOBODY_PAUSES_S)
        tries = 0
        while True:
            try:
                reply = await self._nc.request(
                    subject, msgspec.json.encode(body or {}), timeout=REQUEST_TIMEOUT_S
                )
            except nats.errors.NoRespondersError:
                if (pause := next(pauses, None)) is None:
                    if tries:
                        raise Unanswered(f"no worker answers on {subject} any more") from None
                    reason = f"no worker answers on {subject}; start one with `wpa dev` or `wpa worker`"
                    raise Unavailable(reason) from None
                await asyncio.sleep(pause)
            except (TimeoutError, nats.errors.TimeoutError):
                self.check_let_in()
                tries += 1
                if tries == TRIES:
                    raise Unanswered(
                        f"no answer on {subject} within {REQUEST_TIMEOUT_S:g} s: the workers are too busy, "
                        "or can't store what is asked; their logs say which"
                    ) from None
            except nats.errors.MaxPayloadError:
                raise OverLimit(
                    f"the server takes messages of {self._nc.max_payload} bytes at most"
                ) from None
            except (nats.errors.Error, OSError) as error:
                raise Unavailable(f"{subject}: {error}") from error
            else:
                return self._unwrap(msgspec.json.decode(reply.data))

    async def rows(self, verb: str, key: str) -> list[Body]:
        """All rows of what is answered in pages, under ``key``. Raises as :meth:`request`."""
        found: list[Body] = []
        body: Body = {}
        while True:
            answer = await self.request(verb, body)
            found += answer[key]
            if not answer.get("more"):  # a worker of before answers with all, or not at all
                return found
            body = {"after": answer["next"]}

    def check_let_in(self) -> None:
        """Raise LockedOut where the server does not let us in just now."""
        if self._nc.refusal:
            raise LockedOut(f"the NATS server does not let us in: {self._nc.refusal}")

    @staticmethod
    def _unwrap(answer: Body) -> Body:
        if answer.get("ok"):
            return answer
        error: Body = answer.get("error") or {}
        problems = [Problem(p["path"], p["message"], p.get("hint", "")) for p in error.get("problems", ())]
        code, message = error.get("code", "unknown"), error.get("message", "no reason given")
        if code == "invalid_definition":
            raise DefinitionError(problems)
        if code == "unavailable":
            raise _ServerAway(message)
        raise TaskRejected(code, message, problems)


class Unanswered(Unavailable):
    """A worker may have taken the request, and have done what was asked."""


class LockedOut(Unanswered):
    """The server has thrown us out, and does not let us in again."""


class Away:
    """Patience for somebody who waits: once a worker has answered, a silent while is no failure.

    The execution is durable; whoever waits for it must not be less so. Without a first answer, though,
    nothing says that there is anybody to wait for.
    """

    def __init__(self) -> None:
        self._answered = False
        self._told = False

    async def ask(self, question: Awaitable[T]) -> T | None:
        """The answer, or None where none came, which is logged once in an outage."""
        try:
            answer = await question
        except Unavailable as error:
            if not self._answered or isinstance(error, LockedOut):
                raise
            if not self._told:
                log.warning("%s; still waiting", error)
                self._told = True
            return None
        self._answered, self._told = True, False
        return answer


def check_json(value: Any, what: str) -> None:
    """Refuse what the encoder would write as null, or not come to an end with.

    Raises ValueError for NaN or Infinity, OverLimit for what is nested too deeply.
    """
    try:
        finite = _is_finite(value)
    except RecursionError:
        raise OverLimit(f"{what} is nested too deeply") from None
    if not finite:
        raise ValueError(f"{what} holds NaN or Infinity, which are not JSON: send null or a string")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, (list, tuple)) or all(map(_is_finite, value))
