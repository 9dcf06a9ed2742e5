"""Many runs: ``python -m tests.sim --seeds 5000``; one of them again: ``python -m tests.sim --seed 4711``.

With ``--judged`` the checker judges each of them, too; one that is run again, it judges in any case.
Prints what fails as it fails, with its seed, and at the end which transitions of the state machine were seen.
Fails where a run does, or where the seeds of the test suite are among the runs and a legal transition is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from tests.sim.coverage import SUITE_SEEDS, Transition, table, uncovered
from tests.sim.simulation import Outcome, SimulationFailed, listening, simulate

CHUNK: Final = 500
SHOWN: Final = 5
"""Failures that are shown in full; of the others, the first line."""


class Result(NamedTuple):
    """What came of a few seeds."""

    seeds: range
    failures: list[tuple[int, str]]
    seen: Counter[Transition]
    faults: Counter[str]
    executions: int
    cpu_s: float


def play(seeds: range, *, judged: bool = False) -> Result:
    """Run seeds, one after the other."""
    began = time.process_time()
    result = Result(seeds, [], Counter(), Counter(), 0, 0.0)
    executions = 0
    with listening() as heard:
        for seed in seeds:
            try:
                outcome = simulate(seed, heard, judged=judged)
            except SimulationFailed as error:
                result.failures.append((seed, str(error)))
                continue
            result.seen.update(outcome.transitions)
            result.faults.update(outcome.faults)
            executions += outcome.executions
    return result._replace(executions=executions, cpu_s=time.process_time() - began)


def play_all(seeds: range, jobs: int, *, judged: bool) -> Iterator[Result]:
    """Run seeds, in chunks, on so many cores."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    run = partial(play, judged=judged)
    if jobs == 1:
        yield from map(run, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, chunks)


def again(seed: int) -> int:
    """Run one seed, twice: it has to be the same run."""
    with listening() as heard:
        try:
            outcomes: list[Outcome] = [simulate(seed, heard, judged=True, traced=True) for _ in range(2)]
        except SimulationFailed as error:
            print(error)
            return 1
    first, second = outcomes
    print(f"seed {seed}: {first.executions} executions, all ended rightly; trace {first.trace}")
    if first.trace != second.trace:
        print(f"but the second time, the trace was {second.trace}: it does not replay")
        return 1
    return 0


def many(results: Iterable[Result], seeds: range) -> int:
    """Tell of runs as they come to their end."""
    seen: Counter[Transition] = Counter()
    faults: Counter[str] = Counter()
    failures = executions = runs = 0
    cpu_s = 0.0
    for result in results:
        for _, text in result.failures:
            print(text if failures < SHOWN else text.partition("\n")[0], flush=True)
            failures += 1
        seen.update(result.seen)
        faults.update(result.faults)
        runs += len(result.seeds)
        executions += result.executions
        cpu_s += result.cpu_s
        print(f"{runs} of {len(seeds)} runs, {failures} failed", file=sys.stderr, flush=True)
    print(table(seen, runs))
    print("\n" + "\n".join(f"{kind:<32} {count:>9}" for kind, count in sorted(faults.items())))
    print(
        f"\n{runs} runs from seed {seeds.start}, {executions} executions, {failures} runs failed; "
        f"{runs / cpu_s:.0f} runs in each second of CPU time"
    )
    missing = uncovered(seen) if seeds.start == 0 and runs >= SUITE_SEEDS else []
    for status, event in missing:
        print(f"never seen, and legal: {event} in {status or 'no status'}")
    return 1 if failures or missing else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seed", type=int, help="run only this one, and look whether it replays")
    parser.add_argument("--seeds", type=int, default=2_000, help="how many (2000)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one (0)")
    parser.add_argument("--jobs", type=int, default=1, help="how many cores may work on it (1)")
    parser.add_argument("--judged", action="store_true", help="have the checker judge each run, too: slower")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        return again(given.seed)
    seeds = range(given.first, given.first + given.seeds)
    return many(play_all(seeds, given.jobs, judged=given.judged), seeds)


if __name__ == "__main__":
    sys.exit(main())
