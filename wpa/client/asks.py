"""Asking something of executions: signals, answers, pauses, cancels, retries, versions; and schedules."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from wpa.client.channel import Body, Channel, check_json
from wpa.model.schedules import run_name

__all__ = ["AskResult", "Asks", "RerunResult"]


class AskResult(msgspec.Struct, frozen=True):
    """What was answered to something that is asked of an execution. It may be done, and will be."""

    execution_id: str
    duplicate: bool = False
    """It was asked before: nothing new happens."""
    queued: bool = False
    """Stored as a task that a worker takes; otherwise it is recorded in the journal already."""


class RerunResult(msgspec.Struct, frozen=True):
    """The new execution. ``duplicate``: this very rerun was asked for before."""

    execution_id: str
    workflow_id: str
    version: str
    forked_from: str
    duplicate: bool = False


class Asks(Channel):
    """Asks things of executions that exist.

    All of these raise TaskRejected with the engine's reason: ``unknown_execution``,
    ``execution_ended``, and what each names; and Unavailable where no worker answers.
    ``metadata`` says who asks (``user_id``, ``roles``, ``source`` ...); it is recorded.

    What a call asks of an execution is recorded once at most, however often it is sent: where no answer
    comes, the client sends it again under the same ``id``. What was recorded is answered as a ``duplicate``,
    even when the execution has ended by it. An ``id`` is made for each call; give one of your own (at most
    256 printable characters) to go on with an ask whose outcome you don't know, in another call or another
    process. An execution remembers the last 1,000 ids.
    """

    async def _ask(
        self, verb: str, execution_id: str, metadata: Body | None, id: str, **fields: Any
    ) -> AskResult:
        named = {"task_id": id or uuid.uuid4().hex}
        return await self._send(verb, execution_id, metadata, **named, **fields)

    async def _send(self, verb: str, execution_id: str, metadata: Body | None, **fields: Any) -> AskResult:
        body = {"execution_id": execution_id, "metadata": metadata or {}, **fields}
        return msgspec.convert(await self.request(verb, body), AskResult)

    # -- signals and approvals ---------------------------------------------------------------

    async def signal(
        self,
        execution_id: str,
        signal: str,
        payload: Any = None,
        *,
        id: str = "",
        metadata: Body | None = None,
    ) -> AskResult:
        """Tell an execution something. It is kept until a step waits for it.

        Args:
            signal: its name; the definition must know it.
            payload: any JSON; the output of the step that waits.
            id: the same id twice counts once; one is made by default, so every call counts.

        Raises TaskRejected (``bad_signal``) for a name or a payload that is of no use to the workflow, and
        ValueError for NaN or Infinity.
        """
        check_json(payload, "the payload")
        return await self._send(
            "signal", execution_id, metadata, signal=signal, payload=payload, id=id or uuid.uuid4().hex
        )

    async def approve(
        self,
        execution_id: str,
        step: str,
        *,
        user: str = "",
        roles: Sequence[str] = (),
        comment: str = "",
        id: str = "",
    ) -> AskResult:
        """Approve what a step waits for, as ``user`` with ``roles``; a person's first answer counts.

        All who give no ``user`` count as one person, where one is enough; what they answer has no ``id``.

        Raises TaskRejected: ``not_waiting`` (with the steps that do wait), ``not_allowed`` (with those who
        may answer).
        """
        return await self._answer(execution_id, step, True, user, roles, comment, id)

    async def reject(
        self,
        execution_id: str,
        step: str,
        *,
        user: str = "",
        roles: Sequence[str] = (),
        comment: str = "",
        id: str = "",
    ) -> AskResult:
        """Reject what a step waits for; one rejection decides. Otherwise as :meth:`approve`."""
        return await self._answer(execution_id, step, False, user, roles, comment, id)

    async def _answer(
        self,
        execution_id: str,
        step: str,
        approved: bool,
        user: str,
        roles: Sequence[str],
        comment: str,
        id: str,
    ) -> AskResult:
        metadata = {"user_id": user, "roles": list(roles)}
        answer = {"step": step, "approved": approved, "comment": comment}
        if not user:  # the engine would take the id for a name, and every call for another person
            return await self._send("answer", execution_id, metadata, **answer)
        return await self._ask("answer", execution_id, metadata, id, **answer)

    # -- pause, cancel, retry ----------------------------------------------------------------

    async def pause(
        self, execution_id: str, *, reason: str = "", metadata: Body | None = None, id: str = ""
    ) -> AskResult:
        """Begin nothing new until :meth:`resume`; steps that run may end. Survives everything."""
        return await self._ask("pause", execution_id, metadata, id, reason=reason)

    async def resume(
        self, execution_id: str, *, reason: str = "", metadata: Body | None = None, id: str = ""
    ) -> AskResult:
        """End a pause; or try an execution again now whose definition could not go on (``blocked``)."""
        return await self._ask("resume", execution_id, metadata, id, reason=reason)

    async def cancel(
        self,
        execution_id: str,
        *,
        reason: str = "",
        compensate: bool = True,
        metadata: Body | None = None,
        id: str = "",
    ) -> AskResult:
        """Stop what runs, let a flow clean up, undo what was done where ``compensate``, and end CANCELLED.

        Raises TaskRejected (``compensating``) where it undoes its steps already.
        """
        return await self._ask("cancel", execution_id, metadata, id, reason=reason, compensate=compensate)

    async def terminate(
        self, execution_id: str, *, reason: str = "", metadata: Body | None = None, id: str = ""
    ) -> AskResult:
        """End it now, CANCELLED, as it is: nothing is undone, nothing is waited for."""
        return await self._ask("terminate", execution_id, metadata, id, reason=reason)

    async def retry(
        self, execution_id: str, *, reason: str = "", metadata: Body | None = None, id: str = ""
    ) -> AskResult:
        """Try a failed execution again, in place, from what had failed.

        Raises TaskRejected (``not_retryable``) where it has not failed, or its work was undone: rerun it.
        """
        return await self._ask("retry", execution_id, metadata, id, reason=reason)

    # -- versions and reruns -----------------------------------------------------------------

    async def migrate(
        self, execution_id: str, version: str, *, metadata: Body | None = None, id: str = ""
    ) -> AskResult:
        """Go on with another version of the definition.

        Raises TaskRejected: ``not_at_rest`` (it neither waits nor is paused), ``does_not_fit`` (with what was
        recorded and what the version asks instead), ``unknown_version``.
        """
        return await self._ask("migrate", execution_id, metadata, id, version=version)

    async def rerun(
        self,
        execution_id: str,
        *,
        from_step: str = "",
        input: Any = UNSET,
        new_execution_id: str = "",
        metadata: Body | None = None,
    ) -> RerunResult:
        """Start a new execution of the same version from an old one.

        Args:
            from_step: what was settled before this step is taken over, not run again; nothing by default.
            input: another input; the old one's by default.
            new_execution_id: the idempotency key; one is made by default.

        Raises TaskRejected: ``unknown_step``, ``invalid_input``, ``does_not_fit`` (with this input the
        workflow does not come to what is taken over), ``not_ended`` (what would be taken over is its own
        until it ends), ``undone`` (some of what would be taken over was undone), ``taken_over`` (another
        rerun has taken over what can be undone), ``conflict``.
        """
        body: Body = {
            "execution_id": execution_id,
            "from_step": from_step,
            "new_execution_id": new_execution_id or uuid.uuid4().hex,
            "metadata": metadata or {},
        }
        if input is not UNSET:
            check_json(input, "the input")
            body["input"] = input
        return msgspec.convert(await self.request("rerun", body), RerunResult)

    # -- schedules ---------------------------------------------------------------------------

    async def schedules(self) -> list[Body]:
        """Every schedule: of which workflow, when, whether it is paused, and when it is due next."""
        return await self.rows("schedule_list", "schedules")

    async def pause_schedule(self, workflow: str) -> Body:
        """Start nothing by itself until :meth:`resume_schedule`; the schedule as it is then.

        Raises TaskRejected (``unknown_schedule``), as the others here do.
        """
        return await self._change_schedule("pause", workflow)

    async def resume_schedule(self, workflow: str) -> Body:
        """End a schedule's pause; the schedule as it is then."""
        return await self._change_schedule("resume", workflow)

    async def delete_schedule(self, workflow: str) -> Body:
        """Forget a schedule, until a version is deployed that has one."""
        return await self._change_schedule("delete", workflow)

    async def _change_schedule(self, change: str, workflow: str) -> Body:
        row: Body = (await self.request(f"schedule_{change}", {"workflow_id": workflow}))["schedule"]
        return row

    async def trigger_schedule(self, workflow: str, *, new_execution_id: str = "") -> str:
        """Start now what is scheduled, paused or not; the execution's id.

        ``new_execution_id`` is the idempotency key; by default it is made of the workflow and this second, so
        twice within a second is once.
        """
        name = new_execution_id or run_name(workflow, int(time.time() * 1_000), manual=True)
        body = {"workflow_id": workflow, "new_execution_id": name}
        return str((await self.request("schedule_trigger", body))["execution_id"])
