"""Validation of a request: ranges, forms and words, as the contract defines them.

The edge checks only the form of the JSON; these rules hold for gRPC callers, too.
Every failure is INVALID_FIELD (INVALID_IMAGE for images) and names the field as
OpenAI spells it, such as `messages[2].content`. A number of an enum that this version does not know
is a word of digits here, and is refused like any other unknown word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, get_args

import msgspec

from services.common.image_format import IMAGE_BYTES_MAX, IMAGES_MAX, decoded_bytes
from services.common.request_headers import SESSION_CHARS_MAX
from services.completions.text_validation import check_text_completion
from services.domain.conversation import ImageDetail, ImagePart, Message, Role, ToolCall, ToolType
from services.domain.error_reason import ErrorReason
from services.domain.spec import (
    EFFORTS,
    ChatCompletionSpec,
    ParameterPolicy,
    ReasoningSummary,
    ResponseFormat,
    ResponseFormatType,
    Thinking,
    ThinkingMode,
    ToolChoice,
    ToolChoiceMode,
    Verbosity,
)
from services.errors import Failure, invalid

MAX_TOKENS = ("max_tokens", 1, math.inf)

RANGES: Sequence[tuple[str, float, float]] = (
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
"""Ranges of other optional numbers: field, minimum, maximum."""

COUNTS: Sequence[tuple[str, int]] = (
    ("messages", 2000),
    ("stop", 64),
    ("tools", 128),
    ("metadata", 16),
    ("betas", 32),
)
"""Maximal lengths of lists: field, maximum."""

_ranged = attrgetter(*(name for name, _, _ in RANGES))
_UNRANGED = (None,) * len(RANGES)
_counted = attrgetter(*(name for name, _ in COUNTS))
_COUNT_ALWAYS_ALLOWED = min(most for _, most in COUNTS)

BUDGET_TOKENS = (1024, 32_000)
LOGIT_BIAS = (-100, 100)
PARTS_MAX = 256
TOOL_CALLS_MAX = 128
USER_CHARS_MAX = 512
MODEL_CHARS_MAX = 256
EFFORT_CHARS_MAX = 64
BETA_CHARS_MAX = 64


def _words(literal: Any) -> frozenset[str]:
    return frozenset(get_args(literal))


_ROLES = _words(Role)
_DETAILS = _words(ImageDetail)
_TOOL_TYPES = _words(ToolType)
_EFFORTS = frozenset(("", *EFFORTS))
_VERBOSITIES = _words(Verbosity)
_THINKING_MODES = _words(ThinkingMode)
_SUMMARIES = _words(ReasoningSummary)
_TOOL_CHOICE_MODES = _words(ToolChoiceMode)
_FORMATS = _words(ResponseFormatType)
_POLICIES = _words(ParameterPolicy)

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def validate(
    spec: ChatCompletionSpec,
    parameter_policy: ParameterPolicy = "",
    session_id: str = "",
    *,
    plain: bool = False,
) -> None:
    """Raise Failure for the first field that breaks a rule.

    `plain`: whether the request has texts and plain parameters alone, whose messages keep all rules
    (`services.domain.plain_texts`).
    """
    if parameter_policy or session_id or not 0 < len(spec.model) <= MODEL_CHARS_MAX:
        _check_names(spec.model, session_id, parameter_policy)
    counts = list(map(len, _counted(spec)))
    if not spec.messages or max(counts) > _COUNT_ALWAYS_ALLOWED:
        _check_counts(counts)
    if spec.max_tokens is not None:
        _check_range(*MAX_TOKENS, spec.max_tokens)
    ranged = _ranged(spec)
    if ranged != _UNRANGED:
        for limits, value in zip(RANGES, ranged, strict=True):
            if value is not None:
                _check_range(*limits, value)
    if spec.stop and not all(spec.stop):
        raise invalid("stop", "`stop` has an empty sequence.")
    if len(spec.user) > USER_CHARS_MAX:
        raise invalid("user", f"`user` has more than {USER_CHARS_MAX} characters.")
    if not plain:
        _check_rare_fields(spec)


def _check_rare_fields(spec: ChatCompletionSpec) -> None:
    _check_sampling(spec)
    if spec.thinking is not None:
        _check_thinking(spec.thinking)
    if spec.tools:
        _check_tools(spec)
    if spec.tool_choice is not None:
        _check_tool_choice(spec.tool_choice, spec)
    if spec.response_format is not None:
        _check_response_format(spec.response_format)
    _check_messages(spec)


def _check_counts(counts: Sequence[int]) -> None:
    if not counts[0]:
        raise invalid("messages", "`messages` is empty: at least one is required.")
    for (name, most), count in zip(COUNTS, counts, strict=True):
        if count > most:
            raise invalid(name, f"`{name}` has more than {most} entries.")


def _check_names(model: str, session_id: str, parameter_policy: ParameterPolicy) -> None:
    if parameter_policy:
        _check_word("parameter_policy", parameter_policy, _POLICIES)
    if not model:
        raise invalid("model", "`model` is missing.")
    if len(model) > MODEL_CHARS_MAX:
        raise invalid("model", f"`model` has more than {MODEL_CHARS_MAX} characters.")
    if len(session_id) > SESSION_CHARS_MAX:
        raise invalid("session_id", f"`session_id` has more than {SESSION_CHARS_MAX} characters.")


def _check_sampling(spec: ChatCompletionSpec) -> None:
    _check_word("reasoning_effort", spec.reasoning_effort, _EFFORTS)
    _check_word("verbosity", spec.verbosity, _VERBOSITIES)
    if spec.reasoning_effort and spec.other_reasoning_effort:
        raise invalid("reasoning_effort", "`reasoning_effort` is given twice.")
    if len(spec.other_reasoning_effort) > EFFORT_CHARS_MAX:
        raise invalid(
            "reasoning_effort", f"`reasoning_effort` has more than {EFFORT_CHARS_MAX} characters."
        )
    if spec.betas and not all(0 < len(beta) <= BETA_CHARS_MAX for beta in spec.betas):
        raise invalid("betas", f"A name in `betas` has 1 to {BETA_CHARS_MAX} characters.")
    if spec.top_logprobs is not None and not spec.logprobs:
        raise invalid("top_logprobs", "`top_logprobs` needs `logprobs`.")
    if spec.logit_bias:
        for bias in spec.logit_bias.values():
            _check_range("logit_bias", *LOGIT_BIAS, bias)
    if len(spec.prompt_cache_key) > USER_CHARS_MAX:
        raise invalid(
            "prompt_cache_key", f"`prompt_cache_key` has more than {USER_CHARS_MAX} characters."
        )


def _check_thinking(thinking: Thinking) -> None:
    _check_word("thinking.type", thinking.mode, _THINKING_MODES)
    _check_word("reasoning.summary", thinking.summary, _SUMMARIES)
    if thinking.budget_tokens is not None:
        _check_range("thinking.budget_tokens", *BUDGET_TOKENS, thinking.budget_tokens)


def _check_tools(spec: ChatCompletionSpec) -> None:
    for index, tool in enumerate(spec.tools):
        if tool.other_json and (tool.description or tool.parameters_json):
            raise invalid(
                f"tools[{index}]", "One of `tools` has fields and JSON: give one of them."
            )
        if tool.other_json and tool.name != _name_in(tool.other_json):
            raise invalid(f"tools[{index}].name", "The tool's JSON has another name.")
        is_nameless = tool.other_json and not tool.name
        if not is_nameless and not _TOOL_NAME.fullmatch(tool.name):
            raise invalid(
                f"tools[{index}].function.name",
                "A tool's name has 1 to 128 letters, digits, `_`, `-`, `.` or `:`.",
            )
        _check_word(f"tools[{index}].type", tool.type, _TOOL_TYPES)


class _Named(msgspec.Struct):
    name: object = None


def _name_in(other_json: bytes) -> str:
    """Return the name in the JSON of a tool, which is checked where it is sent."""
    with suppress(ValueError, RecursionError):
        name = msgspec.json.decode(other_json, type=_Named).name
        return name if isinstance(name, str) else ""
    return ""


def _check_tool_choice(choice: ToolChoice, spec: ChatCompletionSpec) -> None:
    _check_word("tool_choice.mode", choice.mode, _TOOL_CHOICE_MODES)
    _check_word("tool_choice.type", choice.type, _TOOL_TYPES)
    if choice.other_json:
        if choice.mode or choice.names or choice.type:
            raise invalid("tool_choice", "`tool_choice` has fields and JSON: give one of them.")
        return
    if not choice.mode:
        raise invalid("tool_choice.mode", "`tool_choice.mode` is missing.")
    known = {tool.name for tool in spec.tools}
    unknown = [name for name in choice.names if name not in known]
    if unknown:
        raise invalid(
            "tool_choice", f"`tool_choice` names {unknown[0][:64]!r}, which is not in `tools`."
        )
    if choice.mode == "required" and not spec.tools:
        raise invalid("tool_choice", "`tool_choice` requires a call, but there are no `tools`.")
    if choice.mode == "named" and len(choice.names) != 1:
        raise invalid("tool_choice", "`tool_choice` must name exactly one tool.")


def _check_response_format(form: ResponseFormat) -> None:
    _check_word("response_format.type", form.type, _FORMATS)
    if form.other_json:
        if form.type or form.name or form.description or form.schema_json:
            raise invalid(
                "response_format", "`response_format` has fields and JSON: give one of them."
            )
        return
    if not form.type:
        raise invalid("response_format.type", "`response_format.type` is missing.")
    if form.type != "json_schema":
        if form.name or form.description or form.schema_json or form.strict is not None:
            raise invalid(
                "response_format", "Only a `response_format` of type `json_schema` has a schema."
            )
        return
    if not _SCHEMA_NAME.fullmatch(form.name):
        raise invalid(
            "response_format.json_schema.name",
            "A schema's name has 1 to 64 letters, digits, `_` or `-`.",
        )


def _check_messages(spec: ChatCompletionSpec) -> None:
    if spec.text_completion is not None:
        check_text_completion(spec)
    images: list[ImagePart] = []
    for index, message in enumerate(spec.messages):
        _check_message(message, f"messages[{index}]", images)
    if len(images) > IMAGES_MAX:
        raise _invalid_image("messages", f"`messages` have more than {IMAGES_MAX} images.")
    if sum(map(_image_size, images)) > IMAGE_BYTES_MAX:
        raise _invalid_image(
            "messages", "The images in `messages` are larger than 20 MiB together."
        )


def _check_message(message: Message, where: str, images: list[ImagePart]) -> None:
    """Check one message, and add its images to `images`."""
    role, parts = message.role, message.content
    _check_word(f"{where}.role", role, _ROLES)
    if not role:
        raise invalid(f"{where}.role", f"`{where}.role` is missing.")
    if len(parts) > PARTS_MAX:
        raise invalid(f"{where}.content", f"`{where}.content` has more than {PARTS_MAX} parts.")
    if role == "tool" and not message.tool_call_id:
        raise invalid(
            f"{where}.tool_call_id", f"`{where}.tool_call_id` is missing: the ID of the call."
        )
    if role == "assistant":
        _check_tool_calls(message.tool_calls, where)
    elif not parts:
        raise invalid(f"{where}.content", f"`{where}.content` is missing.")
    for index, call in enumerate(message.tool_calls):
        _check_word(f"{where}.tool_calls[{index}].type", call.type, _TOOL_TYPES)
    for index, part in enumerate(parts):
        if isinstance(part, ImagePart):
            _check_image(part, f"{where}.content[{index}]")
            images.append(part)


def _check_image(image: ImagePart, where: str) -> None:
    if not (image.uri or image.base64 or image.data):
        raise _invalid_image(where, f"The image in `{where}` has no source.")
    _check_word(f"{where}.image_url.detail", image.detail, _DETAILS)


def _check_tool_calls(calls: Sequence[ToolCall], where: str) -> None:
    if len(calls) > TOOL_CALLS_MAX:
        raise invalid(
            f"{where}.tool_calls", f"`{where}.tool_calls` has more than {TOOL_CALLS_MAX} calls."
        )
    for index, call in enumerate(calls):
        if not call.id or not call.name:
            place = f"{where}.tool_calls[{index}]"
            raise invalid(place, f"`{place}` needs an ID and a name.")


def _image_size(image: ImagePart) -> int:
    """Return the bytes of an image by value; 0 for one by reference."""
    return len(image.data) + decoded_bytes(len(image.base64))


def _check_word(param: str, word: str, known: frozenset[str]) -> None:
    if word not in known:
        raise invalid(param, f"`{param}` has an unknown value.")


def _check_range(param: str, least: float, most: float, value: float) -> None:
    # Written so that NaN is refused as well.
    if not least <= value <= most:
        limits = f"at least {least:g}" if math.isinf(most) else f"in [{least:g}, {most:g}]"
        raise invalid(param, f"`{param}` must be {limits}.")


def _invalid_image(param: str, message: str) -> Failure:
    return Failure(ErrorReason.INVALID_IMAGE, message, param=param)
