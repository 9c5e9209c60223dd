"""Surface: one inbound API, as the seam between its own JSON and the code that all APIs share.

A surface is a folder with one `Surface`, and a line in `gateway.surfaces`. It translates, without
I/O: bytes to a request, answers and errors to bytes. `gateway.surfaces.completion_handler` does the
rest for all of them: admission, bodies, deadlines, calls, streams that stay alive, failures in the
middle of a stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.credentials import BEARER_ONLY
from gateway.http.error_answer import ErrorAnswer, render_openai_error
from services.common.off_loop import OFF_LOOP_BYTES, off_loop
from services.domain.completion import Completion
from services.domain.events import Event
from services.domain.model import Model
from services.domain.prompt_count import PromptCountRequest
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec

_NO_NAMES: Mapping[str, str] = {}


class Route(NamedTuple):
    """A method and a literal path of an inbound API."""

    method: str
    path: str


class Framing(NamedTuple):
    """The bytes of a stream around its events."""

    keep_alive: bytes = b": keep-alive\n\n"
    """Sent into every silence."""
    end: bytes = b""
    """Sent after the last event."""


class StreamRenderer(Protocol):
    """Renderer of one stream, in order. Each result is any number of whole server-sent events."""

    started: bool
    """Whether `Started` was rendered."""
    finished: bool
    """Whether `Finished` was rendered."""

    def render(self, events: Sequence[Event], /) -> bytes:
        """Render the events of one batch."""

    def error(self, error: ApiError, /) -> bytes:
        """Render the failure of a stream that has begun. It is the last call."""


class SurfaceRequest(Protocol):
    """A decoded request: the completion to generate, and how to render it."""

    @property
    def spec(self) -> ChatCompletionSpec:
        """The completion to generate."""

    @property
    def raw(self) -> RawRequest | None:
        """The request as it came, where the service may pass it on; the spec may lack the rest."""

    @property
    def texts(self) -> Sequence[str] | None:
        """Texts of the messages, where the request is known to be plain. None: it is not."""

    @property
    def stream(self) -> bool:
        """Whether the answer is a stream."""

    def render(self, completion: Completion, headers: Mapping[str, str], /) -> bytes:
        """Render a whole answer as JSON. `headers` are those that the service gave it."""

    def stream_renderer(self) -> StreamRenderer:
        """Return the renderer of the request's stream."""


class ModelsForm(Protocol):
    """The models that a key may use, in the form of one API."""

    def render_list(self, models: Sequence[Model], query: MultiMapping[str], /) -> bytes:
        """Render the list, or the page of it that the query asks for.

        Raises ApiError: the query is wrong.
        """

    def render_model(self, model: Model, /) -> bytes:
        """Render one of them."""


class InboundApi:
    """One inbound API: its routes, credential headers and errors."""

    name: str
    """Name of the API in the call log: one of `services.common.call_names.SURFACES`."""
    routes: Sequence[Route]
    """The routes of its main requests."""
    credential_headers: Sequence[str] = BEARER_ONLY
    """The headers that may carry the key; the first of them that a request has counts."""

    def check_headers(self, headers: MultiMapping[str]) -> None:
        """Refuse a request by the headers of this API, before its body is read.

        Raises ApiError: a header has a wrong value.
        """

    def render_error(self, error: ApiError, request_id: str) -> ErrorAnswer:
        """Render a failure before anything was sent, also of another method at a route's path.

        The default is OpenAI's form: `{"error": {"message", "type", "param", "code"}}`.
        """
        return render_openai_error(error, request_id)


class Surface(InboundApi, ABC):
    """One inbound API for completions. The object has no state: it serves all requests."""

    count_routes: Sequence[Route] = ()
    """The routes of requests for the number of a prompt's tokens."""
    counts_prompt: bool = False
    """Whether a stream begins with the usage of its prompt."""
    loop_bytes_max: int = OFF_LOOP_BYTES
    """The largest body that is decoded on the loop."""
    framing: Framing = Framing()
    """The bytes of a stream around its events."""
    request_id_header: str = ""
    """A further header of every answer with the ID of its request. Empty: none."""
    marker_header: str = ""
    """A header that only clients of this API send: its form of errors is theirs at every path.
    Empty: none."""

    field_names: Mapping[str, str] = _NO_NAMES
    """Names of fields of the request in this API, by those of the contract, where they differ."""
    models_form: ModelsForm | None = None
    """The form of models for clients that send `marker_header`. None: OpenAI's."""

    def begins_failed(self, headers: MultiMapping[str], error: ApiError) -> bool:  # noqa: ARG002
        """Return whether a stream that fails before it begins is a stream all the same."""
        return False

    @abstractmethod
    def decode(self, body: bytes, headers: MultiMapping[str], config: EdgeConfig) -> SurfaceRequest:
        """Decode a request, whatever the bytes.

        Raises ApiError: it is not one of this API. The status is 4xx.
        """

    async def decode_large(
        self, body: bytes, headers: MultiMapping[str], config: EdgeConfig
    ) -> SurfaceRequest:
        """Decode a request of more than `loop_bytes_max` in the same way, off the loop."""
        return await off_loop(len(body), self.decode, body, headers, config)

    def decode_prompt(
        self, body: bytes, headers: MultiMapping[str], config: EdgeConfig
    ) -> PromptCountRequest:
        """Decode a request of `count_routes`. Raises ApiError: it is not one. The status is 4xx."""
        raise NotImplementedError

    def render_count(self, tokens: int) -> bytes:
        """Render the answer to such a request."""
        raise NotImplementedError
