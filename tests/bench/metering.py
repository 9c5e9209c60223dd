"""CPU time of metering a call and an event: `python tests/bench/metering.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.domain.conversation import Message, TextPart
from services.domain.events import TextDelta
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.metering.price_list import PriceList
from services.metering.prices import Price, Tariff
from services.metering.tokens import TokenCounter, count_prompt, estimate_prompt
from services.metering.usage import UsageMeter

ROUNDS = 5
MODEL = "anthropic/claude-sonnet-4-5-20250929"

SPEC = ChatCompletionSpec(
    model=MODEL,
    messages=[
        Message(role="user", content=[TextPart(text="How does it work? " * 40)]) for _ in range(5)
    ],
)
USAGE = Usage(prompt_token_count=900, cache_read_token_count=800, completion_token_count=300)
BATCH = [TextDelta(" word")] * 10


def show(name: str, act: Callable[[], object], times: int, per: int = 1) -> None:
    """Prints the lowest time of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            act()
        best = min(best, time.process_time() - began)
    print(f"{name:44} {best / times / per * 1e6:8.2f} us CPU")


async def main() -> None:
    """Prints the table."""
    counter = TokenCounter()
    began = time.process_time()
    loaded = await counter.load()
    print(
        f"vocabulary: {counter.name} ({loaded=}), {time.process_time() - began:.2f} s CPU to load"
    )
    prices = PriceList({})
    price = prices.lookup(MODEL) or Price()
    tariff = Tariff(price)
    meter = UsageMeter(SPEC, counter)
    show("look a price up", lambda: prices.lookup(MODEL), 10_000)
    show("cost of a usage", lambda: tariff.cost_nano(USAGE), 10_000)
    show("estimate of a cost", lambda: tariff.estimate_nano(900, 300), 10_000)
    show("price snapshot", price.to_json, 10_000)
    show("estimate a prompt of 5 x 720 characters", lambda: estimate_prompt(SPEC), 2_000)
    show("count it", lambda: count_prompt(SPEC, counter), 2_000)
    show("meter an event, in batches of 10", lambda: meter.add(BATCH), 10_000, per=10)
    show("say what to bill", meter.metered, 2_000)


if __name__ == "__main__":
    asyncio.run(main())
