"""Providers' words for a conversation that is longer than the model's context."""

from __future__ import annotations

import json

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.failures import classify, provider_failure
from services.providers.registry import DIALECTS
from tests.nightly.fuzz import able

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
    (
        "The maximum context length of M-1 is 32768. However, answering your request will take "
        "39000 tokens. Please reduce the length of the messages."
    ),
    "The total length of all messages is too long.",
    "Prompt tokens too long",
    "prompt tokens too long, max tokens is 7168",
    "the max length of current question is 8000",
    "Prompt 超长",
    "输入内容过长",
    "输入内容超过模型最大长度限制",
    "输入长度超过模型上下文长度限制",
    "输入总长度超过了模型的上下文窗口",
    "上下文长度超出限制",
    "请求的tokens数超出模型最大限制",
    "token数量超过上限。对话历史+问题的字数太多",
    "the number of input tokens 9000 cannot exceed the total tokens limit 8192 for this model",
    "number of input tokens (83000) have exceeded max_prompt_tokens (65536) limit.",
    "Input length 203000 exceeds the maximum length 202752",
    "Input length (265000) exceeds model's maximum context length (262144).",
    "The prompt is too long: 40000, model maximum context length: 32767",
    "Input prompt (2600 tokens) is too long and exceeds limit of 2048/2560",
    "Prompt too long: 5100 tokens exceeds max_seq_len 2048 (leave room for output tokens)",
    "Too many input tokens",
    "Malformed input request: expected maxLength: 50000, actual: 60000, please try again.",
    "<400> InternalError.Algo.InvalidParameter: Total message token length exceed model limit",
    "Token indices sequence length is longer than the specified maximum sequence length (9 > 8)",
    "Total number of tokens exceeds model's limit",
    "tokens exceed the limit of context window",
    "Prompt length 9000 exceeds maximum allowed 8192",
    "Request contains too many tokens: 9000 > 8192",
    "Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)",
    "Conversation is too long for this model",
    "Context window is full",
    "The request exceeds the maximum number of tokens supported by the model",
    "Prompt length (9000) exceeds model context",
    "litellm.ContextWindowExceededError: No.",
]
"""Messages of OpenAI, Anthropic, Google, xAI, MiniMax, Kimi, Z.ai, Together, LM Studio, GitHub,
Azure, Mistral, Groq, Alibaba, Cohere, AWS, Volcengine, Cloudflare, SambaNova, Perplexity, Baidu,
SiliconFlow, Fireworks, vLLM, SGLang, TGI, llama.cpp, Ollama, and of proxies."""

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
    "ThrottlingException: Too many tokens per day, please wait before trying again.",
    (
        "Number of request tokens has exceeded your daily rate limit. Please reduce the prompt "
        "length or the maximum tokens requested, or try again later."
    ),
    "Requests have exceeded token rate limit of your current pricing tier of this model",
    "Quota exceeded for metric: free_tier_input_token_count, limit: 250000, model: m",
    "input token rate limit exceeded",
    "Input token quota exceeded",
    "Monthly token limit exceeded for this model",
    "output tokens exceed the maximum of the model",
    "The requested thinking tokens exceed the maximum of this model",
    "Max tokens (9000) exceeds the model's limit of 8192",
    "每日token数量超过上限",
    "max_tokens超过最大值",
    "输入参数 top_p 超出模型允许的范围",
    "上下文缓存数量超过上限",
    "logit_bias has tokens that exceed the model's vocabulary",
    "thinking.budget_tokens exceeds max_tokens",
    "prompt_cache_key is too long",
    "Invalid 'tool_call_id': string too long. Expected a string with maximum length 40",
    "您的账户已达到速率限制，当前模型的 tokens 超过每分钟限制",
    "并发超过模型限制，请稍后重试",
    "输入的图片大小超过模型限制",
    "max_tokens 参数超过模型最大输出长度限制",
    "余额不足，tokens 超过模型限额",
]
"""Messages with similar words that mean something else."""

CODES = [
    "1261",
    "336103",
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
        {"error_code": 17, "error_msg": message},
    ]
    for body in bodies:
        error = provider_failure(status or 200, {}, json.dumps(body).encode())
        assert error.reason == "CONTEXT_LENGTH_EXCEEDED"


@pytest.mark.parametrize("message", OVERFLOWS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_overflow_in_an_answer(dialect: str, message: str) -> None:
    """In the middle of a stream, and as a document with status 200."""
    failure = {"type": "error", "error": {"type": "api_error", "message": message}}
    body = json.dumps(failure).encode()
    for name in ("", "error"):
        with pytest.raises(UpstreamError) as streamed:
            DIALECTS[dialect].decoder(able(dialect)).feed(SseEvent(name, body))
        assert streamed.value.reason == "CONTEXT_LENGTH_EXCEEDED"
    with pytest.raises(UpstreamError) as whole:
        DIALECTS[dialect].decoder(able(dialect)).whole(body)
    assert whole.value.reason == "CONTEXT_LENGTH_EXCEEDED"


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
