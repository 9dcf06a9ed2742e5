"""Expressions made to do the same in less time, or at a price that is counted.

CEL's ``map`` and ``filter`` copy, in each round, all that they have gathered: with 9,900 items that is 50
million copies, some seconds and gigabytes. Here they gather blocks, and add a block to the rest when it is
full. And ``matches`` with a pattern that is not written out becomes a function of ours, which counts.
"""

from __future__ import annotations

from itertools import count
from typing import Any, Final

from wpa.plan.trees import Tree, read, rewritten

__all__ = ["MATCHES", "eased", "gathered"]

MATCHES: Final = "wpa_matches"
BLOCK: Final = 100

_ADD: Final = "_+_"
_IF: Final = "_?_:_"
_FIRST_ID: Final = 1_000_000
"""Beyond all that an expression's own parts have for numbers."""


def eased(environment: Any, program: Any) -> Any:
    """The program, made to do the same in less time. ``environment`` knows :data:`MATCHES`."""
    tree = read(serialized := program.serialize())
    return environment.deserialize(rewritten(serialized, tree)) if _Easing().ease(tree) else program


def gathered(fold: Tree) -> tuple[Tree | None, Tree] | None:
    """Which items a ``map`` or ``filter`` takes (None: all), and what it makes of each; None for others."""
    step, name = fold.parts[3], fold.names[1]
    if step.text == _IF and _is_name(step.parts[2], name):
        made = _added(step.parts[1], name)
        return None if made is None else (step.parts[0], made)
    made = _added(step, name)
    return None if made is None else (None, made)


def _added(step: Tree, name: str) -> Tree | None:
    if step.kind == "call" and step.text == _ADD and _is_name(step.parts[0], name):
        member = step.parts[1]
        if member.kind == "list" and len(member.parts) == 1:
            return member.parts[0]
    return None


def _is_name(tree: Tree, name: str) -> bool:
    return tree.kind == "name" and tree.text == name


class _Easing:
    def __init__(self) -> None:
        self._ids = count(_FIRST_ID)

    def ease(self, tree: Tree) -> bool:
        """Change a tree in its place. Whether anything was changed."""
        changed = sum(map(self.ease, tree.parts)) > 0  # all of them, whatever the first gives
        if tree.kind == "fold" and (found := gathered(tree)) is not None:
            self._in_blocks(tree, *found)
            return True
        if tree.kind == "call" and tree.text == "matches" and tree.parts[-1].kind != "const":
            tree.text, tree.is_method = MATCHES, False
            return True
        return changed

    def _in_blocks(self, fold: Tree, taken: Tree | None, made: Tree) -> None:
        """Gather [the full blocks in one list, the block that is being filled]."""
        name = fold.names[1]
        is_room = self._call("_<_", self._call("size", self._part(name, 1)), self._number(BLOCK))
        with_it = self._list(self._part(name, 0), self._call(_ADD, self._part(name, 1), self._list(made)))
        both = self._call(_ADD, self._part(name, 0), self._part(name, 1))
        step = self._call(_IF, is_room, with_it, self._list(both, self._list(made)))
        if taken is not None:
            step = self._call(_IF, taken, step, self._tree("name", name))
        last = self._call(_ADD, self._part(name, 0), self._part(name, 1))
        fold.parts[1] = self._list(self._list(), self._list())
        fold.parts[3:] = [step, last]

    def _part(self, name: str, number: int) -> Tree:
        return self._call("_[_]", self._tree("name", name), self._number(number))

    def _call(self, function: str, *args: Tree) -> Tree:
        return self._tree("call", function, *args)

    def _list(self, *members: Tree) -> Tree:
        return self._tree("list", "", *members)

    def _number(self, value: int) -> Tree:
        tree = self._tree("const")
        tree.raw = bytes([3 << 3, value])
        return tree

    def _tree(self, kind: str, text: str = "", *parts: Tree) -> Tree:
        return Tree(kind, text, parts, next(self._ids))
