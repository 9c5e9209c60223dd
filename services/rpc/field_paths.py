"""Paths of fields in `google.rpc.BadRequest`: the names of the stubs, such as `spec.tools[0].name`.

Failures name fields as OpenAI's API does (`tools[0].function.name`): so does `param` in the JSON of
errors and in `google.rpc.ErrorInfo`. What the contract has not in its own fields is in the
`extra_json` of the nearest message, and what is in JSON has the path of that JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

SPEC = "spec"
"""The field of a request with the completion, whose fields OpenAI's API has at the top level."""
EXTRA = "extra_json"

SAME = ""
"""Stands for a member of OpenAI's API whose own members are fields of the same message."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "ChatCompletionSpec": {"max_completion_tokens": "max_tokens", "reasoning": "thinking"},
    "Thinking": {"type": "mode", "max_tokens": "budget_tokens", "exclude": "excluded"},
    "Tool": {"function": SAME, "custom": SAME, "format": "parameters_json"},
    "ToolChoice": {
        "function": SAME,
        "custom": SAME,
        "allowed_tools": SAME,
        "name": "names",
        "tools": "names",
    },
    "ResponseFormat": {"json_schema": SAME},
    "ContentPart": {"image_url": "image", "input_audio": "audio"},
    "Image": {"url": "uri"},
    "Audio": {"data": "base64"},
    "File": {"file_data": "uri"},
    "ToolCall": {"function": SAME, "custom": SAME, "input": "arguments"},
}
"""Names of the contract by those of OpenAI's API, for each message where they differ. A field with
JSON, such as `parameters_json`, also has the name without the ending."""

_STEP = re.compile(r"\[?(\d+)\]?|([^.\[\]]+)")
_JSON = "_json"


def field_path(method: str, param: str) -> str:
    """Return the path of a field in the request of a method, such as `/pomogator.…/CreateKey`.

    `param` is its name in OpenAI's API, or already its path. What is in no message, such as
    metadata, keeps its name.
    """
    if not param or "-" in param:
        return param
    request = _request_of(method)
    if request is None:
        return param
    first = _field(request, param.partition(".")[0].partition("[")[0])
    spec = request.fields_by_name.get(SPEC)
    if first is not None or spec is None:
        return _path(request, "", param) or param
    return _path(spec.message_type, SPEC, param)


def _path(message: Descriptor | None, path: str, param: str) -> str:
    """Return the path below `path`, which leads to the message, as far as there are fields."""
    is_list = False
    for index, name in _STEP.findall(param):
        if index:
            path += f"[{index}]" if is_list else ""
            is_list = False
            continue
        if message is None:
            return path
        known = RENAMED.get(message.name, {}).get(name, name)
        if known == SAME:
            continue
        field = _field(message, known) or message.fields_by_name.get(EXTRA)
        if field is None:
            return path
        path += f".{field.name}" if path else field.name
        is_list = field.is_repeated
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            return path
    return path


def _field(message: Descriptor, name: str) -> FieldDescriptor | None:
    fields: Mapping[str, FieldDescriptor] = message.fields_by_name
    return fields.get(name) or fields.get(f"{name}{_JSON}")


@cache
def _request_of(method: str) -> Descriptor | None:
    name = method.removeprefix("/").replace("/", ".")
    try:
        found = descriptor_pool.Default().FindMethodByName(name)
    except KeyError:
        return None
    request: Descriptor = found.input_type
    return request
