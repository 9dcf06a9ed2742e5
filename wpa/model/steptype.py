"""What the pure core may know of a step type: its name and the shape of what goes in and out."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["StepSignature"]


class StepSignature(msgspec.Struct, frozen=True, kw_only=True):
    """The public face of a step type, as ``wpa plugins`` shows it and deploy checks against it."""

    name: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    description: str = ""
