"""A caller with one key who leaves its calls once they were sent, to have them for less.

The provider bills each request that reaches it, as dearly as it may: all text at four bytes a
token, media by their most, marked prompts as written to its cache. It says so at the end of the
answer, which it begins when all callers have left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.admission.ticket import STEP_TOKENS
from services.completions.drains import DRAINS_PER_ACCOUNT_MAX
from services.config import BillingConfig
from tests.stand.billing_stand import FORMS, NANO, BillingStand, billing_stand, piece
from tests.stand.conversations import CALLED, LONG, Fields, after, details, part
from tests.stand.dear_prompts import prompt_tokens
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, STALL, Request, Script, sse

CALLS = DRAINS_PER_ACCOUNT_MAX + 4
PROMPT_NANO, WRITTEN_NANO, COMPLETION_NANO = 3_000, 6_000, 3_000
PRICE: Mapping[str, Any] = {
    "prompt_usd_per_mtok": 3,
    "cache_write_usd_per_mtok": 6,
    "completion_usd_per_mtok": 3,
}
CREDIT_NANO = 7 * NANO

MARK = {"cache_control": {"type": "ephemeral"}}
MANY_TOOLS = [
    {"type": "function", "function": {"name": f"f{number}", "parameters": {}}}
    for number in range(128)
]
MANY_CALLS = {"tool_calls": [{**CALLED, "id": f"c{number}"} for number in range(128)]}

LEAVING: Mapping[str, Fields] = {
    "a text": {"messages": [{"role": "user", "content": LONG}]},
    "a refusal": after({"refusal": LONG}),
    "a name": {"messages": [{"role": "user", "name": LONG, "content": "a"}]},
    "reasoning in details": details(type="reasoning.text", text=LONG),
    "reasoning in a summary": details(type="reasoning.summary", summary=LONG),
    "a seal that is a text": details(type="reasoning.encrypted", data=LONG),
    "notes of a file": after({"annotations": [{"file": {"content": LONG}}]}),
    "a file's note that begins like a file": after({"annotations": ["data: " + LONG]}),
    "a call's signature": after(
        {"tool_calls": [{**CALLED, "extra_content": {"google": {"thought_signature": LONG}}}]}
    ),
    "a schema's description": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "description": LONG, "schema": {}},
        }
    },
    "many tools": {"tools": MANY_TOOLS},
    "many calls of tools": after(MANY_CALLS),
    "a picture": part(type="image_url", image_url={"url": "https://a.test/b.png"}),
    "a video": part(type="video_url", video_url={"url": "https://a.test/b.mp4"}),
    "a document": part(type="file", file={"file_data": "https://a.test/b.pdf"}),
    "a document by its ID": part(type="file", file={"file_id": "file-a"}),
    "a mark of the cache": part(type="text", text=LONG, **MARK),
    "a mark on the request": {"messages": [{"role": "user", "content": LONG}], **MARK},
}


class Provider:
    """Provider that bills each request at the highest price, and answers when the test lets it."""

    def __init__(self) -> None:
        self.bills: list[int] = []
        self.may_answer = asyncio.Event()

    def play(self, request: Request) -> Script:
        """Answer with the usage that is billed."""
        body = request.json()
        prompt = prompt_tokens(body)
        written = prompt if b"cache_control" in request.body else 0
        self.bills.append((prompt - written) * PROMPT_NANO + written * WRITTEN_NANO)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cache_write_tokens": written},
        }
        end = sse(piece("Hi"), piece(None), {"choices": [], "usage": usage}, "[DONE]")
        return [self.may_answer, SSE_HEAD, end, LAST_CHUNK]


async def leave(stand: BillingStand, provider: Provider, key: str, form: str, **more: Any) -> None:
    """Make calls at once, and leave those that reach the provider."""
    provider.bills.clear()
    provider.may_answer.clear()
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, **more}
    calls = {asyncio.create_task(stand.ask(key, form, **body)) for _ in range(CALLS)}
    while len(provider.bills) + sum(call.done() for call in calls) < CALLS:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # No event tells of a refusal and of an arrival.
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    provider.may_answer.set()


@pytest.mark.parametrize("form", FORMS)
async def test_abandoned_calls_cost_the_providers_bills(tmp_path: Path, form: str) -> None:
    """The account is charged all bills, but for a step of each call, whatever the prompt is."""
    channel = {"dialect": "openrouter", "pass_through": ("harmless", "annotations")}
    async with billing_stand(
        tmp_path, price=PRICE, billing=BillingConfig(), channel=channel
    ) as stand:
        provider = Provider()
        stand.upstream.play(provider.play)
        for number, (name, fields) in enumerate(LEAVING.items()):
            key = await stand.open_account(f"a{number}", credit_nano=CREDIT_NANO)
            await leave(stand, provider, key, form, **fields)
            charged = CREDIT_NANO - await stand.balance(key)

            assert provider.bills, name
            steps = len(provider.bills) * STEP_TOKENS * COMPLETION_NANO
            assert charged >= sum(provider.bills) - steps, name
            assert charged <= CREDIT_NANO + steps, name


def anthropic_event(kind: str, **members: Any) -> Mapping[str, Any]:
    """An event of the Messages API."""
    return {"type": kind, **members}


DRAIN_SECONDS = 30.0
COUNTED = {"input_tokens": 700, "output_tokens": 1}
BEGINNING = sse(
    anthropic_event("message_start", message={"role": "assistant", "usage": COUNTED}),
    anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    anthropic_event(
        "content_block_delta", index=0, delta={"type": "text_delta", "text": "A picture"}
    ),
)


@pytest.mark.parametrize("form", FORMS)
async def test_a_drain_for_the_prompt_ends_when_it_is_counted(tmp_path: Path, form: str) -> None:
    """The rest of the answer would cost more than the estimate."""
    async with billing_stand(
        tmp_path,
        price=PRICE,
        billing=BillingConfig(),
        channel={"dialect": "anthropic", "drain_seconds": DRAIN_SECONDS},
    ) as stand:
        may_answer = asyncio.Event()
        stand.script = [may_answer, SSE_HEAD, BEGINNING, STALL]
        key = await stand.open_account("adversary", credit_nano=CREDIT_NANO)
        picture = part(type="image_url", image_url={"url": "https://a.test/b.png"})
        asking = asyncio.create_task(stand.ask(key, form, **picture, max_tokens=4_000))
        request = await stand.upstream.request()
        asking.cancel()
        await asyncio.wait({asking})
        assert not request.left.is_set()
        may_answer.set()
        async with asyncio.timeout(DRAIN_SECONDS / 2):
            await request.left.wait()
        charged = CREDIT_NANO - await stand.balance(key)

    assert charged in {700 * PROMPT_NANO + tokens * COMPLETION_NANO for tokens in range(1, 5)}
