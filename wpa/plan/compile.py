"""From the document to a program: names become numbers, expressions are compiled, edges are counted.

All work that doesn't depend on an execution is done here, once for each version. A :class:`Plan` is
immutable and shared by all its runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jsonschema
import msgspec
from jsonschema.protocols import Validator

from wpa.errors import DefinitionError, Problem
from wpa.kernel.program import ExecutionInfo, Retry, StepPolicy
from wpa.plan.documents import Decision, Document, RetryPolicy, Step
from wpa.plan.durations import parse_duration_ms
from wpa.plan.run import PlanRun
from wpa.plan.templates import Template, compile_condition, compile_template

__all__ = ["Branch", "Node", "Plan", "Undo", "compile_document", "content_hash", "load"]

UNDO_RETRY = Retry(max_attempts=10)
"""Compensations try harder: giving one up leaves work behind for a person."""


class Branch(msgspec.Struct, frozen=True):
    """One way out of a decision."""

    when: Template
    targets: tuple[int, ...]


class Undo(msgspec.Struct, frozen=True):
    """What undoes a step."""

    uses: str
    inputs: Template
    policy: StepPolicy


class Node(msgspec.Struct, kw_only=True):
    """A step or a decision, by number."""

    index: int
    id: str
    is_decision: bool
    uses: str = ""
    inputs: Template
    condition: Template | None = None
    policy: StepPolicy = StepPolicy()
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
    """A bit for each node that is settled before this one can start."""


class Plan:
    """A JSON definition as a program. See :class:`wpa.kernel.program.Program`."""

    def __init__(
        self,
        document: Document,
        digest: str,
        nodes: list[Node],
        output: Template | None,
        problems: list[Problem],
    ) -> None:
        self.id = document.id
        self.version = document.version
        self.hash = digest
        self.max_parallel = document.max_parallel
        self.document = document
        self.nodes = nodes
        self.by_id = {node.id: node.index for node in nodes}
        self.output = output
        self.problems = problems
        """What the compiler found: expressions that can't be compiled."""
        self.unmet = [len(node.needs) + len(node.gates) for node in nodes]
        self.total = sum(not node.is_decision for node in nodes)
        # A node has more ancestors than any of its ancestors: this order is topological.
        setters = [node for node in nodes if node.sets is not None]
        self.setters = tuple(
            n.index for n in sorted(setters, key=lambda n: (n.ancestors.bit_count(), n.index))
        )
        self.leaves = tuple(node.index for node in nodes if not node.children and not node.is_decision)
        self._validator = input_validator(document.input)

    def check_input(self, data: Any) -> list[Problem]:
        if self._validator is None:
            return []
        problems = []
        for error in self._validator.iter_errors(data):
            path = "$.payload.input_data" + error.json_path.removeprefix("$")
            problems.append(Problem(path, error.message[:500]))
            if len(problems) >= 50:
                break
        return problems

    def begin(self, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> PlanRun:
        return PlanRun(self, data, variables, info)


def input_validator(schema: dict[str, Any] | bool | None) -> Validator | None:
    """The compiled input schema (Draft 2020-12); references outside the document are refused."""
    if schema is None or schema is True:
        return None
    # A registry of its own, empty: nothing is ever fetched.
    return jsonschema.Draft202012Validator(schema, registry=_no_registry())


def _no_registry() -> Any:
    from referencing import Registry

    return Registry()


def content_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document's canonical JSON: what an execution is pinned to."""
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()


def load(document: Mapping[str, Any]) -> Plan:
    """The program of a deployed document. Raises DefinitionError for one that was never checked."""
    plan = compile_document(Document.model_validate(document), content_hash(document))
    if plan.problems:
        raise DefinitionError(plan.problems)
    return plan


def compile_document(document: Document, digest: str) -> Plan:
    """Compile a document whose shape is right and whose names resolve; complaints are collected."""
    compiler = _Compiler(document)
    nodes = [compiler.node(index, item) for index, item in enumerate(document.steps)]
    _link(nodes)
    output = None if document.output is None else compiler.template(document.output, "$.output")
    return Plan(document, digest, nodes, output, compiler.problems)


class _Compiler:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.by_id = {item.id: index for index, item in enumerate(document.steps)}
        self.saga = any(isinstance(item, Step) and item.compensate for item in document.steps)

    def template(self, value: Any, path: str) -> Template:
        template, complaints = compile_template(value, path)
        self.problems += [Problem(where, what) for where, what in complaints]
        return template

    def condition(self, text: str, path: str) -> Template:
        template, complaints = compile_condition(text, path)
        self.problems += [Problem(where, what) for where, what in complaints]
        return template or Template(False, None, ())

    def indexes(self, names: list[str] | None) -> tuple[int, ...]:
        return tuple(self.by_id[name] for name in names or () if name in self.by_id)

    def node(self, index: int, item: Step | Decision) -> Node:
        path = f"$.steps[{index}]"
        condition = None if item.condition is None else self.condition(item.condition, f"{path}.if")
        needs = self.indexes(list(dict.fromkeys(item.needs)))
        if isinstance(item, Decision):
            branches = tuple(
                Branch(
                    self.condition(branch.when, f"{path}.switch[{number}].when"), self.indexes(branch.next)
                )
                for number, branch in enumerate(item.switch)
            )
            return Node(
                index=index,
                id=item.id,
                is_decision=True,
                inputs=Template(None, None, ()),
                condition=condition,
                branches=branches,
                default=self.indexes(item.default),
                needs=needs,
            )
        return Node(
            index=index,
            id=item.id,
            is_decision=False,
            uses=item.uses,
            inputs=self.template(item.inputs, f"{path}.with"),
            condition=condition,
            policy=self.policy(item),
            undo=self.undo(item, path),
            sets=self.template(item.set, f"{path}.set") if item.set else None,
            needs=needs,
        )

    def policy(self, item: Step) -> StepPolicy:
        defaults = self.document.defaults
        timeout = item.timeout or defaults.timeout
        return StepPolicy(
            retry=_retry(item.retry or defaults.retry, Retry()),
            timeout_ms=parse_duration_ms(timeout) if timeout else None,
            deadline_ms=parse_duration_ms(item.deadline) if item.deadline else None,
            on_error=item.on_error or ("compensate" if self.saga else "fail"),
            priority=item.priority,
            queue=item.queue,
            at_most_once=item.at_most_once,
        )

    def undo(self, item: Step, path: str) -> Undo | None:
        if item.compensate is None:
            return None
        timeout = item.compensate.timeout or item.timeout or self.document.defaults.timeout
        policy = StepPolicy(
            retry=_retry(item.compensate.retry, UNDO_RETRY),
            timeout_ms=parse_duration_ms(timeout) if timeout else None,
        )
        inputs = self.template(item.compensate.inputs, f"{path}.compensate.with")
        return Undo(item.compensate.uses, inputs, policy)


def _retry(policy: RetryPolicy | None, default: Retry) -> Retry:
    if policy is None:
        return default
    return Retry(
        max_attempts=policy.max_attempts,
        initial_ms=parse_duration_ms(policy.backoff.initial),
        factor=policy.backoff.factor,
        max_ms=parse_duration_ms(policy.backoff.max),
        jitter=policy.backoff.jitter,
        retry_on=tuple(policy.retry_on),
        give_up_on=tuple(policy.give_up_on),
    )


def _link(nodes: list[Node]) -> None:
    """Work out gates, children and ancestors from needs and branches."""
    for node in nodes:
        if node.is_decision:
            targets = dict.fromkeys(t for branch in node.branches for t in branch.targets)
            node.targets = tuple(dict.fromkeys([*targets, *node.default]))
            for target in node.targets:
                nodes[target].gates = (*nodes[target].gates, node.index)
    for node in nodes:
        node.needs = tuple(need for need in node.needs if need not in node.gates)
        for parent in (*node.needs, *node.gates):
            nodes[parent].children = (*nodes[parent].children, node.index)
    waiting = [len(node.needs) + len(node.gates) for node in nodes]
    ready = [node.index for node in nodes if waiting[node.index] == 0]
    while ready:
        node = nodes[ready.pop()]
        for child in node.children:
            nodes[child].ancestors |= node.ancestors | (1 << node.index)
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
