"""Recorded provider exchanges: what a caller of the gateway must see of each.

The recordings are not part of this project. `POMOGATOR_CAPTURES` names a folder with
`public/*.json` and `replay.py`, which serves them as a fake provider.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAPTURES = os.environ.get("POMOGATOR_CAPTURES", "")
WHY_SKIPPED = "POMOGATOR_CAPTURES is not set: recorded exchanges are not at hand"

DIALECTS = {"anthropic": "anthropic", "openrouter": "openrouter"}
"""The dialect of a recording's provider; all others speak `openai`."""

# Statuses of our answer to a provider's refusal, by the provider's status. The class of an
# error is taken from status, code and message together, so some rows allow several.
STATUSES: Mapping[int, frozenset[int]] = {
    400: frozenset({400, 502}),  # 502: no credit at the provider, said with a 400
    401: frozenset({502}),
    402: frozenset({502}),
    403: frozenset({400, 502}),  # 400: the provider's moderation
    404: frozenset({400}),
    413: frozenset({400, 413}),
    422: frozenset({400}),
    429: frozenset({429, 502, 400, 413}),  # 502: quota used up; 400, 413: too large for the tier
    500: frozenset({502}),
    503: frozenset({503}),
    529: frozenset({503}),
}


def load(folder: str = "public") -> Sequence[dict[str, Any]]:
    """The cases of a folder, by name; none where the recordings are not at hand."""
    if not CAPTURES:
        return []
    return [json.loads(path.read_text()) for path in sorted(Path(CAPTURES, folder).glob("*.json"))]


@asynccontextmanager
async def replaying(folder: str = "public") -> AsyncIterator[str]:
    """Serves the recordings of a folder, from a process of its own; gives the URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(CAPTURES, "replay.py")), "--port", "0"),
        *("--dir", str(Path(CAPTURES, folder))),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        greeting = (await process.stdout.readline()).decode()
        yield greeting.split(" at ")[1].partition("/case/")[0]
    finally:
        process.kill()
        await process.wait()


def dialect(case: Mapping[str, Any]) -> str:
    """The dialect of the channel that plays a case."""
    if case["protocol"] == "anthropic":
        return "anthropic"
    return DIALECTS.get(case["provider"], "openai")


@dataclass
class Seen:
    """Answer that a caller got: of all choices, by index."""

    text: dict[int, str] = field(default_factory=dict)
    reasoning: dict[int, str] = field(default_factory=dict)
    tool_calls: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    finish_reason: dict[int, str | None] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    status: int = 200


def seen_whole(status: int, body: dict[str, Any]) -> Seen:
    """Return the content of a JSON answer."""
    seen = Seen(status=status, usage=body.get("usage"), error=body.get("error"))
    for choice in body.get("choices", []):
        index, message = choice["index"], choice["message"]
        seen.text[index] = _text(message["content"])
        seen.reasoning[index] = message.get("reasoning_content") or ""
        seen.tool_calls[index] = [_call(call) for call in message.get("tool_calls") or []]
        seen.finish_reason[index] = choice["finish_reason"]
    return seen


def seen_stream(status: int, body: bytes) -> Seen:
    """Return the content of a stream. Its grammar: role first, one finish reason, `[DONE]` last."""
    seen = Seen(status=status)
    events = [event for event in body.decode().split("\n\n") if event and event[0] != ":"]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert events[-1] == "data: [DONE]", events[-1]
    for event in events[:-1]:
        chunk = json.loads(event.removeprefix("data: "))
        assert seen.error is None, "something came after the error"
        seen.usage = chunk.get("usage") or seen.usage
        if "error" in chunk:
            assert chunk.keys() == {"error"}, "some clients overlook an error beside `choices`"
            seen.error = chunk["error"]
            continue
        for choice in chunk["choices"]:
            _add(seen, choice)
    return seen


def _add(seen: Seen, choice: dict[str, Any]) -> None:
    index, delta = choice["index"], choice["delta"]
    if index not in seen.text:
        assert delta["role"] == "assistant"
        seen.text[index], seen.reasoning[index], seen.tool_calls[index] = "", "", []
    assert index not in seen.finish_reason, "something came after the finish reason"
    seen.text[index] += delta.get("content") or ""
    seen.reasoning[index] += delta.get("reasoning_content") or ""
    for piece in delta.get("tool_calls", []):
        calls = seen.tool_calls[index]
        if piece["index"] == len(calls):
            calls.append(_call(piece))
        else:
            body = piece.get("function") or piece["custom"]
            calls[piece["index"]]["arguments"] += body.get("arguments") or body.get("input") or ""
    if choice["finish_reason"] is not None:
        assert set(delta) <= {"role", "content", "refusal"}
        seen.finish_reason[index] = choice["finish_reason"]


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _call(call: dict[str, Any]) -> dict[str, Any]:
    body = call.get("function") or call["custom"]
    arguments = body.get("arguments") or body.get("input") or ""
    return {"id": call["id"], "name": body["name"], "arguments": arguments}


def check(case: Mapping[str, Any], seen: Seen, *, streamed: bool) -> None:
    """Asserts that a caller was given what the case's own reading expects."""
    expect = case["expect"]
    if case["kind"] == "error":
        assert seen.status in STATUSES[case["response"]["status"]], (seen.status, seen.error)
        assert seen.error is not None
        assert set(seen.error) == {"message", "type", "param", "code"}
        return
    if "error" in expect:
        assert seen.error is not None, "the provider's error was not told"
        return
    choices = expect["choices"] if "choices" in expect else [_anthropic_choice(expect)]
    for choice in choices:
        _check_choice(choice, seen)
    ended = expect["complete"] or "data: [DONE]" in case["response"]["body"]
    if case["kind"] == "stream" and not ended:
        # A stream that ended without a finish reason and without `[DONE]` is no answer.
        assert seen.error is not None
        assert streamed or seen.status == 502
        return
    assert seen.error is None, seen.error
    assert seen.status == 200
    for choice in choices:
        given = choice["finish_reason_openai"] or "stop"
        assert seen.finish_reason.get(choice["index"]) == given
    if expect["usage"] is not None:
        _check_usage(expect["usage"], seen.usage)


def _anthropic_choice(expect: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": 0,
        "text_len": expect["text_len"],
        "text_sha256": expect["text_sha256"],
        "reasoning_len": expect["thinking_len"],
        "reasoning_sha256": expect["thinking_sha256"],
        "tool_calls": expect["tool_calls"],
        "finish_reason_openai": expect["finish_reason_openai"],
    }


def _check_choice(choice: Mapping[str, Any], seen: Seen) -> None:
    index = choice["index"]
    if seen.status != 200:
        return
    for kind in ("text", "reasoning"):
        given: str = getattr(seen, kind).get(index, "")
        assert len(given) == choice[f"{kind}_len"], (kind, given)
        assert hashlib.sha256(given.encode()).hexdigest() == choice[f"{kind}_sha256"]
    wanted = [(call["name"], call["arguments"]) for call in choice["tool_calls"]]
    given_calls = [(call["name"], call["arguments"]) for call in seen.tool_calls.get(index, [])]
    assert [name for name, _ in given_calls] == [name for name, _ in wanted]
    for (_, got), (_, want) in zip(given_calls, wanted, strict=True):
        if isinstance(want, str):
            assert got == want or _same_json(got, want)


def _same_json(got: str, want: str) -> bool:
    """Whether two texts are the same JSON; no arguments may be said as `{}` or not at all."""
    return bool(json.loads(got or "{}") == json.loads(want or "{}"))


def _check_usage(wanted: Mapping[str, Any], usage: Mapping[str, Any] | None) -> None:
    assert usage is not None
    if "input_tokens" in wanted:
        # Runs that are no message, such as a compaction, are billed besides.
        runs = [one for one in wanted.get("iterations") or [] if one["type"] != "message"]
        assert usage["prompt_tokens"] == sum(_read(one) for one in (wanted, *runs))
        assert usage["completion_tokens"] == sum(one["output_tokens"] for one in (wanted, *runs))
        return
    prompt, completion = wanted["prompt_tokens"], wanted.get("completion_tokens") or 0
    total = max(wanted.get("total_tokens") or 0, prompt + completion)
    assert usage["prompt_tokens"] == prompt
    assert usage["completion_tokens"] >= completion
    assert usage["total_tokens"] >= total
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def _read(report: Mapping[str, Any]) -> int:
    """The tokens of a prompt, cached or not, as Anthropic reports them."""
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(report.get(part) or 0 for part in parts)
