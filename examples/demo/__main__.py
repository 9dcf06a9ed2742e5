"""The main job, on real input, from nothing: what ``make demo`` runs.

Starts ``wpa dev`` (a real nats-server, a worker with the first-party plugins) on a free port with its data
in a temporary folder, and then does, as an outside client over NATS, what a user would; once, everything is
killed and started again. Every outcome is checked; the exit status is 1 if anything is not as it should be.

    python examples/demo [--picture docs/run.svg]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path

from show import main

parser = argparse.ArgumentParser(prog="examples/demo", description="the main job, on real input")
parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the second scene")
arguments = parser.parse_args()
with contextlib.suppress(KeyboardInterrupt):
    sys.exit(asyncio.run(main(arguments.picture)))
sys.exit(130)
