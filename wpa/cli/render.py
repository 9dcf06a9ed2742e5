"""What executions look like on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from wpa.cli.common import json_text, plain
from wpa.model.events import TERMINAL

__all__ = ["STATUS_STYLE", "Watcher", "executions_view", "history_view", "status_view"]

STATUS_STYLE = {
    "COMPLETED": "green",
    "completed": "green",
    "decided": "green",
    "RUNNING": "blue",
    "running": "blue",
    "retrying": "yellow",
    "COMPENSATING": "yellow",
    "ROLLED_BACK": "magenta",
    "FAILED": "red",
    "failed": "red",
    "skipped": "dim",
    "pending": "dim",
}

EVENT_STYLE = {
    "workflow_completed": "green",
    "workflow_failed": "red",
    "workflow_step_failed": "red",
    "workflow_rolled_back": "magenta",
    "workflow_compensating": "yellow",
    "workflow_step_compensated": "yellow",
    "workflow_recovered": "yellow",
}

ID_KEPT_WHOLE = 40
"""Characters; a longer id is folded, where there is no room for it."""

Body = dict[str, Any]


def styled(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STATUS_STYLE.get(status, ""))


def took(milliseconds: int | None) -> str:
    """A duration for people."""
    if milliseconds is None:
        return ""
    if milliseconds < 1_000:
        return f"{milliseconds} ms"
    if milliseconds < 120_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds // 60_000} min {milliseconds % 60_000 // 1000} s"


def short(value: Any, most: int = 60) -> str:
    """JSON on one line, cut where it gets long."""
    text = json_text(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: Body | None) -> str:
    """Why something failed, in one line or a few."""
    return plain(f"{error['type']}: {error['message']}") if error else ""


def status_view(found: Body) -> RenderableType:
    """A status document."""
    progress = found["progress"]
    head = Text.assemble(
        (found["execution_id"], "bold"),
        f"  {found['workflow_id']} {found['version']}  ",
        styled(found["status"]),
        f"  {progress['completed']}/{progress['total']} steps, {progress['percentage']} %",
        f"  {took(found['duration_ms'])}",
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("step", "type", "status", "attempt", "took", "output or error"):
        table.add_column(column, overflow="fold" if column == "output or error" else "ellipsis")
    for step in found["steps"]:
        status = step["status"]
        if step["compensation"]:
            status = {"completed": "undone", "failed": "NOT undone"}.get(
                step["compensation"]["status"], f"undo {step['compensation']['status']}"
            )
        last = (
            reason(step["error"])
            if step["error"]
            else short(step["output"])
            if step["output"] is not None
            else ""
        )
        attempt = str(step["attempt"]) if step["attempt"] else ""
        table.add_row(
            step["step"], step["uses"], styled(status), attempt, took(step["duration_ms"]), escape(last)
        )
    parts: list[RenderableType] = [head, table]
    if found["error"]:
        where = f" at {found['failed_step']}" if found.get("failed_step") else ""
        parts.append(Text(f"failed{where}: {reason(found['error'])}", style="red"))
    if found["undone"]:
        parts.append(Text(f"undone: {', '.join(found['undone'])}", style="magenta"))
    if found["not_undone"]:
        parts.append(Text(f"NOT undone: {', '.join(found['not_undone'])}", style="red bold"))
    if found["status"] == "COMPLETED":
        parts.append(Text(f"output: {short(found['output'], 400)}"))
    return Group(*parts)


def history_view(events: list[Body], *, full: bool) -> RenderableType:
    """A journal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("seq", "time", "event", "what", "worker"):
        table.add_column(column, overflow="fold" if column == "what" else "ellipsis")
    for event in events:
        what = json_text(event["data"]) if full else describe(event)
        name = Text(event["event"].removeprefix("workflow_"), style=EVENT_STYLE.get(event["event"], ""))
        worker = f"{event['worker']} #{event['epoch']}"
        table.add_row(str(event["seq"]), event["timestamp"][11:], name, escape(what), worker)
    return table


def executions_view(rows: list[Body]) -> RenderableType:
    """A list of executions."""
    if not rows:
        return Text("no executions yet; start one with `wpa start WORKFLOW`", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    longest = max(len(row["execution_id"]) for row in rows)
    for column in ("execution", "workflow", "status", "last event", "at", "events"):
        # An id that is cut is worth nothing: the others give way first.
        table.add_column(column, no_wrap=column == "execution" and longest <= ID_KEPT_WHOLE, overflow="fold")
    for row in rows:
        table.add_row(
            row["execution_id"],
            row["workflow_id"],
            styled(row["status"]),
            row["last_event"].removeprefix("workflow_"),
            row["timestamp"],
            str(row["events"]),
        )
    return table


def describe(event: Body) -> str:
    """An event on one line."""
    data = event.get("data") or {}
    name = event["event"]
    step = data.get("step") or event.get("step") or ""
    if name == "workflow_step_failed":
        then = "gives up" if data["final"] else f"retry at {data['retry_at'][11:]}"
        return f"{step} #{data['attempt']}: {reason(data['error'])}; {then}"
    if name in ("workflow_step_completed", "workflow_step_compensated"):
        return f"{step} #{data['attempt']}  {took(data['duration_ms'])}  {short(data['output'])}"
    if name == "workflow_decision_point":
        decision = data["decision"]
        taken = ", ".join(decision.get("taken", ())) or (
            "skipped" if decision["kind"] == "if" else "no branch"
        )
        return f"{step} -> {taken}"
    if name in ("workflow_failed", "workflow_rolled_back", "workflow_compensating"):
        undone = f"; undone: {', '.join(data['undone'])}" if data.get("undone") else ""
        left = f"; NOT undone: {', '.join(data['not_undone'])}" if data.get("not_undone") else ""
        return f"{data.get('failed_step') or ''} {reason(data['error'])}{undone}{left}".strip()
    if name == "workflow_recovered":
        return f"from {data['previous_worker']}: {data['reason']}"
    if name == "workflow_completed":
        return f"{took(data.get('duration_ms'))}  {short(data.get('output'))}"
    if name == "step_progress":
        return f"{step}  {event['percentage']:.0f} %  {plain(event.get('message', ''))}"
    if name == "step_started":
        return f"{event.get('slot', step)} #{event['attempt']}"
    return f"next: {', '.join(data.get('next', ()))}" if data.get("next") else ""


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
