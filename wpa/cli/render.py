"""What executions look like on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wpa.cli.common import json_text, plain

__all__ = [
    "STATUS_STYLE",
    "Body",
    "asked_by",
    "cut_note",
    "executions_view",
    "reason",
    "short",
    "status_view",
    "styled",
    "took",
    "waiting_text",
    "when",
]

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
    "WAITING": "cyan",
    "waiting": "cyan",
    "PAUSED": "yellow",
    "CANCELLED": "magenta",
    "cancelled": "dim",
    "skipped": "dim",
    "pending": "dim",
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
    if milliseconds < 7_200_000:
        return f"{milliseconds // 60_000} min {milliseconds % 60_000 // 1000} s"
    minutes = milliseconds // 60_000
    if minutes < 2_880:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1_440} d {minutes % 1_440 // 60} h"


def when(moment: str) -> str:
    """A moment for people: to the second."""
    return f"{moment[:19]}Z" if moment[19:20] == "." and moment.endswith("Z") else moment


def short(value: Any, most: int = 60) -> str:
    """JSON on one line, cut where it gets long."""
    text = json_text(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: Body | None) -> str:
    """Why something failed, in one line or a few."""
    return plain(f"{error['type']}: {error['message']}") if error else ""


def cut_note(row: Body) -> str:
    """That a row is not shown in full, where the worker had no room for all of it; else empty."""
    return f"(cut: {row['cut']:,} bytes in all)" if "cut" in row else ""


def asked_by(by: Body | None) -> str:
    """Who asked, as far as it is known."""
    by = by or {}
    return plain(str(by.get("user_id") or by.get("agent_id") or by.get("source") or ""))


def waiting_text(slot: Body) -> str:
    """What a slot waits for, on one line: as the status shows it, or the event of a resting execution."""
    kind, name = slot["kind"], plain(slot.get("name", ""))
    step: str = slot["step"]
    what = {
        "timer": f"the time of {step}",
        "signal": f"signal {name} ({step})",
        "approval": f"approval {step}",
        "child": f"execution {name} ({step})",
        "remote": f"a worker that serves queue {name} ({step})",
        "retry": f"the next attempt at {step}",
    }.get(kind, step)
    if approval := slot.get("approval"):
        what = f"{what} {_approvers(approval)}"
    if slot.get("since") and kind not in ("timer", "retry"):
        what += f" since {when(slot['since'])}"
    if slot.get("until"):
        what += f"{',' if slot.get('since') else ''} until {when(slot['until'])}"
    if approval and approval["message"]:
        what += f": {plain(approval['message'])}"
    return what


def _approvers(approval: Body) -> str:
    """Of whom an approval is wanted, and who has approved."""
    who = [*approval["users"], *(f"role {role}" for role in approval["roles"])]
    if approval.get("unknown"):
        return "of whom its code names"
    text = f"of {', '.join(map(plain, who)) if who else 'anybody'}"
    given = [asked_by(answer["by"]) or "somebody" for answer in approval["answers"]]
    if approval["count"] > 1:
        text += f" ({len(given)} of {approval['count']}{': ' + ', '.join(given) if given else ''})"
    return text


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
    if "cut" in found:
        head.append(f"\n{cut_note(found)}", "yellow")
    return Group(head, _steps(found["steps"]), *_waits(found), *_relations(found), *_end(found))


def _steps(steps: list[Body]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("step", "type", "status", "attempt", "took", "output or error"):
        table.add_column(column, overflow="fold" if column == "output or error" else "ellipsis")
    for step in steps:
        status = step["status"]
        if step["compensation"]:
            status = {"completed": "undone", "failed": "NOT undone"}.get(
                step["compensation"]["status"], f"undo {step['compensation']['status']}"
            )
        attempt = str(step["attempt"]) if step["attempt"] else ""
        uses = f"{step['uses']} @{step['name']}" if step["kind"] == "remote" else step["uses"]
        table.add_row(
            step["slot"], uses, styled(status), attempt, took(step["duration_ms"]), escape(_last(step))
        )
    return table


def _last(step: Body) -> str:
    """What there is to say of a step: why it failed, what it waits for, or what it gave."""
    if step["error"]:
        return reason(step["error"])
    if step["status"] == "waiting":
        until = f"until {when(step['until'])}" if step["until"] else ""
        return f"{plain(step['name'] or '')} {until}".strip()
    output = short(step["output"]) if step["output"] is not None else ""
    return f"{_turns(step['turns'])}  {output}".rstrip() if "turns" in step else output


def _turns(turns: Body) -> str:
    """``340/1000``, and how many of them failed."""
    done = str(turns["done"]) if turns["total"] is None else f"{turns['done']}/{turns['total']}"
    return f"{done}, {turns['failed']} failed" if turns["failed"] else done


def _waits(found: Body) -> list[Text]:
    """What the execution waits for, and what waits for it."""
    lines = []
    if found.get("start_at") and not found["finished_at"]:
        lines.append(Text(f"begins at {when(found['start_at'])}", style="cyan"))
    if found.get("blocked"):
        lines.append(Text(f"blocked: {reason(found['blocked'])}", style="red"))
        if found.get("wake_at"):
            lines.append(Text(f"it is tried again at {when(found['wake_at'])}, or by `wpa resume`"))
    lines += [
        Text(f"waiting for {waiting_text(slot)}", style="cyan") for slot in found.get("waiting_for", ())
    ]
    signals = found.get("signals") or {"count": 0}
    if signals["count"] and not found["finished_at"]:
        plural = "" if signals["count"] == 1 else "s"
        lines.append(Text(f"{signals['count']} signal{plural} not taken: {', '.join(signals['names'])}"))
    if found.get("deadline_at") and not found["finished_at"]:
        lines.append(Text(f"deadline {when(found['deadline_at'])}"))
    if cancel := found.get("cancel"):
        how = "" if cancel.get("compensate", True) else ", without compensation"
        why = f": {plain(cancel['reason'])}" if cancel.get("reason") else ""
        by = asked_by(cancel.get("by"))
        lines.append(Text(f"cancel asked{f' by {by}' if by else ''}{how}{why}", style="magenta"))
    if until := found.get("cleans_up_until"):
        lines.append(Text(f"it cleans up, until {when(until)} at the latest", style="magenta"))
    return lines


def _relations(found: Body) -> list[Text]:
    """The executions that this one has to do with."""
    lines = []
    if parent := found.get("parent"):
        lines.append(Text(f"parent {parent['execution_id']} ({parent['slot']})"))
    if found.get("forked_from"):
        lines.append(Text(f"rerun of {found['forked_from']}"))
    lines += [
        Text(f"child {child['execution_id']} ({child['slot']}): {child['status']}")
        for child in found.get("children", ())
    ]
    return lines


def _end(found: Body) -> list[Text]:
    """How it ended, or is about to."""
    lines = []
    if found["error"] and found["error"]["type"] == "Cancelled":
        lines.append(Text(f"ended: {plain(found['error']['message'])}", style="magenta"))
    elif found["error"]:
        where = f" at {found['failed_step']}" if found.get("failed_step") else ""
        lines.append(Text(f"failed{where}: {reason(found['error'])}", style="red"))
    if found["undone"]:
        lines.append(Text(f"undone: {', '.join(found['undone'])}", style="magenta"))
    if found["not_undone"]:
        lines.append(Text(f"NOT undone: {', '.join(found['not_undone'])}", style="red bold"))
    if found["status"] == "COMPLETED":
        lines.append(Text(f"output: {short(found['output'], 400)}"))
    return lines


def executions_view(rows: list[Body]) -> RenderableType:
    """A list of executions."""
    if not rows:
        return Text("no executions yet; start one with `wpa start WORKFLOW`", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    longest = max(len(row["execution_id"]) for row in rows)
    waits = [_row_waits(row) for row in rows]
    columns = ["execution", "workflow", "status", "last event", "at", "events"]
    for column in [*columns, "waiting for"] if any(waits) else columns:
        # An id that is cut is worth nothing: the others give way first.
        table.add_column(column, no_wrap=column == "execution" and longest <= ID_KEPT_WHOLE, overflow="fold")
    for row, waited in zip(rows, waits, strict=True):
        cells = [
            row["execution_id"],
            row["workflow_id"],
            styled(row["status"]),
            row["last_event"].removeprefix("workflow_"),
            row["timestamp"],
            str(row["events"]),
        ]
        table.add_row(*cells, *([escape(waited)] if any(waits) else []))
    return table


def _row_waits(row: Body) -> str:
    """What an execution in a list waits for, where its last event says so."""
    if row.get("blocked"):
        return f"blocked: {plain(row['blocked']['type'])}"
    slots = row.get("waiting_for") or []
    if not slots:
        return f"until {when(row['until'])}" if row.get("until") else ""
    more = f" and {len(slots) - 1} more" if len(slots) > 1 else ""
    return waiting_text(slots[0]) + more
