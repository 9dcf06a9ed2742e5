from __future__ import annotations

from wpa.testing.plugin import wpa

__all__ = ["wpa"]
