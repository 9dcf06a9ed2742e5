"""The tasks a worker has fetched and not begun: fair between tenants, ordered by priority in each.

Tenants take turns. Within a tenant there are three lanes, high (priority 7 to 9), normal (4 to 6) and
low (0 to 3), served 8 : 4 : 1 where all three are filled, so that low is slow but never starved; a
lane is first in, first out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import cycle
from typing import Final

from wpa.engine.door import Request

__all__ = ["Inbox"]

HIGH, NORMAL, LOW = 0, 1, 2
TURNS: Final = (HIGH, NORMAL, HIGH, HIGH, NORMAL, HIGH, LOW, HIGH, NORMAL, HIGH, HIGH, NORMAL, HIGH)


def lane_of(priority: int) -> int:
    """The lane a priority 0 to 9 travels in."""
    return HIGH if priority >= 7 else NORMAL if priority >= 4 else LOW


class _Lanes:
    """One tenant's three lanes."""

    __slots__ = ("_lanes", "_turns", "size")

    def __init__(self) -> None:
        self._lanes: tuple[deque[Request], ...] = (deque(), deque(), deque())
        self._turns = cycle(TURNS)
        self.size = 0

    def put(self, request: Request) -> None:
        self._lanes[lane_of(request.task.priority)].append(request)
        self.size += 1

    def take(self) -> Request:
        self.size -= 1
        for lane in self._turns:
            if self._lanes[lane]:
                return self._lanes[lane].popleft()
        raise AssertionError("unreachable: the turns never end")

    def all(self) -> list[Request]:
        return [request for lane in self._lanes for request in lane]


class Inbox:
    """See the module. Single-threaded; nothing here waits."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, _Lanes] = OrderedDict()

    def __len__(self) -> int:
        return sum(lanes.size for lanes in self._tenants.values())

    def put(self, request: Request) -> None:
        lanes = self._tenants.get(request.tenant)
        if lanes is None:
            lanes = self._tenants[request.tenant] = _Lanes()
        lanes.put(request)

    def take(self) -> Request | None:
        """The next request, or None where there is none. The tenant's next turn comes last."""
        if not self._tenants:
            return None
        tenant, lanes = next(iter(self._tenants.items()))
        request = lanes.take()
        if lanes.size:
            self._tenants.move_to_end(tenant)
        else:
            del self._tenants[tenant]
        return request

    def clear(self) -> list[Request]:
        """Take everything out, to be handed back."""
        requests = [request for lanes in self._tenants.values() for request in lanes.all()]
        self._tenants.clear()
        return requests
