"""Encoder of text completions, OpenAI's older API: `POST /completions`.

Its answers differ in little from those of chat completions, whose decoder reads them, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.domain.conversation import TextPart
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.openai.pass_through import extra_fields, on_request, stream_options
from services.providers.openai.request import STOPS_MAX
from services.providers.translate import features, output_limits, parameters

PATH = "/completions"

NAMES: Mapping[str, str] = {
    name: name
    for name in (
        *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "seed", "stop", "logit_bias", "prompt_cache_key", "user", "n"),
    )
}
"""Parameters of the API, by the contract's names."""


def encode(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool
) -> UpstreamRequest:
    """Encode `spec`, whose only message has the prompt and what comes after the answer."""
    prompt, *after = [part.text for part in spec.messages[0].content if isinstance(part, TextPart)]
    body: dict[str, object] = {"model": target.model, "prompt": prompt}
    if after:
        body["suffix"] = after[0]
    if spec.text_completion is not None and spec.text_completion.echo:
        body["echo"] = True
    limit = output_limits.output_limit(spec, target, notes)
    if limit is None:
        limit = output_limits.forced_limit(target, 0, notes)
    if limit is not None:
        body["max_tokens"] = limit
    if spec.logprobs:
        features.require(target.capabilities.logprobs, "logprobs", "log probabilities")
        body["logprobs"] = spec.top_logprobs or 0
    body |= _parameters(spec, target, notes)
    options: dict[str, object] = {}
    if spec.extra_json:
        body |= extra_fields(spec, body, target, notes)
        options = stream_options(spec, target, notes, streamed=stream)
    body["stream"] = stream
    if stream and target.channel.quirks.stream_usage:
        options["include_usage"] = True
    if options:
        body["stream_options"] = options
    return UpstreamRequest(path=PATH, body=msgspec.json.encode(body), streamed=stream)


def _parameters(spec: ChatCompletionSpec, target: Target, notes: Notes) -> dict[str, object]:
    if len(spec.stop) > STOPS_MAX:
        notes.dropped("stop", f"The provider takes {STOPS_MAX} stop sequences: the first ones.")
    held = on_request(spec, target, notes)
    plain = msgspec.structs.replace(
        spec, stop=spec.stop[:STOPS_MAX], logprobs=None, top_logprobs=None
    )
    names = {name: theirs for name, theirs in NAMES.items() if name not in held}
    return parameters.accepted(plain, names, target, notes)
