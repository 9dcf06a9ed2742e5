"""What events look like on a terminal: the journal, and what is followed live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from wpa.cli.common import json_text, plain
from wpa.cli.render import Body, asked_by, cut_note, reason, short, took, waiting_text, when
from wpa.model import events as ev
from wpa.model.events import TERMINAL

__all__ = ["Watcher", "describe", "history_view"]

EVENT_STYLE = {
    "workflow_completed": "green",
    "workflow_failed": "red",
    "workflow_step_failed": "red",
    "workflow_rolled_back": "magenta",
    "workflow_compensating": "yellow",
    "workflow_step_compensated": "yellow",
    "workflow_recovered": "yellow",
    "workflow_waiting": "cyan",
    "workflow_paused": "yellow",
    "workflow_escalated": "yellow",
    "workflow_cancel_requested": "magenta",
    "workflow_cancelled": "magenta",
}


def history_view(events: list[Body], *, full: bool) -> RenderableType:
    """A journal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("seq", "time", "event", "what", "worker"):
        table.add_column(column, overflow="fold" if column == "what" else "ellipsis")
    for event in events:
        what = f"{json_text(event['data']) if full else describe(event)}  {cut_note(event)}".rstrip()
        name = Text(event["event"].removeprefix("workflow_"), style=EVENT_STYLE.get(event["event"], ""))
        worker = f"{event['worker']} #{event['epoch']}"
        table.add_row(str(event["seq"]), event["timestamp"][11:], name, escape(what), worker)
    return table


def describe(event: Body) -> str:
    """An event on one line."""
    data = event.get("data") or {}
    name = event["event"]
    step = data.get("step") or event.get("step") or ""
    if name in _ASKED:
        return _ASKED[name](data)
    if name == "workflow_step_failed":
        then = "gives up" if data["final"] else f"retry at {data['retry_at'][11:]}"
        return f"{step} #{data['attempt']}: {reason(data['error'])}; {then}"
    if name in ("workflow_step_completed", "workflow_step_compensated"):
        late = "  timed out" if data.get("timed_out") else ""
        return f"{step} #{data['attempt']}  {took(data['duration_ms'])}{late}  {short(data['output'])}"
    if name == "workflow_decision_point":
        decision = data["decision"]
        taken = ", ".join(decision.get("taken", ())) or (
            "skipped" if decision["kind"] == "if" else "no branch"
        )
        return f"{step} -> {taken}"
    if name in ("workflow_failed", "workflow_rolled_back", "workflow_compensating"):
        return f"{data.get('failed_step') or ''} {reason(data['error'])}{_undone(data)}".strip()
    if name == "workflow_recovered":
        return f"from {data['previous_worker']}: {data['reason']}"
    if name == "workflow_completed":
        return f"{took(data.get('duration_ms'))}  {short(data.get('output'))}"
    if name == "step_progress":
        return f"{step}  {event['percentage']:.0f} %  {plain(event.get('message', ''))}"
    if name == "step_started":
        return f"{event.get('slot', step)} #{event['attempt']}"
    if data.get("start_at"):
        return f"begins at {when(data['start_at'])}"
    return _next(data)


def _next(data: Body) -> str:
    return f"next: {', '.join(data['next'])}" if data.get("next") else ""


def _undone(data: Body) -> str:
    undone = f"; undone: {', '.join(data['undone'])}" if data.get("undone") else ""
    left = f"; NOT undone: {', '.join(data['not_undone'])}" if data.get("not_undone") else ""
    return undone + left


def _by(data: Body) -> str:
    """Who asked, and why."""
    by, why = asked_by(data.get("by")), plain(data.get("reason") or "")
    return f"{f'by {by}' if by else ''}{': ' if by and why else ''}{why}"


def _waiting(data: Body) -> str:
    if "blocked" in data:
        return f"blocked: {reason(data['blocked'])}"
    slots = [waiting_text(slot) for slot in data["waiting_for"]]
    if slots:
        return f"for {'; '.join(slots)}"
    return f"until {when(data['until'])}" if data.get("until") else ""


def _signalled(data: Body) -> str:
    signal = data["signal"]
    payload, slot = signal.get("payload"), signal.get("slot", "")
    by = f"  by {asked_by(signal['by'])}" if asked_by(signal.get("by")) else ""
    if not slot:
        return f"{signal.get('name', '')}  {short(payload)}{by}"
    if isinstance(payload, dict) and "approved" in payload:
        comment = f": {plain(payload['comment'])}" if payload.get("comment") else ""
        return f"{slot} {'approved' if payload['approved'] else 'rejected'}{by}{comment}"
    return f"{slot}  {short(payload)}"


def _escalated(data: Body) -> str:
    who = [*data["users"], *(f"role {role}" for role in data["roles"])]
    return f"{data['step']}: now {plain(', '.join(who))} may answer, too"


def _cancel_requested(data: Body) -> str:
    return _by(data) + ("" if data["compensate"] else ", without compensation")


def _cancelled(data: Body) -> str:
    how = "terminated " if data["terminated"] else ""
    details = data.get("error", {}).get("details", {})
    wrong = details.get("cleanup") or details.get("before", "")
    told = f"; {plain(wrong)}" if wrong else ""
    return f"{how}{_by(data)}{told}{_undone(data)}".strip().removeprefix("; ")


def _resumed(data: Body) -> str:
    return "  ".join(text for text in (_by(data), _next(data)) if text)


def _continued(data: Body) -> str:
    return f"run {data['run']} with {short(data['input'])}"


def _migrated(data: Body) -> str:
    return f"from version {data['previous_version']} to {data['version']} {_by(data)}".rstrip()


_ASKED: Final[dict[str, Callable[[Body], str]]] = {
    ev.WAITING: _waiting,
    ev.RESUMED: _resumed,
    ev.PAUSED: _by,
    ev.SIGNALLED: _signalled,
    ev.ESCALATED: _escalated,
    ev.CANCEL_REQUESTED: _cancel_requested,
    ev.CANCELLED: _cancelled,
    ev.CONTINUED: _continued,
    ev.MIGRATED: _migrated,
}
"""How the events of waits and requests are told."""


class Watcher:
    """Shows events as they come: a bar for each step on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, *, many: bool = False) -> None:
        self._console = console
        self._many = many
        self._bars: dict[str, TaskID] = {}
        self._ended: set[str] = set()
        self._progress: Progress | None = None
        if console.is_terminal and not many:
            self._progress = Progress(
                TextColumn("{task.description:<20}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[note]}"),
                console=console,
            )

    def __enter__(self) -> Watcher:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, event: Body) -> None:
        """Show one event."""
        name = event["event"]
        if self._progress is not None:
            self._bar(name, event)
            if "seq" not in event:
                return
        time = event["timestamp"][11:]
        label = Text(
            name.removeprefix("workflow_"), style=EVENT_STYLE.get(name, "dim" if "seq" not in event else "")
        )
        who = f"{event['execution_id']}  " if self._many else ""
        line = Text.assemble((f"{time}  {who}", "dim"), label, "  ", describe(event))
        self._console.print(line, soft_wrap=True)

    def _bar(self, name: str, event: Body) -> None:
        assert self._progress is not None  # noqa: S101  the caller has looked
        data = event.get("data") or {}
        step: str = data.get("step") or event.get("step") or ""
        if step and name in ("step_started", "step_progress"):
            note = escape(plain(event.get("message", "")))
            # A bar that is full was seen to end: what is late, and says otherwise, is from before.
            if step not in self._ended or event.get("slot", step) != step:
                self._update(step, event.get("percentage", 0.0), note)
        elif name == "workflow_step_completed":
            self._ended.add(step)
            self._update(step, 100, "[green]done[/]")
        elif name == "workflow_step_failed":
            self._update(step, 0, f"[red]{escape(reason(data['error']))}[/]")
        elif name == "workflow_step_compensated":
            self._update(step, 0, "[magenta]undone[/]")
        for slot in data.get("next", ()):
            # Begun before we were listening, perhaps: the journal knows what runs.
            if (running := slot.partition(":")[0]) not in self._bars:
                self._update(running, 0, "")
        if name in TERMINAL:
            for bar in self._bars.values():
                self._progress.stop_task(bar)

    def _update(self, step: str, percentage: float, note: str) -> None:
        assert self._progress is not None  # noqa: S101
        if step not in self._bars:
            self._bars[step] = self._progress.add_task(escape(step), total=100, note="")
        self._progress.update(self._bars[step], completed=percentage, note=note)
