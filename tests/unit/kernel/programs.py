"""A tiny program for kernel tests: a list of steps with needs, no JSON, no expressions."""

from __future__ import annotations

from typing import Any

from wpa.errors import Problem
from wpa.kernel.program import (
    ExecutionInfo,
    Finished,
    Outcome,
    Progress,
    Settled,
    StepPolicy,
    StepView,
    Wait,
    Waiting,
    Want,
    WantKind,
)
from wpa.model.events import Failure


class Node:
    def __init__(
        self,
        id: str,
        *needs: str,
        policy: StepPolicy | None = None,
        undo: bool = False,
        undo_policy: StepPolicy | None = None,
        fault: Failure | None = None,
        decision: dict[str, Any] | None = None,
        kind: WantKind = "step",
        wait: Wait | None = None,
    ) -> None:
        self.id, self.needs, self.policy = id, needs, policy or StepPolicy()
        self.undo, self.undo_policy = undo, undo_policy or StepPolicy()
        self.fault, self.decision = fault, decision
        self.kind: WantKind = kind if decision is None else "decision"
        self.wait = wait


class Toy:
    """Implements the program protocol over a list of nodes."""

    id = "toy"
    version = "1"
    hash = "toyhash"
    timeout_ms: int | None = None
    pinned = True

    def __init__(self, *nodes: Node, max_parallel: int = 32) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.max_parallel = max_parallel

    def check_input(self, data: Any) -> list[Problem]:
        return []

    def check_signal(self, name: str, payload: Any) -> list[Problem]:
        return []

    def begin(self, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> ToyRun:
        return ToyRun(self, data)


class ToyRun:
    def __init__(self, toy: Toy, data: Any) -> None:
        self.toy, self.data = toy, data
        self.settled: dict[str, Settled] = {}
        self.wanted: set[str] = set()

    def poll(self) -> Outcome:
        if len(self.settled) == len(self.toy.nodes):
            return Finished({id: settled.value for id, settled in self.settled.items()})
        wants = []
        for node in self.toy.nodes.values():
            if node.id not in self.wanted and all(need in self.settled for need in node.needs):
                self.wanted.add(node.id)
                wants.append(
                    Want(
                        slot=node.id,
                        step=node.id,
                        kind=node.kind,
                        uses="toy.step",
                        wait=node.wait,
                        inputs={"data": self.data},
                        policy=node.policy,
                        fault=node.fault,
                        decision=node.decision,
                    )
                )
        return Waiting(tuple(wants))

    def settle(self, settled: Settled) -> None:
        assert settled.slot in self.wanted
        assert settled.slot not in self.settled
        self.settled[settled.slot] = settled

    def undo(self, slot: str) -> Want | None:
        node = self.toy.nodes[slot]
        if not node.undo:
            return None
        return Want(slot=f"{slot}:undo", step=slot, uses="toy.undo", policy=node.undo_policy)

    def progress(self) -> Progress:
        done = sum(1 for settled in self.settled.values() if settled.status == "completed")
        failed = sum(1 for settled in self.settled.values() if settled.status == "failed")
        return Progress(total=len(self.toy.nodes), completed=done, failed=failed)

    def steps(self) -> list[StepView]:
        return [
            StepView(
                step=node.id,
                slot=node.id,
                kind="step",
                uses="toy.step",
                phase="settled"
                if node.id in self.settled
                else "wanted"
                if node.id in self.wanted
                else "pending",
            )
            for node in self.toy.nodes.values()
        ]
