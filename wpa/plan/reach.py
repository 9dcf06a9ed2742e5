"""Steps that can never run: those that wait for each other, and branches that are never taken."""

from __future__ import annotations

from wpa.errors import Problem
from wpa.plan.compile import Plan
from wpa.plan.documents import Decision, Document

__all__ = ["cycles", "unreachable"]


def cycles(document: Document) -> list[Problem]:
    """One problem for each cycle that a depth-first walk meets; iterative, plans may be long."""
    index_of = {item.id: index for index, item in enumerate(document.steps)}
    before: list[list[int]] = [[index_of[need] for need in item.needs] for item in document.steps]
    for index, item in enumerate(document.steps):
        if isinstance(item, Decision):
            for target in [t for branch in item.switch for t in branch.next] + list(item.default or ()):
                before[index_of[target]].append(index)
    state = [0] * len(before)  # 0 unseen, 1 on the path, 2 done
    problems = []
    for root in range(len(before)):
        if state[root]:
            continue
        path, walks = [root], [iter(before[root])]
        state[root] = 1
        while path:
            following = next(walks[-1], None)
            if following is None:
                state[path.pop()] = 2
                walks.pop()
            elif state[following] == 1:
                names = [document.steps[i].id for i in path[path.index(following) :]]
                shown = " -> ".join([*reversed(names), names[-1]])
                message = f"these steps wait for each other: {shown}"
                problems.append(Problem(f"$.steps[{following}]", message, "break the cycle"))
            elif state[following] == 0:
                state[following] = 1
                path.append(following)
                walks.append(iter(before[following]))
    return problems


def unreachable(plan: Plan) -> list[Problem]:
    """A step that needs two branches of one decision, of which only one is ever taken, never runs.

    Only certain cases are reported: a step that waits for itself is a cycle, and joins run with some of
    their needs skipped. What is left is a decision whose branch comes after one that is always taken.
    """
    problems = []
    for node in plan.nodes:
        reached: set[int] = set()
        always = False
        for number, branch in enumerate(node.branches):
            if always:
                lost = [
                    t for t in branch.targets if t not in reached and plan.nodes[t].gates == (node.index,)
                ]
                for target in lost:
                    message = (
                        f"step {plan.nodes[target].id!r} can't be reached: an earlier branch is always taken"
                    )
                    problems.append(Problem(f"$.steps[{node.index}].switch[{number}].next", message))
            reached.update(branch.targets)
            texts = [expression.text for _, expression in branch.when.expressions]
            always = always or texts == ["true"]
        if always:
            for target in node.default:
                if target not in reached and plan.nodes[target].gates == (node.index,):
                    message = (
                        f"step {plan.nodes[target].id!r} can't be reached: an earlier branch is always taken"
                    )
                    problems.append(Problem(f"$.steps[{node.index}].default", message))
    return problems
