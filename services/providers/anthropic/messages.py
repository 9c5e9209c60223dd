"""Conversation in the form of the Messages API.

System messages at the start move to `system`. Consecutive messages of one role become one turn.
Content that the API would refuse for its form alone (empty text, arguments that are not an object)
is converted to a form that it accepts. Order and IDs are legal already
(`services.providers.translate.history`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.common.reasoning_fragments import word
from services.domain.conversation import ImagePart, Message, TextPart, ToolCall
from services.errors import Failure, invalid
from services.providers.anthropic.cache_marks import mark_end
from services.providers.anthropic.parts import Json, contents, text_blocks
from services.providers.base import Notes, Target
from services.providers.translate import reasoning_details, reasoning_state
from services.providers.translate.features import require
from services.providers.translate.history.legal import LegalRequest
from services.providers.translate.raw_json import raw_object
from services.providers.translate.reasoning_details import ANTHROPIC_FORMAT

NAME = "anthropic"
"""The dialect's name in reasoning states."""

_SEALED = ("thinking", "redacted_thinking")
"""Types of blocks of reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of the conversation."""

    role: str
    """`user`, `assistant`, or `system` where the model takes that."""
    content: list[Json]
    """Content blocks, at least one."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """`system` and `messages` of a request."""

    target: Target
    notes: Notes
    original_ids: Mapping[str, str]
    """The caller's IDs of tool calls that have another one, by the latter."""
    system: list[Json] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    reasoned: set[int] = field(default_factory=set)
    """Indexes of the messages that begin with signed reasoning."""

    def add(self, role: str, blocks: Iterable[Json]) -> None:
        """Append to the last turn if it has the same role, else begin one.

        Results of tools come before the rest of their turn, as the API requires.
        """
        content = list(blocks)
        if not content:
            return
        if self.turns and self.turns[-1].role == role:
            turn = self.turns[-1].content
            if content[0]["type"] == "tool_result" and turn[-1]["type"] != "tool_result":
                results = sum(block["type"] == "tool_result" for block in turn)
                turn[results:results] = content
            else:
                turn.extend(content)
        else:
            self.turns.append(Turn(role=role, content=content))

    def add_instructions(self, message: Message) -> None:
        """Add instructions: to `system` before the first turn, else at their position."""
        blocks = _contents_without_images(message, self)
        mark_end(blocks, message.cache_control_json, self.notes)
        if self.turns:
            self.add("system", blocks)
        else:
            self.system.extend(blocks)

    @property
    def called_tools(self) -> list[str]:
        """The names of the tools that were called, each once, in order."""
        blocks = [block for turn in self.turns for block in turn.content]
        return list(dict.fromkeys(str(b["name"]) for b in blocks if b["type"] == "tool_use"))

    @property
    def is_prefilled(self) -> bool:
        """Whether the conversation ends with the beginning of the answer."""
        return bool(self.turns) and self.turns[-1].role == "assistant"


def conversation(request: LegalRequest, target: Target, notes: Notes) -> Conversation:
    """Convert the messages of a request to the API's form.

    Raises UNSUPPORTED_FEATURE for audio, for file types that the API does not take, and for a
    prefilled answer that the model does not take; INVALID_IMAGE; INVALID_FIELD for a reasoning
    state of another origin, and for messages that are all empty.
    """
    made = Conversation(target=target, notes=notes, original_ids=request.original_ids)
    names = {call.id: call.name for sent in request.spec.messages for call in sent.tool_calls}
    for index, message in enumerate(request.spec.messages):
        # The ID of a tool's result says which call it answers, and so the name of the tool.
        if message.name and message.name != names.get(message.tool_call_id):
            notes.dropped("messages", "The provider has no names of participants.")
        _note_misplaced(index, message, notes)
        if message.role in ("system", "developer"):
            made.add_instructions(message)
            continue
        role, read = _ROLES[message.role]
        blocks = read(message, made)
        mark_end(blocks, message.cache_control_json, notes)
        if blocks and blocks[0]["type"] in _SEALED:
            made.reasoned.add(index)
        made.add(role, blocks)
    if not made.turns:
        raise invalid("messages", "All messages are empty, and the provider wants one that is not.")
    _trim_prefill(made)
    return made


def _note_misplaced(index: int, message: Message, notes: Notes) -> None:
    """Note fields that have no meaning in a message of this role: they are not sent."""
    for name in _MISPLACED[message.role]:
        if getattr(message, name):
            param = f"messages[{index}].{name.removesuffix('_json')}"
            notes.dropped(param, f"A message of the role `{message.role}` has no such field.")


_OF_ASSISTANTS = ("tool_calls", "refusal", "reasoning_state", "reasoning_details_json")
_OF_TOOLS = ("tool_call_id", "is_error")
_MISPLACED: Mapping[str, Sequence[str]] = {
    "assistant": _OF_TOOLS,
    "tool": _OF_ASSISTANTS,
    "user": (*_OF_TOOLS, *_OF_ASSISTANTS),
    "system": (*_OF_TOOLS, *_OF_ASSISTANTS),
    "developer": (*_OF_TOOLS, *_OF_ASSISTANTS),
}


def _trim_prefill(made: Conversation) -> None:
    """Strip white space from the end of a prefilled answer, as the API requires.

    Raises UNSUPPORTED_FEATURE if the model takes no prefilled answer.
    """
    if not made.is_prefilled:
        return
    prefill = made.target.capabilities.prefill
    require(prefill, "messages", "a conversation that ends with the assistant's turn")
    last = made.turns[-1].content[-1]
    if last["type"] == "text" and (said := str(last["text"])) != said.rstrip():
        last["text"] = said.rstrip()
        made.notes.mapped("messages", "White space at the end of a prefilled answer is left out.")


def _user(message: Message, made: Conversation) -> list[Json]:
    return contents(message.content, made.target, made.notes)


def _tool(message: Message, made: Conversation) -> list[Json]:
    result: Json = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    content = contents(message.content, made.target, made.notes)
    for block in content:
        if mark := block.pop("cache_control", None):
            result["cache_control"] = mark
    if content:
        result["content"] = content
    if message.is_error:
        result["is_error"] = True
    return [result]


def _assistant(message: Message, made: Conversation) -> list[Json]:
    calls = [_tool_use(call, made.notes) for call in message.tool_calls]
    texts = _contents_without_images(message, made)
    if message.refusal.strip():
        texts.append({"type": "text", "text": message.refusal})
    state = reasoning_state.unpack(message.reasoning_state, NAME, made.notes)
    if not state:
        return [*_openrouter_reasoning(message, made.notes), *texts, *calls]
    return _interleaved(state, message, texts, _PendingCalls(calls, made.original_ids))


def _contents_without_images(message: Message, made: Conversation) -> list[Json]:
    """Blocks of a turn that is not the user's. Raises UNSUPPORTED_FEATURE for images."""
    has_image = any(isinstance(part, ImagePart) for part in message.content)
    require(not has_image, "messages", "images outside the user's turns")
    return contents(message.content, made.target, made.notes)


class _PendingCalls:
    """Tool calls of a message that are not in its turn yet."""

    def __init__(self, calls: list[Json], original_ids: Mapping[str, str]) -> None:
        self.rest = calls
        self._originals = original_ids

    def take(self, call_id: str) -> list[Json]:
        """Take the first call with this ID, by which the caller knows it. Empty: no call has it."""
        for index, call in enumerate(self.rest):
            sent = str(call["id"])
            if self._originals.get(sent, sent) == call_id:
                return [self.rest.pop(index)]
        return []


def _interleaved(
    state: Sequence[reasoning_state.Block],
    message: Message,
    texts: list[Json],
    calls: _PendingCalls,
) -> list[Json]:
    """The assistant's turn in its original order. Edited text is sent in its current form."""
    text = "".join(part.text for part in message.content if isinstance(part, TextPart))
    lengths = [block.length for block in state if isinstance(block, reasoning_state.Text)]
    plain = all(block.keys() == {"type", "text"} for block in texts)
    intact = plain and sum(lengths) == len(text)
    blocks: list[Json] = []
    at = 0
    for block in state:
        match block:
            case reasoning_state.Text(length) if intact:
                blocks += text_blocks(text[at : at + length])
                at += length
            case reasoning_state.Text():
                blocks += texts
                texts = []
            case reasoning_state.SealedCall(id):
                blocks += calls.take(id)
            case reasoning_state.Thought(thinking, signature):
                blocks.append({"type": "thinking", "thinking": thinking, "signature": signature})
            case reasoning_state.Redacted(data):
                blocks.append({"type": "redacted_thinking", "data": data})
    return [*blocks, *([] if intact else texts), *calls.rest]


def _openrouter_reasoning(message: Message, notes: Notes) -> list[Json]:
    """Reasoning in OpenRouter's form. Only blocks that Anthropic's API made can be continued."""
    if not message.reasoning_details_json:
        return []
    blocks: list[Json] = []
    for detail in reasoning_details.read_details(message.reasoning_details_json):
        # OpenRouter's clients leave out the format where it is Anthropic's.
        is_anthropic = (word(detail, "format") or ANTHROPIC_FORMAT).startswith(NAME)
        signature, data = word(detail, "signature"), word(detail, "data")
        if is_anthropic and signature:
            thinking = word(detail, "text")
            blocks.append({"type": "thinking", "thinking": thinking, "signature": signature})
            reasoning_details.note_unused(detail, {"text", "signature"}, notes)
        elif is_anthropic and data:
            blocks.append({"type": "redacted_thinking", "data": data})
            reasoning_details.note_unused(detail, {"data"}, notes)
        else:
            notes.dropped("messages", "Reasoning of another provider cannot be continued here.")
    return blocks


def _tool_use(call: ToolCall, notes: Notes) -> Json:
    """Tool call. Arguments that are not a JSON object are wrapped in one."""
    arguments: object = {}
    if call.arguments.strip():
        try:
            arguments = raw_object(call.arguments.encode(), "messages")
        except Failure:
            notes.mapped("messages", "Arguments that are no JSON object are wrapped in one.")
            arguments = {"arguments": call.arguments}
    block: Json = {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
    mark_end([block], call.cache_control_json, notes)
    return block


_ROLES: Mapping[str, tuple[str, Callable[[Message, Conversation], list[Json]]]] = {
    "user": ("user", _user),
    "assistant": ("assistant", _assistant),
    "tool": ("user", _tool),
}
