"""The nodes of a compiled plan: steps and decisions, by number. All runs of the plan share them."""

from __future__ import annotations

import msgspec

from wpa.kernel.program import StepPolicy, Wait, Want, WantKind
from wpa.plan.templates import Template

__all__ = ["Again", "Branch", "Each", "Node", "Undo"]


class Branch(msgspec.Struct, frozen=True):
    """One way out of a decision."""

    when: Template
    targets: tuple[int, ...]


class Undo(msgspec.Struct, frozen=True):
    """What undoes a step."""

    uses: str
    inputs: Template
    policy: StepPolicy
    want: Want | None = None
    """What undoes it, where that is the same in each execution: of one that runs once, on constants."""


class Each(msgspec.Struct, frozen=True, kw_only=True):
    """How a step runs for each item of a list."""

    items: Template
    name: str
    """What expressions call the item."""
    concurrency: int
    carry_on: bool
    """Whether the other items go on when one gives up."""
    max: int
    policy: StepPolicy
    """Of each item."""
    path: str
    """Where in the document it is."""


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """How a step runs round after round."""

    condition: Template
    stops: bool
    """Whether the step ends when the condition is true (``until``), or when it is false (``while``)."""
    max: int
    delay_ms: int | None
    sees: Template
    """Nothing to render: all expressions, of the condition and of the inputs."""


class Node(msgspec.Struct, kw_only=True):
    """A step or a decision, by number."""

    index: int
    id: str
    is_decision: bool
    kind: WantKind = "step"
    uses: str = ""
    inputs: Template
    condition: Template | None = None
    policy: StepPolicy = StepPolicy()
    timeout_ms: int | None = None
    """Of a step that waits: how long. (That of a step that works is in its policy.)"""
    wait: Wait | None = None
    """What a step that waits waits for, where that is constant."""
    want: Want | None = None
    """What it wants, where that is the same in each execution: of one that runs once, on constants."""
    each: Each | None = None
    again: Again | None = None
    undo: Undo | None = None
    sets: Template | None = None
    branches: tuple[Branch, ...] = ()
    default: tuple[int, ...] = ()
    needs: tuple[int, ...] = ()
    gates: tuple[int, ...] = ()
    """The decisions that may choose this node; without one of them it is skipped."""
    children: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    ancestors: int = 0
    """A bit for each node that lies before this one: settled before it starts, unless a join between
    them does not wait for all."""
    quorum: int = 0
    """How many of its plain needs the node waits for; 0: for all of them."""
    rivals: int = 0
    """A bit for each node that is not wanted any more when this one starts."""
