"""Providers' words for a conversation that is longer than the model's context."""

from __future__ import annotations

import json

import pytest

from services.domain.error_reason import ErrorReason
from services.providers.failures import classify, provider_failure

STATUSES = (0, 400, 413, 422, 500)
"""Statuses that providers send with it; 0 in a stream."""

OVERFLOWS = [
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "invalid params, context window exceeds limit (2013)",
    "Invalid request: Your request exceeded model token limit: 262144",
    "Your request exceeded model token limit: 262144 (requested: 300000)",
    "Prompt exceeds max length",
    "Finish reason: model_context_window_exceeded",
    "The input (140000 tokens) is longer than the model's context length (131072 tokens).",
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. "
        "Given: 9000 `inputs` tokens and 10 `max_new_tokens`"
    ),
    "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
    "tokens to keep from the initial prompt is greater than the context length",
    (
        "Trying to keep the first 4096 tokens when context the overflows. However, the "
        "model is loaded with context length of only 2048 tokens, which is not enough."
    ),
    "prompt token count of 130000 exceeds the limit of 128000",
    "Request body too large for gpt-4o model. Max size: 8000 tokens.",
    "Request body too large for gpt-4.1-mini model. Max size: 8000 tokens.",
    "Prompt has 70000 tokens, but the configured context size is 65536 tokens",
    "Range of input length should be [1, 129024]",
    "context length exceeded",
    "context_length_exceeded",
    "Request has too many tokens",
    "token limit exceeded for this model",
    (
        "Input tokens exceed the configured limit of 272000 tokens. Your messages "
        "resulted in 300000 tokens."
    ),
    "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
    (
        "Unable to submit request because the input token count is 40000 but model only "
        "supports up to 32768. Reduce the input token count and try again."
    ),
    (
        "Please reduce the length of the messages or completion. Current length is "
        "140000 while limit is 131072"
    ),
    (
        "Prompt contains 140000 tokens and 0 draft tokens, too large for model with "
        "131072 maximum context length"
    ),
    "prompt too long; exceeded max context length by 5000 tokens",
    "the request exceeds the available context size, try increasing it",
    "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "prompt is too long: 213462 tokens > 200000 maximum",
    (
        "input length and `max_tokens` exceed context limit: 199000 + 21333 > 200000, "
        "decrease input length or `max_tokens` and try again"
    ),
    "Input is too long for requested model.",
    (
        "The estimated number of input and maximum output tokens (9000) exceeded this "
        "model context window limit (8192)."
    ),
    (
        "The decoder prompt (length 9000) is longer than the maximum model length of "
        "8192. Make sure that `max_model_len` is no smaller"
    ),
    "Requested token count exceeds the model's maximum context length of 8192 tokens.",
    "Input length 300000 exceeds the maximum allowed input length of 262144 tokens.",
    "length of prompt_tokens (40000) must be less than max_seq_len (32768).",
    (
        "too many tokens: total number of tokens in the prompt exceeds the limit of "
        "4081. Try using shorter or fewer inputs"
    ),
    "too many tokens: size limit exceeded by 7326 tokens. Try using shorter or fewer inputs.",
    "Total tokens of image and text exceed max message tokens",
    (
        "This endpoint's maximum context length is 200000 tokens. However, you requested "
        "about 250000 tokens."
    ),
    "Context size has been exceeded.",
    "Input Tokens Exceeded: Number of input tokens exceeds maximum length",
    "The number of tokens in the prompt exceeds the model's maximum of 8192",
    "Prompt tokens exceed the maximum",
    (
        "You passed 9001 input tokens and requested 0 output tokens. However, the "
        "model's context length is only 8192 tokens"
    ),
    "Requested tokens (2084) exceed context window of 2048",
    "prompt length 9000 exceeds max_seq_len 8192",
    "Reached context length of 4096 tokens with this model",
    "Prompt token count 9000 exceeds the model limit",
    "This model's maximum context length is 8192 tokens",
    "Number of tokens in prompt exceeds context window",
    "Please reduce your prompt; or completion length. maximum context length is 4097",
    "The model has a maximum context window of 8k",
    "Input exceeds maximum context size",
]
"""Messages of OpenAI, Anthropic, Google, xAI, MiniMax, Kimi, Z.ai, Together, LM Studio, GitHub,
Azure, Mistral, Groq, Alibaba, Cohere, AWS, Volcengine, Cloudflare, vLLM, TGI, llama.cpp, Ollama."""

OTHERS = [
    (
        "Request too large for model `m` in organization `o` on tokens per minute (TPM): "
        "Limit 6000, Requested 9000"
    ),
    "Too many tokens, please wait before trying again.",
    "Daily token limit exceeded",
    "max_tokens is too large: 9. This model supports at most 8 completion tokens.",
    "'context' is not a valid field",
    "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576",
    "Request exceeds the maximum size",
    "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens",
    "You exceeded your current quota",
    "Rate limit reached for input tokens per minute",
    "max_completion_tokens exceeds the limit of 8192",
    "image exceeds 5 MB maximum",
    "This request would exceed your organization's rate limit of 30,000 input tokens per minute",
    "The number of stop sequences exceeds the limit of 4",
    "Array too long. Expected an array with maximum length 128",
    "number of prompt tokens per minute exceeded",
    (
        "This request would exceed the rate limit for your organization of 40,000 input "
        "tokens per minute"
    ),
]
"""Messages with similar words that mean something else."""

CODES = [
    "1261",
    "context_length_exceeded",
    "exceed_context_size_error",
    "model_max_prompt_tokens_exceeded",
    "tokens_limit_reached",
]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("message", OVERFLOWS)
def test_an_overflow_is_found_by_its_words(message: str, status: int) -> None:
    """The status does not matter, nor does the form of the body."""
    bodies: list[object] = [
        {"error": {"message": message, "type": "invalid_request_error", "code": None}},
        {"code": "Client specified an invalid argument", "error": message},
        {"object": "error", "message": message},
    ]
    for body in bodies:
        error = provider_failure(status or 200, {}, json.dumps(body).encode())
        assert error.reason == "CONTEXT_LENGTH_EXCEEDED"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", CODES)
def test_an_overflow_is_found_by_its_code(code: str, status: int) -> None:
    """A 413 with such a code is no limit of bytes."""
    reason = classify(status, code, "", "No.")
    assert reason == ErrorReason.CONTEXT_LENGTH_EXCEEDED


@pytest.mark.parametrize("status", [*STATUSES, 429])
@pytest.mark.parametrize("message", OTHERS)
def test_other_limits_are_no_overflow(message: str, status: int) -> None:
    """Limits of rates, of single fields and of the answer are not the context's."""
    reason = classify(status, "", "", message)
    assert reason != ErrorReason.CONTEXT_LENGTH_EXCEEDED
