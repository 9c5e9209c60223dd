"""A caller with one key who has answers made that are of no use, for nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.config import BillingConfig
from services.providers.answer_bodies import DOCUMENT_MAX
from services.providers.sse_parser import EVENT_MAX
from tests.stand.billing_stand import (
    NANO,
    USAGE,
    BillingStand,
    billing_stand,
    completion,
)
from tests.stand.upstream import (
    SSE_HEAD,
    STALL,
    Script,
    answer,
    chunk,
)

PROMPT_NANO, COMPLETION_NANO = 3_000, 15_000
PRICE = {"prompt_usd_per_mtok": 3, "completion_usd_per_mtok": 15}
MAX_TOKENS = 500
PIECE = 2**20


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[BillingStand]:
    """A gateway with default settings."""
    async with billing_stand(tmp_path, price=PRICE, billing=BillingConfig()) as stand:
        yield stand


def overlong(kind: str) -> Script:
    """An answer that is larger than the most that the gateway reads."""
    if kind == "document":
        head = json.dumps(completion(USAGE))[:-1].encode() + b', "more": "'
        pieces = [b"x" * PIECE] * (DOCUMENT_MAX // PIECE + 1)
        length = len(head) + len(pieces) * PIECE + 2
        return [answer(head, content_length=str(length)), *pieces, STALL]
    return [SSE_HEAD, chunk(b"data: "), *[chunk(b"x" * PIECE)] * (EVENT_MAX // PIECE + 1), STALL]


@pytest.mark.parametrize("kind", ["document", "stream"])
async def test_an_answer_that_is_too_large_is_charged(stand: BillingStand, kind: str) -> None:
    """The provider has generated it. It costs the call's hold, and no other provider is asked."""
    stand.script = overlong(kind)
    key = await stand.open_account("adversary", credit_nano=NANO)
    form = "json" if kind == "document" else "sse"
    reply: Any = await stand.ask(key, form, max_tokens=MAX_TOKENS)
    charged = NANO - await stand.balance(key)

    assert reply.code == "upstream_bad_response"
    assert len(stand.upstream.requests) == 1
    assert charged >= MAX_TOKENS * COMPLETION_NANO
    assert charged <= MAX_TOKENS * COMPLETION_NANO + 20 * PROMPT_NANO
