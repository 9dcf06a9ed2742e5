"""The environment: workflows on the real engine, over a server in memory, with a clock that the test owns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final

from wpa.model.ids import check_execution
from wpa.model.tasks import START
from wpa.model.times import parse_ms, rfc3339
from wpa.testing.catalog import Call, step_types
from wpa.testing.client import Client, Duration, milliseconds
from wpa.testing.errors import HIDDEN, TestKitError
from wpa.testing.faults import Faults
from wpa.testing.handle import Run
from wpa.testing.mocks import Child
from wpa.testing.workflows import Workflow, WorkflowLike, workflow_of
from wpa.testing.world import TENANT, World

__all__ = ["WorkflowEnvironment"]

__tracebackhide__ = HIDDEN

NOW: Final = "2026-01-01T00:00:00Z"
PRESENCE: Final = {"id": "wpa-testing", "version": "1", "steps": [{"id": "none", "uses": "core.noop"}]}


class WorkflowEnvironment:
    """Runs workflows on the real engine, without a server, in no time.

    What it does is what production does: a worker takes tasks from a queue, drives executions, and comes to
    rest; only the server is in memory, and time passes when the test lets it. All calls are plain calls, in
    ``async def`` tests, too. Use it as a context manager, or close it; the ``wpa`` fixture does that.

    Args:
        workflow: the workflow under test: a plan (a document, or the path of one), or a flow.
        others: those that it starts as children: workflows, or :func:`wpa.testing.child` stand-ins.
        steps: what really runs: functions declared with ``@step``, modules that hold such functions, or
            plugins. The built-in step types are there in any case.
        mocks: stand-ins by step type (``"payments.charge"``), by step id (``"charge"``), or by the id of a
            step whose compensation is meant (``"charge:undo"``). Each is a value to return, a function of
            the inputs (and of ``ctx``, if that is its first parameter), an exception,
            :func:`wpa.testing.fail`, or a list of these for one attempt after the other.
        now: what time it is at first, RFC 3339; always the same unless told otherwise.
        auto_skip: whether :meth:`Run.result` lets time pass until the execution has ended.
        queues: the worker groups whose steps are run, besides those that plans name.
        patience_s: how many real seconds one call may take before it raises.

    Raises DefinitionError for a plan that could not be deployed, TestKitError for what is none of these.
    """

    __test__ = False

    def __init__(
        self,
        workflow: WorkflowLike,
        *others: WorkflowLike,
        steps: Iterable[object] = (),
        mocks: Mapping[str, Any] | None = None,
        now: str = NOW,
        auto_skip: bool = True,
        queues: Iterable[str] = (),
        patience_s: float = 10.0,
        faults: Faults | None = None,
    ) -> None:
        real = step_types(steps)
        signatures = {name: found.signature for name, found in real.items()}
        workflows = [workflow_of(given, signatures) for given in (workflow, *others)]
        stand_ins = {
            given.step_type: given.outcome for given in (workflow, *others) if isinstance(given, Child)
        }
        self.workflow = workflows[0].program.id
        """The id of the workflow under test."""
        self._ids = 0
        self._world = World(
            real=real,
            mocks={**stand_ins, **(mocks or {})},
            flows={each.program.id: each.program for each in workflows if each.document is None},
            epoch_ms=parse_ms(now),
            queues={*queues, *(name for each in workflows for name in each.queues)},
            patience_s=patience_s,
            faults=faults,
        )
        self._client = Client(self._world, default_skip=auto_skip)
        # Workers find a tenant by what it has deployed; one that has only flows, a second later.
        self._world.run(self._deploy([*workflows, workflow_of(PRESENCE)]))

    def __enter__(self) -> WorkflowEnvironment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker, and leave nothing behind. Idempotent."""
        self._world.close()

    async def _deploy(self, workflows: list[Workflow]) -> None:
        for each in workflows:
            stored = each.stored(self.now)
            if stored is not None:
                await self._world.ports.definitions.put(TENANT, stored)
        await self._world.settle()

    def deploy(self, workflow: WorkflowLike) -> None:
        """Deploy one more version of a plan, or one more plan. Raises as the class does."""
        deployed = workflow_of(workflow, self._world.steps.signatures)
        if deployed.document is None:
            raise TestKitError(
                "only plans are deployed; a flow is the code that the environment was made with"
            )
        self._world.run(self._deploy([deployed]))

    # -- executions --------------------------------------------------------------------------

    def start(
        self,
        input: Any = None,
        *,
        execution_id: str = "",
        workflow: str = "",
        version: str = "",
        variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        start_at: str = "",
    ) -> Run:
        """Start an execution, and let everything happen that happens at once.

        Args:
            input: the input; an empty object by default.
            execution_id: its id; ``<workflow>-1``, ``-2`` ... by default.
            workflow: another workflow than the first that the environment was made with.
            version: a version other than the latest.
            variables: initial values of a plan's ``vars``.
            metadata: who asks: ``user_id``, ``roles`` ...
            start_at: begin at this moment, RFC 3339.

        Raises TaskRejected where the engine refuses the start: ``invalid_input``, ``conflict`` ...
        """
        self._ids += 1
        execution = check_execution(execution_id or f"{workflow or self.workflow}-{self._ids}")
        task = {
            "type": START,
            "workflow_id": workflow or self.workflow,
            "version": version,
            "execution_id": execution,
            "metadata": metadata or {},
            "payload": {"input_data": {} if input is None else input, "variables": variables or {}},
        }
        if start_at:
            task["start_at"] = start_at
        started_ms = self._world.clock.now_ms()
        self._client.ask(task)
        return Run(self._client, execution, started_ms)

    def execution(self, execution_id: str) -> Run:
        """A handle for an execution that something else started, as a child.

        Raises TestKitError where there is none.
        """
        state = self._client.state(execution_id)
        return Run(self._client, execution_id, parse_ms(state.created_at))

    def calls(self, step: str = "") -> list[Call]:
        """Every attempt so far, in the order in which they were begun; those of one step type, or step id."""
        return [call for call in self._world.steps.calls if step in ("", call.uses, call.place)]

    # -- time --------------------------------------------------------------------------------

    @property
    def now(self) -> str:
        """What time it is in the environment, RFC 3339."""
        return rfc3339(self._world.clock.now_ms())

    def skip(self, duration: Duration) -> None:
        """Let so much time pass, and everything happen that happens in it."""
        self._client.pass_time(self._world.clock.now_ms() + milliseconds(duration))

    def skip_until(self, moment: str) -> None:
        """Let time pass until a moment, RFC 3339."""
        self._client.pass_time(parse_ms(moment))
