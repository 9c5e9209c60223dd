"""A caller with one key and a cent, who tries to get more than that out of a gateway.

The provider bills four bytes of a prompt as a token, and as many generated tokens as it was asked
for, media by their most; it does so for each request that reaches it. The gateway has default
settings. The least that a call may lose is the price of a step (`STEP_TOKENS`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.admission.ticket import STEP_TOKENS
from services.config import BillingConfig
from tests.stand.billing_stand import (
    FORMS,
    FREE,
    MODEL,
    BillingStand,
    bearer,
    billing_stand,
    completion,
    piece,
)
from tests.stand.conversations import CALLED, LONG, Fields, after, details, part, text_file
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, Request, Script, json_answer, sse

CENT_NANO = 10_000_000
PROMPT_NANO, COMPLETION_NANO = 3_000, 3_000
PRICE: Mapping[str, Any] = {
    "prompt_usd_per_mtok": 3,
    "completion_usd_per_mtok": 3,
    "thinking": "budget",
}
CALLS = 60

ATTACKS: Mapping[str, Fields] = {
    "many calls": {},
    "many choices": {"n": 128},
    "no limit": {"max_tokens": None},
    "the largest limit": {"max_tokens": 2**31 - 1},
    "a limit by another name": {"max_tokens": 1, "maxTokens": 9999, "MAX-COMPLETION-TOKENS": 9999},
    "effort": {"reasoning_effort": "high"},
    "effort and choices": {"reasoning": {"effort": "high"}, "n": 8},
    "a budget": {"thinking": {"type": "enabled", "budget_tokens": 32_000}},
    "a name that reasons": {"model": f"{MODEL}-thinking"},
    "a model without a price": {"model": FREE},
    "a model without a price that reasons": {"model": f"{FREE}-thinking"},
    "other models": {"models": [FREE], "route": "fallback", "provider": {"order": ["dear"]}},
    "a picture": part(type="image_url", image_url={"url": "https://a.test/b.png"}),
    "a video": part(type="video_url", video_url={"url": "https://a.test/b.mp4"}),
    "a document": part(type="file", file={"file_data": "https://a.test/b.pdf"}),
    "a text file": text_file(LONG),
    "reasoning as text": after({"reasoning_content": LONG}),
    "reasoning in details": details(type="reasoning.text", text=LONG),
    "reasoning in a summary": details(type="reasoning.summary", summary=LONG),
    "sealed reasoning": details(type="reasoning.encrypted", data=LONG),
    "a refusal": after({"refusal": LONG}),
    "notes of a file": after({"annotations": [{"file": {"content": LONG}}]}),
    "a call's arguments": after(
        {"tool_calls": [{**CALLED, "function": {"name": "f", "arguments": json.dumps(LONG)}}]}
    ),
    "a call's content": after(
        {"tool_calls": [{**CALLED, "extra_content": {"google": {"thought_signature": LONG}}}]}
    ),
    "a name": {"messages": [{"role": "user", "name": LONG, "content": "a"}]},
    "a tool": {"tools": [{"type": "function", "function": {"name": "f", "description": LONG}}]},
    "a search": {"tools": [{"type": "openrouter:web_search"}], "web_search_options": {}},
    "a schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"description": LONG}},
        }
    },
    "a grammar": {"response_format": {"type": "grammar", "grammar": LONG}},
    "fields of another server": {"min_tokens": 9999, "ignore_eos": True, "best_of": 20},
}


class Provider:
    """Provider that bills each request at the highest price."""

    def __init__(self) -> None:
        self.bills: list[int] = []

    def play(self, request: Request) -> Script:
        """Answer with the usage that is billed."""
        body = request.json()
        prompt = sum(
            len(json.dumps(body.get(name, ""), ensure_ascii=False)) // 4
            for name in ("messages", "tools", "response_format")
        )
        contents = [sent["content"] for sent in body["messages"] if sent.get("content")]
        kinds = [each["type"] for parts in contents if isinstance(parts, list) for each in parts]
        prompt += 16_384 * kinds.count("image_url")
        prompt += 1_000_000 * sum(kind in {"video_url", "file"} for kind in kinds)
        completion_tokens = (body.get("n") or 1) * body.get("max_tokens", 100_000)
        searches = 10_000_000 * ("web_search" in request.body.decode())
        self.bills.append(prompt * PROMPT_NANO + completion_tokens * COMPLETION_NANO + searches)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion_tokens}
        if not body.get("stream"):
            return [json_answer(completion(usage))]
        end = sse(piece(None), {"choices": [], "usage": usage}, "[DONE]")
        return [SSE_HEAD, sse(piece("Hi")), end, LAST_CHUNK]


async def ask(stand: BillingStand, key: str, body: Fields, **headers: str) -> int:
    """Return the status of an answer that is read to its end."""
    url = f"{stand.gateway.base_url}/chat/completions"
    async with stand.gateway.http.post(url, json=body, headers=bearer(key) | headers) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
async def test_a_cent_buys_no_more_than_a_cent(tmp_path: Path, dialect: str, form: str) -> None:
    """Calls of each kind come at once. No bill of the provider exceeds credit and steps."""
    channel = {"dialect": dialect, "pass_through": ("harmless", "annotations")}
    async with billing_stand(
        tmp_path, price=PRICE, billing=BillingConfig(), channel=channel
    ) as stand:
        plain = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}],
                 "max_tokens": 20, "stream": form == "sse"}  # fmt: skip
        provider = Provider()
        stand.upstream.play(provider.play)
        for number, (name, fields) in enumerate(ATTACKS.items()):
            provider.bills.clear()
            key = await stand.open_account(f"a{number}", credit_nano=CENT_NANO)
            body = {**plain, **fields}
            statuses = await asyncio.gather(*(ask(stand, key, body) for _ in range(CALLS)))

            assert set(statuses) <= {200, 400, 402}, name
            most_nano = CENT_NANO + len(provider.bills) * STEP_TOKENS * COMPLETION_NANO
            assert sum(provider.bills) <= most_nano, name
            least_nano = -len(provider.bills) * STEP_TOKENS * COMPLETION_NANO
            assert await stand.balance(key) >= least_nano, name
