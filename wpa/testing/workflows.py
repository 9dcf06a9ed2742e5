"""What a test names as a workflow, made ready to be run: plans as documents or files, flows, stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from wpa import plan
from wpa.errors import DefinitionError
from wpa.kernel.program import Program
from wpa.model.steptype import StepSignature
from wpa.ports.definitions import StoredDefinition
from wpa.testing.errors import HIDDEN, TestKitError
from wpa.testing.mocks import Child

__all__ = ["Workflow", "WorkflowLike", "program_of", "workflow_of"]

__tracebackhide__ = HIDDEN

WorkflowLike = Any
"""A plan (its document, or the path of its file), a flow (the function), a program, or a child's stand-in."""


class Workflow(msgspec.Struct, frozen=True):
    """A program, and the document to deploy where it is a plan."""

    program: Program
    document: dict[str, Any] | None = None

    @property
    def queues(self) -> set[str]:
        """The worker groups that a plan's steps name."""
        steps = self.document["steps"] if self.document else ()
        return {step["queue"] for step in steps if step.get("queue")}

    def stored(self, deployed_at: str) -> StoredDefinition | None:
        """The plan as it is deployed; None for a flow."""
        if self.document is None:
            return None
        return StoredDefinition(
            workflow=self.program.id,
            version=self.program.version,
            hash=self.program.hash,
            kind="plan",
            document=msgspec.Raw(msgspec.json.encode(self.document)),
            deployed_at=deployed_at,
        )


def program_of(given: WorkflowLike) -> Program:
    """The program behind what a test names as a workflow. Raises as :func:`workflow_of`."""
    return workflow_of(given).program


def workflow_of(given: WorkflowLike, signatures: Mapping[str, StepSignature] | None = None) -> Workflow:
    """What a test names as a workflow.

    Args:
        given: see :data:`WorkflowLike`.
        signatures: of the step types that are known: a plan's inputs are checked against them.

    Raises DefinitionError with all that is wrong with a plan, TestKitError for what is no workflow.
    """
    if isinstance(given, Child):
        given = _stand_in(given)
    if isinstance(given, Mapping):
        return _plan(dict(given), signatures or {})
    if isinstance(given, str | Path):
        path = Path(given)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise TestKitError(f"the definition {given} can't be read: {error.strerror}") from None
        return _plan(plan.parse(text, path.name), signatures or {})
    program: Any = getattr(given, "__wpa_flow__", given)
    if not all(hasattr(program, name) for name in ("id", "version", "hash", "begin")):
        raise TestKitError(
            f"{given!r} is no workflow: give a plan's document or path, or a function declared with @flow"
        )
    # A flow that passes a step its inputs by position needs their names.
    knowing = getattr(program, "with_signatures", None)
    return Workflow(program if knowing is None else knowing((signatures or {}).get))


def _plan(document: Any, signatures: Mapping[str, StepSignature]) -> Workflow:
    steps = document.get("steps") if isinstance(document, dict) else None
    used = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    undo = [step["compensate"] for step in used if isinstance(step.get("compensate"), dict)]
    # Of a step type that is not known, anything may be true: it is mocked, or complained of when it runs.
    catalog = {
        str(step.get("uses")): StepSignature(name=str(step.get("uses")), input_schema={}, output_schema={})
        for step in [*used, *undo]
    }
    problems = plan.check(document, {**catalog, **signatures})
    if problems:
        raise DefinitionError(problems)
    # As it is read back: what the program is compiled from is JSON, whatever the test wrote.
    document = msgspec.json.decode(msgspec.json.encode(document))
    return Workflow(plan.load(document), document)


def _stand_in(child: Child) -> dict[str, Any]:
    """A plan of one mocked step, which is tried once."""
    step = {
        "id": "stand_in",
        "uses": child.step_type,
        "with": {"input": "${input}"},
        "retry": {"max_attempts": 1},
    }
    return {
        "id": child.workflow,
        "version": child.version,
        "steps": [step],
        "output": "${steps.stand_in.output}",
    }
