"""Chat request: a decoded request, and how its answer is rendered."""

from __future__ import annotations

from msgspec import Struct
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.surfaces.base import RpcRequest
from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion
from services.common.chat_names import THINKING_SUFFIX

# A client that asks for JSON parses the content, as `.parse()` of the SDKs does: it must be a
# string.
_JSON_FORMATS = frozenset(
    {chat.RESPONSE_FORMAT_TYPE_JSON_OBJECT, chat.RESPONSE_FORMAT_TYPE_JSON_SCHEMA}
)


class ChatRequest(Struct, frozen=True, kw_only=True):
    """A request for a chat completion: the service's part, and the options of its answer."""

    rpc_request: RpcRequest
    include_usage: bool = False
    """Whether the stream ends with the usage."""
    include_cost: bool = False
    """Whether the usage includes the cost."""
    functions: bool = False
    """Whether the answer has function calls in OpenAI's old form, from before there were tools."""
    text_only: bool = False
    """Whether the content must be a string, since typed code of the SDKs takes nothing else."""

    @property
    def spec(self) -> chat.ChatCompletionSpec:
        """The service's part, without the parameter policy."""
        return self.rpc_request.spec

    @property
    def stream(self) -> bool:
        """Whether the answer is a stream."""
        return isinstance(self.rpc_request, chat.StreamChatCompletionRequest)

    def render(self, answer: chat.CreateChatCompletionResponse) -> bytes:
        """Render a whole answer."""
        return render_completion(
            answer,
            thinking_parts=not self.text_only and _promises_thinking(self.spec),
            include_cost=self.include_cost,
            functions=self.functions,
        )

    def stream_renderer(self) -> ChunkRenderer:
        """Return the renderer of the stream."""
        return ChunkRenderer(
            include_usage=self.include_usage,
            include_cost=self.include_cost,
            functions=self.functions,
        )


def _promises_thinking(spec: chat.ChatCompletionSpec) -> bool:
    """Whether the content of a whole answer is an array of thinking and text."""
    by_name = spec.model.endswith(THINKING_SUFFIX)
    return by_name and spec.response_format.type not in _JSON_FORMATS
