"""Planted members: nothing of a request is lost in silence.

A member that is planted in any object of a valid request reaches the provider, or has a note, or is
refused with 400.

    python -m tests.nightly.request_members [--cases 100000] [--seed N]

Each case takes a request, an object in it, a name and a value by chance, a dialect, what the
channel passes on, and whether the request travels over gRPC. In strict mode nothing has a note.
Some cases set a field of the contract instead, as callers of stubs do: each typed field that holds
text, and `extra_json` of every message.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from services.config import PassThrough
from tests.nightly import generated_cases
from tests.stand.planted_requests import (
    ALL,
    Plant,
    api_of,
    is_about,
    random_plant,
    texts,
    tokens,
)
from tests.stand.planted_specs import StubPlant, random_stub_plant
from tests.stand.request_lane import MODELS, Lane, Outcome

PASS_THROUGHS: Sequence[PassThrough] = (
    "harmless",
    True,
    False,
    ("prefix", "a"),
    ("harmless", "store", "metadata"),
)
REST_SHARE = 0.7
"""The share of cases with a member in the JSON of a REST request. Others set a field of a stub."""


def check(plant: Plant | StubPlant, lane: Lane) -> str:
    """Check one case. Returns what became of the member: `arrived`, `noted` or `refused`."""
    found = (
        lane.send_spec(plant.spec())
        if isinstance(plant, StubPlant)
        else lane.send(plant.body(), api=api_of(plant.request))
    )
    if found.status != 200:
        assert 400 <= found.status < 500, (plant, lane, found)
        return "refused"
    lost = set(tokens(plant.value)) - texts(found.body)
    if not lost:
        return "arrived"
    is_new = found.notes > plain(plant.request, lane).notes
    is_within = any(is_about(param, plant.way) for param, _ in found.notes)
    assert is_new or is_within, f"lost in silence: {plant} {lane} {found}"
    may_note = not lane.strict or _is_of_answer(plant)
    assert may_note, f"noted in strict mode: {plant} {lane} {found}"
    return "noted"


def _is_of_answer(plant: Plant | StubPlant) -> bool:
    """Whether the member is one that answers have, so that sending it back costs nothing."""
    match plant.way:
        case "messages", int(index), "annotations":
            role: str = ALL[plant.request]["messages"][index]["role"]
            return role == "assistant"
    return False


@functools.cache
def plain(request: str, lane: Lane) -> Outcome:
    """Return what becomes of a request without the member."""
    return lane.send(ALL[request], api=api_of(request))


def random_lane(request: str, chance: random.Random) -> Lane:
    """Return a way of a request to a provider that takes it."""
    while True:
        lane = Lane(
            dialect=chance.choice(sorted(MODELS)),
            pass_through=chance.choice(PASS_THROUGHS),
            hop=chance.choice(("none", "grpc")),
            strict=chance.random() < 0.2,
        )
        if plain(request, lane).status == 200:
            return lane


def check_cases(cases: int, seed: int) -> Mapping[str, int]:
    """Check as many cases. Returns how many members arrived, were noted, and were refused."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    became: Counter[str] = Counter()
    for _ in range(cases):
        plant = random_plant(chance) if chance.random() < REST_SHARE else random_stub_plant(chance)
        became[check(plant, random_lane(plant.request, chance))] += 1
    return became


if __name__ == "__main__":
    generated_cases.run(check_cases, __doc__)
