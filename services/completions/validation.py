"""Validation of a request: ranges and forms, as the contract defines them.

The edge checks only the form of the JSON; these rules hold for gRPC callers, too.
Every failure is INVALID_FIELD (INVALID_IMAGE for pictures) and names the field as
OpenAI spells it, such as `messages[2].content`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content

from services.common.image_format import IMAGE_BYTES_MAX, IMAGES_MAX, decoded_bytes
from services.domain.error_reason import ErrorReason
from services.errors import Failure

RANGES: Sequence[tuple[str, float, float]] = (
    ("max_tokens", 1, math.inf),
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("frequency_penalty", -2, 2),
    ("presence_penalty", -2, 2),
    ("n", 1, 128),
    ("top_logprobs", 0, 20),
    ("top_k", 0, math.inf),
    ("top_a", 0, 1),
    ("min_p", 0, 1),
    ("repetition_penalty", 0, 2),
)
"""Ranges of optional numbers: field, minimum, maximum."""

COUNTS: Sequence[tuple[str, int]] = (
    ("messages", 2000),
    ("stop", 4),
    ("tools", 128),
    ("metadata", 16),
)
"""Maximal lengths of lists: field, maximum."""

BUDGET_TOKENS = (1024, 32_000)
LOGIT_BIAS = (-100, 100)
PARTS_MAX = 256
TOOL_CALLS_MAX = 128
USER_CHARS_MAX = 512
MODEL_CHARS_MAX = 256

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def validate(spec: pb.ChatCompletionSpec) -> None:
    """Raise Failure for the first field of `spec` that breaks a rule."""
    _check_model(spec.model)
    if not spec.messages:
        raise _invalid("messages", "At least one message is required.")
    for name, most in COUNTS:
        if len(getattr(spec, name)) > most:
            raise _invalid(name, f"At most {most} are allowed.")
    has: Callable[[str], bool] = spec.HasField  # type: ignore[assignment]  # any optional field's
    for name, least, most_value in RANGES:
        if has(name):
            _check_range(name, getattr(spec, name), least, most_value)
    _check_sampling(spec)
    if spec.HasField("thinking"):
        _check_thinking(spec.thinking)
    if spec.tools or spec.HasField("tool_choice"):
        _check_tools(spec)
    if spec.HasField("response_format"):
        _check_response_format(spec.response_format)
    _check_messages(spec.messages)


def _check_model(model: str) -> None:
    if not model:
        raise _invalid("model", "A model is required.")
    if len(model) > MODEL_CHARS_MAX:
        raise _invalid("model", f"The model's name is longer than {MODEL_CHARS_MAX} characters.")


def _check_sampling(spec: pb.ChatCompletionSpec) -> None:
    if spec.stop and not all(spec.stop):
        raise _invalid("stop", "A stop sequence must not be empty.")
    if spec.HasField("top_logprobs") and not spec.logprobs:
        raise _invalid("top_logprobs", "`top_logprobs` needs `logprobs`.")
    if spec.logit_bias:
        for bias in spec.logit_bias.values():
            _check_range("logit_bias", bias, *LOGIT_BIAS)
    if len(spec.user) > USER_CHARS_MAX:
        raise _invalid("user", f"At most {USER_CHARS_MAX} characters are allowed.")


def _check_thinking(thinking: pb.Thinking) -> None:
    if thinking.HasField("budget_tokens"):
        _check_range("thinking.budget_tokens", thinking.budget_tokens, *BUDGET_TOKENS)


def _check_tools(spec: pb.ChatCompletionSpec) -> None:
    for index, tool in enumerate(spec.tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            raise _invalid(
                f"tools[{index}].function.name",
                "A tool's name has 1 to 128 letters, digits, `_`, `-`, `.` or `:`.",
            )
    if not spec.HasField("tool_choice"):
        return
    choice = spec.tool_choice
    if choice.mode == pb.TOOL_CHOICE_MODE_UNSPECIFIED:
        raise _invalid("tool_choice", "A tool choice needs a mode.")
    known = {tool.name for tool in spec.tools}
    unknown = [name for name in choice.names if name not in known]
    if unknown:
        raise _invalid("tool_choice", f"There is no tool named {unknown[0][:64]!r} in `tools`.")
    if choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED and not spec.tools:
        raise _invalid("tool_choice", "A call is required, but there are no `tools`.")
    if choice.mode == pb.TOOL_CHOICE_MODE_NAMED and len(choice.names) != 1:
        raise _invalid("tool_choice", "Exactly one tool must be named.")


def _check_response_format(form: pb.ResponseFormat) -> None:
    if form.type == pb.RESPONSE_FORMAT_TYPE_UNSPECIFIED:
        raise _invalid("response_format.type", "The form must be named.")
    if form.type != pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA:
        return
    if not _SCHEMA_NAME.fullmatch(form.name):
        raise _invalid(
            "response_format.json_schema.name",
            "A schema's name has 1 to 64 letters, digits, `_` or `-`.",
        )


def _check_messages(messages: Sequence[content.Message]) -> None:
    images: list[content.Image] = []
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]", images)
    if len(images) > IMAGES_MAX:
        raise _invalid_image("messages", f"At most {IMAGES_MAX} pictures are allowed.")
    if sum(map(_image_size, images)) > IMAGE_BYTES_MAX:
        raise _invalid_image("messages", "The pictures are larger than 20 MiB together.")


def _check_message(message: content.Message, where: str, images: list[content.Image]) -> None:
    """Check one message, and add its pictures to `images`."""
    role, parts = message.role, message.content
    if role == content.ROLE_UNSPECIFIED:
        raise _invalid(f"{where}.role", "A role is required.")
    if len(parts) > PARTS_MAX:
        raise _invalid(f"{where}.content", f"At most {PARTS_MAX} parts are allowed.")
    if role == content.ROLE_TOOL and not message.tool_call_id:
        raise _invalid(f"{where}.tool_call_id", "A tool's result needs the ID of its call.")
    if role == content.ROLE_ASSISTANT:
        _check_tool_calls(message, where)
    elif not parts:
        raise _invalid(f"{where}.content", "Content is required.")
    for index, part in enumerate(parts):
        kind = part.WhichOneof("part")
        if kind is None:
            raise _invalid(f"{where}.content[{index}]", "The part is empty.")
        if kind == "image":
            if part.image.WhichOneof("source") is None:
                raise _invalid_image(f"{where}.content[{index}]", "The picture has no source.")
            images.append(part.image)


def _check_tool_calls(message: content.Message, where: str) -> None:
    if len(message.tool_calls) > TOOL_CALLS_MAX:
        raise _invalid(f"{where}.tool_calls", f"At most {TOOL_CALLS_MAX} calls are allowed.")
    for index, call in enumerate(message.tool_calls):
        if not call.id or not call.name:
            raise _invalid(f"{where}.tool_calls[{index}]", "A call needs an ID and a name.")


def _image_size(image: content.Image) -> int:
    """Bytes of the picture itself; 0 for one that is only referred to."""
    return len(image.data) + decoded_bytes(len(image.base64))


def _check_range(param: str, value: float, least: float, most: float) -> None:
    # Written so that NaN is refused as well.
    if not least <= value <= most:
        limits = f"at least {least:g}" if math.isinf(most) else f"in [{least:g}, {most:g}]"
        raise _invalid(param, f"`{param}` must be {limits}.")


def _invalid(param: str, message: str) -> Failure:
    return Failure(ErrorReason.INVALID_FIELD, message, param=param)


def _invalid_image(param: str, message: str) -> Failure:
    return Failure(ErrorReason.INVALID_IMAGE, message, param=param)
