"""Making the streams while other workers do the same, on a cluster whose nodes hear of them one after another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from wpa.adapters.nats import streams

NO_STREAM = {"code": 404, "err_code": 10059, "description": "stream not found"}
IN_USE = {"code": 400, "err_code": 10058, "description": "stream name already in use"}


class LateCluster:
    """Acknowledges every stream that is made, and knows of it some questions later.

    Args:
        late: how many questions.
        refuses: says of a stream that is on its way that its name is in use.
    """

    def __init__(self, late: int, *, refuses: bool = False) -> None:
        self.nc = SimpleNamespace(_server_info={"version": "2.15.1", "jetstream": True})
        self._late = late
        self._refuses = refuses
        self._made: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, int] = {}

    async def request(self, subject: str, data: bytes) -> SimpleNamespace:
        verb, _, name = subject.removeprefix("$JS.API.STREAM.").partition(".")
        return SimpleNamespace(data=msgspec.json.encode(getattr(self, verb.lower())(name, data)))

    def create(self, name: str, data: bytes) -> dict[str, Any]:
        if name in self._made and self._refuses:
            return {"error": IN_USE}
        self._made[name] = msgspec.json.decode(data)
        return {"config": self._made[name]}

    def info(self, name: str, _: bytes) -> dict[str, Any]:
        if name in self._made:
            self._asked[name] = self._asked.get(name, 0) + 1
        known = self._asked.get(name, 0) > self._late
        return {"config": self._made[name]} if known else {"error": NO_STREAM}

    def all_known(self) -> bool:
        return all("config" in self.info(name, b"") for name in self._made)


async def test_when_the_streams_are_made_they_are_there() -> None:
    for refuses in (False, True):
        cluster = LateCluster(3, refuses=refuses)
        await streams.ensure(cluster, replicas=3)  # type: ignore[arg-type]
        assert cluster.all_known()
