"""Loading an execution: the snapshot, then the tail of the journal."""

from __future__ import annotations

from typing import NamedTuple

from wpa.engine.payloads import Payloads, reference
from wpa.kernel.execution import Execution
from wpa.kernel.fold import fold
from wpa.kernel.program import Program
from wpa.model.limits import Limits
from wpa.model.state import State, decode_state
from wpa.ports import Ports

__all__ = ["Loaded", "load", "revive"]


class Loaded(NamedTuple):
    """A folded state, and the revision of the snapshot it was built on (0: none)."""

    state: State
    revision: int
    snapshot_seq: int


async def load(ports: Ports, tenant: str, execution: str) -> Loaded | None:
    """The state of an execution now, or None where it never started.

    Raises Newer for a snapshot this worker can't read, Unavailable where the server can't say.
    """
    found = await ports.snapshots.get(tenant, execution)
    state: State | None = None
    revision = snapshot_seq = 0
    if found is not None:
        state, revision = decode_state(found[0]), found[1]
        snapshot_seq = state.seq
    for position, event in await ports.journal.read(tenant, execution, state.position if state else 0):
        state = fold(state, event)
        state.position = position
    return None if state is None else Loaded(state, revision, snapshot_seq)


async def revive(program: Program, state: State, limits: Limits, payloads: Payloads) -> Execution:
    """The execution behind a loaded state, large payloads fetched."""
    values = await payloads.load_all(state)

    def resolve(value: object) -> object:
        key = reference(value)
        return value if key is None else values[key]

    return Execution.rebuild(program, state, limits, resolve)
