"""Odd values, and valid documents gone wrong, for the tests that fuzz.

``FUZZ_EXAMPLES=20000`` makes every fuzzing test try so many examples, other ones each time (``make fuzz``);
without it they try a few, the same in each run.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES_ASKED = int(os.environ.get("FUZZ_EXAMPLES", "0"))

DEFINITIONS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[1] / "examples").glob("*.json"))
    if not path.name.endswith(".input.json")
}
"""The example definitions, by name."""


def fuzz(usual: int) -> settings:
    """How hard to try: ``usual`` examples, or as many as are asked for."""
    return settings(
        max_examples=EXAMPLES_ASKED or usual,
        derandomize=not EXAMPLES_ASKED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


ODD_TEXT = st.sampled_from(
    [
        "", " ", "\0", "a.b", "a*", ">", "*", "a b", "-", "$JS.API", "заказ", "\u202e", "\ud800", "x" * 300,
        "x" * 70_000, "a\r\nNats-Rollup: all", "__proto__", "null", "true", "1", "-1", "NaN",
        "${", "${}", "$${", "${input}", "${steps.a.output}", "${1/0}", "${vars.x}", "${'}'}", "${input",
        "0s", "1ms", "1s", "5m", "36500d", "99999999d", "1e9s", "1.5h", "-1s", "P1D", "9" * 400 + "d",
        "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "2026-02-30T00:00:00Z",
        "9999-12-31T23:59:59-23:59", "2026-06-30T23:59:60Z", "2026-11-20T10:00:00", "2026-11-20", "now",
        "* * * * * *", "0 0 0 30 2 *", "0 0 6 * * *", "*/0 * * * * *", "@every 1s", "@every 0s", "@yearly",
        "Europe/Madrid", "../../etc/passwd", "America", "core.echo", "core.workflow", "core.wait", "go", "kid",
        "order", "1", "2", "acme", "other",
    ]
)  # fmt: skip
ODD_NUMBERS = st.sampled_from(
    [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 10**30, 1e308, 5e-324, -0.0, 0.5, float("inf"), float("nan")]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | ODD_NUMBERS | ODD_TEXT | st.text(max_size=20) | st.integers()
KEYS = st.sampled_from(
    ["", "a", "id", "type", "payload", "$blob", "$ref", "key", "slot", "x" * 300, "ключ", "\0"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
"""Any JSON value, more often one that somebody should have thought of."""


def encoded(value: Any) -> bytes:
    """``value`` as careless publishers write it: NaN, lone surrogates and all."""
    return json.dumps(value).encode()


Path_ = tuple[Any, ...]


def paths(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The places of all values within ``value``, but its own."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def at(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


def _drop(holder: Any, key: Any, other: Any) -> None:
    del holder[key]


def _replace(holder: Any, key: Any, other: Any) -> None:
    holder[key] = other


def _wrap(holder: Any, key: Any, other: Any) -> None:
    holder[key] = [holder[key]]


def _twice(holder: Any, key: Any, other: Any) -> None:
    holder[key] = [holder[key], copy.deepcopy(holder[key])]


def _rename(holder: Any, key: Any, other: Any) -> None:
    if isinstance(holder, dict):
        holder[str(other)[:80]] = holder.pop(key)
    else:
        holder.append(other)


def _extend(holder: Any, key: Any, other: Any) -> None:
    if isinstance(holder[key], str):
        holder[key] += str(other)
    elif isinstance(holder[key], dict):
        holder[key][str(other)[:80]] = other
    else:
        holder[key] = other


CHANGES: list[Callable[[Any, Any, Any], None]] = [_drop, _replace, _wrap, _twice, _rename, _extend]


@st.composite
def mutated(draw: st.DrawFn, valid: Any, most: int = 4, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """``valid`` with up to ``most`` changes: things dropped, swapped, doubled, renamed, of another type."""
    found = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        places = list(paths(found))
        if not places:
            return draw(values)
        *above, key = draw(st.sampled_from(places))
        other = draw(values | st.sampled_from(places).map(lambda place: copy.deepcopy(at(found, place))))
        draw(st.sampled_from(CHANGES))(at(found, tuple(above)), key, other)
    return found
