"""Do the triggers and the schedule of a plan fit the plan?"""

from __future__ import annotations

from wpa.errors import Problem
from wpa.model import cron
from wpa.plan.compile import Plan
from wpa.plan.starts import Schedule
from wpa.plan.subjects import reserved
from wpa.plan.templates import has_expression

__all__ = ["check_starts"]


def check_starts(plan: Plan) -> list[Problem]:
    """Signals that nobody waits for, times that never come, and inputs that would be refused."""
    problems = _check_beginnings(plan)
    for index, trigger in enumerate(plan.triggers):
        if complaint := reserved(trigger.subject):
            problems.append(Problem(f"$.triggers[{index}].subject", complaint))
        if trigger.signal:
            unknown = plan.signals.unknown(trigger.signal, f"$.triggers[{index}].signal.name")
            problems += [unknown] if unknown else []
    if plan.schedule is not None:
        problems += _check_schedule(plan, plan.schedule)
    return problems


def _check_beginnings(plan: Plan) -> list[Problem]:
    """Triggers that read the same messages of a stream share one place in it."""
    problems = []
    begun: dict[tuple[str, str], tuple[int, str]] = {}
    for index, trigger in enumerate(plan.triggers):
        if not trigger.stream:
            continue
        first, beginning = begun.setdefault((trigger.stream, trigger.subject), (index, trigger.beginning))
        if beginning != trigger.beginning:
            message = (
                f"it begins with {trigger.beginning!r}, and $.triggers[{first}], which reads the same "
                f"messages, with {beginning!r}"
            )
            hint = "triggers on one subject of one stream share their place in it: write the same for both"
            problems.append(Problem(f"$.triggers[{index}].from", message, hint))
    return problems


def _check_schedule(plan: Plan, schedule: Schedule) -> list[Problem]:
    problems = []
    if schedule.cron is not None:
        if complaint := _cron_complaint(schedule.cron, ""):
            problems.append(Problem("$.schedule.cron", complaint))
        elif complaint := _cron_complaint(schedule.cron, schedule.time_zone):
            problems.append(Problem("$.schedule.time_zone", complaint))
    if has_expression(schedule.input):
        message = "a schedule's input can't hold expressions: there is nothing yet to compute them from"
        return [*problems, Problem("$.schedule.input", message, "write out the values")]
    return problems + [
        Problem(problem.path.replace("$.payload.input_data", "$.schedule.input", 1), problem.message)
        for problem in plan.check_input(schedule.input)
    ]


def _cron_complaint(expression: str, time_zone: str) -> str:
    try:
        cron.check(expression, time_zone)
    except ValueError as error:
        return str(error)
    return ""
