"""A stateful property test of a whole gateway against a model of its money.

    python -m tests.nightly.state_machine [--layout edges|fleet|…] [--examples 200] [--steps 40]

What may happen: calls, whole and streamed, that come to their end, are left, break off, cost more
than they hold or are refused by the provider; calls under one name; more calls at once than there
is money or room for; payments, and the same again; keys revoked; limits and prices changed; edges
and services killed, and started again. After each step the books of the gateway are audited (I1 to
I5), and held against the model: each admitted call has one hold and one end, charged what was said
and no more (I3, I4, I7); who was refused has cost nothing (I6); no more were admitted than there
was money or room for (I2, I8). In the end nothing is held, no place is taken, and every cent is
accounted for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.nightly.steps import GatewayMachine
from tests.stand.databases import empty_database
from tests.stand.deployment import PLANS, Layout
from tests.stand.process_stand import ProcessStand, process_stand


def check(
    stand: ProcessStand, loop: asyncio.AbstractEventLoop, *, examples: int, steps: int
) -> None:
    """Runs this many random sequences of steps. Blocks: call it outside of the loop."""
    machine = type("Machine", (GatewayMachine,), {"stand": stand, "loop": loop})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                phases=[Phase.generate],
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as error:
        # Processes do not do the same thing twice: what Hypothesis saw when it tried the
        # sequence again may be something else.
        if stand.failures:
            raise AssertionError(stand.failures[0]) from error
        raise


async def run(layout: Layout, examples: int, steps: int) -> None:
    """Runs as the command line says."""
    loop = asyncio.get_running_loop()
    plan = PLANS[layout]
    with tempfile.TemporaryDirectory(prefix="pomogator-machine-") as directory:
        async with (
            empty_database(needed=plan.shared) as url,
            process_stand(Path(directory) / "site", plan, url) as stand,
        ):
            await asyncio.to_thread(check, stand, loop, examples=examples, steps=steps)
            books = await stand.operators().verify()
            sys.stdout.write(
                f"{layout}: {examples} sequences of {steps} steps\n"
                f"happened {dict(stand.seen)}\nbooks {dict(books.counts)}\n"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hold a whole gateway against a model.")
    parser.add_argument("--layout", choices=PLANS, default="edges")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    asyncio.run(run(options.layout, options.examples, options.steps))
