"""What is counted while an expression is evaluated: the patterns that it matches, at their price.

A pattern that comes with the data can't be judged before. Its evaluation is one call, on one thread, so a
meter may serve all the expressions that are compiled together.
"""

from __future__ import annotations

from typing import Any, Final

from wpa.plan.pattern_price import PER_STEP_US, price
from wpa.plan.patterns import matched
from wpa.plan.plain import MATCHES

__all__ = ["STEPS_MAX", "Meter"]

STEPS_MAX: Final = 100_000
"""So many steps are taken to match patterns; about a second's work."""
PATTERN_CHARS_MAX: Final = 50_000


class Meter:
    """Counts the steps of one evaluation after the other."""

    def __init__(self) -> None:
        self._left = STEPS_MAX
        self.refused = ""
        """Why the evaluation goes on for nothing; empty while it may."""

    def begin(self) -> None:
        """Begin with the next evaluation."""
        self._left = STEPS_MAX
        self.refused = ""

    @property
    def nanoseconds(self) -> int:
        """What has been counted."""
        return (STEPS_MAX - self._left) * PER_STEP_US * 1_000

    def matches(self, text: str, pattern: str) -> bool:
        """CEL's own, at its price. Raises ValueError."""
        if not self.refused:
            self._spend(text, pattern)
        if self.refused:
            raise ValueError(self.refused)
        return matched(pattern, text)

    def _spend(self, text: str, pattern: str) -> None:
        if len(pattern) > PATTERN_CHARS_MAX:
            most = PATTERN_CHARS_MAX
            self.refused = f"a pattern of {len(pattern):,} characters takes too long; the most is {most:,}"
            return
        self._left -= price(pattern, len(text))
        if self._left < 0:
            self.refused = (
                f"its patterns take more than {STEPS_MAX:,} steps; match fewer or shorter texts, or simplify "
                "the patterns: a{1,1000} is a thousand letters"
            )

    def functions(self, cel: Any) -> list[Any]:
        """What declares the functions. ``cel`` is the module ``cel_expr_python.cel``."""
        text, truth = cel.Type.STRING, cel.Type.BOOL
        overload = cel.Overload(f"{MATCHES}_2", truth, [text, text], is_member=False, impl=self.matches)
        return [cel.FunctionDecl(MATCHES, [overload])]
