"""The providers: our contract into their dialects and back, and the sockets in between.

    base          what a dialect is: `encode`, a decoder, `error`, all without I/O
    registry      the dialects by name
    upstream      the calls: the only code here that touches a socket
    stream        the bytes of a stream as chunks; refrain, what its events have in common
    sse           events from bytes
    failures      what providers' errors mean
    parameters, thinking, images, reasoning_state
                  what dialects have in common

A provider that speaks a dialect already is a row in the configuration: `[[channels]]`
with its address, its models and, where it departs from the dialect, `quirks`.

To add a dialect:

1. Make a folder here with `request.py`, which turns a `ChatCompletionSpec` into an
   `UpstreamRequest`: `parameters.accepted` and `thinking.plan` decide what is sent.
2. In `response.py` write a `Decoder`: deltas at once, endings only in `finish`. Its `text` may
   stay empty; where it says what an event said, events like it are read many at a time.
3. In `__init__.py` tie both to a `DIALECT`; `failures.provider_failure` makes its errors.
4. Name it in `registry.DIALECTS` and in `config.schema.DIALECTS`.
5. Add rows for its models to `capabilities.toml` where they differ from the default.
6. Write small cases under `tests/services/providers/<dialect>/`.
"""
