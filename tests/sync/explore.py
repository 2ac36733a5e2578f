"""The state machine for long: ``python -m tests.sync.explore --runs 1000 --steps 60 --seed 7``.

Prints what was tried: runs, operations, crashes, faults. A failure prints the steps that lead to it, made as
few as possible, and the promise that broke; each step is a method of `tests.sync.machine.World`, so that it
can be kept as a test in `test_machine_finds`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from hypothesis import HealthCheck, Phase, core, settings
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import run_state_machine_as_test

from tests.sync.machine import TOTAL
from tests.sync.test_state_machine import SyncMachine


def main() -> int:
    """Explore; 1 if a promise broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.sync.explore", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="lives of a bucket")
    parser.add_argument("--steps", type=int, default=50, help="steps of each, at most")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other runs")
    parser.add_argument("--shrink", type=int, default=60, help="seconds spent on making a failure short")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    core.global_force_seed = options.seed
    engine.MAX_SHRINKING_SECONDS = options.shrink
    begun = time.process_time()
    try:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            SyncMachine,
            settings=settings(
                max_examples=options.runs,
                stateful_step_count=options.steps,
                deadline=None,
                database=None,
                print_blob=False,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    except Exception as broken:
        print("\n".join(getattr(broken, "__notes__", ())))
        print(f"{type(broken).__name__}: {broken}")
        return 1
    finally:
        print(f"seed {options.seed}: {TOTAL}, {time.process_time() - begun:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
