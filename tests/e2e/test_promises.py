"""Real executions of every kind on real workers, one of which is killed: the judge finds no broken promise.

``WPA_RECORD_FACTS=FILE`` keeps what was recorded: ``tests/unit/checker/recorded.json`` is such a file.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats

from tests.checker.calls import Caller
from tests.checker.dump import settled
from tests.checker.facts import Fault, read_ledger, save
from tests.checker.flows import replay
from tests.checker.judge import Bounds, judge
from tests.e2e.processes import EXAMPLES, Wpa
from tests.servers import NatsServer

Body = dict[str, Any]

TENANTS = {"acme": "canary-of-acme-4711", "zeta": "canary-of-zeta-0815"}
UNDO = {"uses": "e2e.undo"}
QUICKLY = {"max_attempts": 3, "backoff": {"initial": "60ms", "factor": 2, "max": "1s"}}
LEDGERED = ["e2e.work", "e2e.undo", "e2e.gate", "e2e.die_once"]
ACK_WAIT_S = 2.0
BOUNDS = Bounds(settle_ms=0)
"""Nothing moves any more when it is judged."""
UNTOLD = "waiter-19"
"""The execution that nobody tells what it waits for."""


def work(id: str, *needs: str, seconds: float = 0.02, **more: Any) -> Body:
    """A step that leaves a line in the ledger."""
    return {"id": id, "uses": "e2e.work", "with": {"seconds": seconds}, "needs": list(needs), **more}


PLANS: dict[str, Body] = {
    "line": {
        "steps": [work("a"), work("b", "a"), {"id": "c", "uses": "core.echo", "needs": ["b"],
                  "with": {"word": "${input.word}", "n": "${size(input.word) + 1}"}}],
        "output": {"said": "${steps.c.output.word}!", "to": "${execution.tenant}"},
    },
    "branches": {
        "variables": {"limit": 5},
        "steps": [
            {"id": "check", "switch": [{"when": "input.n > vars.limit", "next": "much"}], "default": ["few", "none"]},
            work("much"), work("few"), {**work("none"), "if": "input.n == 0"},
            {"id": "end", "uses": "core.echo", "needs": ["much", "few", "none"], "set": {"limit": "${input.n}"},
             "with": {"taken": "${steps.check.output.taken}", "none": "${steps.none.status}"}},
        ],
        "output": ["${steps.end.output}", "${vars.limit}"],
    },
    "stubborn": {
        "steps": [
            {"id": "try", "uses": "core.fail", "with": {"until_attempt": 3}, "retry": QUICKLY},
            {"id": "lose", "uses": "core.fail", "on_error": "continue", "retry": {**QUICKLY, "max_attempts": 2}},
            {"id": "say", "uses": "core.echo", "needs": ["try", "lose"], "with": {"why": "${steps.lose.error.type}"}},
        ]
    },
    "many": {
        "max_parallel": 3,
        "steps": [
            {**work("each", seconds=0.03), "foreach": {"in": "input.items", "concurrency": 5}},
            {"id": "poll", "uses": "core.echo", "repeat": {"until": "output.n >= 3", "delay": "40ms"},
             "with": {"n": "${index + 1}", "before": "${output}"}},
            {**work("first", priority=9), "with": {"answer": "${input.items[0]}"}},
            {"id": "all", "uses": "core.echo", "needs": ["each", "poll", "first"],
             "with": {"n": "${size(steps.each.output) + steps.poll.output.n}"}},
        ],
    },
    "saga": {
        "steps": [
            work("a", compensate=UNDO), {**work("b", "a", compensate=UNDO), "foreach": {"in": [1, 2, 3]}},
            work("c", "b", seconds=0.05, compensate=UNDO, at_most_once=True),
            {"id": "d", "uses": "core.fail", "needs": ["c"], "with": {"retryable": False}},
        ]
    },
    "race": {
        "steps": [
            {"id": "near", "uses": "core.sleep", "with": {"for": "150ms"}}, work("fast", "near"),
            {"id": "far", "uses": "core.sleep", "with": {"for": "1h"}}, work("slow", "far"),
            {**work("order", "fast", "slow"), "join": "race"},
        ],
        "output": "${steps.fast.status} ${steps.slow.status}",
    },
    "sleeper": {
        "steps": [work("a", seconds=0.2), {"id": "nap", "uses": "core.sleep", "with": {"for": "2600ms"},
                  "needs": ["a"]}, work("b", "nap")],
    },
    "waiter": {
        "timeout": "1h",
        "steps": [
            {"id": "go", "uses": "core.wait", "with": {"signal": "go"}},
            {"id": "ask", "uses": "core.approval", "with": {"users": ["ana"], "timeout": "1h"}},
            {"id": "miss", "uses": "core.wait", "with": {"signal": "no", "timeout": "100ms", "default": 5}},
            {"id": "b", "uses": "core.echo", "needs": ["go", "ask", "miss"],
             "with": {"n": "${steps.go.output.n}", "yes": "${steps.ask.output.approved}", "m": "${steps.miss.output}"}},
        ],
    },
    "parent": {"steps": [{"id": "sub", "uses": "core.workflow", "foreach": {"in": "input.words"},
                          "with": {"workflow": "line", "input": {"word": "${item}"}}}]},
    "paused": {"steps": [work("a", seconds=0.4), work("b", "a"), work("c", "b")]},
    "once": {"steps": [work("pay", seconds=1.2, at_most_once=True)]},
    "slow": {"steps": [work("a", seconds=1.0, compensate=UNDO), work("b", "a", seconds=1.0)]},
    "large": {"steps": [{"id": "x", "uses": "e2e.large", "with": {"size": 70_000}},
                        {"id": "n", "uses": "core.echo", "needs": ["x"], "with": {"n": "${size(steps.x.output)}"}}],
              "output": "${steps.n.output}"},
    "remote": {"steps": [work("r", queue="gpu"), work("after", "r")]},
}  # fmt: skip


class Run:
    """The executions of one tenant."""

    def __init__(self, caller: Caller, tenant: str) -> None:
        self.caller, self.tenant = caller, tenant
        self.word = TENANTS[tenant]

    async def deploy(self) -> None:
        for name, plan in PLANS.items():
            document = {"id": name, "version": "1", "description": self.word, **plan}
            await self.ask("deploy", "", document=document)

    async def ask(self, kind: str, execution: str, **body: Any) -> None:
        call = await self.caller.ask(kind, self.tenant, execution, body, within_s=30)
        assert call.outcome == "ok", call

    async def ask_in_time(self, kind: str, execution: str, **body: Any) -> None:
        """Ask it of one that would end by itself; on a slow machine, it has. The judge knows either way."""
        call = await self.caller.ask(kind, self.tenant, execution, body, within_s=30)
        assert call.outcome == "ok" or call.code == "execution_ended", call

    async def begin(self) -> None:
        """Start everything, some of it twice."""
        inputs: dict[str, Any] = {
            "many": {"items": [self.word, *range(9)]},
            "parent": {"words": [self.word, "tea"]},
        }
        names = [*PLANS, "line", "saga", "once", "slow", "sleeper", "waiter"]
        for number, name in enumerate(names):
            data = inputs.get(name, {"word": self.word, "n": number})
            for _ in range(1 + (name == "line")):
                call = await self.caller.start(self.tenant, name, data, f"{name}-{number}", within_s=30)
                assert call.outcome == "ok", call
        for number, n in enumerate((0, 3, 9)):
            await self.caller.start(self.tenant, "branches", {"n": n}, f"branches-{number}-n", within_s=30)
        if self.tenant == "acme":
            for name, data in {
                "hello": {"name": self.word, "after_s": 0.3},
                "digest-topic": {"name": "tea"},
            }.items():
                await self.caller.start(self.tenant, name, data, f"flow-{name}", within_s=30)
        conflict = await self.caller.start(self.tenant, "line", {"word": "other"}, "line-0")
        assert conflict.code == "conflict"

    async def meddle(self) -> None:
        """Pause, cancel, signal, answer."""
        await self.ask_in_time("pause", "paused-9", reason="a while")
        await self.ask_in_time("cancel", "slow-17", reason="enough")
        await self.ask_in_time("terminate", "sleeper-18")
        for _ in range(2):
            await self.ask("signal", "waiter-7", signal="go", payload={"n": 7}, id="one")
        await self.ask("answer", "waiter-7", step="ask", approved=True, metadata={"user_id": "ana"})
        if self.tenant == "zeta":
            for kind in ("pause", "resume", "pause"):
                await self.ask(kind, UNTOLD, reason="a while")
        else:
            await self.ask("signal", "flow-hello", signal="answer", payload={"text": "hi"}, id="once")
        await asyncio.sleep(1.8)
        await self.ask_in_time("resume", "paused-9", reason="go on")


async def test_the_judge_finds_no_broken_promise_though_a_worker_is_killed(
    server: NatsServer, start_worker: Callable[..., Wpa], ledger_file: Path
) -> None:
    flows = [str(EXAMPLES / "flows" / name) for name in ("hello.py", "digest.py")]
    arguments = ("--queue", "gpu", *(word for path in flows for word in ("--flows", path)))
    workers = await asyncio.gather(
        *(asyncio.to_thread(start_worker, *arguments, ack_wait=ACK_WAIT_S) for _ in range(2))
    )
    connection = await nats.connect(server.url)
    caller = Caller(connection)
    runs = [Run(caller, tenant) for tenant in TENANTS]
    for run in runs:
        await run.deploy()
    await asyncio.gather(*(run.begin() for run in runs))
    killed_ms = int(time.time() * 1000)
    workers[0].kill()
    again = asyncio.create_task(asyncio.to_thread(start_worker, *arguments, ack_wait=ACK_WAIT_S))
    await asyncio.gather(*(run.meddle() for run in runs))
    await again
    fault = Fault("a worker is killed", killed_ms, int(time.time() * 1000 + ACK_WAIT_S * 1000))
    facts = await settled(server.url, within_s=40, waiting={UNTOLD})
    await connection.close()
    facts.calls, facts.closed, facts.bounds = caller.calls, True, BOUNDS
    facts.faults, facts.canaries, facts.ledgered = [fault], TENANTS, LEDGERED
    facts.effects = list(read_ledger(ledger_file))
    if path := os.environ.get("WPA_RECORD_FACTS"):
        save(facts, Path(path))
    assert len(facts.journals()) >= 40
    assert any(event.name == "workflow_recovered" for event in facts.events)
    untold = {one.tenant: one.document["status"] for one in facts.statuses if one.execution == UNTOLD}
    assert untold == {"acme": "WAITING", "zeta": "PAUSED"}
    violations = judge(facts) + await asyncio.to_thread(replay, facts, flows)
    assert not violations, "\n".join(map(str, violations))
