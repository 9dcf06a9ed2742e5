"""What must hold, whatever happened."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from tests.sim.node import mark_of
from tests.sim.story import Story
from tests.sim.world import Began, Key, SimWorld
from wpa.kernel.execution import Diverged, Execution
from wpa.model import events as ev
from wpa.model.limits import Limits
from wpa.model.state import decode_state, encode_state, is_terminal
from wpa.model.tasks import CHILD_ENDED, START, STEP_RESULT, TIMER_DUE
from wpa.testing.journal import state_of

__all__ = ["check", "check_journal"]

SEEN_WITHIN_MS = 3_000
"""A pause that the driver doesn't hear of reaches it at its next append, or when its nap is over."""
LIMITS = Limits()


def check(world: SimWorld, *, prefixes: int) -> set[tuple[str, str]]:
    """Check a world in which all has ended.

    Args:
        world: what is looked at.
        prefixes: how many beginnings of each journal are replayed, besides the whole of it.

    Returns the transitions that were seen: statuses and the events that came then.
    Raises AssertionError with what does not hold.
    """
    server = world.server
    assert server.tasks.is_empty and server.due.is_empty, (
        f"tasks are left: {server.tasks.subjects} {server.due.subjects}"
    )
    stories = {key: check_journal(world, key) for key in world.executions()}
    began: defaultdict[Key, list[Began]] = defaultdict(list)
    for attempt in world.began:
        began[attempt.tenant, attempt.execution].append(attempt)
    for key, story in stories.items():
        check_end(story)
        check_blocked(story)
        check_undone(story)
        check_pauses(story, began[key])
        check_times(world, story, began[key])
        check_children(story, stories)
        check_let_go(world, story, stories)
        check_attempts(world, story, began[key])
    check_accepted(world, stories)
    check_letters(world, stories)
    check_canaries(world)
    for story in stories.values():  # at last: this uses up their states
        if story.state.workflow not in world.flows or not world.has_stale:
            check_replay(world, story, prefixes)
    return {transition for story in stories.values() for transition in story.transitions}


def check_journal(world: SimWorld, key: Key) -> Story:
    """One legal chain; the snapshot is its fold."""
    story = Story(world, key)
    found = world.server.executions.get(story.name)
    assert found is not None, f"{story.name} has no snapshot"
    kept, state = decode_state(found[0]), story.state
    story.kept_seq = kept.seq
    assert kept.seq <= state.seq
    if kept.seq == state.seq:
        assert found[0] == encode_state(state) or encode_state(kept) == encode_state(state), (
            f"{story.name}: the snapshot is not the fold"
        )
    return story


def check_end(story: Story) -> None:
    state = story.state
    assert is_terminal(state.status), f"{story.name} is stuck: {state.status}, open {state.open}"
    assert state.at_rest
    assert story.kept_seq == state.seq, f"{story.name} ended, and its snapshot is older"


def check_replay(world: SimWorld, story: Story, prefixes: int) -> None:
    """Rebuilt from any part of its journal, the program asks for what is recorded."""
    events = story.events
    lengths = {len(events), *(world.chance.randint(1, len(events)) for _ in range(prefixes))}
    for length in sorted(lengths):
        state = story.state if length == len(events) else state_of(events[:length])
        assert state is not None
        assert state.error is None or state.error.type != "AssertionError", f"{story.name}: {state.error}"
        program = world.program(state.tenant, state.workflow, state.version)
        try:
            Execution.rebuild(program, state, LIMITS)
        except Diverged as error:
            raise AssertionError(f"{story.name} can't be rebuilt from {length} events: {error}") from None


def check_accepted(world: SimWorld, stories: dict[Key, Story]) -> None:
    """What was accepted has begun, on the version that was told, whatever was deployed before."""
    for key, version in world.accepted.items():
        assert key in stories, f"{key} was accepted, and never began"
        begun = stories[key].events[0].data["version"]
        assert begun == version, f"{key} was accepted for version {version}, and runs on {begun}"


def check_blocked(story: Story) -> None:
    """An execution is blocked by code that is gone, and by nothing else: no payload is ever lost."""
    for event in story.events:
        if blocked := event.data.get("blocked"):
            assert blocked["type"] == "NonDeterminism", f"{story.name} is blocked: {blocked}"


def check_undone(story: Story) -> None:
    """What was to be undone was, in the opposite order, unless it says otherwise."""
    state, undo = story.state, story.state.undo
    completed = [slot for slot in state.order if state.slots[slot].status == "completed"]
    expected = [f"{slot}:undo" for slot in reversed(completed)]
    assert undo == [slot for slot in expected if slot in undo], f"{story.name}: {undo} not of {expected}"
    done = [slot for slot in undo if state.slots.get(slot) and state.slots[slot].status == "completed"]
    assert done == undo[: len(done)], f"{story.name}: undone out of order: {done} of {undo}"
    if state.status == "ROLLED_BACK":
        assert done == undo
    assert set(story.undone.values()) <= {1}, f"{story.name}: undone twice: {story.undone}"


def check_pauses(story: Story, attempts: list[Began]) -> None:
    """Nothing begins between a pause and its end.

    What had been sent to a queue before may, and what is begun by a worker that was frozen, or that does not
    know yet that another one drives.
    """
    for since, until in story.pauses:
        for began in attempts:
            if not since + SEEN_WITHIN_MS < began.at_ms < until:
                continue
            knows = not began.was_frozen and story.driver_at(began.at_ms) == began.worker
            assert began.key in story.elsewhere or not knows, f"{began} in the pause from {since} to {until}"


def check_times(world: SimWorld, story: Story, attempts: list[Began]) -> None:
    """No timer, no time-out, and no retry is early, by the clock of whoever says so."""
    most = 2 * world.skew_most_ms
    for stored_ms, due_ms, slot in story.overdue:
        assert stored_ms >= due_ms - most, f"{story.name}: {slot} is early: {stored_ms}, due {due_ms}"
    for began in attempts:
        due = story.retry_at.get((began.key, began.attempt))
        assert due is None or began.at_ms >= due - most, f"{began} is early: due {due}"


def check_children(story: Story, stories: dict[Key, Story]) -> None:
    """What a parent says of a child is what the child says."""
    for slot in story.state.slots.values():
        if slot.kind != "child" or slot.status != "completed" or _is_detached(slot.output):
            continue
        child = stories.get((story.key[0], slot.name))
        assert child is not None, f"{story.name}: {slot.id} completed without {slot.name}"
        assert child.state.status == "COMPLETED"
        assert child.state.output == slot.output


def check_let_go(world: SimWorld, story: Story, stories: dict[Key, Story]) -> None:
    """A child does not go on when nobody waits for it any more: it is told so, whatever it may be at."""
    tenant, parent = story.key
    for name, since_ms in story.let_go:
        child = stories.get((tenant, name))
        if child is None or child.state.parent is None or child.state.parent.execution_id != parent:
            continue  # it never began, or is another's of the same name
        told_ms = world.tasks.children_cancelled.get((child.key, parent), 0)
        assert told_ms >= since_ms, f"{child.name} goes on, and {story.name} has let go of it at {since_ms}"


def _is_detached(output: object) -> bool:
    return isinstance(output, dict) and set(output) == {"execution_id"}


def check_attempts(world: SimWorld, story: Story, attempts: list[Began]) -> None:
    """Nothing begins before its opening is stored, under no key but its slot's; and some things only once."""
    state = story.state
    # A later version may ask for it of a step that was begun without.
    versions = {event.data["version"] for event in story.events if "version" in event.data}
    once = set.intersection(
        *(set(world.once.get((state.tenant, state.workflow, one), ())) for one in versions)
    )
    begun: defaultdict[str, list[int]] = defaultdict(list)
    for began in attempts:
        assert story.opened.get(began.key, 1 << 60) <= began.at_ms, f"{began} was not opened before"
        if began.key.split(":")[1] in once and not began.key.endswith(":undo"):
            begun[began.key].append(began.attempt)
    for key, numbers in begun.items():
        assert len(set(numbers)) == len(numbers), f"{key} is begun more than once: {numbers}"
        for number in sorted(numbers)[:-1]:
            assert (key, number) in story.failed, f"{key} is begun again, and attempt {number} has not failed"


def check_letters(world: SimWorld, stories: dict[Key, Story]) -> None:
    """What is rejected is what somebody should not have asked; never what the engine says to itself."""
    dead = world.server.dead
    if dead.is_empty:
        return
    recorded: dict[tuple[str, str], int] = {}
    """When what a task asked was stored, by tenant and the task's identity."""
    for (tenant, _), story in stories.items():
        for event, stored_ms in zip(story.events, story.stored_ms, strict=True):
            if "ask" in event.data:
                recorded[tenant, event.data["ask"].rpartition(":")[2].rpartition("-")[2]] = stored_ms
    for subject in dead.subjects:
        tenant = subject.rpartition(".")[2]
        for letter in dead.read(subject):
            task, code = msgspec.json.decode(letter.data), letter.headers["Wpa-Code"]
            about = f"{letter.headers}: {task}"
            at = recorded.get((tenant, f"{int(letter.headers['Wpa-Task-Sequence']):x}"))
            assert at is None or letter.stored_ms < at, f"recorded, and then rejected: {about}"
            assert task["type"] not in (TIMER_DUE, CHILD_ENDED, STEP_RESULT) or task.get("forged"), about
            assert not task.get("payload", {}).get("parent"), about
            if code == "execution_ended":
                story = stories[tenant, task["execution_id"]]
                assert any(event.event in ev.TERMINAL for event in story.events), about
            if task["type"] == START:
                codes = {"unknown_workflow", "invalid_input", "conflict"}
                if task.get("rerun"):
                    codes |= {"does_not_fit", "unknown_execution", "unknown_step", "not_ended", "undone"}
                assert code in codes, about


def check_canaries(world: SimWorld) -> None:
    """What only one tenant ever said is nowhere at another's."""
    server = world.server
    tenants = {tenant for tenant, _, _ in world.programs}
    if len(tenants) < 2:
        return
    marks = {tenant: mark_of(tenant).encode() for tenant in tenants}
    for stream in (server.events, server.dead):
        for subject in stream.subjects:
            owner = subject.split(".")[2]
            for message in stream.read(subject):
                for tenant, mark in marks.items():
                    assert tenant == owner or mark not in message.data, f"{mark!r} is told on {subject}"
    for bucket in (server.executions, server.records):
        for key in bucket.keys:
            found = bucket.get(key)
            for tenant, mark in marks.items():
                assert tenant == key.split(".")[0] or found is None or mark not in found[0], key
