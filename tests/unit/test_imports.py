"""What a worker need not hold, it does not import: each of these takes megabytes, or a tenth of a second."""

from __future__ import annotations

import subprocess
import sys

LATE = {"cel_expr_python", "jsonschema", "opentelemetry", "pypdf"}
CODE = """
import sys
from wpa import wire
import wpa.cli.app
broken = [plugin.name for plugin in wire.plugin_host().plugins() if plugin.error]
assert not broken, broken
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_a_worker_imports_late_what_few_need() -> None:
    told = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert LATE & set(told.stdout.split()) == set()
