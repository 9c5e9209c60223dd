"""Decoder of answers of OpenAI-compatible providers, whole or streamed.

Both forms use the same code: a whole answer is one chunk with messages instead of deltas. The
differences between providers are in the tables here and in the other modules of this package; the
decoder keeps the order of events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import usage_pb2

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.base import Chunks, SseEvent
from services.providers.failures import provider_failure, read_error
from services.providers.finish_reasons import finish_reason, raise_if_failure
from services.providers.openai import wire
from services.providers.openai.extras import gather
from services.providers.openai.reasoning import Detail, Reasoning
from services.providers.openai.tool_calls import ToolCalls
from services.providers.openai.usage import normalized
from services.providers.repeated_frame import RepeatedTextDecoder
from services.providers.sse_parser import DONE

CHOICES_MAX = 128
"""Upper bound of a plausible choice index: requests cannot ask for more choices."""

StatePacker = Callable[[list[Detail]], str]
"""Function that packs `reasoning_details` into the reasoning state, which callers send back."""


class _ChoiceState:
    """State of one choice."""

    def __init__(self, index: int, seed: str) -> None:
        self.index = index
        self.tool_calls = ToolCalls(f"{seed}/{index}")
        self.reasoning = Reasoning()
        self.finish_reason = ""
        self.native_finish_reason = ""
        self.ended = False
        """Whether a finish reason was received, and nothing more of the answer after it."""
        self.reopened = False
        """Whether more of the answer came after a finish reason."""
        self.extra: dict[str, object] = {}

    def reopen(self) -> None:
        """Take note of more of the answer after a finish reason, which was not the last then."""
        self.ended = False
        self.reopened = True

    def end(self, word: str, native: str | None) -> None:
        """Take note of a finish reason. The first one counts, unless more came after it.

        Raises UpstreamError if the provider says that it failed.
        """
        raise_if_failure(word)
        self.ended = True
        if not self.finish_reason or self.reopened:
            self.finish_reason = word
            self.native_finish_reason = native or word


class OpenAiDecoder(RepeatedTextDecoder):
    """Decoder of one answer. See `services.providers.base.Decoder`.

    Without `pack_state` the answer has no reasoning state: the provider does not need it back.
    """

    def __init__(self, pack_state: StatePacker | None = None) -> None:
        self._pack_state = pack_state
        self._choices: dict[int, _ChoiceState] = {}
        self._usage: usage_pb2.Usage | None = None
        self._service_tier = ""
        self._done = False
        self._in_text = False  # Whether the first choice has begun and has not ended.

    @property
    def done(self) -> bool:
        """Whether `[DONE]` has been received."""
        return self._done

    @property
    def usage(self) -> usage_pb2.Usage | None:
        """The last reported usage."""
        return self._usage

    def feed(self, event: SseEvent) -> list[pb.ChatCompletionChunk]:
        """Decode one event. Events after `[DONE]` are ignored."""
        data = event.data
        self.last_text = ""
        if self._done or event.name == "error" or not data.startswith(b"{"):
            return self._feed_other(event)
        chunk = wire.decode(data)
        text = chunk.text()
        if text and self._in_text:
            self.last_text = text
            return [_text(text, 0)]
        return self._take(chunk, data)

    def add_texts(self, texts: Sequence[str], chunks: Chunks) -> None:
        """Add chunks for further text of the first choice."""
        if not self._in_text:
            self._choices[0].reopen()
            self._in_text = True
        add = chunks.add
        for text in texts:
            if text:
                add().delta.text = text

    def finish(self) -> list[pb.ChatCompletionChunk]:
        """End the stream.

        Raises UPSTREAM_DISCONNECTED where neither `[DONE]` nor a finish reason of each choice has
        been received.
        """
        if not self._choices and not self._done:
            raise wire.unreadable()
        answers = self._choices.values()
        if not answers or not (self._done or all(answer.ended for answer in answers)):
            raise UpstreamError(
                ErrorReason.UPSTREAM_DISCONNECTED,
                "The provider's answer broke off.",
            )
        return self._endings()

    def whole(self, body: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode a JSON body, which may begin with white space."""
        data = body.strip()
        found = wire.decode(data)
        chunks = self._take(found, data, whole=True)
        if not found.choices:
            raise _error_in_answer(data) if read_error(data).message else wire.unreadable()
        return chunks + self._endings()

    def _feed_other(self, event: SseEvent) -> list[pb.ChatCompletionChunk]:
        data = event.data.strip()
        if self._done or not data:
            return []
        if data == DONE:
            self._done = True
            return []
        if event.name == "error":
            raise _error_in_answer(data)
        return self._take(wire.decode(data), data)

    def _take(
        self, chunk: wire.Chunk, data: bytes, *, whole: bool = False
    ) -> list[pb.ChatCompletionChunk]:
        if chunk.usage is not None:
            self._count(chunk.usage)
        if chunk.x_groq is not None:
            self._take_groq(chunk.x_groq)
        if error := wire.present(chunk.error):
            raise _error_in_answer(data if chunk.choices is None else error)
        if chunk.service_tier:
            self._service_tier = chunk.service_tier
        if not chunk.choices:
            if "error" in (chunk.object, chunk.type):
                raise _error_in_answer(data)
            return []
        chunks: list[pb.ChatCompletionChunk] = []
        for choice in chunk.choices:
            # Perplexity sends both: in a stream the message repeats all deltas so far.
            first, second = choice.delta, choice.message
            message = (second or first) if whole else (first or second)
            self._take_choice(choice, message, chunk.id or "", chunks, whole=whole)
        return chunks

    def _take_groq(self, extras: wire.GroqExtras) -> None:
        if extras.usage is not None:
            self._count(extras.usage)
        if error := wire.present(extras.error):
            raise _error_in_answer(error)

    def _take_choice(
        self,
        choice: wire.Choice,
        message: wire.Message | None,
        seed: str,
        chunks: list[pb.ChatCompletionChunk],
        *,
        whole: bool,
    ) -> None:
        index = choice.index or 0
        answer = self._choices.get(index)
        if answer is None:
            answer = self._new_choice(index, seed)
        if choice.usage is not None:
            self._count(choice.usage)
        if error := wire.present(choice.error):
            raise _error_in_answer(error)
        if message is not None:
            begin = len(chunks)
            _add_message(message, answer, chunks, whole=whole)
            if choice.logprobs is not None:
                _add_logprobs(choice.logprobs, answer, chunks, begin)
            if answer.ended and (len(chunks) > begin or message.tool_calls):
                answer.reopen()
        if choice.finish_reason:
            answer.end(choice.finish_reason, choice.native_finish_reason)
        if index == 0:
            self._in_text = not answer.ended

    def _new_choice(self, index: int, seed: str) -> _ChoiceState:
        if not 0 <= index < CHOICES_MAX:
            raise wire.unreadable()
        answer = self._choices[index] = _ChoiceState(index, seed)
        return answer

    def _count(self, found: wire.Usage) -> None:
        self._usage = normalized(found) or self._usage

    def _endings(self) -> list[pb.ChatCompletionChunk]:
        answers = [self._choices[index] for index in sorted(self._choices)]
        chunks = [chunk for answer in answers for chunk in self._remaining(answer)]
        chunks += [_choice_finished(answer) for answer in answers]
        last = pb.ChatCompletionChunk()
        finished = last.finished
        finished.SetInParent()
        if self._usage is not None:
            finished.usage.CopyFrom(self._usage)
        if self._service_tier:
            finished.service_tier = self._service_tier
        return [*chunks, last]

    def _remaining(self, answer: _ChoiceState) -> Iterator[pb.ChatCompletionChunk]:
        """Chunks that are returned only when the choice is complete."""
        for call in answer.tool_calls.rest():
            yield _delta(pb.CompletionDelta(index=answer.index, tool_call=call))
        details, pack = answer.reasoning.details, self._pack_state
        if pack is not None and details and (state := pack(details)):
            yield _delta(pb.CompletionDelta(index=answer.index, reasoning_state=state))
        if answer.extra:
            extra = msgspec.json.encode(answer.extra)
            yield _delta(pb.CompletionDelta(index=answer.index, extra_json=extra))


def _error_in_answer(error: bytes) -> UpstreamError:
    """Error that a provider reports in an answer with status 200."""
    return provider_failure(200, {}, error, own_error=False)


def _add_message(
    message: wire.Message,
    answer: _ChoiceState,
    chunks: list[pb.ChatCompletionChunk],
    *,
    whole: bool,
) -> None:
    """Add the chunks of a message or a delta: reasoning first, as it was generated first."""
    index = answer.index
    if reasoning := answer.reasoning.add(message):
        chunks.append(_delta(pb.CompletionDelta(index=index, reasoning=reasoning)))
    content = message.content
    if isinstance(content, str):
        if content:
            chunks.append(_text(content, index))
    elif content is not None:
        chunks += _parts(content, index)
    if message.refusal:
        chunks.append(_delta(pb.CompletionDelta(index=index, refusal=message.refusal)))
    for piece in message.tool_calls or ():
        for call in answer.tool_calls.add(piece, whole=whole):
            chunks.append(_delta(pb.CompletionDelta(index=index, tool_call=call)))
    gather(message, answer.extra)


def _parts(content: list[wire.ContentPart | str], index: int) -> Iterator[pb.ChatCompletionChunk]:
    """Chunks of a content array, in its order."""
    for item in content:
        part = wire.ContentPart(text=item) if isinstance(item, str) else item
        if reasoning := _flat(part.thinking):
            yield _delta(pb.CompletionDelta(index=index, reasoning=reasoning))
        if part.text:
            yield _delta(pb.CompletionDelta(index=index, text=part.text))
        if part.refusal:
            yield _delta(pb.CompletionDelta(index=index, refusal=part.refusal))


def _flat(thinking: str | list[wire.ContentPart | str] | None) -> str:
    if thinking is None or isinstance(thinking, str):
        return thinking or ""
    return "".join(part if isinstance(part, str) else part.text or "" for part in thinking)


def _add_logprobs(
    logprobs: wire.Logprobs, answer: _ChoiceState, chunks: list[pb.ChatCompletionChunk], begin: int
) -> None:
    """Attach log probabilities to the text in the same delta, or to a chunk without text."""
    if not logprobs.content and not logprobs.refusal:
        return
    texts = (chunk for chunk in chunks[begin:] if chunk.delta.WhichOneof("content") == "text")
    chunk = next(texts, None)
    if chunk is None:
        chunk = _text("", answer.index)
        chunks.append(chunk)
    chunk.delta.logprobs_json = msgspec.json.encode(logprobs)


def _choice_finished(answer: _ChoiceState) -> pb.ChatCompletionChunk:
    chunk = pb.ChatCompletionChunk()
    finished = chunk.choice_finished
    finished.index = answer.index
    finished.finish_reason = finish_reason(answer.finish_reason)
    finished.native_finish_reason = answer.native_finish_reason
    return chunk


def _text(text: str, index: int) -> pb.ChatCompletionChunk:
    chunk = pb.ChatCompletionChunk()  # Arguments would take three times as long.
    delta = chunk.delta
    delta.text = text
    if index:
        delta.index = index
    return chunk


def _delta(delta: pb.CompletionDelta) -> pb.ChatCompletionChunk:
    return pb.ChatCompletionChunk(delta=delta)
