"""Joins that don't wait for all of their needs: ``any``, so many, and ``race``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wpa.plan.nodes import Node

__all__ = ["Quorum", "bits", "set_rivals"]


class Quorum:
    """What such a join still waits for: enough of its plain needs, and all of its decisions."""

    __slots__ = ("_lacking", "_spare", "gates")

    def __init__(self, node: Node) -> None:
        self._lacking = node.quorum
        self._spare = len(node.needs) - node.quorum
        self.gates = len(node.gates)
        """Decisions that have not ended yet."""

    def need_ended(self, *, skipped: bool) -> None:
        """One of the plain needs has ended."""
        if skipped:
            self._spare -= 1
        else:
            self._lacking -= 1

    def gate_ended(self) -> None:
        """One of the decisions that may choose the node has ended."""
        self.gates -= 1

    def decided(self, *, chosen: bool) -> bool | None:
        """Whether the node starts (True) or is skipped (False); None while that is open.

        Args:
            chosen: whether a decision has chosen the node, or none has to.
        """
        if self._spare < 0 or (self.gates == 0 and not chosen):
            return False
        return True if self.gates == 0 and self._lacking <= 0 else None


def set_rivals(nodes: list[Node], races: list[Node]) -> None:
    """For each race the nodes from which every path leads to it: nobody else waits for them."""
    if not races:
        return
    following = [sum(1 << child for child in node.children) for node in nodes]
    # A node has more ancestors than any of its ancestors: the latest come first.
    latest_first = sorted(range(len(nodes)), key=lambda index: -nodes[index].ancestors.bit_count())
    for race in races:
        found = 1 << race.index
        for index in latest_first:
            if race.ancestors >> index & 1 and not following[index] & ~found:
                found |= 1 << index
        race.rivals = found & ~(1 << race.index)


def bits(mask: int) -> Iterator[int]:
    """The numbers whose bits are set, in order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
