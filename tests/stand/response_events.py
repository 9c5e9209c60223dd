"""Streams of OpenAI's Responses as a strict client reads them: each event and their order."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from openai.types.responses import Response as SdkResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

Json = dict[str, Any]

LAST = ("response.completed", "response.incomplete", "response.failed")
"""Types of the last event."""

NOT_IN_THE_SDK = ("insufficient_quota", "context_length_exceeded")
"""Codes of failures that OpenAI sends, and the SDK's types do not have."""

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def read_response_events(body: str) -> list[Json]:
    """The events of a whole stream, each as the SDK's types have it, in the order of the API."""
    assert body.endswith("\n\n")
    found: list[Json] = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        check_types(event)
        found.append(event)
    check_order(found)
    return found


def check_types(event: Json) -> None:
    """Check an event against the SDK's types."""
    error = event.get("response", {}).get("error") or {}
    if error.get("code") in NOT_IN_THE_SDK:
        changed = {**event["response"], "error": {**error, "code": "server_error"}}
        event = {**event, "response": changed}
    _EVENT.validate_python(event)


def check_response(response: Json) -> Json:
    """Check a whole response against the SDK's types."""
    SdkResponse.model_validate(response)
    return response


def check_order(events: Sequence[Json]) -> None:
    """Check the order: a response that begins and ends, and items one after the other."""
    created, begun, *content, last = events
    assert [created["type"], begun["type"]] == ["response.created", "response.in_progress"]
    assert last["type"] in LAST
    reader = ItemReader()
    for event in content:
        reader.read(event)
    output = last["response"]["output"]
    assert len(output) == len(reader.items)
    for item, ended in zip(output, reader.items, strict=True):
        _check_grown(item, ended)
    assert last["type"] == "response.failed" or reader.item is None
    for event in (created, begun, last):
        response = event["response"]
        assert response["id"] == created["response"]["id"]
        assert response.keys() >= created["response"].keys()


class ItemReader:
    """Reader of the events of items, of which one at most is open."""

    def __init__(self) -> None:
        self.items: list[Json] = []
        self.item: Json | None = None
        self._part: Json | None = None

    def read(self, event: Json) -> None:
        """Read the next event."""
        assert event["output_index"] == len(self.items)
        kind = event["type"].removeprefix("response.")
        match kind.split("."):
            case ["output_item", "added"]:
                assert self.item is None
                self.item = copy.deepcopy(event["item"])
            case ["output_item", "done"]:
                self._end(event["item"])
            case [("content_part" | "reasoning_summary_part") as name, step]:
                self._read_part(name, step, event)
            case [name, "delta" | "done"]:
                self._read_text(name, event)
            case ["output_text", "annotation", "added"]:
                assert self._part is not None
                assert event["annotation_index"] == len(self._part["annotations"])
                self._part["annotations"].append(event["annotation"])
            case _:
                raise AssertionError(kind)

    @property
    def _open(self) -> Json:
        assert self.item is not None
        return self.item

    def _read_part(self, name: str, step: str, event: Json) -> None:
        assert event["item_id"] == self._open["id"]
        member, index = ("content", event.get("content_index"))
        if name == "reasoning_summary_part":
            member, index = "summary", event["summary_index"]
        parts = self._open.setdefault(member, [])
        if step == "added":
            assert self._part is None
            assert index == len(parts)
            self._part = copy.deepcopy(event["part"])
            parts.append(self._part)
        else:
            assert index == len(parts) - 1
            assert {**event["part"], "logprobs": 0} == {**(self._part or {}), "logprobs": 0}
            if "logprobs" in event["part"]:
                parts[-1]["logprobs"] = event["part"]["logprobs"]
            self._part = None

    def _read_text(self, name: str, event: Json) -> None:
        assert event["item_id"] == self._open["id"]
        into, member = self._part, "refusal" if name == "refusal" else "text"
        if name in ("function_call_arguments", "custom_tool_call_input"):
            into, member = self._open, name.rpartition("_")[2]
        assert into is not None
        if "delta" in event:
            into[member] += event["delta"]
        else:
            assert event[member] == into[member]

    def _end(self, item: Json) -> None:
        assert self._part is None
        _check_grown(item, self._open)
        self.items.append(item)
        self.item = None


def _check_grown(item: Json, before: Json) -> None:
    """Check that an item has all that it had before. Its seal may be another one."""
    told = {name: each for name, each in before.items() if name not in _CHANGING}
    assert {name: item[name] for name in told} == told


_CHANGING = ("status", "encrypted_content")
