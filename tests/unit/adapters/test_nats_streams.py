"""Making the streams while other workers do the same, on a cluster whose nodes hear of them one after another,
and on one that has no leader as yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from wpa.adapters.nats import streams
from wpa.errors import PlatformError, Unavailable

NO_STREAM = {"code": 404, "err_code": 10059, "description": "stream not found"}
IN_USE = {"code": 400, "err_code": 10058, "description": "stream name already in use"}


class LateCluster:
    """Acknowledges every stream that is made, and knows of it some questions later.

    Args:
        late: how many questions.
        refuses: says of a stream that is on its way that its name is in use.
    """

    def __init__(self, late: int, *, refuses: bool = False) -> None:
        self.nc = SimpleNamespace(
            _server_info={"version": "2.15.1", "jetstream": True}, max_payload=8 * 1024 * 1024
        )
        self._late = late
        self._refuses = refuses
        self._made: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, int] = {}

    async def request(self, subject: str, data: bytes, *, reads: bool = False) -> SimpleNamespace:
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


class NotReady(LateCluster):
    """Answers so many questions with the same error, or not at all; then it is as any other."""

    def __init__(self, questions: int, error: dict[str, Any] | None) -> None:
        super().__init__(0)
        self.nc = SimpleNamespace(**vars(self.nc), last_error=None)
        self.asked = 0
        self._questions = questions
        self._error = error

    async def request(self, subject: str, data: bytes, *, reads: bool = False) -> SimpleNamespace:
        self.asked += 1
        if self.asked > self._questions:
            return await super().request(subject, data, reads=reads)
        if self._error is None:
            raise Unavailable("no answer")
        return SimpleNamespace(data=msgspec.json.encode({"error": self._error}))


@pytest.fixture
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(streams, "READY_WITHIN_S", 0.2)


def told(caplog: pytest.LogCaptureFixture) -> int:
    return caplog.text.count("waiting for JetStream")


NO_LEADER = {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}
NO_PEERS = {"code": 400, "err_code": 10005, "description": "no suitable peers for placement"}
OFFLINE = {"code": 500, "err_code": 10118, "description": "stream is offline"}


@pytest.mark.parametrize("error", [None, NO_LEADER, NO_PEERS, OFFLINE])
async def test_a_cluster_that_is_not_ready_is_waited_for_and_told_of_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: dict[str, Any] | None
) -> None:
    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.001)
    cluster = NotReady(100, error)
    await streams.ensure(cluster, replicas=3)  # type: ignore[arg-type]
    assert cluster.all_known()
    assert told(caplog) == 1


async def test_a_node_without_jetstream_waits_for_the_leader_of_those_that_have_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LOOK_EVERY_S", 0.001)
    cluster = NotReady(100, NO_LEADER)
    cluster.nc._server_info = {"version": "2.15.1"}
    await streams.ensure(cluster, replicas=3)  # type: ignore[arg-type]
    assert cluster.all_known()
    assert told(caplog) == 1


@pytest.mark.usefixtures("in_haste")
async def test_a_cluster_that_does_not_get_ready_is_given_up_with_the_last_reason() -> None:
    with pytest.raises(
        Unavailable, match=r"not ready after 0\.2 s: .*temporarily unavailable.*WPA_REPLICAS=3"
    ):
        await streams.ensure(NotReady(10**6, NO_LEADER), replicas=3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_haste")
@pytest.mark.parametrize(
    "error",
    [
        {"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"},
        {"code": 500, "err_code": 10074, "description": "replicas > 1 not supported in non-clustered mode"},
    ],
)
async def test_a_refusal_is_not_waited_out(caplog: pytest.LogCaptureFixture, error: dict[str, Any]) -> None:
    cluster = NotReady(10**6, error)
    with pytest.raises(PlatformError, match=error["description"]):
        await streams.ensure(cluster, replicas=3)  # type: ignore[arg-type]
    assert told(caplog) == 0


async def test_a_user_who_may_not_ask_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    cluster = NotReady(10**6, None)
    cluster.nc.last_error = Exception('nats: permissions violation for publish to "$js.api.stream.info.x"')
    with pytest.raises(PlatformError, match=r"may not do what a worker has to: .*stream\.info\.x"):
        await streams.ensure(cluster, replicas=1)  # type: ignore[arg-type]
    assert told(caplog) == 0


async def test_a_server_of_small_messages_is_refused_with_what_to_change() -> None:
    cluster = LateCluster(0)
    cluster.nc.max_payload = 65_536
    with pytest.raises(PlatformError, match=r"65536 bytes at most, and wpa needs 262144: set max_payload"):
        await streams.ensure(cluster, replicas=1)  # type: ignore[arg-type]


EVENTS, TASKS, TIMERS, DLQ = "WPA_EVENTS", "WPA_TASKS", "WPA_TIMERS", "WPA_DLQ"
DEFINITIONS, WORKERS, PAYLOADS = "KV_wpa_definitions", "KV_wpa_workers", "OBJ_wpa_payloads"
DAY = 86_400 * 10**9


async def see_edited(stream: str, **changes: Any) -> None:
    """Look at what is there when somebody has edited a stream."""
    cluster = LateCluster(0)
    await streams.ensure(cluster, replicas=1)  # type: ignore[arg-type]
    made = cluster.info(stream, b"")["config"]
    cluster.create(stream, msgspec.json.encode({**made, **changes}))
    await streams.ensure(cluster, replicas=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stream", "changes", "told"),
    [
        (EVENTS, {"max_age": DAY}, "max_age = 86400 s, which loses journals.*EVENTS --max-age=0s`"),
        (EVENTS, {"max_msgs": 10}, "max_msgs = 10, .*--max-msgs=-1` .a quota may stay, with --discard=new"),
        (EVENTS, {"max_bytes": 10, "discard": "old"}, "max_bytes = 10"),
        (EVENTS, {"max_msgs_per_subject": 1}, "max_msgs_per_subject = 1"),
        (EVENTS, {"max_msgs_per_subject": 1, "discard": "new"}, "max_msgs_per_subject = 1"),
        (EVENTS, {"max_msg_size": 4096}, "max_msg_size = 4096, which takes less"),
        (DLQ, {"max_msg_size": 4096}, "max_msg_size = 4096"),
        (TASKS, {"max_age": DAY}, "max_age"),
        (TASKS, {"max_bytes": 10, "discard": "old"}, "max_bytes"),
        (DEFINITIONS, {"max_age": DAY}, "max_age"),
        (DEFINITIONS, {"max_bytes": 10, "discard": "old"}, "max_bytes"),
        (PAYLOADS, {"max_age": DAY}, "max_age"),
        (PAYLOADS, {"max_msgs_per_subject": 1}, "max_msgs_per_subject"),
        (TIMERS, {"max_bytes": 10, "discard": "new"}, "max_bytes = 10, which loses timers"),
    ],
)
async def test_a_limit_that_loses_what_is_stored_is_refused(
    stream: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(PlatformError, match=rf"stream {stream} has {told}"):
        await see_edited(stream, **changes)


@pytest.mark.parametrize(
    ("stream", "key", "value"),
    [
        (EVENTS, "subject_transform", None),
        (EVENTS, "republish", None),
        (EVENTS, "republish", {"src": "workflow.events.*.*", "dest": "elsewhere.>"}),
        (PAYLOADS, "allow_rollup_hdrs", False),
        (TIMERS, "allow_rollup_hdrs", False),
    ],
)
async def test_what_is_stored_or_told_elsewhere_than_it_is_looked_for_is_refused(
    stream: str, key: str, value: Any
) -> None:
    with pytest.raises(PlatformError, match=f"stream {stream} has {key} = "):
        await see_edited(stream, **{key: value})


@pytest.mark.parametrize(
    ("stream", "changes"),
    [
        (EVENTS, {"max_bytes": 10, "discard": "new"}),
        (EVENTS, {"max_age": 0, "max_msgs": -1, "max_bytes": -1, "max_msg_size": -1}),
        (TASKS, {"max_msgs_per_subject": 1_000, "discard_new_per_subject": True}),
        (DEFINITIONS, {"max_msgs_per_subject": 5, "max_bytes": 10}),
        (DLQ, {"max_age": DAY, "max_bytes": 10}),
        (WORKERS, {"max_age": DAY}),
    ],
)
async def test_a_quota_is_the_operators_business(stream: str, changes: dict[str, Any]) -> None:
    await see_edited(stream, **changes)
