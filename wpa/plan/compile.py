"""From the document to a program: names become numbers, expressions are compiled, edges are counted.

All work that doesn't depend on an execution is done here, once for each version. A :class:`Plan` is
immutable and shared by all its runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from wpa.errors import DefinitionError, Problem
from wpa.kernel.program import ExecutionInfo, OnError, Retry, StepPolicy, Wait
from wpa.plan.documents import Compensation, Decision, Document, Foreach, Repeat, RetryPolicy, Step
from wpa.plan.durations import parse_duration_ms
from wpa.plan.expressions import LOCALS, ROOTS
from wpa.plan.joins import set_rivals
from wpa.plan.nodes import Again, Branch, Each, Node, Undo
from wpa.plan.run import PlanRun
from wpa.plan.signals import Signals
from wpa.plan.starts import Schedule
from wpa.plan.templates import Template, compile_condition, compile_template
from wpa.plan.triggers import Trigger, compile_trigger
from wpa.plan.validators import misfits, validator
from wpa.plan.waits import KINDS, check_child, check_wait, wait_for
from wpa.plan.wants import foresee

__all__ = ["Plan", "compile_document", "content_hash", "load"]

UNDO_RETRY = Retry(max_attempts=10)
"""Compensations try harder: giving one up leaves work behind for a person."""


class Plan:
    """A JSON definition as a program. See :class:`wpa.kernel.program.Program`."""

    pinned = True

    def __init__(
        self,
        document: Document,
        digest: str,
        nodes: list[Node],
        output: Template | None,
        triggers: tuple[Trigger, ...],
        problems: list[Problem],
    ) -> None:
        self.id = document.id
        self.version = document.version
        self.hash = digest
        self.max_parallel = document.max_parallel
        self.timeout_ms = _ms(document.timeout)
        self.triggers = triggers
        """What NATS messages do to executions of this plan."""
        self.schedule: Schedule | None = document.schedule
        """When executions of this plan start by themselves."""
        self.document = document
        self.nodes = nodes
        self.by_id = {node.id: node.index for node in nodes}
        self.output = output
        self.problems = problems
        """What the compiler found: expressions that can't be compiled, waits that make no sense."""
        self.unmet = [len(node.needs) + len(node.gates) for node in nodes]
        """For each node, how many others it waits for."""
        self.first = tuple(node for node in nodes if not self.unmet[node.index])
        """The nodes that wait for no other."""
        self.ungated = [not node.gates for node in nodes]
        """For each node, whether it starts without being chosen by a decision."""
        self.quorums = tuple(node.index for node in nodes if node.quorum)
        self.total = sum(not node.is_decision for node in nodes)
        # A node has more ancestors than any of its ancestors: this order is topological.
        setters = [node for node in nodes if node.sets is not None]
        self.setters = tuple(
            n.index for n in sorted(setters, key=lambda n: (n.ancestors.bit_count(), n.index))
        )
        self.step_types = frozenset(_run_by_driver(nodes))
        """What the driving worker needs: the step types that no ``queue`` sends elsewhere."""
        self.leaves = tuple(node.index for node in nodes if not node.children and not node.is_decision)
        self.signals = Signals(document)
        self._validator = validator(document.input)

    def check_input(self, data: Any) -> list[Problem]:
        return misfits(self._validator, data, "$.payload.input_data")

    def check_signal(self, name: str, payload: Any) -> list[Problem]:
        return self.signals.check(name, payload)

    def begin(self, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> PlanRun:
        return PlanRun(self, data, variables, info)


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
    compiler.joins(nodes)
    output = None if document.output is None else compiler.template(document.output, "$.output")
    triggers = tuple(compiler.trigger(index) for index in range(len(document.triggers)))
    if not compiler.problems:
        for node in nodes:
            foresee(node)
    return Plan(document, digest, nodes, output, triggers, compiler.problems)


class _Compiler:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.by_id = {item.id: index for index, item in enumerate(document.steps)}
        saga = any(isinstance(item, Step) and item.compensate for item in document.steps)
        self.on_error: OnError = "compensate" if saga else "fail"
        """What follows where an item gives up that says nothing of it, as no decision does."""

    def template(self, value: Any, path: str, names: tuple[str, ...] = ROOTS) -> Template:
        template, complaints = compile_template(value, path, names)
        self.problems += [Problem(where, what) for where, what in complaints]
        return template

    def condition(self, text: str, path: str, names: tuple[str, ...] = ROOTS) -> Template:
        template, complaints = compile_condition(text, path, names)
        self.problems += [Problem(where, what) for where, what in complaints]
        return template or Template(False, None, ())

    def trigger(self, index: int) -> Trigger:
        trigger, problems = compile_trigger(self.document.triggers[index], f"$.triggers[{index}]")
        self.problems += problems
        return trigger

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
                kind="decision",
                inputs=Template(None, None, ()),
                condition=condition,
                policy=StepPolicy(on_error=self.on_error),
                branches=branches,
                default=self.indexes(item.default),
                needs=needs,
            )
        inputs = self.template(item.inputs, f"{path}.with", _names(item))
        policy = self.policy(item)
        return Node(
            index=index,
            id=item.id,
            is_decision=False,
            kind=KINDS.get(item.uses, "step"),
            uses=item.uses,
            inputs=inputs,
            condition=condition,
            policy=policy,
            timeout_ms=_ms(item.timeout),
            wait=self.wait(item, inputs, path),
            each=None if item.foreach is None else self.each(item.foreach, policy, f"{path}.foreach"),
            again=None if item.repeat is None else self.again(item.repeat, inputs, f"{path}.repeat"),
            undo=None if item.compensate is None else self.undo(item, item.compensate, path),
            sets=self.template(item.set, f"{path}.set") if item.set else None,
            needs=needs,
        )

    def policy(self, item: Step) -> StepPolicy:
        on_error = item.on_error or self.on_error
        if item.uses in KINDS:
            return StepPolicy(retry=Retry(max_attempts=1), on_error=on_error, priority=item.priority)
        defaults = self.document.defaults
        timeout = item.timeout or defaults.timeout
        return StepPolicy(
            retry=_retry(item.retry or defaults.retry, Retry()),
            timeout_ms=_ms(timeout),
            deadline_ms=_ms(item.deadline),
            on_error=on_error,
            priority=item.priority,
            queue=item.queue,
            at_most_once=item.at_most_once,
        )

    def wait(self, item: Step, inputs: Template, path: str) -> Wait | None:
        """What a waiting step waits for, where that is known already."""
        if item.uses not in KINDS:
            return None
        problems = check_wait(item, path)
        self.problems += problems
        if problems or inputs.expressions:
            return None
        return wait_for(
            item.uses, inputs.render({}), parse_duration_ms(item.timeout) if item.timeout else None
        )

    def each(self, item: Foreach, policy: StepPolicy, path: str) -> Each:
        if isinstance(item.items, str):
            items = self.condition(item.items, f"{path}.in")
        else:
            items = self.template(item.items, f"{path}.in")
        carry_on = item.on_error == "continue"
        return Each(
            items=items,
            name=item.name,
            concurrency=item.concurrency,
            carry_on=carry_on,
            max=item.max,
            policy=msgspec.structs.replace(policy, on_error="continue") if carry_on else policy,
            path=path,
        )

    def again(self, item: Repeat, inputs: Template, path: str) -> Again:
        word, text = ("until", item.until) if item.until is not None else ("while", item.while_)
        condition = self.condition(text or "", f"{path}.{word}", (*ROOTS, *LOCALS))
        return Again(
            condition=condition,
            stops=word == "until",
            max=item.max,
            delay_ms=_ms(item.delay),
            sees=Template(None, None, condition.expressions + inputs.expressions),
        )

    def undo(self, item: Step, undo: Compensation, path: str) -> Undo:
        # How long the step waits says nothing about how long its undo works.
        forward = None if item.uses in KINDS else item.timeout
        timeout = undo.timeout or forward or self.document.defaults.timeout
        policy = StepPolicy(
            retry=_retry(undo.retry, UNDO_RETRY),
            timeout_ms=_ms(timeout),
            queue=item.queue,
        )
        names = tuple(dict.fromkeys((*_names(item), "output"))) if item.foreach or item.repeat else ROOTS
        inputs = self.template(undo.inputs, f"{path}.compensate.with", names)
        if KINDS.get(undo.uses) == "child":
            self.problems += check_child(undo.inputs, f"{path}.compensate.with")
        elif undo.uses in KINDS:
            message = f"{undo.uses} can't be a compensation: it does no work"
            hint = "name a step type of a plugin, or core.workflow"
            self.problems.append(Problem(f"{path}.compensate.uses", message, hint))
        return Undo(undo.uses, inputs, policy)

    def joins(self, nodes: list[Node]) -> None:
        """How many of its needs each node waits for, and whom it leaves behind."""
        races = []
        for node in nodes:
            join = self.document.steps[node.index].join
            if join == "all":
                continue
            wanted = join if isinstance(join, int) else 1
            path, count = f"$.steps[{node.index}].join", len(node.needs)
            if count < 2:
                message = f"{join!r} joins two or more needs, and {node.id!r} has {count}"
                self.problems.append(Problem(path, message, "add steps to needs, or leave join away"))
            elif wanted > count:
                message = f"{node.id!r} waits for {wanted} of its needs, but has only {count}"
                self.problems.append(Problem(path, message, f"use a number from 1 to {count}"))
            node.quorum = min(wanted, count)
            if join == "race":
                races.append(node)
        set_rivals(nodes, races)


def _run_by_driver(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        if node.kind == "step" and not node.policy.queue:
            yield node.uses
        if node.undo is not None and node.undo.uses not in KINDS and not node.undo.policy.queue:
            yield node.undo.uses


def _ms(duration: str | None) -> int | None:
    return None if duration is None else parse_duration_ms(duration)


def _names(item: Step) -> tuple[str, ...]:
    """The variables that the inputs of a step may use."""
    if item.foreach is not None:
        return (*ROOTS, item.foreach.name, "index")
    return (*ROOTS, *LOCALS) if item.repeat is not None else ROOTS


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
