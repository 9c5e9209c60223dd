"""Chunk renderer: the events of a stream as OpenAI's `chat.completion.chunk` objects.

The objects of a stream differ in little: their common parts are encoded once, and each piece of
text is put between two constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_args

import msgspec

from gateway.errors import ApiError
from gateway.surfaces.openai_chat.common_members import (
    FINISH_REASONS,
    STOP,
    extra_content,
    function_call,
    render_usage,
)
from gateway.surfaces.other_members import one_line, with_others
from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Delta,
    Event,
    ExtraDelta,
    Finished,
    RawContent,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage

_encode = msgspec.json.Encoder().encode
_FUNCTION = ("function", "arguments")
_CUSTOM = ("custom", "input")
_BRACKETS = ("],[",)
_IDENTITY = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
_ROLE = b'"role":"assistant","content":"","refusal":null'


class ChunkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the chunks of an answer."""

    include_usage: bool = False
    """Whether the stream ends with the usage."""
    include_cost: bool = False
    """Whether the usage includes the cost."""
    functions: bool = False
    """Whether the answer has function calls in OpenAI's old form, from before there were tools."""
    names_provider: bool = False
    """Whether the request has OpenRouter's form, whose answers name a provider."""

    def stream_renderer(self) -> ChunkRenderer:
        """Return the renderer of a stream."""
        return ChunkRenderer(
            include_usage=self.include_usage,
            include_cost=self.include_cost,
            functions=self.functions,
            names_provider=self.names_provider,
        )


class ChunkRenderer(msgspec.Struct, eq=False, kw_only=True):
    """Renderer of one stream, in order. Each result is whole server-sent events.

    See `ChunkOptions`, and `render_whole.render_completion` for `names_provider`.
    """

    include_usage: bool
    include_cost: bool = False
    functions: bool = False
    names_provider: bool = False
    started: bool = False
    """Whether the completion's id is known, which all chunks carry."""
    finished: bool = False
    _custom_calls: set[tuple[int, int]] = msgspec.field(default_factory=set)
    _introduced: set[int] = msgspec.field(default_factory=set)
    """The choices whose role was sent: none, or the first and any others."""
    _provider: bytes = b""
    _fingerprint: bytes = b""
    _tier: bytes = b""
    _identity: bytes = _IDENTITY % (b'""', 0, b'""')
    # Parts of chunks, which `_set_head` makes.
    _head: bytes = b""
    _choice: bytes = b""
    _first_text: bytes = b""
    _usage: bytes = b""
    _delta_end: bytes = b""

    def render(self, events: Sequence[Event]) -> bytes:
        """Render the events of one batch."""
        introduced = self._introduced
        if len(events) == 1 and 0 in introduced:
            event = events[0]
            if type(event) is TextDelta and not event.index and not event.logprobs_json:
                return self._first_text + _encode(event.text) + self._delta_end
        last = events[-1] if events else None
        if type(last) is Finished:
            self.finished, events, tier = True, events[:-1], last.service_tier
            self._tier = b',"service_tier":' + _encode(tier) if tier else b""
        out: list[bytes] = []
        texts: list[tuple[str]] = []
        for event in events:
            if type(event) is TextDelta and not event.index and not event.logprobs_json:
                texts.append((event.text,))
                continue
            if texts:
                self._texts(texts, out)
                texts = []
            self._RENDERERS[type(event)](self, event, out)
        if texts:
            self._texts(texts, out)
        elif 0 not in introduced and (self.started or self.finished):
            self._introduce(0, out)
        if self.include_usage and type(last) is Finished:
            self._usage_event(last, out)
        return b"".join(out)

    def _started(self, started: Started, _out: list[bytes]) -> None:
        self.started = True
        if self.names_provider:
            self._provider = _provider(_encode(started.model.partition("/")[0]))
        self._identity = _IDENTITY % (
            _encode(started.completion_id),
            started.create_time_s,
            _encode(started.model),
        )
        self._set_head()

    def _texts(self, texts: list[tuple[str]], out: list[bytes]) -> None:
        """Render one event for each piece of text of the first choice.

        All pieces are encoded at once, as `[["a"],["b"]]`. The sequence `"],["` is between two
        pieces and nowhere else, with two exceptions: a piece that is `],[` itself, and one that
        ends with `"],[`, whose quote has a backslash before it.
        """
        if 0 not in self._introduced:
            self._introduce(0, out)
        begin, end = self._first_text, self._delta_end
        encoded = _encode(texts)[2:-2]
        if len(texts) > 1:
            if _BRACKETS in texts or b'\\"],["' in encoded:
                out += [begin + _encode(text) + end for (text,) in texts]
                return
            encoded = encoded.replace(b'"],["', b'"' + end + begin + b'"')
        out.append(begin + encoded + end)

    def error(self, error: ApiError) -> bytes:
        """Render the failure of a stream that has begun, as an event with nothing but the error.

        With `id` and `choices` beside it, Vercel's `ai` 5 and 6 and async-openai read the event as
        an empty chunk, and take the part of the answer that came before for a whole one.
        """
        return b'data: {"error":%b}\n\n' % error.to_json()

    def _set_head(self) -> None:
        head = self._identity + self._provider + self._fingerprint
        if self.names_provider and not self._fingerprint:
            head += b'"system_fingerprint":null,'
        self._head = head
        self._choice = choice = head + b'"choices":[{"index":'
        self._first_text = choice + b'0,"delta":{"content":'
        self._usage = usage = b',"usage":null}\n\n' if self.include_usage else b"}\n\n"
        self._delta_end = b'},"finish_reason":null}]' + usage

    def _introduce(self, index: int, out: list[bytes]) -> None:
        """Send the role of a choice, after that of the first one."""
        if not self._head:
            self._set_head()
        if index and 0 not in self._introduced:
            self._introduce(0, out)
        self._introduced.add(index)
        out.append(b'%b%d,"delta":{%b%b' % (self._choice, index, _ROLE, self._delta_end))

    def _answer_members(self, members: AnswerMembers, out: list[bytes]) -> None:
        """Render members beside the choices, those of the first batch in the first chunk.

        All chunks carry the fingerprint, and the provider where it is named: some clients take
        those of the last one.
        """
        if members.system_fingerprint:
            self._fingerprint = b'"system_fingerprint":%b,' % _encode(members.system_fingerprint)
        found = _OBJECT.decode(members.extra_json or b"{}")
        if self.names_provider and "provider" in found:
            self._provider = _provider(one_line(bytes(found.pop("provider"))))
        self._set_head()
        if not found:
            return
        role = b"" if 0 in self._introduced else _ROLE
        self._introduced.add(0)
        others = one_line(_encode(found))[1:-1]
        out.append(
            b'%b0,"delta":{%b},"finish_reason":null}],%b%b'
            % (self._choice, role, others, self._usage)
        )

    def _delta(self, delta: Delta, out: list[bytes]) -> None:
        index = delta.index
        if index not in self._introduced:
            self._introduce(index, out)
        if type(delta) is ToolCallDelta:
            members = self._tool_call(index, delta)
        else:
            members = _MEMBERS[type(delta)](delta)
        if not delta.logprobs_json:
            out.append(b'%b%d,"delta":{%b%b' % (self._choice, index, members, self._delta_end))
            return
        logprobs = one_line(delta.logprobs_json)
        out.append(
            b'%b%d,"delta":{%b},"logprobs":%b,"finish_reason":null}]%b'
            % (self._choice, index, members, logprobs, self._usage)
        )

    def _tool_call(self, index: int, call: ToolCallDelta) -> bytes:
        if self.functions and not call.call_index:
            piece: dict[str, object] = {"name": call.name} if call.name else {}
            piece["arguments"] = call.arguments
            return b'"function_call":' + _encode(function_call(piece, call))
        place = (index, call.call_index)
        if call.type == "custom":
            self._custom_calls.add(place)
        kind, argument = _CUSTOM if place in self._custom_calls else _FUNCTION
        # The old form has one call: further ones are in the new form beside it.
        rendered: dict[str, object] = {"index": call.call_index - self.functions}
        if call.id:
            rendered |= {"id": call.id, "type": kind}
        named = {"name": call.name} if call.name else {}
        rendered[kind] = named | {argument: call.arguments}
        rendered |= extra_content(call)
        return b'"tool_calls":[%b]' % _encode(with_others(rendered, call.extra_json))

    def _choice_finished(self, choice: ChoiceFinished, out: list[bytes]) -> None:
        index = choice.index
        if index not in self._introduced:
            self._introduce(index, out)
        reason = FINISH_REASONS[self.functions].get(choice.finish_reason, STOP)
        out.append(b'%b%d,"delta":{},"finish_reason":"%b"' % (self._choice, index, reason.encode()))
        if choice.native_finish_reason:
            out.append(b',"native_finish_reason":' + _encode(choice.native_finish_reason))
        if choice.extra_json:
            out.append(b"," + one_line(choice.extra_json)[1:-1])
        out.append(b"}]" + self._tier + self._usage)

    def _usage_event(self, finished: Finished, out: list[bytes]) -> None:
        cost = finished.cost_nano_usd or 0 if self.include_cost else None
        out.append(
            b'%b"choices":[],"usage":%b%b}\n\n'
            % (
                self._head,
                _encode(render_usage(finished.usage or _NO_USAGE, cost)),
                self._tier,
            )
        )

    _RENDERERS: ClassVar[Mapping[type[Event], Callable[[Any, Any, list[bytes]], None]]] = {
        Started: _started,
        AnswerMembers: _answer_members,
        RawContent: lambda *_: None,  # Not of this API's requests.
        ChoiceFinished: _choice_finished,
        **dict.fromkeys(get_args(Delta), _delta),
    }


_NO_USAGE = Usage()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _provider(name: bytes) -> bytes:
    return b'"provider":%b,' % name


def _reasoning(delta: ReasoningDelta) -> bytes:
    """Return the members of reasoning: with OpenRouter's names, too, where it has their form."""
    text = _encode(delta.text)
    if not delta.details_json:
        return b'"reasoning_content":' + text
    details = b'"reasoning_details":' + one_line(delta.details_json)
    if not delta.text:
        return details
    return b'"reasoning_content":%b,"reasoning":%b,%b' % (text, text, details)


_MEMBERS: Mapping[type[Delta], Callable[[Any], bytes]] = {
    TextDelta: lambda delta: b'"content":' + _encode(delta.text),
    ReasoningDelta: _reasoning,
    RefusalDelta: lambda delta: b'"refusal":' + _encode(delta.text),
    ReasoningStateDelta: lambda delta: b'"reasoning_state":' + _encode(delta.state),
    ExtraDelta: lambda delta: one_line(delta.extra_json)[1:-1],
}
