"""Chat request: a decoded request, and the options of its answer.

Simple requests, whose messages are texts and whose parameters are the most usual ones, are decoded
here in one step. One typed pass over the JSON replaces the field-by-field decoding of
`gateway.surfaces.openai_chat.decode`, at a quarter of the cost (6 µs for 1 KB instead of 25). A
request of any other shape, or with a fault, is left to that module, which explains the fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple

from gateway.surfaces.openai_chat.messages import MESSAGES_MAX
from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT, THINKING_SUFFIX
from services.common.json_errors import NOT_JSON
from services.domain.completion import Completion
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec

# A client that asks for JSON parses the content, as `.parse()` of the SDKs does: it must be a
# string.
_JSON_FORMATS = frozenset({"json_object", "json_schema"})


class ChatRequest(Struct, frozen=True, kw_only=True):
    """A request for a chat completion: what to generate, and the options of its answer."""

    spec: ChatCompletionSpec
    raw: None = None
    texts: Sequence[str] | None = None
    """Texts of the messages of a simple request."""
    stream: bool = False
    include_usage: bool = False
    """Whether the stream ends with the usage."""
    include_cost: bool = False
    """Whether the usage includes the cost."""
    functions: bool = False
    """Whether the answer has function calls in OpenAI's old form, from before there were tools."""
    names_provider: bool = False
    """Whether the request has OpenRouter's form, whose answers name a provider."""
    text_only: bool = False
    """Whether the content must be a string, since typed code of the SDKs takes nothing else."""

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:
        """Render a whole answer. For a `-thinking` model its content is thinking and text.

        The answer's headers, too, may say that the content must be a string.
        """
        thinking = self.spec.model.endswith(THINKING_SUFFIX) and not (
            self.text_only or headers.get(CONTENT_HEADER) == TEXT_CONTENT or _asks_json(self.spec)
        )
        return render_completion(
            completion,
            thinking_parts=thinking,
            include_cost=self.include_cost,
            functions=self.functions,
            names_provider=self.names_provider,
        )

    def stream_renderer(self) -> ChunkRenderer:
        """Return the renderer of the stream."""
        return ChunkRenderer(
            include_usage=self.include_usage,
            include_cost=self.include_cost,
            functions=self.functions,
            names_provider=self.names_provider,
        )


def _asks_json(spec: ChatCompletionSpec) -> bool:
    asked = spec.response_format
    return asked is not None and asked.type in _JSON_FORMATS


_Int32 = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool


class _Body(Struct, forbid_unknown_fields=True):
    """Body of a simple request. The names are OpenAI's."""

    model: str
    messages: Annotated[list[_Message], Meta(max_length=MESSAGES_MAX)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Int32 | None = None
    max_completion_tokens: _Int32 | None = None
    temperature: float | None = None
    top_p: float | None = None


_DECODER = msgspec.json.Decoder(_Body)
_FIELDS = len(_Body.__struct_fields__)


def read_simple(body: bytes) -> ChatRequest | None:
    """Return the request in `body` if it is simple and without a fault, else None."""
    try:
        read = _DECODER.decode(body)
    except NOT_JSON:
        return None
    options, limit, streams = read.stream_options, read.max_tokens, read.stream is True
    if options is not None and not streams:
        return None
    if read.max_completion_tokens is not None:
        if limit is not None and limit != read.max_completion_tokens:
            return None
        limit = read.max_completion_tokens
    # The decoder accepts a repeated key: valid JSON has a colon outside of strings for each member.
    members = _FIELDS - astuple(read).count(None) + 2 * len(read.messages) + (options is not None)
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    if b"".join(plain.split(b'"')[::2]).count(b":") != members:
        return None
    spec = ChatCompletionSpec(
        model=read.model,
        messages=[
            Message(role=message.role, content=[TextPart(text=message.content)])
            for message in read.messages
        ],
        max_tokens=limit,
        temperature=read.temperature,
        top_p=read.top_p,
    )
    return ChatRequest(
        spec=spec,
        texts=[message.content for message in read.messages],
        stream=streams,
        include_usage=options is not None and options.include_usage,
    )
