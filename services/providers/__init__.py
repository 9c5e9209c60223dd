"""Providers: translation between the domain and each provider's dialect, and the HTTP calls.

Modules, in the order in which data flows:

    registry              the dialects by name
    base                  interface of a dialect: `encode`, a decoder, `error`, all without I/O
    usual_api             credentials and errors as most providers have them
    translate             parts of requests that dialects share
    openai                dialect of OpenAI's chat completions
    openai_responses      dialect of OpenAI's Responses
    openrouter            dialect of OpenRouter, derived from OpenAI's
    anthropic             dialect of Anthropic's Messages API
    embeddings            dialects of embeddings
    fault_location        paths of objects that a dialect refuses
    supported_parameters  parameters that a model honours, for lists of models
    count_endpoints       endpoints that count the tokens of prompts
    raw_lane              requests and answers that pass as they are
    raw_reading           members and words of the bodies of such requests
    raw_call              one such request, translated where that is needed
    upstream              client of the providers: sends requests, and returns their answers
    answer_bodies         bodies of answers: their beginnings, documents, and error bodies
    request_heads         heads of requests, kept with their target
    timeouts              deadlines of one call
    transport_errors      errors for failures of the transport, and for timeouts
    http                  HTTP/1.1 client
    connection_check      connections to all channels, for `pomogator check --connect`
    stream_reader         bytes of a stream as events, with a fast path for those that repeat
    sse_parser            bytes of a stream as server-sent events
    raw_stream            bytes of a stream that passes as it is
    raw_answer            answers that pass as they are, of which little is read
    document_decoder      answers that are never streams
    unusable_answers      errors for answers that cannot be used
    surrogate_joiner      halves of surrogate pairs in an answer, joined or replaced
    tool_call_ids         IDs of tool calls where a provider gives none, or one twice
    finish_reasons        providers' words for the end of an answer
    errors_in_answers     errors in an answer with status 200
    failures              classification of providers' errors
    failure_rules         tables of statuses, codes and phrases
    overflow_phrases      phrases for a conversation that is longer than the context
    retry_delay           delay that a provider asks for, in headers or in words
    channel_failures      the last failure of each target, and causes in the log

A provider that speaks an existing dialect needs no code, only configuration: a `[[channels]]`
entry with its address, its models and, where it departs from the dialect, `quirks`.

To add a dialect:

1. Make a folder here with `request.py`, which turns a `ChatCompletionSpec` into an
   `UpstreamRequest`. `parameters.accepted` and `thinking.plan` decide what is sent.
2. In `response.py` write a `Decoder`: it returns deltas at once and endings only in `finish`, and
   decodes a whole answer to what the fold of its stream would be. For speed it may also be a
   `base.RepeatedTextDecoder`.
3. In `__init__.py` tie both to a `DIALECT`. `failures.provider_failure` makes its errors.
4. Add a line to `registry.DIALECTS`.
5. Add rows for its models to `capabilities.toml` where they differ from the default.
6. Write small cases under `tests/services/providers/<dialect>/`.
"""
