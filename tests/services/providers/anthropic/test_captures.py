"""Recorded exchanges with Anthropic, decoded directly."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.anthropic import DIALECT
from services.providers.base import Notes
from services.providers.translate import reasoning_state
from tests.services.providers.anthropic.answers import Answer, ending, gathered, slices, streamed
from tests.services.providers.targets import target_of

FOLDER = os.environ.get("POMOGATOR_CAPTURES", "")
ABSENT = pytest.mark.skipif(not FOLDER, reason="POMOGATOR_CAPTURES is not set")


def cases(kind: str) -> list[Any]:
    """The recorded cases of one kind: `s`tream, `j`son, `e`rror."""
    paths = sorted((Path(FOLDER) / "public").glob(f"anthropic-{kind}-*.json")) if FOLDER else []
    return [pytest.param(path, id=path.stem) for path in paths]


def load(path: Path) -> tuple[dict[str, Any], bytes]:
    """A case, and the body of its answer as the HTTP client hands it over."""
    case = json.loads(path.read_text())
    response = case["response"]
    body = response["body"].encode()
    if response["body_encoding"] == "base64":
        body = base64.b64decode(body)
    if body.startswith(b"\x1f\x8b"):
        body = zlib.decompress(body, wbits=31)
    return case, body


def check(answer: Answer, expect: dict[str, Any]) -> None:
    """The answer is what an independent reading of the recording says."""
    assert hashlib.sha256(answer.text.encode()).hexdigest() == expect["text_sha256"]
    assert hashlib.sha256(answer.reasoning.encode()).hexdigest() == expect["thinking_sha256"]
    assert len(answer.calls) == len(expect["tool_calls"])
    for call, expected in zip(answer.calls, expect["tool_calls"], strict=True):
        assert (call["id"], call["name"]) == (expected["id"], expected["name"])
        if expected.get("arguments_valid_json", True):
            assert json.loads(call["arguments"]) == expected["arguments"]
        else:
            assert call["arguments"] == expected["arguments"]


def check_ending(answer: Answer, expect: dict[str, Any]) -> None:
    """The reason to stop, the usage and the sealed reasoning are complete."""
    last, finished = ending(answer)
    assert last.finish_reason == expect["finish_reason_openai"]
    assert last.native_finish_reason == expect["stop_reason"]
    counted, usage = finished.usage, expect["usage"]
    assert counted is not None
    runs = [usage, *(i for i in usage.get("iterations") or () if i["type"] != "message")]
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    prompt = sum(run.get(kind) or 0 for run in runs for kind in kinds)
    completion = sum(run.get("output_tokens") or 0 for run in runs)
    assert counted.prompt_token_count == prompt
    assert counted.completion_token_count == completion
    assert counted.total_token_count == prompt + completion
    assert counted.cache_read_token_count == sum(run.get(kinds[2]) or 0 for run in runs)
    assert counted.cache_write_token_count == sum(run.get(kinds[1]) or 0 for run in runs)
    details = usage.get("output_tokens_details") or {}
    assert counted.thinking_token_count == details.get("thinking_tokens", 0)
    sealed = expect["signatures"] + expect["redacted_blocks"]
    assert len(answer.states) == min(sealed, 1)
    for state in answer.states:
        blocks = reasoning_state.unpack(state, "anthropic", Notes())
        kinds_of = (reasoning_state.Thought, reasoning_state.Redacted)
        assert sum(isinstance(block, kinds_of) for block in blocks) == sealed


@ABSENT
@pytest.mark.parametrize("path", cases("s"))
def test_streams(path: Path) -> None:
    """Every recorded stream gives what was recorded, and the same in every slicing."""
    case, body = load(path)
    expect = case["expect"]
    decoders = [DIALECT.decoder(target_of("claude-sonnet-4-5")) for _ in range(3)]
    if expect.get("error"):
        for decoder, sizes in zip(decoders, (iter([len(body)]), slices(1), slices(2)), strict=True):
            with pytest.raises(UpstreamError) as failed:
                streamed(body, decoder, sizes)
            assert failed.value.row.retryable
            assert decoder.usage
        return
    whole, *others = (
        streamed(body, decoder, sizes) + decoder.finish()
        for decoder, sizes in zip(decoders, (iter([len(body)]), slices(1), slices(2)), strict=True)
    )
    assert all(other == whole for other in others)
    answer = gathered(whole)
    check(answer, expect)
    check_ending(answer, expect)


@ABSENT
@pytest.mark.parametrize("path", cases("j"))
def test_documents(path: Path) -> None:
    """Every recorded JSON answer gives what was recorded."""
    case, body = load(path)
    answer = gathered(DIALECT.decoder(target_of("claude-sonnet-4-5")).whole(body).events())
    check(answer, case["expect"])
    check_ending(answer, case["expect"])


@ABSENT
@pytest.mark.parametrize("path", cases("e"))
def test_refusals(path: Path) -> None:
    """Every recorded refusal is understood: none is a fault without a cause."""
    case, body = load(path)
    headers = {name.lower(): value for name, value in case["response"]["headers"]}
    error = DIALECT.error(case["response"]["status"], headers, body)
    assert error.status == case["response"]["status"]
    assert error.reason not in {ErrorReason.INTERNAL, ErrorReason.NOT_IMPLEMENTED}
    assert error.message
