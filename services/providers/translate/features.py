"""Features of requests that a model may lack: tools, images, schemas, summaries."""

from __future__ import annotations

from services.domain.conversation import ImagePart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Notes, Target


def require(supported: bool, param: str, feature: str) -> None:
    """Raise UNSUPPORTED_FEATURE unless `feature` is supported."""
    if not supported:
        message = f"This model does not support {feature}."
        raise Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param=param)


def require_features(
    spec: ChatCompletionSpec, target: Target, *, chooses_hosted: bool = False
) -> None:
    """Refuse tools, images and schemas that the model is known to lack.

    `chooses_hosted`: whether the dialect has a choice of a tool that the provider runs.
    """
    if spec.text_completion is not None:  # The callers of this function answer conversations.
        require(False, "prompt", "text completions")
    capabilities, drops = target.capabilities, target.channel.quirks.drops
    if spec.tools:
        require(capabilities.tools and "tools" not in drops, "tools", "tools")
    if spec.tool_choice is not None and spec.tool_choice.other_json:
        require(chooses_hosted, "tool_choice", "tools of this type")
    if _wants_schema(spec):
        held = capabilities.structured_output and "response_format" not in drops
        require(held, "response_format", "answers held to a JSON schema")
    if capabilities.images == "no" and _shows_images(spec):
        require(False, "messages", "images")


def note_summary(spec: ChatCompletionSpec, notes: Notes) -> None:
    """Note a demand for a short or a long summary, for providers that do not write one."""
    if spec.thinking is not None and spec.thinking.summary in ("concise", "detailed"):
        notes.dropped("reasoning.summary", "The provider decides how much reasoning it shows.")


def shows_tools(spec: ChatCompletionSpec, target: Target, notes: Notes) -> bool:
    """Whether to send the tools of the request, if it has any.

    Tools that the model never gets to see, as its prompt has no place for them, are dropped with a
    note, and with them a demand to call one. A refusal would be as good, but breaks programs that
    offer tools with every request.
    """
    if not spec.tools or "tools" not in target.capabilities.rejects:
        return bool(spec.tools)
    notes.dropped("tools", "This model does not see tools.")
    if forces_tool(spec):
        notes.dropped("tool_choice", "This model cannot be made to call a tool.")
    return False


def forces_tool(spec: ChatCompletionSpec) -> bool:
    """Whether the request forces the model to call a tool."""
    choice = spec.tool_choice
    return choice is not None and choice.mode in ("required", "named")


def _wants_schema(spec: ChatCompletionSpec) -> bool:
    """Whether the answer must be JSON that matches a schema."""
    form = spec.response_format
    return form is not None and form.type == "json_schema"


def _shows_images(spec: ChatCompletionSpec) -> bool:
    return any(isinstance(part, ImagePart) for message in spec.messages for part in message.content)
